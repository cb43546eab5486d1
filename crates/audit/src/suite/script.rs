//! Logs as a board makes them, in a line each. The events are written by hand, so
//! that the suite says what it expects of a store and not what a board does.

use prost::Message;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{
    self, AccusationKind, Accused, BallotState, BanProof, Banned, BoardEntry, BoardEvent, BoardOp,
    Booted, Certified, ChainOutcome, Concluded, DecisionProof, DoubleVote, Expired, Misbehaviour,
    ReleaseOp, ReputationChanged, Reservation, Reserved, SignedStatement, StateChanged, Unbanned,
    ViolationFound, ViolationType, VoteRecorded, ban_proof, misbehaviour,
};
use quorate_consensus::{Choice, TxId, Value};
use quorate_testkit::{Cluster, NOW};

use crate::mark::{self, Mark};

/// The log of a board of five trustees, four of whom decide.
pub(crate) struct Script {
    pub(crate) cluster: Cluster,
    pub(crate) entries: Vec<BoardEntry>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            cluster: Cluster::new(5, 4),
            entries: Vec::new(),
        }
    }

    /// The revision of the last entry.
    pub(crate) fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The time of the last entry: each is a second after the one before.
    pub(crate) fn time(&self) -> u64 {
        NOW + 1000 * self.head()
    }

    /// The entries after a revision.
    pub(crate) fn after(&self, revision: u64) -> &[BoardEntry] {
        &self.entries[revision as usize..]
    }

    /// One entry with these events.
    pub(crate) fn entry(&mut self, tx_id: Option<&TxId>, events: Vec<Event>) -> &mut Self {
        let revision = self.head() + 1;
        let time_ms = NOW + 1000 * revision;
        let events = events.into_iter().map(|event| BoardEvent {
            revision,
            time_ms,
            tx_id: tx_id.map(TxId::to_string).unwrap_or_default(),
            event: Some(event),
        });
        let mut entry = BoardEntry {
            revision,
            time_ms,
            op: None,
            events: events.collect(),
        };
        // No store reads what was asked for, but tells one log from another by it.
        let op = Op::Release(ReleaseOp {
            tx_id: blake3::hash(&entry.encode_to_vec()).to_string(),
            ..ReleaseOp::default()
        });
        entry.op = Some(BoardOp { op: Some(op) });
        self.entries.push(entry);
        self
    }

    /// The same log up to a revision, to go on in another way.
    pub(crate) fn parted(&self, revision: u64) -> Self {
        Self {
            entries: self.entries[..revision as usize].to_vec(),
            ..Self::new()
        }
    }

    /// The mark of this log at a revision.
    pub(crate) fn mark(&self, revision: u64) -> Mark {
        let first = mark::first(self.cluster.rules().cluster_id());
        let entries = self.entries[..revision as usize].iter();
        Mark::of(
            revision,
            entries.fold(first, |before, entry| mark::next(&before, entry)),
        )
    }

    pub(crate) fn vote(&mut self, i: usize, tx_id: &TxId, choice: impl Into<Choice>) -> &mut Self {
        let choice = choice.into();
        let vote = self.cluster.vote(i, tx_id, choice.clone(), self.time());
        let event = Event::VoteRecorded(VoteRecorded {
            node_id: self.cluster.node_id(i).to_string(),
            choice: Some((&choice).into()),
            late: false,
            vote: Some(vote),
        });
        self.entry(Some(tx_id), vec![event])
    }

    pub(crate) fn moved(
        &mut self,
        tx_id: &TxId,
        from: BallotState,
        to: BallotState,
        value: Option<&Value>,
    ) -> &mut Self {
        self.entry(Some(tx_id), vec![changed(from, to, value)])
    }

    /// Four equal votes, and the threshold.
    pub(crate) fn decided(&mut self, tx_id: &TxId, value: &Value) -> &mut Self {
        for i in 0..4 {
            self.vote(i, tx_id, value.clone());
        }
        let (from, to) = (BallotState::Collecting, BallotState::ThresholdReached);
        self.moved(tx_id, from, to, Some(value))
    }

    /// A reservation and the move that goes with it.
    pub(crate) fn reserved(
        &mut self,
        tx_id: &TxId,
        value: &Value,
        reservation: &Reservation,
        anew: bool,
    ) -> &mut Self {
        let mut events = vec![Event::Reserved(Reserved {
            reservation: Some(reservation.clone()),
            value: Some(value.into()),
            anew,
        })];
        if !anew {
            let (from, to) = (BallotState::ThresholdReached, BallotState::Submitted);
            events.push(changed(from, to, Some(value)));
        }
        self.entry(Some(tx_id), events)
    }

    /// The certificate that members 0 to 3 make.
    pub(crate) fn certified(
        &mut self,
        tx_id: &TxId,
        value: &Value,
        reservation: &Reservation,
    ) -> &mut Self {
        let vote = |cluster: &Cluster, i| cluster.vote(i, tx_id, value.clone(), NOW);
        let decision = |cluster: &Cluster, i| cluster.decision(i, tx_id, value, Some(reservation));
        let proof = DecisionProof {
            votes: self.cluster.of_threshold(vote),
            decisions: self.cluster.of_threshold(decision),
        };
        let event = Event::Certified(Certified { proof: Some(proof) });
        self.entry(Some(tx_id), vec![event])
    }

    /// What four members saw on the chain, and the move that goes with it.
    pub(crate) fn concluded(
        &mut self,
        tx_id: &TxId,
        outcome: ChainOutcome,
        block_number: u64,
    ) -> &mut Self {
        let (from, to) = match outcome {
            ChainOutcome::Confirmed => (BallotState::Submitted, BallotState::Confirmed),
            ChainOutcome::Undone => (BallotState::Confirmed, BallotState::Submitted),
            _ => (BallotState::Submitted, BallotState::Failed),
        };
        let seen = Event::Concluded(Concluded {
            outcome: outcome.into(),
            tx_hash: vec![0xcc; 32],
            block_number,
            block_hash: vec![0xbb; 32],
        });
        self.entry(Some(tx_id), vec![seen, changed(from, to, None)])
    }

    pub(crate) fn expired(&mut self, tx_id: &TxId) -> &mut Self {
        self.entry(Some(tx_id), vec![Event::Expired(Expired {})])
    }

    pub(crate) fn violation(
        &mut self,
        i: usize,
        tx_id: &TxId,
        kind: ViolationType,
        misbehaviour: Option<Misbehaviour>,
    ) -> &mut Self {
        let event = Event::ViolationFound(ViolationFound {
            node_id: self.cluster.node_id(i).to_string(),
            r#type: kind.into(),
            misbehaviour,
        });
        self.entry(Some(tx_id), vec![event])
    }

    pub(crate) fn banned(
        &mut self,
        i: usize,
        kind: ViolationType,
        proof: ban_proof::Kind,
    ) -> &mut Self {
        let node_id = self.cluster.node_id(i).to_string();
        let mut events = Vec::new();
        if matches!(proof, ban_proof::Kind::Accusations(_)) {
            events.push(Event::ViolationFound(ViolationFound {
                node_id: node_id.clone(),
                r#type: kind.into(),
                misbehaviour: None,
            }));
        }
        let banned = Event::Banned(Banned {
            node_id: node_id.clone(),
            r#type: kind.into(),
            proof: Some(BanProof { kind: Some(proof) }),
        });
        let thousandths = 0;
        let fallen = Event::ReputationChanged(ReputationChanged {
            node_id,
            thousandths,
        });
        events.extend([fallen, banned]);
        self.entry(None, events)
    }

    pub(crate) fn unbanned(&mut self, i: usize) -> &mut Self {
        let node_id = self.cluster.node_id(i).to_string();
        self.entry(None, vec![Event::Unbanned(Unbanned { node_id })])
    }

    pub(crate) fn reputation(&mut self, i: usize, thousandths: u32) -> &mut Self {
        let node_id = self.cluster.node_id(i).to_string();
        let event = Event::ReputationChanged(ReputationChanged {
            node_id,
            thousandths,
        });
        self.entry(None, vec![event])
    }

    pub(crate) fn booted(&mut self, i: usize) -> &mut Self {
        let event = Event::Booted(Booted {
            node_id: self.cluster.node_id(i).to_string(),
            generation: 1,
        });
        self.entry(None, vec![event])
    }

    /// Member `by` accuses member `i`; the accusation.
    pub(crate) fn accused(&mut self, by: usize, i: usize) -> SignedStatement {
        let kind = AccusationKind::InvalidSignature;
        let accusation = self.cluster.accusation(by, i, kind, NOW);
        let event = Event::Accused(Accused {
            node_id: self.cluster.node_id(i).to_string(),
            by: self.cluster.node_id(by).to_string(),
            kind: kind.into(),
            accusation: Some(accusation.clone()),
        });
        self.entry(None, vec![event]);
        accusation
    }

    /// Member `i` signed two choices.
    pub(crate) fn double_vote(&self, i: usize, tx_id: &TxId) -> Misbehaviour {
        let vote = |number| self.cluster.vote(i, tx_id, Value::Number(number), NOW);
        Misbehaviour {
            kind: Some(misbehaviour::Kind::DoubleVote(DoubleVote {
                first: Some(vote(1)),
                second: Some(vote(2)),
            })),
        }
    }

    /// The reservation of a value at a nonce.
    pub(crate) fn reservation(&self, tx_id: &TxId, value: &Value, nonce: u64) -> Reservation {
        Reservation {
            account: self.cluster.rules().chain().account.clone(),
            nonce,
            payload: self.cluster.rules().payload(tx_id, value),
        }
    }
}

fn changed(from: BallotState, to: BallotState, value: Option<&Value>) -> Event {
    Event::StateChanged(StateChanged {
        from: from.into(),
        to: to.into(),
        row: 0,
        reason: String::new(),
        value: value.map(wire::Choice::from),
    })
}
