//! Accuses honest trustees of what they did not do, to peers and on the board, and asks
//! for bans with its own accusations alone. All accusers of a cluster begin with the
//! same victim, so that they are in company.
//!
//! What must come of it: each accusation is on the board and counts as one. Fewer than t
//! accusers ban nobody, however often they repeat themselves, and cost no reputation.

use quorate_consensus::statement::AccusationBody;
use quorate_consensus::wire::{self, AccusationKind, SignedStatement};
use quorate_consensus::{NodeId, TxId};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, batch};

const KINDS: [AccusationKind; 3] = [
    AccusationKind::InvalidSignature,
    AccusationKind::Malformed,
    AccusationKind::Operator,
];

/// It is never its own fault.
#[derive(Debug, Default)]
pub(super) struct Accuser {
    /// Accusations made so far.
    made: usize,
    budget: Budget<200>,
}

impl Liar for Accuser {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let lies = match cue {
            Cue::Start => self.accuse(stage, None),
            Cue::Asked { tx_id, .. } => self.accuse(stage, Some(tx_id)),
            // To its face.
            Cue::Met { peer } => vec![Lie::Say {
                to: peer.clone(),
                body: said(vec![accusation(stage, peer, KINDS[0], None)]),
            }],
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}

impl Accuser {
    /// Accuses the next one of the next thing.
    fn accuse(&mut self, stage: &Stage<'_>, tx_id: Option<&TxId>) -> Vec<Lie> {
        let others: Vec<_> = stage.others().collect();
        if others.is_empty() {
            return Vec::new();
        }
        let (turn, place) = (self.made / others.len(), self.made % others.len());
        self.made += 1;
        let (victim, kind) = (others[place], KINDS[turn % KINDS.len()]);
        let own = accusation(stage, victim, kind, tx_id.cloned());
        let mut lies = stage.to_all(&said(vec![own.clone()]));
        lies.push(stage.propose(ops::accuse(own.clone())));
        // Its own word t times, and with what others say who are too few.
        let t = stage.rules.threshold();
        lies.push(stage.propose(ops::ban_accused(victim, vec![own.clone(); t])));
        let member = stage.board.and_then(|board| board.member(victim));
        if let Some(member) = member {
            let mut all = member.accusations.clone();
            all.remove(stage.me);
            let mut all: Vec<_> = all
                .into_values()
                .map(|of| (of.node_id, of.signed))
                .collect();
            all.push((stage.me.clone(), own));
            all.sort_by(|a, b| a.0.cmp(&b.0));
            let all = all.into_iter().map(|(_, signed)| signed).collect();
            lies.push(stage.propose(ops::ban_accused(victim, all)));
        }
        lies
    }
}

fn accusation(
    stage: &Stage<'_>,
    accused: &NodeId,
    kind: AccusationKind,
    tx_id: Option<TxId>,
) -> SignedStatement {
    stage.state(&AccusationBody {
        accused: accused.clone(),
        kind,
        tx_id,
        subject_digest: *blake3::hash(accused.as_str().as_bytes()).as_bytes(),
        time_ms: stage.now_ms,
    })
}

fn said(accusations: Vec<SignedStatement>) -> wire::frame::Body {
    batch(wire::Batch {
        accusations,
        ..wire::Batch::default()
    })
}
