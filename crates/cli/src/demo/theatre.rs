//! Where the scenarios are acted out: fresh clusters in a directory that goes away,
//! and the records that they leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_audit::{AuditStore, SqliteAudit};
use quorate_chain::{Chain, Ledger, LedgerOptions};
use quorate_consensus::proof::{self, Fact};
use quorate_consensus::wire::Payload;
use quorate_consensus::{ClusterId, NodeId, Rules, TxId};
use quorate_crypto::Ed25519Verifier;
use quorate_tls::pki;
use quorate_wire::v1::GetCertificateResponse;

use crate::byzantine::{Honest, Liar, Stage};
use crate::client::Client;
use crate::commands::certificate::{save_evidence, save_proof};
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::local::{Cluster, Plan};
use crate::waiting::{PATIENCE, until_some};

/// A directory that is removed when the demo is over.
pub(super) struct Theatre {
    scratch: tempfile::TempDir,
    keep: Option<PathBuf>,
}

impl Theatre {
    pub(super) fn open(keep: Option<&Path>) -> Outcome<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("quorate-demo-")
            .tempdir()
            .map_err(|e| Failure::failed(format!("no temporary directory: {e}")))?;
        Ok(Self {
            scratch,
            keep: keep.map(Path::to_owned),
        })
    }

    /// What a fresh cluster of this scenario is made from.
    pub(super) fn plan(&self, name: &str) -> Plan {
        Plan::five(self.scratch.path().join(name))
    }

    /// Where proofs go: kept if that was asked for.
    fn proofs(&self) -> PathBuf {
        match &self.keep {
            Some(keep) => keep.clone(),
            None => self.scratch.path().join("proofs"),
        }
    }

    /// Saves the certificate or abort proof of a transaction as soon as there is one,
    /// reads it back, and checks it offline with the cluster id alone.
    ///
    /// # Errors
    /// When there is none, or it does not hold.
    pub(super) async fn proven(
        &self,
        client: &Client,
        tx_id: &TxId,
        cluster_id: ClusterId,
    ) -> Outcome<Fact> {
        let what = format!("the proof of how {tx_id} ended");
        let answer = until_some(&what, PATIENCE, async || {
            let answer = client.certificate(tx_id.as_str()).await?;
            Ok(answer.proof.is_some().then_some(answer))
        })
        .await?;
        let file = self.proofs().join(format!("{tx_id}.proof"));
        save_proof(tx_id.as_str(), &answer, &file)?;
        verified(&file, cluster_id)
    }

    /// Saves the evidence of lies, reads it back, and checks it likewise.
    ///
    /// # Errors
    /// When there is none, or it does not hold.
    pub(super) async fn evidence(
        &self,
        client: &Client,
        tx_id: &TxId,
        cluster_id: ClusterId,
    ) -> Outcome<Fact> {
        let answer: GetCertificateResponse = client.certificate(tx_id.as_str()).await?;
        let saved = save_evidence(tx_id.as_str(), &answer, &self.proofs())?;
        let file = saved
            .first()
            .ok_or_else(|| Failure::failed(format!("there is no evidence in {tx_id}")))?;
        verified(file, cluster_id)
    }
}

/// What a stranger does with a proof.
fn verified(file: &Path, cluster_id: ClusterId) -> Outcome<Fact> {
    proof::verify(&files::read(file)?, &cluster_id, None, &Ed25519Verifier)
        .map(|verified| verified.fact)
        .map_err(|e| Failure::failed(format!("{} proves nothing: {e}", file.display())))
}

/// The last trustee: it plays the liar.
pub(super) fn last(cluster: &Cluster) -> Outcome<NodeId> {
    cluster
        .node_ids()
        .pop()
        .ok_or_else(|| Failure::failed("a cluster without nodes"))
}

/// The last trustee lies, the others are honest. The liar's own node is stopped: its
/// keys are in other hands now.
///
/// # Errors
/// When keys cannot be read.
pub(super) async fn stage(cluster: &mut Cluster, tx_id: &TxId) -> Outcome<Stage> {
    let liar = last(cluster)?;
    cluster.stop_node(&liar).await;
    let mut honest = Vec::new();
    for node_id in cluster
        .node_ids()
        .into_iter()
        .filter(|node_id| *node_id != liar)
    {
        honest.push(Honest {
            endpoint: cluster.context(&node_id).endpoint,
            client: cluster.client(&node_id)?,
            node_id,
        });
    }
    let layout = cluster.layout();
    let ca_cert = pki::cluster_ca_cert(&layout.ca_dir());
    Ok(Stage {
        liar: Liar::load(
            &liar,
            cluster.rules().clone(),
            &layout.node(&liar),
            &ca_cert,
        )?,
        honest,
        rules: cluster.rules().clone(),
        tx_id: tx_id.clone(),
    })
}

/// What the cluster wrote down: the ledger and the audit store.
pub(super) struct Records {
    rules: Arc<Rules>,
    ledger: Ledger,
    /// The audit store.
    pub(super) audit: SqliteAudit,
}

impl Records {
    /// Opens both beside the nodes.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(super) fn open(cluster: &Cluster) -> Outcome<Self> {
        let (layout, rules) = (cluster.layout(), cluster.rules().clone());
        let audit = SqliteAudit::open(layout.audit(), rules.clone()).map_err(Failure::failed)?;
        let options = LedgerOptions::for_target(rules.chain(), None);
        let ledger = Ledger::open(layout.ledger(), options).map_err(Failure::failed)?;
        Ok(Self {
            rules,
            ledger,
            audit,
        })
    }

    /// How many entries the ledger has for a transaction.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(super) async fn entries(&self, tx_id: &TxId) -> Outcome<usize> {
        use prost::Message;
        let blocks = self
            .ledger
            .recent_blocks(1000)
            .await
            .map_err(Failure::failed)?;
        let of_cluster = |payload: &Payload| {
            payload.cluster_id == self.rules.cluster_id().as_bytes()
                && payload.tx_id == tx_id.as_str()
        };
        Ok(blocks
            .iter()
            .flat_map(|block| &block.transactions)
            .filter_map(|transaction| Payload::decode(&*transaction.payload).ok())
            .filter(of_cluster)
            .count())
    }

    /// The state of a transaction's row in the audit store, as soon as it is `wanted`;
    /// after a while whatever it is.
    ///
    /// # Errors
    /// When the audit store cannot be read.
    pub(super) async fn audit_state(&self, tx_id: &TxId, wanted: &str) -> Outcome<String> {
        let mut seen = "no row".to_owned();
        let look = async || {
            let row = self
                .audit
                .submission(tx_id)
                .await
                .map_err(Failure::failed)?;
            if let Some(row) = row {
                seen = row.state.as_str().to_owned();
            }
            Ok((seen == wanted).then_some(()))
        };
        // What is not there in time is told as it is.
        let _ = until_some("the audit row", PATIENCE, look).await;
        Ok(seen)
    }
}
