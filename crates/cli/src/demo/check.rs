//! What a scenario claims, and whether it came out so.

use std::fmt::Display;
use std::time::{Duration, Instant};

use quorate_consensus::words::violation_word;
use quorate_wire::v1::{Ballot, BallotState, Standing, ViolationType};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Out, Tone, USUAL_WIDTH, path_text, standing_word, state_word};

/// One scenario's outcome.
#[derive(Debug)]
pub(crate) struct Report {
    number: u8,
    title: &'static str,
    began: Instant,
    took: Duration,
    path: String,
    reason: String,
    claims: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    text: String,
    seen: String,
    holds: bool,
}

impl Report {
    /// A scenario begins.
    pub(crate) fn new(number: u8, title: &'static str) -> Self {
        Self {
            number,
            title,
            began: Instant::now(),
            took: Duration::ZERO,
            path: "-".into(),
            reason: "-".into(),
            claims: Vec::new(),
        }
    }

    /// The clock starts now: what comes before is preparation.
    pub(crate) fn restart_clock(&mut self) {
        self.began = Instant::now();
    }

    /// The clock stops, and the ballot gives path and reason.
    pub(crate) fn ended(&mut self, ballot: &Ballot) {
        self.took = self.began.elapsed();
        self.path = path_text(ballot);
        self.reason.clone_from(&ballot.reason);
    }

    /// Something that must be true, and what was seen.
    pub(crate) fn claim(&mut self, text: impl Display, holds: bool, seen: impl Display) {
        self.claims.push(Claim {
            text: text.to_string(),
            seen: seen.to_string(),
            holds,
        });
    }

    /// Two things that must be equal.
    pub(crate) fn equal<T: PartialEq + Display>(
        &mut self,
        text: impl Display,
        seen: T,
        expected: T,
    ) {
        let holds = seen == expected;
        let seen = if holds {
            seen.to_string()
        } else {
            format!("{seen}, not {expected}")
        };
        self.claim(text, holds, seen);
    }

    /// The ballot is in this state.
    pub(crate) fn state(&mut self, ballot: &Ballot, expected: BallotState) {
        let text = format!("the ballot ends as {}", state_word(expected).0);
        self.claim(
            text,
            ballot.state() == expected,
            state_word(ballot.state()).0,
        );
    }

    /// A trustee stands so, and is banned or not.
    pub(crate) fn standing(
        &mut self,
        ballot: &Ballot,
        node_id: &str,
        standing: Standing,
        banned: bool,
    ) {
        let expected = standing_text(standing, banned);
        let seen = ballot
            .trustees
            .iter()
            .find(|trustee| trustee.node_id == node_id);
        let holds = seen.is_some_and(|t| t.standing() == standing && t.banned == banned);
        let seen = seen.map_or_else(
            || "not a trustee".to_owned(),
            |trustee| standing_text(trustee.standing(), trustee.banned),
        );
        self.claim(format!("{node_id} stands as {expected}"), holds, seen);
    }

    /// A violation by a trustee is in the ballot.
    pub(crate) fn violation(&mut self, ballot: &Ballot, node_id: &str, kind: ViolationType) {
        let kinds: Vec<_> = ballot
            .violations
            .iter()
            .filter(|violation| violation.node_id == node_id)
            .map(|violation| violation_word(violation.r#type()))
            .collect();
        let word = violation_word(kind);
        self.claim(
            format!("{node_id} is charged with {word}"),
            kinds.contains(&word),
            if kinds.is_empty() {
                "nothing".to_owned()
            } else {
                kinds.join(", ")
            },
        );
    }

    /// A scenario that could not go on.
    pub(crate) fn broke_off(&mut self, failure: &Failure) {
        self.took = self.began.elapsed();
        let advice = failure
            .advice()
            .map(|advice| format!("; try: {advice}"))
            .unwrap_or_default();
        self.claim(
            "the scenario runs to its end",
            false,
            format!("{failure}{advice}"),
        );
    }

    /// Everything came out as told.
    pub(crate) fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }

    /// Which scenario it is of.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// For people.
    pub(crate) fn print(&self, out: Out) {
        out.line(out.bold(format!("{}. {}", self.number, self.title)));
        let mut table = out.table(&[]);
        if !table.is_tty() {
            table.set_width(USUAL_WIDTH);
        }
        let mut fact = |name: &str, text: &str| {
            table.add_row([
                out.cell(Tone::Plain, ""),
                out.cell(Tone::Faint, name),
                out.cell(Tone::Plain, text),
            ]);
        };
        fact("path", &self.path);
        fact("reason", &self.reason);
        fact("time", &format!("{} ms", self.took.as_millis()));
        for claim in &self.claims {
            let (mark, tone) = if claim.holds {
                ("✓", Tone::Good)
            } else {
                ("✗", Tone::Bad)
            };
            table.add_row([
                out.cell(tone, mark),
                out.cell(Tone::Plain, &claim.text),
                out.cell(
                    if claim.holds { Tone::Faint } else { Tone::Bad },
                    &claim.seen,
                ),
            ]);
        }
        out.line(table);
        out.line("");
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let claims: Vec<_> = self
            .claims
            .iter()
            .map(|claim| json!({ "claim": claim.text, "seen": claim.seen, "holds": claim.holds }))
            .collect();
        json!({
            "scenario": self.number,
            "title": self.title,
            "path": self.path,
            "reason": self.reason,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "holds": self.holds(),
            "claims": claims,
        })
    }
}

fn standing_text(standing: Standing, banned: bool) -> String {
    let word = standing_word(standing).0;
    match banned {
        true if word != "banned" => format!("{word}, banned"),
        _ => word.to_owned(),
    }
}
