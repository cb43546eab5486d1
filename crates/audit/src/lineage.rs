//! The rules that a store needs to know: whose keys are whose, and what a stranger
//! needs to check a proof.

use std::sync::Arc;

use quorate_consensus::rules::Member;
use quorate_consensus::wire::{RulesChain, RulesLink};
use quorate_consensus::{ClusterId, NodeId, Rules, RulesDigest};

/// The rules documents of a cluster from the genesis on. `Arc<Rules>` of a genesis
/// turns into one.
#[derive(Clone, Debug)]
pub struct Lineage {
    cluster_id: ClusterId,
    rules: Vec<Arc<Rules>>,
    chain: RulesChain,
}

impl Lineage {
    /// From a chain that was checked, and what
    /// [`verify_rules`](quorate_consensus::proof::verify_rules) gave for it. None
    /// unless there are as many rules as links, and at least one.
    pub fn new(chain: RulesChain, rules: Vec<Arc<Rules>>) -> Option<Self> {
        let cluster_id = rules.first()?.cluster_id();
        (rules.len() == chain.links.len()).then_some(Self {
            cluster_id,
            rules,
            chain,
        })
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Everybody who is a member under some epoch, once per vote key.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.rules.iter().flat_map(|rules| rules.members())
    }

    /// A member under the rules with this digest.
    pub(crate) fn member(&self, digest: &RulesDigest, node_id: &NodeId) -> Option<&Member> {
        self.rules
            .iter()
            .find(|rules| rules.digest() == *digest)?
            .member(node_id)
    }

    /// A member under the latest rules that have it.
    pub(crate) fn latest(&self, node_id: &NodeId) -> Option<&Member> {
        self.rules
            .iter()
            .rev()
            .find_map(|rules| rules.member(node_id))
    }

    /// The chain up to the rules with this digest; whole when they are unknown.
    pub(crate) fn chain_to(&self, digest: Option<RulesDigest>) -> RulesChain {
        let end = self
            .rules
            .iter()
            .position(|rules| Some(rules.digest()) == digest)
            .map_or(self.chain.links.len(), |position| position + 1);
        RulesChain {
            links: self.chain.links[..end].to_vec(),
        }
    }
}

impl From<Arc<Rules>> for Lineage {
    /// From the genesis. Rules of a later epoch need [`Lineage::new`], for a proof
    /// with them alone does not verify.
    fn from(rules: Arc<Rules>) -> Self {
        Self {
            cluster_id: rules.cluster_id(),
            chain: RulesChain {
                links: vec![RulesLink {
                    document: rules.document().to_vec(),
                    justification: None,
                }],
            },
            rules: vec![rules],
        }
    }
}
