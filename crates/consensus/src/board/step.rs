//! What the handlers of operations have in common.

use crate::ballot::{Ballot, Violation};
use crate::board::{FULL_REPUTATION, MemberState, Refusal};
use crate::fsm::Move;
use crate::ids::{NodeId, TxId};
use crate::rules::Rules;
use crate::statement::{Body, Signed, open};
use crate::verifier::Verifier;
use crate::wire::board_event::Event;
use crate::wire::{
    self, BoardEvent, Misbehaviour, ReputationChanged, SignedStatement, StateChanged, StatePassed,
    ViolationFound, ViolationType,
};

/// Whether an operation changed the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It did.
    Changed,
    /// The board had it already.
    None,
}

/// One operation under way.
pub(super) struct Step<'a> {
    /// The revision that the board gets if it changes.
    pub(super) revision: u64,
    /// Milliseconds since the Unix epoch, never before the board's time.
    pub(super) now_ms: u64,
    pub(super) verifier: &'a dyn Verifier,
    pub(super) events: Vec<BoardEvent>,
}

impl Step<'_> {
    pub(super) fn event(&mut self, tx_id: Option<&TxId>, event: Event) {
        self.events.push(BoardEvent {
            revision: self.revision,
            time_ms: self.now_ms,
            tx_id: tx_id.map(TxId::to_string).unwrap_or_default(),
            event: Some(event),
        });
    }

    /// Opens a list of statements that prove something together: at least `least`,
    /// strictly ascending by node_id, all good under `rules`.
    pub(super) fn open_list<B: Body>(
        &self,
        list: &[SignedStatement],
        least: usize,
        rules: &Rules,
    ) -> Result<Vec<Signed<B>>, Refusal> {
        if list.len() < least || list.len() > rules.total() {
            return unproven(format!("it takes {least} statements, not {}", list.len()));
        }
        let mut opened: Vec<Signed<B>> = Vec::with_capacity(list.len());
        for signed in list {
            let next = open::<B>(signed, rules, self.verifier)?;
            if opened
                .last()
                .is_some_and(|last| last.node_id >= next.node_id)
            {
                return unproven("the statements must ascend by node_id");
            }
            opened.push(next);
        }
        Ok(opened)
    }

    /// [`Step::open_list`] for exactly t statements.
    pub(super) fn open_threshold<B: Body>(
        &self,
        list: &[SignedStatement],
        rules: &Rules,
    ) -> Result<Vec<Signed<B>>, Refusal> {
        let threshold = rules.threshold();
        if list.len() != threshold {
            return unproven(format!(
                "it takes exactly {threshold} statements, not {}",
                list.len()
            ));
        }
        self.open_list(list, threshold, rules)
    }

    /// Moves a ballot.
    pub(super) fn enter(&mut self, ballot: &mut Ballot, next: Move) {
        let from = ballot.state;
        ballot.state = next.to;
        ballot.since_ms = self.now_ms;
        ballot.revision = self.revision;
        ballot.reason.clone_from(&next.reason);
        ballot.path.push(StatePassed {
            state: next.to.into(),
            at_ms: self.now_ms,
            row: next.row.into(),
        });
        let changed = StateChanged {
            from: from.into(),
            to: next.to.into(),
            row: next.row.into(),
            reason: next.reason,
            value: next.value.as_ref().map(wire::Choice::from),
        };
        ballot.value = next.value;
        self.event(Some(&ballot.tx_id), Event::StateChanged(changed));
    }

    /// Notes misbehaviour in a ballot.
    pub(super) fn note(
        &mut self,
        ballot: &mut Ballot,
        member: &mut MemberState,
        node_id: &NodeId,
        kind: ViolationType,
        misbehaviour: Option<Misbehaviour>,
    ) {
        ballot.revision = self.revision;
        ballot.violations.push(Violation {
            node_id: node_id.clone(),
            kind,
            detected_ms: self.now_ms,
            misbehaviour: misbehaviour.clone(),
        });
        let tx_id = ballot.tx_id.clone();
        self.violation(Some(&tx_id), member, node_id, kind, misbehaviour);
    }

    /// Counts misbehaviour that is in no ballot on the board.
    pub(super) fn violation(
        &mut self,
        tx_id: Option<&TxId>,
        member: &mut MemberState,
        node_id: &NodeId,
        kind: ViolationType,
        misbehaviour: Option<Misbehaviour>,
    ) {
        member.violations += 1;
        let found = ViolationFound {
            node_id: node_id.to_string(),
            r#type: kind.into(),
            misbehaviour,
        };
        self.event(tx_id, Event::ViolationFound(found));
    }

    /// Gives a member another reputation, kept within 0 to 1000 thousandths.
    pub(super) fn reputation(
        &mut self,
        tx_id: Option<&TxId>,
        member: &mut MemberState,
        node_id: &NodeId,
        thousandths: u32,
    ) {
        let thousandths = thousandths.min(FULL_REPUTATION);
        if member.reputation == thousandths {
            return;
        }
        member.reputation = thousandths;
        let changed = ReputationChanged {
            node_id: node_id.to_string(),
            thousandths,
        };
        self.event(tx_id, Event::ReputationChanged(changed));
    }
}

pub(super) fn unproven<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unproven(why.into()))
}

pub(super) fn malformed<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Malformed(why.into()))
}

pub(super) fn tx_id(text: &str) -> Result<TxId, Refusal> {
    TxId::new(text).or_else(|e| malformed(e.to_string()))
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Refusal> {
    NodeId::new(text).or_else(|e| malformed(e.to_string()))
}
