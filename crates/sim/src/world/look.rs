//! What invariants and stories may ask a world.

use quorate_consensus::{NodeId, Rules};
use quorate_engine::Now;
use quorate_testkit::{Cluster, NOW};

use super::audit::Audit;
use super::chain::Chain;
use super::store::Store;
use super::{Client, Place, World};
use crate::plan::Plan;

impl World {
    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The members and their keys.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        self.cluster.rules()
    }

    /// Milliseconds from the start.
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    /// The true time: milliseconds since the Unix epoch.
    pub fn true_wall(&self) -> u64 {
        NOW + self.now
    }

    /// The wall clock of a machine.
    pub fn wall(&self, place: usize) -> u64 {
        self.now_of(&self.places[place]).wall_ms
    }

    pub(super) fn now_of(&self, place: &Place) -> Now {
        let off_ms = place.clock_off_ms + place.clock_jump_ms;
        Now {
            wall_ms: self.true_wall().saturating_add_signed(off_ms),
            mono_ms: self.now,
        }
    }

    /// The machines; member `i`'s first is at index `i`.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The id of a machine's member.
    pub fn node_id(&self, place: usize) -> &NodeId {
        &self.places[place].node_id
    }

    /// A machine's member lies.
    pub fn is_liar(&self, place: usize) -> bool {
        self.is_liar_member(self.places[place].member)
    }

    /// A member lies.
    pub fn is_liar_member(&self, member: usize) -> bool {
        self.plan.liars.contains_key(&member)
    }

    /// A member has lost what it had written, once at least.
    pub fn has_forgotten(&self, member: usize) -> bool {
        self.forgetful.contains(&member)
    }

    /// A member, by id, lies.
    pub fn is_liar_id(&self, node_id: &NodeId) -> bool {
        let member = self.cluster.index(node_id);
        member.is_some_and(|member| self.is_liar_member(member))
    }

    /// The members that do not lie.
    pub fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.cluster.n()).filter(|member| !self.is_liar_member(*member))
    }

    /// The store's boards.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The audit store.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The clients so far.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The faults are over.
    pub fn is_calm(&self) -> bool {
        self.calm
    }
}
