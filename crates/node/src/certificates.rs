//! The certificates in use: read again when their files change, and live connections
//! held against them.

use std::sync::Arc;
use std::time::Duration;

use quorate_tls::{Registry, TlsError, TlsMaterial};
use tokio::time::Instant;

use crate::alerts::{Alerts, Name};
use crate::faults::Faults;
use crate::health::beats::{Beats, Loop};
use crate::metrics::Meter;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often they are read whether they changed or not: certificates and lists also
/// come to their end by themselves.
const READ_EVERY: Duration = Duration::from_secs(60);

/// The certificates in use.
pub(crate) struct Certificates {
    pub(crate) tls: Arc<TlsMaterial>,
    pub(crate) registry: Registry,
    pub(crate) meter: Arc<Meter>,
    pub(crate) alerts: Arc<Alerts>,
}

/// A set of files that was not taken.
struct NotTaken {
    why: String,
    /// Somebody may just be exchanging one file after the other.
    may_pass: bool,
}

impl Certificates {
    /// Reads them again, and ends connections that would be refused now.
    pub(crate) async fn reload(&self) -> Result<(), String> {
        let result = self.read_again().await;
        if let Err(not_taken) = &result {
            self.tell(&not_taken.why);
        }
        result.map_err(|not_taken| not_taken.why)
    }

    async fn read_again(&self) -> Result<(), NotTaken> {
        let (tls, registry) = (self.tls.clone(), self.registry.clone());
        // Files and signatures: nothing for the reactor.
        let read = tokio::task::spawn_blocking(move || {
            let result = tls.reload();
            (result, registry.recheck(&tls))
        });
        let (result, ended) = read.await.map_err(|error| NotTaken {
            why: error.to_string(),
            may_pass: false,
        })?;
        if ended > 0 {
            tracing::warn!(ended, "certificates.connections_ended");
        }
        result.map_err(|error| NotTaken {
            may_pass: !matches!(error, TlsError::OwnRevoked(_)),
            why: error.to_string(),
        })
    }

    fn tell(&self, why: &str) {
        self.meter.certificate_reload_failures.inc();
        tracing::warn!(error = %why, "certificates.reload_failed");
        let about = self.alerts.this_node();
        self.alerts.raise(Name::CertificatesNotTaken, about, why);
    }

    async fn have_changed(&self) -> bool {
        let tls = self.tls.clone();
        // One that cannot look cannot read either, and says so then.
        tokio::task::spawn_blocking(move || tls.has_changed())
            .await
            .unwrap_or(true)
    }
}

/// Reads the certificates again when a file has changed, and from time to time.
pub(crate) async fn watch(certificates: Arc<Certificates>, (beats, faults): (Arc<Beats>, Faults)) {
    let mut last_read = Instant::now();
    let mut doubtful = false;
    loop {
        faults.pass(Loop::Certificates).await;
        beats.waits(Loop::Certificates, LOOK_EVERY);
        tokio::time::sleep(LOOK_EVERY).await;
        let changed = certificates.have_changed().await;
        if !(changed || doubtful || last_read.elapsed() >= READ_EVERY) {
            continue;
        }
        last_read = Instant::now();
        match certificates.read_again().await {
            Ok(()) => {
                if changed || doubtful {
                    let own = certificates.tls.own();
                    tracing::info!(serial = %own.serial, "certificates.reloaded");
                }
                doubtful = false;
            }
            // Key and certificate are two files: the other one may be on its way.
            Err(not_taken) if changed && not_taken.may_pass => doubtful = true,
            Err(not_taken) => {
                doubtful = false;
                certificates.tell(&not_taken.why);
            }
        }
    }
}
