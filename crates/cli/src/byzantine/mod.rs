//! Trustees that lie on purpose, one file per misbehaviour. A liar has a trustee's
//! keys and its node's certificate, and no sign guard.

pub(crate) mod double_vote;
pub(crate) mod invalid_signature;
pub(crate) mod malformed;
pub(crate) mod minority;
pub(crate) mod silent;
mod stage;

use std::path::Path;
use std::sync::Arc;

use quorate_consensus::statement::{VoteBody, bytes_to_sign};
use quorate_consensus::wire::SignedStatement;
use quorate_consensus::{Choice, Domain, NodeId, Rules, TxId};
use quorate_crypto::SigningKey;
use quorate_node::exchange::{RawSession, RawTarget, raw_session};
use quorate_tls::{ClientPaths, ClientTls};
use quorate_wire::v1::{Batch, TracedVote, frame::Body};

use crate::failure::{Exit, Failure, Outcome};
use crate::local::NodeLayout;
use crate::output::clock_ms;

pub(crate) use stage::{Honest, Stage};

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
        let session = raw_session(
            &target,
            &self.rules,
            &self.node_id,
            &self.node_key,
            GENERATION,
        );
        session.await.map_err(|e| {
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

    /// A vote of its own, signed now; nothing keeps it from signing another.
    pub(crate) fn vote(&self, tx_id: &TxId, choice: Choice) -> SignedStatement {
        self.vote_of(&self.node_id, tx_id, choice)
    }

    /// A vote in somebody's name, signed by its own key.
    fn vote_of(&self, node_id: &NodeId, tx_id: &TxId, choice: Choice) -> SignedStatement {
        let body = VoteBody {
            tx_id: tx_id.clone(),
            choice,
            time_ms: clock_ms(),
        };
        let statement = bytes_to_sign(&self.rules, node_id, &body);
        let signature = self.vote_key.sign(Domain::Vote, &statement);
        SignedStatement {
            statement,
            signature,
        }
    }
}

/// Votes in one frame, whatever they are worth.
fn batch(votes: impl IntoIterator<Item = SignedStatement>) -> Body {
    let traced = |vote| TracedVote {
        vote: Some(vote),
        traceparent: String::new(),
    };
    Body::Batch(Batch {
        votes: votes.into_iter().map(traced).collect(),
        ..Batch::default()
    })
}

/// Says something to a node; one that has hung up has heard enough.
async fn tell(session: &RawSession, body: Body) {
    let _ = session.send(body).await;
}
