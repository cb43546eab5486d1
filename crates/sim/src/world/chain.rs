//! A chain with one account: blocks at a steady pace, a waiting room, fees,
//! reorganisations, strangers. Nonces are used in order, as on Ethereum.

use std::collections::BTreeMap;

use quorate_engine::{ChainAnswer, ChainAsk, Prepared, SendOutcome, Sighting};

/// Milliseconds between two blocks.
const BLOCK_MS: u64 = 100;

/// A transaction in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Its nonce.
    pub nonce: u64,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its hash.
    pub tx_hash: Vec<u8>,
    /// It took effect; false when the chain reverted it.
    pub succeeded: bool,
    /// Height of its block.
    pub block: u64,
    /// Sent by somebody else than the nodes, or by operators to cancel.
    pub foreign: bool,
}

#[derive(Clone, Debug)]
struct Waiting {
    payload: Vec<u8>,
    tx_hash: Vec<u8>,
    fee: u32,
    foreign: bool,
}

/// The chain.
#[derive(Debug, Default)]
pub struct Chain {
    first_nonce: u64,
    /// A stranger's transaction that lies so deep is final: the rules must name a depth
    /// for which that is true, or no reservation could ever be replaced.
    confirmations: u64,
    /// In blocks, by nonce: those before the next nonce, without a gap.
    mined: BTreeMap<u64, Mined>,
    waiting: BTreeMap<u64, Waiting>,
    head: u64,
    /// Counts reorganisations: a block of the same height is another block.
    fork: u32,
    /// From which height on blocks belong to which fork, ascending.
    forks: Vec<(u64, u32)>,
    least_fee: u32,
    /// Payloads that the chain reverts.
    pub(super) reverted: std::collections::BTreeSet<Vec<u8>>,
}

/// What the chain did while time passed.
#[derive(Debug)]
pub(super) enum Change {
    Mined(Mined),
    Undone(Mined),
}

impl Chain {
    pub(super) fn new(first_nonce: u64, confirmations: u32) -> Self {
        Self {
            first_nonce,
            confirmations: confirmations.into(),
            ..Self::default()
        }
    }

    /// What is in blocks now, by nonce.
    pub fn mined(&self) -> impl Iterator<Item = &Mined> {
        self.mined.values()
    }

    /// The nonce that the account's next transaction must have.
    pub fn next_nonce(&self) -> u64 {
        self.first_nonce + self.mined.len() as u64
    }

    /// Mines what waits, up to this moment.
    pub(super) fn advance(&mut self, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let head = now / BLOCK_MS;
        if head <= self.head {
            return changes;
        }
        // Everything that waits goes into the first of the new blocks.
        let block = self.head + 1;
        self.head = head;
        while let Some(next) = self.waiting.remove(&self.next_nonce()) {
            let nonce = self.next_nonce();
            let mined = Mined {
                nonce,
                succeeded: !self.reverted.contains(&next.payload),
                payload: next.payload,
                tx_hash: next.tx_hash,
                block,
                foreign: next.foreign,
            };
            self.mined.insert(nonce, mined.clone());
            changes.push(Change::Mined(mined));
        }
        let used = self.next_nonce();
        self.waiting.retain(|nonce, _| *nonce >= used);
        changes
    }

    fn block_hash(&self, block: u64) -> Vec<u8> {
        let fork = self.forks.iter().rev().find(|(from, _)| *from <= block);
        let mut hash = block.to_be_bytes().to_vec();
        hash.extend(fork.map_or(0, |(_, fork)| *fork).to_be_bytes());
        hash
    }

    /// Drops the last `depth` blocks. What was in them waits again, unless it is lost.
    pub(super) fn reorganise(&mut self, depth: u32, lost: bool) -> Vec<Change> {
        let is_final =
            |mined: &&Mined| mined.foreign && self.head - mined.block + 1 >= self.confirmations;
        let rest = self.mined.values().filter(is_final).map(|m| m.block + 1);
        let from = (self.head + 1).saturating_sub(u64::from(depth)).max(1);
        let from = rest.max().unwrap_or(1).max(from);
        self.fork += 1;
        self.forks.retain(|(start, _)| *start < from);
        self.forks.push((from, self.fork));
        let mut changes = Vec::new();
        while let Some(last) = self.mined.last_entry() {
            if last.get().block < from {
                break;
            }
            let mined = last.remove();
            if !lost {
                let waiting = Waiting {
                    payload: mined.payload.clone(),
                    tx_hash: mined.tx_hash.clone(),
                    fee: u32::MAX,
                    foreign: mined.foreign,
                };
                self.waiting.insert(mined.nonce, waiting);
            }
            changes.push(Change::Undone(mined));
        }
        changes
    }

    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn set_fee(&mut self, attempt: u32) {
        self.least_fee = attempt;
        self.waiting.retain(|_, waiting| waiting.fee >= attempt);
    }

    /// Somebody with the chain key sends what no reservation explains.
    pub(super) fn transact(&mut self, nonce: u64, payload: Vec<u8>) -> SendOutcome {
        let tx_hash = hash_of(nonce, u32::MAX, &payload);
        let waiting = Waiting {
            payload,
            tx_hash,
            fee: u32::MAX,
            foreign: true,
        };
        self.take(nonce, waiting)
    }

    fn take(&mut self, nonce: u64, new: Waiting) -> SendOutcome {
        if nonce < self.next_nonce() {
            return SendOutcome::NonceTooLow;
        }
        if new.fee < self.least_fee {
            return SendOutcome::Underpriced;
        }
        match self.waiting.get(&nonce) {
            Some(there) if there.tx_hash == new.tx_hash => return SendOutcome::Accepted,
            Some(there) if there.fee >= new.fee => return SendOutcome::Underpriced,
            _ => {}
        }
        self.waiting.insert(nonce, new);
        SendOutcome::Accepted
    }

    /// Answers an engine.
    pub(super) fn answer(&mut self, ask: ChainAsk) -> ChainAnswer {
        match ask {
            ChainAsk::Look { nonce, .. } => ChainAnswer::Seen(self.look(nonce)),
            ChainAsk::Prepare {
                reservation,
                attempt,
            } => {
                let mut raw = reservation.nonce.to_be_bytes().to_vec();
                raw.extend(attempt.to_be_bytes());
                raw.extend(&reservation.payload);
                ChainAnswer::Prepared(Prepared {
                    tx_hash: hash_of(reservation.nonce, attempt, &reservation.payload),
                    raw,
                })
            }
            ChainAsk::Send { raw } => {
                let Some((nonce, attempt, payload)) = read(&raw) else {
                    return ChainAnswer::Unavailable("these bytes are no transaction".into());
                };
                let waiting = Waiting {
                    payload: payload.to_vec(),
                    tx_hash: hash_of(nonce, attempt, payload),
                    fee: attempt,
                    foreign: false,
                };
                ChainAnswer::Sent(self.take(nonce, waiting))
            }
        }
    }

    fn look(&self, nonce: u64) -> Sighting {
        if let Some(mined) = self.mined.get(&nonce) {
            return Sighting::Included {
                tx_hash: mined.tx_hash.clone(),
                payload: mined.payload.clone(),
                succeeded: mined.succeeded,
                block_number: mined.block,
                block_hash: self.block_hash(mined.block),
                depth: self.head - mined.block + 1,
            };
        }
        match self.waiting.get(&nonce) {
            Some(waiting) => Sighting::Pending {
                tx_hash: waiting.tx_hash.clone(),
                payload: waiting.payload.clone(),
            },
            None => Sighting::Nothing,
        }
    }
}

/// Nonce, attempt and payload of a transaction's signed bytes.
pub fn read(raw: &[u8]) -> Option<(u64, u32, &[u8])> {
    let (nonce, rest) = raw.split_first_chunk::<8>()?;
    let (attempt, payload) = rest.split_first_chunk::<4>()?;
    Some((
        u64::from_be_bytes(*nonce),
        u32::from_be_bytes(*attempt),
        payload,
    ))
}

fn hash_of(nonce: u64, attempt: u32, payload: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&nonce.to_be_bytes());
    hasher.update(&attempt.to_be_bytes());
    hasher.update(payload);
    hasher.finalize().as_bytes().to_vec()
}
