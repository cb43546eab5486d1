//! What may be wrong with a node and its surroundings: `machine` looks at one node's
//! files, keys, ports and stores from its own machine, `nodes` asks the nodes and holds
//! them against each other.

pub(crate) mod machine;
pub(crate) mod nodes;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Not for ever.
    Warn,
    /// Something does not work, or will not.
    Bad,
}

impl Level {
    /// The word in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How it is.
    pub(crate) level: Level,
    /// What was looked at, a stable word: "clock", "names", "ports", …
    pub(crate) check: &'static str,
    /// Where: a node, a file, an address.
    pub(crate) subject: String,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty when it is good.
    pub(crate) advice: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    /// As it should be.
    pub(crate) fn good(
        &mut self,
        check: &'static str,
        subject: impl ToString,
        found: impl ToString,
    ) {
        self.add(Level::Good, check, (subject, found), "");
    }

    /// Not for ever.
    pub(crate) fn warn(
        &mut self,
        check: &'static str,
        what: (impl ToString, impl ToString),
        advice: &str,
    ) {
        self.add(Level::Warn, check, what, advice);
    }

    /// Wrong.
    pub(crate) fn bad(
        &mut self,
        check: &'static str,
        what: (impl ToString, impl ToString),
        advice: &str,
    ) {
        self.add(Level::Bad, check, what, advice);
    }

    /// Any of the three.
    pub(crate) fn add(
        &mut self,
        level: Level,
        check: &'static str,
        (subject, found): (impl ToString, impl ToString),
        advice: &str,
    ) {
        self.0.push(Finding {
            level,
            check,
            subject: subject.to_string(),
            found: found.to_string(),
            advice: advice.to_owned(),
        });
    }

    /// How many are of this level.
    pub(crate) fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|f| f.level == level).count()
    }
}

/// A certificate's end: bad when it is over, a warning in its last 30 days.
pub(crate) fn expiry(
    findings: &mut Findings,
    subject: impl ToString,
    not_after_ms: u64,
    now_ms: u64,
) {
    const SOON_MS: u64 = 30 * 24 * 3600 * 1000;
    let until = crate::output::clock(not_after_ms);
    let left = not_after_ms.saturating_sub(now_ms);
    let advice = "renew it with `quorate certs sign` (or `certs issue`) and put it in its place: \
                  a running node reads it within a minute";
    match left {
        0 => findings.bad("certificate", (subject, format!("ended {until}")), advice),
        1..SOON_MS => findings.warn("certificate", (subject, format!("ends {until}")), advice),
        _ => findings.good("certificate", subject, format!("valid until {until}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_the_time_left() {
        let day = 24 * 3600 * 1000;
        let now = 1_800_000_000_000;
        for (left, level) in [(31, Level::Good), (29, Level::Warn), (0, Level::Bad)] {
            let mut findings = Findings::default();
            expiry(&mut findings, "x", now + left * day, now);
            assert_eq!(findings.0[0].level, level, "{left}");
            assert_eq!(findings.0[0].advice.is_empty(), level == Level::Good);
        }
    }
}
