//! The rows that a batch of changes touches: as they were read, and as the changes
//! leave them. Pure, and the same for every backend: a backend reads the rows, and
//! writes those that changed.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::wire::ViolationType;
use quorate_consensus::{ClusterId, NodeId, PeerId, TxId, Value};

use crate::change::Change;
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, ProofKind, ReputationRow, SubmissionRow, SubmissionState,
    ViolationRow, VoteRow,
};
use crate::seal::Head;
use crate::time;

/// Some rows of one table by their key.
#[derive(Debug)]
pub(crate) struct Table<K, V>(BTreeMap<K, Cell<V>>);

#[derive(Debug)]
struct Cell<V> {
    /// None: the row was removed.
    row: Option<V>,
    changed: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V> Table<K, V> {
    /// A row as it was read.
    pub(crate) fn load(&mut self, key: K, row: V) {
        let cell = Cell {
            row: Some(row),
            changed: false,
        };
        self.0.insert(key, cell);
    }

    pub(crate) fn row(&self, key: &K) -> Option<&V> {
        self.0.get(key)?.row.as_ref()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &V> {
        self.0.values().filter_map(|cell| cell.row.as_ref())
    }

    pub(crate) fn put(&mut self, key: K, row: V) {
        let cell = Cell {
            row: Some(row),
            changed: true,
        };
        self.0.insert(key, cell);
    }

    /// The row, to be changed.
    fn change(&mut self, key: &K) -> Option<&mut V> {
        let cell = self.0.get_mut(key)?;
        cell.changed |= cell.row.is_some();
        cell.row.as_mut()
    }

    /// Changes all rows that fit.
    fn change_each(&mut self, fits: impl Fn(&V) -> bool, change: impl Fn(&mut V)) {
        for cell in self.0.values_mut() {
            if let Some(row) = cell.row.as_mut().filter(|row| fits(row)) {
                change(row);
                cell.changed = true;
            }
        }
    }

    /// Removes the row, whether it was read or not.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let gone = Cell {
            row: None,
            changed: true,
        };
        self.0.insert(key, gone)?.row
    }

    /// The rows to be written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &V> {
        let changed = self.0.values().filter(|cell| cell.changed);
        changed.filter_map(|cell| cell.row.as_ref())
    }

    /// The keys whose rows are to be removed.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &K> {
        let gone = |cell: &Cell<V>| cell.changed && cell.row.is_none();
        self.0
            .iter()
            .filter(move |(_, cell)| gone(cell))
            .map(|(key, _)| key)
    }
}

/// How a transaction ended: a row of `submission_keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) tx_id: TxId,
    pub(crate) final_state: SubmissionState,
    pub(crate) at_ms: u64,
}

/// Rows of all tables. Those that a batch can touch must have been loaded: of the
/// transactions that its changes name everything, of the members all.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) submissions: Table<TxId, SubmissionRow>,
    /// Rows of `blockchain_submissions_archive`.
    pub(crate) archive: Table<TxId, SubmissionRow>,
    /// Needs not be loaded, but to be set aside.
    pub(crate) keys: Table<TxId, KeyRow>,
    pub(crate) votes: BTreeMap<TxId, Table<NodeId, VoteRow>>,
    pub(crate) decisions: Table<TxId, DecisionRow>,
    pub(crate) members: Table<PeerId, ReputationRow>,
    /// The violations of these transactions that are known already.
    known: BTreeSet<(TxId, NodeId, ViolationType, ProofKind)>,
    /// New ones.
    pub(crate) violations: Vec<ViolationRow>,
    /// The last violation.
    pub(crate) head: Head,
    /// Whose stored bans are lifted, and when.
    pub(crate) lifted: BTreeMap<NodeId, u64>,
    /// New ones, lifted or not.
    pub(crate) bans: Vec<BanRow>,
    /// New ones.
    pub(crate) accusations: Vec<AccusationRow>,
}

/// What contradicts the rows that are there.
pub(crate) type Wrong = String;

impl Page {
    /// A page without rows, of a store whose last violation this is.
    pub(crate) fn new(head: Head) -> Self {
        Self {
            submissions: Table::default(),
            archive: Table::default(),
            keys: Table::default(),
            votes: BTreeMap::new(),
            decisions: Table::default(),
            members: Table::default(),
            known: BTreeSet::new(),
            violations: Vec::new(),
            head,
            lifted: BTreeMap::new(),
            bans: Vec::new(),
            accusations: Vec::new(),
        }
    }

    /// The page of a new store, which needs no loading: carry a whole log out on it,
    /// and it holds what a store must show.
    pub(crate) fn of_new_store(cluster_id: ClusterId) -> Self {
        Self::new(Head::before_all(cluster_id))
    }

    /// A violation of one of the transactions, which the store has, and not of a lost
    /// past.
    pub(crate) fn load_violation(
        &mut self,
        tx_id: TxId,
        node_id: NodeId,
        kind: ViolationType,
        proof_kind: ProofKind,
    ) {
        self.known.insert((tx_id, node_id, kind, proof_kind));
    }

    /// The votes to be removed.
    pub(crate) fn removed_votes(&self) -> impl Iterator<Item = (&TxId, &NodeId)> {
        let votes = self.votes.iter();
        votes.flat_map(|(tx_id, votes)| votes.removed().map(move |node_id| (tx_id, node_id)))
    }

    /// The votes to be written.
    pub(crate) fn written_votes(&self) -> impl Iterator<Item = &VoteRow> {
        self.votes.values().flat_map(Table::written)
    }

    /// A vote as it was read.
    pub(crate) fn load_vote(&mut self, vote: VoteRow) {
        let votes = self.votes.entry(vote.tx_id.clone()).or_default();
        votes.load(vote.node_id.clone(), vote);
    }

    /// Carries a change out that was made at a time (milliseconds since the Unix
    /// epoch).
    ///
    /// # Errors
    /// What contradicts the rows; the page is of no use then.
    pub(crate) fn carry_out(&mut self, change: Change, at: u64) -> Result<(), Wrong> {
        // What no column can hold is its end.
        let at = at.min(time::LAST_MS);
        match change {
            Change::Vote { .. } => self.voted(change, at),
            Change::Expired { tx_id } => {
                if let Some(votes) = self.votes.get_mut(&tx_id) {
                    votes.change_each(|vote| !vote.expired, |vote| vote.expired = true);
                }
            }
            Change::Threshold { tx_id, value } => self.came_out(&tx_id, Some(value)),
            Change::BelowThreshold { tx_id } => {
                self.decisions.remove(tx_id);
            }
            Change::Reserved { .. } => return self.reserved(change, at),
            Change::Certified { tx_id, proof } => {
                if let Some(decision) = self.decisions.change(&tx_id) {
                    decision.certificate = Some(proof);
                }
            }
            Change::Seen {
                tx_id,
                tx_hash,
                block_number,
            } => {
                if let Some(row) = self.submissions.change(&tx_id) {
                    row.tx_hash = Some(tx_hash);
                    row.block_number = Some(block_number);
                }
            }
            Change::Ended { tx_id, state } => return self.ended(tx_id, state, at),
            Change::Undone { tx_id } => return self.undone(tx_id),
            Change::Aborted {
                tx_id,
                state,
                value,
            } => return self.aborted(tx_id, state, value, at),
            Change::Violation { .. } => self.violated(change, at),
            Change::Banned {
                peer_id,
                node_id,
                kind,
                proof_kind,
                proof,
            } => {
                self.each_member(&node_id, |member| member.banned = true);
                self.bans.push(BanRow {
                    peer_id,
                    node_id,
                    violation_type: kind,
                    proof_kind,
                    proof,
                    banned_at_ms: at,
                    lifted_at_ms: None,
                });
            }
            Change::Unbanned { node_id } => {
                self.each_member(&node_id, |member| member.banned = false);
                for ban in self.bans.iter_mut().filter(|ban| ban.node_id == node_id) {
                    ban.lifted_at_ms.get_or_insert(at);
                }
                self.lifted.entry(node_id).or_insert(at);
            }
            Change::Accused {
                accused,
                by,
                kind,
                tx_id,
                accusation,
            } => self.accusations.push(AccusationRow {
                accused,
                by,
                kind,
                tx_id,
                accusation,
                at_ms: at,
            }),
            Change::Reputation {
                node_id,
                thousandths,
            } => self.each_member(&node_id, |member| member.thousandths = thousandths),
            Change::Heard { node_id } => {
                self.each_member(&node_id, |member| member.last_seen_ms = Some(at));
            }
        }
        Ok(())
    }

    /// A vote that is there stays. A ballot that expired may open again; its trustees
    /// then sign the same choice with another time.
    fn voted(&mut self, change: Change, at: u64) {
        let Change::Vote {
            tx_id,
            node_id,
            key,
            choice,
            late,
            vote,
        } = change
        else {
            return;
        };
        let votes = self.votes.entry(tx_id.clone()).or_default();
        let new = votes.row(&node_id).is_none_or(|vote| vote.expired);
        let (peer_id, public_key) = key.map(|key| (key.peer_id, key.public_key)).unzip();
        if let Some(member) = peer_id.and_then(|peer_id| self.members.change(&peer_id)) {
            member.total_votes += u64::from(new);
            member.last_seen_ms = Some(at);
        }
        if new {
            let row = VoteRow {
                tx_id,
                node_id: node_id.clone(),
                peer_id,
                public_key,
                choice,
                late,
                expired: false,
                vote,
                received_at_ms: at,
            };
            votes.put(node_id, row);
        }
    }

    /// Writes how the votes came out: for the value with t votes, whose they are
    /// (without those struck for a double vote); without one, whoever voted.
    fn came_out(&mut self, tx_id: &TxId, value: Option<Value>) {
        let votes = self.votes.get(tx_id);
        let counted: Vec<_> = votes
            .into_iter()
            .flat_map(Table::rows)
            .filter(|vote| !vote.late && !vote.expired)
            .collect();
        let struck = |node_id: &NodeId| {
            let kinds = [ProofKind::Proven, ProofKind::Accused, ProofKind::Counted];
            kinds.into_iter().any(|proof_kind| {
                let kind = ViolationType::DoubleVoting;
                self.known
                    .contains(&(tx_id.clone(), node_id.clone(), kind, proof_kind))
            })
        };
        let took_part = |vote: &&&VoteRow| match &value {
            None => true,
            Some(_) => vote.choice.value() == value.as_ref() && !struck(&vote.node_id),
        };
        let nodes = counted.iter().filter(took_part);
        let nodes = nodes.map(|vote| vote.node_id.clone()).collect();
        let certificate = self.decisions.row(tx_id);
        let row = DecisionRow {
            tx_id: tx_id.clone(),
            participating_nodes: nodes,
            total_votes: counted.len() as u32,
            threshold_reached: value.is_some(),
            certificate: certificate.and_then(|row| row.certificate.clone()),
            value,
        };
        self.decisions.put(tx_id.clone(), row);
    }

    /// The row may be there already: an engine writes it before it sends.
    fn reserved(&mut self, change: Change, at: u64) -> Result<(), Wrong> {
        let Change::Reserved {
            tx_id,
            value,
            reservation,
        } = change
        else {
            return Ok(());
        };
        let mut row = SubmissionRow {
            tx_id: tx_id.clone(),
            state: SubmissionState::Pending,
            value: Some(value.clone()),
            account: Some(reservation.account),
            nonce: Some(reservation.nonce),
            payload: Some(reservation.payload),
            tx_hash: None,
            block_number: None,
            attempts: 0,
            submitted_at_ms: at,
            confirmed_at_ms: None,
        };
        if let Some(found) = self.submissions.row(&tx_id) {
            let same_place = (&found.account, found.nonce) == (&row.account, row.nonce);
            let same_rest = (&found.payload, &found.value) == (&row.payload, &row.value);
            if found.state != SubmissionState::Pending {
                let state = found.state.as_str();
                return Err(format!("{tx_id} is reserved, and its row is {state}"));
            }
            if same_place && !same_rest {
                return Err(format!(
                    "the row of {tx_id} has the reserved account and nonce, and another value or payload"
                ));
            }
            row.tx_hash = found.tx_hash.clone().filter(|_| same_place);
            row.attempts = found.attempts;
            row.block_number = found.block_number;
            row.confirmed_at_ms = found.confirmed_at_ms;
        }
        self.submissions.put(tx_id.clone(), row);
        // Votes may have come in since the threshold was reached.
        self.came_out(&tx_id, Some(value));
        Ok(())
    }

    fn ended(&mut self, tx_id: TxId, state: SubmissionState, at: u64) -> Result<(), Wrong> {
        let row = self.submissions.change(&tx_id);
        match row.filter(|row| row.state == SubmissionState::Pending) {
            Some(row) => {
                row.state = state;
                row.confirmed_at_ms = (state == SubmissionState::Confirmed).then_some(at);
            }
            // A change of rules needs no chain and has no submission.
            None if tx_id.is_rules() => {}
            None => {
                let state = state.as_str();
                return Err(format!(
                    "{tx_id} ended as {state}, and has no row that is PENDING"
                ));
            }
        }
        self.keep_key(tx_id, state, at);
        Ok(())
    }

    fn undone(&mut self, tx_id: TxId) -> Result<(), Wrong> {
        if self.archive.row(&tx_id).is_some() {
            if self.submissions.row(&tx_id).is_some() {
                return Err(format!("{tx_id} has a row, and one in the archive too"));
            }
            if let Some(row) = self.archive.remove(tx_id.clone()) {
                self.submissions.put(tx_id.clone(), row);
            }
        }
        if let Some(row) = self.submissions.change(&tx_id) {
            row.state = SubmissionState::Pending;
            row.confirmed_at_ms = None;
            row.block_number = None;
        }
        self.keys.remove(tx_id);
        Ok(())
    }

    fn aborted(
        &mut self,
        tx_id: TxId,
        state: SubmissionState,
        value: Option<Value>,
        at: u64,
    ) -> Result<(), Wrong> {
        if let Some(found) = self.submissions.row(&tx_id) {
            let (state, found) = (state.as_str(), found.state.as_str());
            return Err(format!("{tx_id} ended as {state}, and has a row: {found}"));
        }
        let row = SubmissionRow {
            tx_id: tx_id.clone(),
            state,
            value: value.clone(),
            account: None,
            nonce: None,
            payload: None,
            tx_hash: None,
            block_number: None,
            attempts: 0,
            submitted_at_ms: at,
            confirmed_at_ms: None,
        };
        self.submissions.put(tx_id.clone(), row);
        self.came_out(&tx_id, value);
        self.keep_key(tx_id, state, at);
        Ok(())
    }

    fn keep_key(&mut self, tx_id: TxId, final_state: SubmissionState, at_ms: u64) {
        let row = KeyRow {
            tx_id: tx_id.clone(),
            final_state,
            at_ms,
        };
        self.keys.put(tx_id, row);
    }

    fn violated(&mut self, change: Change, at: u64) {
        let Change::Violation {
            peer_id,
            node_id,
            tx_id,
            kind,
            proof_kind,
            evidence,
        } = change
        else {
            return;
        };
        if let Some(tx_id) = &tx_id {
            let place = (tx_id.clone(), node_id.clone(), kind, proof_kind);
            let new = self.known.insert(place);
            // A ban names the violation that was found before it.
            if !new && proof_kind == ProofKind::Proven {
                return;
            }
        }
        self.each_member(&node_id, |member| member.violations_count += 1);
        let mut row = ViolationRow {
            id: 0,
            peer_id,
            node_id,
            tx_id,
            violation_type: kind,
            proof_kind,
            evidence,
            detected_at_ms: at,
            hash: [0; 32],
        };
        self.head.add(&mut row);
        self.violations.push(row);
    }

    /// Changes all rows of a member, one for each key that it had.
    fn each_member(&mut self, node_id: &NodeId, change: impl Fn(&mut ReputationRow)) {
        let is_its = |member: &ReputationRow| member.node_id == *node_id;
        self.members.change_each(is_its, change);
    }
}
