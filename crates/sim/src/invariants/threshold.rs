//! "When t of them have signed the same value for the same transaction" (section 1); "a
//! decision certificate that anyone can verify offline, knowing nothing but the 32 bytes
//! of the cluster's id"; "every node that re-derives it signs a decision" (section 5).

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use quorate_consensus::proof::{self, Fact};
use quorate_consensus::statement::{Body, DecisionBody, VoteBody};
use quorate_consensus::wire::SignedStatement;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::{Choice, Domain, NodeId, TxId};
use quorate_engine::Effect;
use quorate_testkit::FakeVerifier;

use super::parsed::parse;
use super::{Happening, Invariant, Sort, verified};
use crate::world::World;

/// No decision under t distinct valid votes.
#[derive(Default)]
pub(super) struct Threshold {
    /// Votes that were verified here, and what they say.
    good: BTreeMap<(TxId, NodeId), (SignedStatement, Choice)>,
}

impl Invariant for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Entry { entry, .. } => {
                for event in &entry.events {
                    self.on_board(world, &event.tx_id, event.event.as_ref())?;
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect:
                    Effect::Sign {
                        domain: Domain::Decision,
                        statement,
                        ..
                    },
            } => {
                let parsed = parse::<DecisionBody>(statement);
                let (_, body) = parsed.map_err(|error| format!("a decision: {error}"))?;
                self.decides(world, *place, &body)
            }
            _ => Ok(()),
        }
    }
}

impl Threshold {
    fn on_board(
        &mut self,
        world: &World,
        tx_id: &str,
        event: Option<&Event>,
    ) -> Result<(), String> {
        match event {
            Some(Event::VoteRecorded(recorded)) => {
                let signed = recorded.vote.clone().unwrap_or_default();
                let vote = verified::<VoteBody>(world, &signed);
                let (by, body) = vote.map_err(|why| format!("{tx_id} has a vote: {why}"))?;
                if by.as_str() != recorded.node_id || body.tx_id.as_str() != tx_id {
                    return Err(format!(
                        "a vote of {by} for {} is recorded as one of {} in {tx_id}",
                        body.tx_id, recorded.node_id
                    ));
                }
                self.good.insert((body.tx_id, by), (signed, body.choice));
                Ok(())
            }
            Some(Event::Certified(certified)) => {
                let genesis = proof::genesis_chain(world.rules());
                let proof = certified.proof.clone().unwrap_or_default();
                let t = world.rules().threshold();
                let voters = self.voters(world, &proof.votes)?;
                let deciders = signers::<DecisionBody>(world, &proof.decisions)?;
                if voters.min(deciders) < t {
                    return Err(format!(
                        "the certificate of {tx_id} is by {voters} voters and {deciders} deciders"
                    ));
                }
                let proof = proof::certificate(genesis, proof);
                match offline(world, &proof.encode_to_vec()) {
                    Ok(Fact::Decided { tx_id: found, .. }) if found.as_str() == tx_id => Ok(()),
                    Ok(fact) => Err(format!("the certificate of {tx_id} shows {fact:?}")),
                    Err(why) => Err(format!("the certificate of {tx_id} does not hold: {why}")),
                }
            }
            Some(Event::AbortProven(proven)) => {
                let genesis = proof::genesis_chain(world.rules());
                let proof = proof::abort_proof(genesis, proven.aborts.clone());
                match offline(world, &proof.encode_to_vec()) {
                    Ok(Fact::Dead { tx_id: found, .. }) if found.as_str() == tx_id => Ok(()),
                    Ok(fact) => Err(format!("the abort proof of {tx_id} shows {fact:?}")),
                    Err(why) => Err(format!("the abort proof of {tx_id} does not hold: {why}")),
                }
            }
            _ => Ok(()),
        }
    }

    /// How many members voted, each vote good.
    fn voters(&self, world: &World, votes: &[SignedStatement]) -> Result<usize, String> {
        let mut by = BTreeSet::new();
        for signed in votes {
            let (header, body) = parse::<VoteBody>(&signed.statement)
                .map_err(|error| format!("a certificate has a vote: {error}"))?;
            let said = self.says(world, &body.tx_id, &header.node_id, signed);
            said.ok_or_else(|| format!("the vote of {} is not good", header.node_id))?;
            by.insert(header.node_id);
        }
        Ok(by.len())
    }

    /// What a statement says, if it is a good vote of this member.
    fn says(
        &self,
        world: &World,
        tx_id: &TxId,
        by: &NodeId,
        signed: &SignedStatement,
    ) -> Option<Choice> {
        if let Some((known, choice)) = self.good.get(&(tx_id.clone(), by.clone()))
            && known == signed
        {
            return Some(choice.clone());
        }
        let (found, body) = verified::<VoteBody>(world, signed).ok()?;
        (found == *by && body.tx_id == *tx_id).then_some(body.choice)
    }

    /// An engine is about to sign a decision.
    fn decides(&self, world: &World, place: usize, body: &DecisionBody) -> Result<(), String> {
        let engine = world.places()[place].engine();
        let ballot = engine.and_then(|engine| engine.board().ballot(&body.tx_id));
        let good = ballot.map_or(0, |ballot| {
            let votes = ballot.votes.iter().filter(|(by, recorded)| {
                let choice = self.says(world, &body.tx_id, by, &recorded.vote.signed);
                !recorded.late && choice.is_some_and(|c| c.value() == Some(&body.value))
            });
            votes.count()
        });
        let t = world.rules().threshold();
        if good < t {
            return Err(format!(
                "{} decides {} for {} on {good} votes; it takes {t}",
                world.node_id(place),
                body.tx_id,
                body.value
            ));
        }
        Ok(())
    }
}

/// How many members signed a list, each statement good.
fn signers<B: Body + Clone + 'static>(
    world: &World,
    list: &[SignedStatement],
) -> Result<usize, String> {
    let by = list
        .iter()
        .map(|signed| Ok(verified::<B>(world, signed)?.0));
    Ok(by.collect::<Result<BTreeSet<NodeId>, String>>()?.len())
}

fn offline(world: &World, proof: &[u8]) -> Result<Fact, String> {
    let cluster_id = world.rules().cluster_id();
    let verified = proof::verify(proof, &cluster_id, None, &FakeVerifier);
    verified
        .map(|verified| verified.fact)
        .map_err(|error| error.to_string())
}
