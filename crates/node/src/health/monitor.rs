//! Looks from time to time at everything that a node needs: its loops, its stores, its
//! certificates. Each look takes at most as long as a store may take to answer, and twice
//! that for etcd's members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_chain::Chain;
use quorate_coordinator::{Coordinator, MemberStatus};
use quorate_tls::TlsMaterial;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::beats::{Beats, Loop};
use super::{Cause, Finding, HealthLimits, Readiness};
use crate::alerts::{Alerts, Name};
use crate::clock::wall_ms;
use crate::driver::Pulse;
use crate::mailbox::Mailbox;
use crate::metrics::{Meter, seconds};
use crate::peer_clocks::PeerClocks;
use crate::seen::SeenAudit;

/// A store that is away for so long is worth an alert: shorter, others go on.
const WORTH_AN_ALERT: Duration = Duration::from_secs(5);

/// How often rows of the audit store are counted.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// What the monitor looks at.
pub(crate) struct Monitor {
    pub(crate) limits: HealthLimits,
    pub(crate) beats: Arc<Beats>,
    pub(crate) mailbox: Mailbox,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) audit: Arc<SeenAudit>,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) tls: Arc<TlsMaterial>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) clocks: Arc<PeerClocks>,
    pub(crate) stopping: CancellationToken,
}

/// Beats for the driver, which may well wait for nothing: it is asked.
pub(crate) async fn ask_the_driver(beats: Arc<Beats>, mailbox: Mailbox, every: Duration) {
    loop {
        beats.moves(Loop::Driver);
        if mailbox.look(|_, _| ()).await.is_err() {
            return;
        }
        beats.waits(Loop::Driver, every);
        tokio::time::sleep(every).await;
    }
}

/// Since when a store has been away, and whether that was told.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    told: bool,
}

impl Away {
    /// Takes notice; true when it is time to raise an alert.
    fn note(&mut self, away: bool) -> bool {
        if !away {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let due = since.elapsed() >= WORTH_AN_ALERT;
        due && !std::mem::replace(&mut self.told, true)
    }
}

impl Monitor {
    /// Looks for as long as the node runs, and says what it found.
    pub(crate) async fn run(mut self, found: watch::Sender<Readiness>) {
        let mut board = Away::default();
        let mut audit = Away::default();
        let mut counted: Option<Instant> = None;
        for cause in Cause::ALL {
            self.meter.not_ready.of([cause.word()]);
        }
        loop {
            let readiness = self.look().await;
            for (away, cause, name) in [
                (&mut board, Cause::BoardUnavailable, Name::BoardUnavailable),
                (&mut audit, Cause::AuditUnavailable, Name::AuditUnavailable),
            ] {
                let finding = readiness.findings.iter().find(|f| f.cause == cause);
                if away.note(finding.is_some())
                    && let Some(finding) = finding
                {
                    tracing::error!(detail = %finding.detail, alert = name.word(), "alert.store_away");
                    let about = self.alerts.this_node();
                    self.alerts.raise(name, about, &finding.detail);
                }
            }
            self.publish(&found, readiness);
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                self.count().await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.limits.every) => {}
                // A change of service is told at once.
                changed = self.pulse.wait_for(|pulse| pulse.in_service == found.borrow().has(Cause::NotInService)) => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.stopping.cancelled(), if !found.borrow().has(Cause::Stopping) => {}
            }
        }
    }

    fn publish(&self, found: &watch::Sender<Readiness>, readiness: Readiness) {
        self.meter
            .ready
            .set(f64::from(u8::from(readiness.is_ready())));
        for cause in Cause::ALL {
            let found = f64::from(u8::from(readiness.has(*cause)));
            self.meter.not_ready.of([cause.word()]).set(found);
        }
        found.send_if_modified(|old| {
            if old.is_ready() != readiness.is_ready() {
                let causes: Vec<_> = readiness.findings.iter().map(|f| f.cause.word()).collect();
                match readiness.is_ready() {
                    true => tracing::info!("node.ready"),
                    false => tracing::warn!(causes = causes.join(","), "node.not_ready"),
                }
            }
            let changed = *old != readiness;
            *old = readiness;
            changed
        });
    }

    /// One look at everything.
    async fn look(&self) -> Readiness {
        let mut findings = Vec::new();
        if self.stopping.is_cancelled() {
            findings.push(Finding::new(Cause::Stopping, "the node drains"));
        }
        if !self.pulse.borrow().in_service {
            let detail = "the board is not read to its end, or this start is not on it";
            findings.push(Finding::new(Cause::NotInService, detail));
        }
        if !self.pulse.borrow().room {
            findings.push(Finding::new(Cause::NoRoom, "the journal cannot be written"));
        }
        if let Some(off) = self.clocks.off() {
            findings.push(Finding::new(Cause::ClockOff, off.to_string()));
        }
        let (stores, signing) = tokio::join!(self.stores(), self.signing());
        findings.extend(signing);
        for (which, late) in self.beats.stalled() {
            let detail = format!("{which:?} has not moved for {} s", late.as_secs());
            findings.push(Finding::new(which.cause(), detail));
        }
        findings.extend(stores);
        findings.extend(self.certificates());
        Readiness {
            looked: true,
            findings,
        }
    }

    /// Why nothing is signed. A driver that does not answer is found by its beats.
    async fn signing(&self) -> Option<Finding> {
        let look = self.mailbox.look(|engine, now| engine.signing_stopped(now));
        let answered = tokio::time::timeout(self.limits.answer, look).await;
        let why = answered.ok()?.ok()??;
        Some(Finding::new(Cause::SigningStopped, why))
    }

    /// Asks all stores at once.
    async fn stores(&self) -> Vec<Finding> {
        let within = self.limits.answer;
        let (board, audit, chain, members) = tokio::join!(
            answered(within, self.coordinator.head()),
            answered(within, self.audit.cursor()),
            answered(within, self.chain.recent_blocks(1)),
            tokio::time::timeout(within + within, self.coordinator.members()),
        );
        let mut findings = Vec::new();
        for (store, cause, answer) in [
            ("board", Cause::BoardUnavailable, board),
            ("audit", Cause::AuditUnavailable, audit),
            ("chain", Cause::ChainUnavailable, chain),
        ] {
            let up = f64::from(u8::from(answer.is_ok()));
            self.meter.store_up.of([store]).set(up);
            findings.extend(answer.err().map(|why| Finding::new(cause, why)));
        }
        let members = members.unwrap_or_default();
        findings.extend(self.members(&members));
        findings
    }

    /// Members of the board's store that are near the end of their quota. One that is
    /// away is a metric, and no cause: the others go on without it.
    fn members(&self, members: &[MemberStatus]) -> Option<Finding> {
        let mut full = None;
        for member in members {
            let label = || [member.endpoint.clone()];
            let up = f64::from(u8::from(member.trouble.is_none()));
            self.meter.etcd_member_up.of(label()).set(up);
            if let Some(used) = member.used_bytes {
                self.meter.etcd_db_size.of(label()).set(bytes(used));
            }
            let Some(quota) = member.quota_bytes else {
                continue;
            };
            self.meter.etcd_db_quota.of(label()).set(bytes(quota));
            let used = member.used_bytes.unwrap_or_default();
            if is_near(used, quota, self.limits.quota_percent) {
                let detail = format!("{} uses {used} of {quota} bytes", member.endpoint);
                full = Some(Finding::new(Cause::BoardQuota, detail));
            }
        }
        let no_space = |member: &&MemberStatus| {
            let trouble = member.trouble.as_deref().unwrap_or_default();
            trouble.contains("NOSPACE")
        };
        let out_of_space = members.iter().find(no_space).map(|member| {
            Finding::new(
                Cause::BoardQuota,
                format!("{} is out of space", member.endpoint),
            )
        });
        full.or(out_of_space)
    }

    fn certificates(&self) -> Vec<Finding> {
        let now = wall_ms();
        let left = expiries(&self.tls, &self.meter, now);
        let margin = self.limits.expiry.as_secs_f64();
        let near = |(what, left): (&'static str, f64)| {
            let cause = match what {
                "crl" => Cause::CrlExpiring,
                _ => Cause::CertificateExpiring,
            };
            let detail = match left > 0.0 {
                true => format!("{what}: runs out in {} s", left.ceil()),
                false => format!("{what}: ran out {} s ago", (-left).floor()),
            };
            (left <= margin).then(|| Finding::new(cause, detail))
        };
        let revoked = self.tls.own_revoked().then(|| {
            let detail = format!("serial number {}", self.tls.own().serial);
            Finding::new(Cause::CertificateRevoked, detail)
        });
        left.into_iter().filter_map(near).chain(revoked).collect()
    }

    async fn count(&self) {
        let asked = self.audit.store().submission_counts();
        if let Ok(Ok(counts)) = tokio::time::timeout(self.limits.answer, asked).await {
            let of = |count: u64| crate::metrics::number(usize::try_from(count).unwrap_or(0));
            self.meter
                .postgres_active_submissions
                .set(of(counts.pending));
            self.meter
                .postgres_archived_submissions
                .set(of(counts.archived));
        }
    }
}

async fn answered<T, E: std::fmt::Display>(
    within: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<(), String> {
    match tokio::time::timeout(within, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

fn is_near(used: u64, quota: u64, percent: u64) -> bool {
    u128::from(used) * 100 >= u128::from(quota) * u128::from(percent)
}

#[allow(clippy::cast_precision_loss, reason = "no store has 2^53 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

/// How many seconds certificates and lists have left, each under its name in the
/// metrics, which are set by the way.
pub(crate) fn expiries(tls: &TlsMaterial, meter: &Meter, now_ms: u64) -> Vec<(&'static str, f64)> {
    let expiries = tls.expiries();
    let left = |not_after_ms: u64| seconds(not_after_ms) - seconds(now_ms);
    let mut all = Vec::new();
    for (what, at) in [
        ("node", Some(expiries.own_ms)),
        ("ca", expiries.cluster_ca_ms),
        ("clients_ca", expiries.clients_ca_ms),
    ] {
        if let Some(at) = at {
            meter.certificate_expiry.of([what]).set(left(at));
            all.push((what, left(at)));
        }
    }
    const YEAR_S: f64 = 365.0 * 86_400.0;
    meter.crl_expiry.set(expiries.crl_ms.map_or(YEAR_S, left));
    all.extend(expiries.crl_ms.map(|at| ("crl", left(at))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_near_its_end_from_the_share_on() {
        assert!(!is_near(89, 100, 90));
        assert!(is_near(90, 100, 90));
        assert!(is_near(u64::MAX, u64::MAX, 90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_told_once_and_again_after_it_was_back() {
        let mut away = Away::default();
        assert!(!away.note(true));
        away.since = away.since.map(|since| since - WORTH_AN_ALERT);
        assert!(away.note(true));
        assert!(!away.note(true), "told already");
        assert!(!away.note(false));
        assert!(!away.note(true), "only just away");
    }
}
