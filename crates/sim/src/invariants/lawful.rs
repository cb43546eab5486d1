//! "Every later epoch is a decision of the epoch before … No operator and no CA can lower
//! t, raise N or swap a key" (section 3).

use prost::Message;
use quorate_consensus::proof::{self, genesis_chain};
use quorate_consensus::wire::{RulesDocument, RulesLink};
use quorate_testkit::FakeVerifier;

use super::{Happening, Invariant, Sort};
use crate::liars::LiarKind;
use crate::world::World;

/// Rules that a liar made for itself are nobody's.
#[derive(Default)]
pub(super) struct Lawful;

impl Invariant for Lawful {
    fn name(&self) -> &'static str {
        "lawful"
    }

    fn watches(&self) -> &'static [Sort] {
        &[]
    }

    fn sees(&mut self, _world: &World, _what: &Happening<'_>) -> Result<(), String> {
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        let mut liars = world.plan().liars.values();
        if !liars.any(|kind| *kind == LiarKind::SelfMade) {
            return Ok(());
        }
        // What its certificates stand on: the rules in force with t = 1, decided by nobody.
        let rules = world.rules();
        let mut document = RulesDocument::decode(rules.document()).unwrap_or_default();
        document.epoch += 1;
        document.predecessor = rules.digest().0.to_vec();
        document.threshold = 1;
        let mut chain = genesis_chain(rules);
        chain.links.push(RulesLink {
            document: document.encode_to_vec(),
            justification: None,
        });
        match proof::verify_rules(&chain, &rules.cluster_id(), &FakeVerifier) {
            Err(_) => Ok(()),
            Ok(_) => Err("rules with t = 1 that nobody decided verify".into()),
        }
    }
}
