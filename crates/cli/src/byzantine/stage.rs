//! Who is on the stage when a trustee lies: the liar, and the honest others as their
//! clients see them.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use quorate_consensus::{NodeId, Rules, TxId};
use quorate_node::exchange::RawSession;
use quorate_wire::v1::{Ballot, SubmitRequest, WaitFor, submit_request::Vote};

use super::Liar;
use tonic::Code;

use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::waiting::{PATIENCE, is_banned, is_final, until_ballot};

/// An honest trustee.
#[derive(Clone, Debug)]
pub(crate) struct Honest {
    /// Its id.
    pub(crate) node_id: NodeId,
    /// Where its node listens.
    pub(crate) endpoint: String,
    /// A client of its node.
    pub(crate) client: Client,
}

/// One lie's stage.
pub(crate) struct Stage {
    /// The liar.
    pub(crate) liar: Liar,
    /// The others.
    pub(crate) honest: Vec<Honest>,
    /// The rules they stand under.
    pub(crate) rules: Arc<Rules>,
    /// The transaction it is about.
    pub(crate) tx_id: TxId,
}

impl Stage {
    /// The first honest trustee: whom a liar likes to forge, and who tells how the
    /// ballot stands.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn first(&self) -> Outcome<&Honest> {
        self.honest.first().ok_or_else(|| {
            Failure::usage("a lie needs at least one honest trustee")
                .hint("start a larger cluster: quorate dev --nodes 5 --threshold 4")
        })
    }

    /// The liar's streams to all the others.
    ///
    /// # Errors
    /// When one of them cannot be reached or refuses the liar.
    pub(super) async fn sessions(&self) -> Outcome<Vec<RawSession>> {
        let open = self
            .honest
            .iter()
            .map(|honest| self.liar.session(&honest.endpoint));
        try_join_all(open).await
    }

    /// All the others vote for a number, each at its own node, at the same time. Those
    /// that are banned for an earlier lie have no vote.
    ///
    /// # Errors
    /// When a vote is refused for another reason.
    pub(crate) async fn honest_votes(&self, number: u64) -> Outcome {
        let votes = self.honest.iter().map(|honest| {
            honest.client.submit(SubmitRequest {
                tx_id: self.tx_id.to_string(),
                vote: Some(Vote::Number(number)),
                wait: WaitFor::Recorded.into(),
            })
        });
        for vote in join_all(votes).await {
            match vote {
                Err(refusal) if refusal.code() != Some(Code::PermissionDenied) => {
                    return Err(refusal);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The ballot, as soon as it is as wanted.
    ///
    /// # Errors
    /// When that does not happen.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&Ballot) -> bool,
    ) -> Outcome<Ballot> {
        let client = &self.first()?.client;
        until_ballot(client, self.tx_id.as_str(), what, PATIENCE, is_so).await
    }

    /// The ballot when it is over and the liar banned.
    ///
    /// # Errors
    /// When that does not happen.
    pub(crate) async fn until_caught(&self) -> Outcome<Ballot> {
        let liar = self.liar.node_id().as_str();
        let what = format!("the ballot to end and {liar} to be banned");
        self.until(&what, |ballot| is_final(ballot) && is_banned(ballot, liar))
            .await
    }
}
