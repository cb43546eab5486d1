//! Opens what keeps the board and the audit record, as the configuration says.

use std::sync::Arc;

use quorate_audit::{AuditError, AuditStore, Lineage, PostgresAudit, SqliteAudit, postgres};
use quorate_consensus::Rules;
use quorate_coordinator::etcd::{Dial, Options, Plain, User};
use quorate_coordinator::{Coordinator, Embedded, Etcd, StoreError};
use quorate_crypto::CachedVerifier;
use quorate_tls::{OutwardPaths, OutwardTls};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::config::{CoordinatorKind, EtcdSection, StorageSection};
use crate::parts::StartError;

/// Opens what keeps the board; `genesis` is what it starts from. Blocks; etcd needs the
/// runtime that it is called within.
pub fn open_board(
    storage: &StorageSection,
    genesis: &Arc<Rules>,
    verifier: &Arc<CachedVerifier>,
) -> Result<Arc<dyn Coordinator>, StartError> {
    match &storage.coordinator {
        CoordinatorKind::Embedded => {
            let path = storage.embedded_dir.join("board.db");
            let board = Embedded::open(path, genesis.clone(), verifier.clone())?;
            Ok(Arc::new(board))
        }
        CoordinatorKind::Etcd(section) => {
            let runtime = Handle::try_current()
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let dial = dial(section)?;
            let options = options(section, genesis);
            let opened = Etcd::open(options, genesis.clone(), verifier.clone(), dial);
            let etcd = runtime.block_on(opened)?;
            Ok(Arc::new(etcd))
        }
    }
}

/// Opens the audit store that the configuration names. PostgreSQL is not connected to
/// yet.
///
/// # Errors
/// [`AuditError`].
pub fn open_audit(
    storage: &StorageSection,
    lineage: Lineage,
) -> Result<Arc<dyn AuditStore>, AuditError> {
    Ok(match &storage.postgres_url {
        Some(url) => {
            let options = postgres::Options {
                ca_path: storage.postgres_ca_path.clone(),
                ..postgres::Options::default()
            };
            Arc::new(PostgresAudit::new(url.expose(), lineage, &options)?)
        }
        None => {
            let path = storage.embedded_dir.join("audit.db");
            Arc::new(SqliteAudit::open(path, lineage)?)
        }
    })
}

fn options(section: &EtcdSection, genesis: &Rules) -> Options {
    let mut options = Options::new(section.endpoints.clone(), genesis.cluster_name());
    if let Some(prefix) = &section.prefix {
        options.prefix = format!("{}/", prefix.trim_end_matches('/'));
    }
    options.user = section.user.as_ref().map(|(name, password)| User {
        name: name.clone(),
        password: password.expose().to_owned(),
    });
    options
}

fn dial(section: &EtcdSection) -> Result<Arc<dyn Dial>, StartError> {
    let Some(ca_cert) = section.ca_path.clone() else {
        return Ok(Arc::new(Plain));
    };
    let own = section.own.clone();
    let tls = OutwardTls::load(&OutwardPaths { ca_cert, own })?;
    Ok(Arc::new(Secured(tls)))
}

/// Connections by TLS, and no others.
struct Secured(OutwardTls);

impl Dial for Secured {
    fn channel(&self, endpoint: Endpoint, tls: bool) -> Result<Channel, StoreError> {
        if !tls {
            let why =
                "certificates for etcd are configured: its endpoints must begin with https://";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        let opened = self.0.channel(endpoint);
        opened.map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}
