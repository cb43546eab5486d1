//! Whether the node is well: `beats` says which loops move, `monitor` looks at
//! everything from time to time, `http` tells whoever asks.

pub(crate) mod beats;
pub(crate) mod http;
pub(crate) mod monitor;

use std::time::Duration;

use serde_json::{Value, json};

/// What "well" means, in times and shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// The pause between two looks.
    pub every: Duration,
    /// How long a store may take to answer.
    pub answer: Duration,
    /// How long a loop may be silent beyond what it has announced.
    pub silence: Duration,
    /// A certificate or a revocation list is near its end so long before it.
    pub expiry: Duration,
    /// A store is near its end from this share of its quota on, in hundredths.
    pub quota_percent: u64,
}

impl Default for HealthLimits {
    /// A look every second, 2 s for an answer, 15 s of silence, 24 h before an expiry,
    /// 90 hundredths of a quota.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            answer: Duration::from_secs(2),
            silence: Duration::from_secs(15),
            expiry: Duration::from_secs(24 * 3600),
            quota_percent: 90,
        }
    }
}

macro_rules! causes {
    ($($name:ident, $word:literal, $advice:literal;)*) => {
        /// Why a node is not ready. The words are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause {
            $(#[doc = $advice] $name,)*
        }

        impl Cause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in JSON, in metrics and in the log.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What to do about it.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

causes! {
    Stopping, "stopping", "It is going down; ask another node.";
    NotInService, "not_in_service", "It reads the board, or puts its start on it; wait, and look at board_unavailable if it lasts.";
    SigningStopped, "signing_stopped", "Read the detail: a quarantine ends by itself, everything else needs an operator.";
    NoRoom, "no_room", "The disk of data_dir is full: make room; the node goes on by itself.";
    ClockOff, "clock_off", "Set this machine's clock (NTP, chrony); votes are refused until it agrees with the other nodes'.";
    DriverStalled, "driver_stalled", "Its main loop does not move: look at the disk of data_dir, take a stack trace, then restart the node.";
    FollowerStalled, "follower_stalled", "It does not read the board any more: look at what keeps the board, then restart the node.";
    ProjectorStalled, "projector_stalled", "It does not project into the audit store any more: look at that store, then restart the node.";
    CertificatesStalled, "certificates_stalled", "It does not read its certificates again: restart the node.";
    BoardUnavailable, "board_unavailable", "Look at etcd (or the disk of embedded_dir); votes are not taken until it answers.";
    AuditUnavailable, "audit_unavailable", "Look at PostgreSQL (or the disk of embedded_dir); votes are taken, submissions wait.";
    ChainUnavailable, "chain_unavailable", "Look at the chain's endpoint; votes are taken, submissions wait.";
    BoardQuota, "board_quota", "Compact and defragment etcd, or raise its quota, before it takes nothing more.";
    CertificateExpiring, "certificate_expiring", "Renew it (quorate certs renew) and put it in its place; the node takes it within a second.";
    CertificateRevoked, "certificate_revoked", "Nobody may rely on this node: make a request with a new key (quorate certs renew --new-key), have the cluster CA sign it, and put both in their places.";
    CrlExpiring, "crl_expiring", "Issue the revocation list anew (quorate certs crl --renew) and put it in its place; the node takes it within a second.";
}

impl Cause {
    /// Whether votes are not taken because of it.
    pub(crate) fn stops_votes(self) -> bool {
        matches!(
            self,
            Self::Stopping
                | Self::NotInService
                | Self::NoRoom
                | Self::ClockOff
                | Self::DriverStalled
                | Self::FollowerStalled
                | Self::BoardUnavailable
                | Self::CertificateRevoked
        )
    }
}

/// One cause, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub cause: Cause,
    /// What was found, for people.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { cause, detail }
    }
}

/// How the node was found at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// It was looked at.
    pub(crate) looked: bool,
    /// What keeps it from being ready; empty when nothing does.
    pub findings: Vec<Finding>,
}

impl Readiness {
    /// Whether nothing is wrong.
    pub fn is_ready(&self) -> bool {
        self.looked && self.findings.is_empty()
    }

    /// Whether this cause was found.
    pub fn has(&self, cause: Cause) -> bool {
        self.findings.iter().any(|finding| finding.cause == cause)
    }

    /// Whether votes are taken.
    pub(crate) fn takes_votes(&self) -> bool {
        self.looked && !self.findings.iter().any(|f| f.cause.stops_votes())
    }

    pub(crate) fn json(&self, node_id: &str) -> Value {
        let causes = self.findings.iter().map(|finding| {
            json!({
                "cause": finding.cause.word(),
                "detail": finding.detail,
                "do": finding.cause.advice(),
            })
        });
        json!({
            "ready": self.is_ready(),
            "node_id": node_id,
            "causes": causes.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_a_word_of_its_own_and_advice() {
        let words: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|cause| cause.advice().len() > 20));
    }

    #[test]
    fn who_was_not_looked_at_is_not_ready() {
        let mut readiness = Readiness::default();
        assert!(!readiness.is_ready() && !readiness.takes_votes());
        readiness.looked = true;
        assert!(readiness.is_ready() && readiness.takes_votes());
        let finding = Finding::new(Cause::AuditUnavailable, "away");
        readiness.findings.push(finding);
        assert!(!readiness.is_ready() && readiness.takes_votes());
        let told = readiness.json("node1");
        assert_eq!(told["causes"][0]["cause"], "audit_unavailable");
        assert_eq!(told["ready"], false);
    }
}
