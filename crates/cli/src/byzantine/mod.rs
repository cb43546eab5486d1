//! Trustees that lie on purpose. The lies are the simulator's (`quorate_sim::liars`);
//! here is what is about the stage: who votes when, and when it is over. A liar has a
//! trustee's keys and its node's certificate, and no sign guard.

pub(crate) mod double_vote;
pub(crate) mod minority;
pub(crate) mod offence;
mod player;
pub(crate) mod silent;
mod stage;
mod test_type;
pub(crate) mod tolerated;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::statement::KeyRole;
use quorate_consensus::{Domain, NodeId, Rules};
use quorate_crypto::SigningKey;
use quorate_node::exchange::{RawError, RawSession, RawTarget, raw_session};
use quorate_sim::liars::Keys;
use quorate_tls::{ClientPaths, ClientTls};

use crate::failure::{Exit, Failure, Outcome};
use crate::local::NodeLayout;
use crate::waiting::PATIENCE;

pub(crate) use stage::{Honest, Stage};
pub(crate) use test_type::TestType;

/// A trustee that lies.
pub(crate) struct Liar {
    node_id: NodeId,
    rules: Arc<Rules>,
    vote_key: SigningKey,
    node_key: SigningKey,
    tls: Arc<ClientTls>,
}

/// The boot generation in the liar's hello. Nobody holds it against the board: it is
/// there for the honest node, which stops signing when a later one shows.
const GENERATION: u64 = 1;

impl Liar {
    /// Takes a trustee's keys and certificate from its files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn load(
        node_id: &NodeId,
        rules: Arc<Rules>,
        node: &NodeLayout,
        ca_cert: &Path,
    ) -> Outcome<Self> {
        let key = |path| SigningKey::read(path).map_err(Failure::usage);
        let tls = ClientTls::load(&ClientPaths {
            ca_cert: ca_cert.to_owned(),
            cert: node.files.cert.clone(),
            key: node.files.key.clone(),
        })
        .map_err(Failure::usage)?;
        Ok(Self {
            node_id: node_id.clone(),
            rules,
            vote_key: key(&node.files.vote_key)?,
            node_key: key(&node.files.node_key)?,
            tls,
        })
    }

    /// Its id.
    pub(crate) fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// A stream to a node on which the liar may say anything: its hello is good.
    ///
    /// # Errors
    /// When the node cannot be reached or does not take the liar for a member.
    pub(crate) async fn session(&self, addr: &str) -> Outcome<RawSession> {
        let target = RawTarget {
            tls: self.tls.clone(),
            addr: addr.to_owned(),
        };
        let until = Instant::now() + PATIENCE;
        let session = loop {
            let session = raw_session(
                &target,
                &self.rules,
                &self.node_id,
                &self.node_key,
                GENERATION,
            );
            match session.await {
                // Where the liar's own node has just ended, they dial it still.
                Err(RawError::Later { retry, .. }) if Instant::now() + retry < until => {
                    tokio::time::sleep(retry).await;
                }
                session => break session,
            }
        };
        session.map_err(|e| {
            let who = &self.node_id;
            Failure::new(
                Exit::Unavailable,
                format!("{addr} does not talk to {who}: {e}"),
            )
            .hint(format!(
                "if {who} is banned already, take another trustee or a new cluster"
            ))
        })
    }
}

impl Keys for Liar {
    fn sign(&self, role: KeyRole, domain: Domain, statement: &[u8]) -> Vec<u8> {
        let key = match role {
            KeyRole::Vote => &self.vote_key,
            KeyRole::Node => &self.node_key,
        };
        key.sign(domain, statement)
    }
}
