//! Somebody who is no node writes into the keys, past all rules.

use quorate_consensus::Value;
use quorate_consensus::ballot::Ballot;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{self, BallotState, BoardOp};
use quorate_keyspace::names::{self, Name};
use quorate_keyspace::{KeyValue, OpId, Record, Write};
use quorate_testkit::ops;

use super::World;
use crate::plan::Forgery;

/// What is written, and which keys every reader must find.
type Lie = (Vec<Write>, Vec<String>);

impl World {
    pub(in crate::world) fn keys_forge(&mut self, what: Forgery) {
        let Some((writes, keys)) = self.lie(what) else {
            return;
        };
        if let Some(store) = &mut self.store.keys {
            store.lie(&writes, keys);
        }
        self.keys_moved();
        // What nobody has read nobody can put back.
        self.keys_forgotten();
    }

    /// None where there is nothing that could be lied about so.
    fn lie(&mut self, what: Forgery) -> Option<Lie> {
        let board = self.store.views[0].board();
        let open = board.ballots().find(|ballot| ballot.is_open());
        let ballot: Option<Ballot> = open.or_else(|| board.ballots().next()).cloned();
        let member = self.rng.usize(0..self.cluster.n());
        let node_id = self.cluster.node_id(member);
        let tx_id = ballot.as_ref().map(|ballot| ballot.tx_id.clone());
        let one = |key: String, value: Vec<u8>| -> Option<Lie> {
            Some((vec![Write::put(key.clone(), value)], vec![key]))
        };
        match what {
            Forgery::Vote => {
                let tx_id = tx_id?;
                let value = Value::Number(666);
                let mut vote = self.cluster.vote(member, &tx_id, value, self.true_wall());
                vote.signature[0] ^= 1;
                let record = self.record(ops::record_vote(vote), None);
                one(names::vote(&tx_id, &node_id), record.encode())
            }
            Forgery::Move => {
                let tx_id = tx_id?;
                let op = ops::advance(&tx_id, BallotState::ThresholdReached);
                self.would_be_refused(&op)?;
                let record = self.record(op, None);
                // Where somebody reads counters they tell what he wants to hear.
                let choice = Value::Number(666).into();
                let count = Write::put(names::count(&tx_id, &choice), "");
                for _ in 0..self.cluster.n() {
                    if let Some(keys) = &mut self.store.keys {
                        keys.lie(std::slice::from_ref(&count), vec![count.key().to_owned()]);
                    }
                }
                one(names::operation(record.id), record.encode())
            }
            // The board has that already.
            Forgery::Ban if self.store.views[0].board().is_banned(&node_id) => None,
            Forgery::Ban => {
                let slander = self.slander(member);
                let record = self.record(slander, None);
                let key = names::operation(record.id);
                let mut writes = vec![Write::put(key.clone(), record.encode())];
                let mut keys = vec![key];
                if self.rng.bool() {
                    let key = names::banned(&node_id);
                    writes.push(Write::put(key.clone(), "{\"reason\":\"because\"}"));
                    keys.push(key);
                }
                Some((writes, keys))
            }
            Forgery::Reservation => {
                let op = BoardOp {
                    op: Some(Op::Reserve(wire::ReserveOp {
                        tx_id: tx_id?.to_string(),
                        reservation: Some(wire::Reservation {
                            account: "thief".into(),
                            nonce: self.chain.next_nonce(),
                            payload: b"all of it".to_vec(),
                        }),
                        observations: Vec::new(),
                    })),
                };
                let record = self.record(op, None);
                one(names::operation(record.id), record.encode())
            }
            Forgery::Certificate => one(names::certificate(&tx_id?), b"none".to_vec()),
            Forgery::Deletion => {
                let records = self.records();
                let gone = self.rng.usize(0..records.len().max(1));
                let key = records.get(gone)?.key.clone();
                Some((vec![Write::Delete(key.clone())], vec![key]))
            }
            Forgery::Hole => {
                let records = self.records();
                let key = records.get(records.len().checked_sub(2)?)?.key.clone();
                Some((vec![Write::Delete(key.clone())], vec![key]))
            }
            Forgery::Count => {
                let ballot = ballot?;
                let choice = ballot.votes.values().next()?.vote.body.choice.clone();
                one(names::count(&ballot.tx_id, &choice), Vec::new())
            }
            Forgery::State => {
                let decided = |ballot: &&Ballot| ballot.state != BallotState::Collecting;
                let board = self.store.views[0].board();
                let tx_ids: Vec<_> = board.ballots().filter(decided).collect();
                let tx_ids: Vec<_> = tx_ids.into_iter().map(|b| b.tx_id.clone()).collect();
                let at = self.rng.usize(0..tx_ids.len().max(1));
                let key = names::status(tx_ids.get(at)?);
                match self.rng.bool() {
                    true => one(key, b"{\"state\":\"COLLECTING\"}".to_vec()),
                    false => self.delete(key),
                }
            }
            Forgery::Member => one(names::member(&node_id), b"{\"generation\":99}".to_vec()),
            Forgery::Rules => one(names::rules(self.rules().epoch()), b"mine".to_vec()),
            Forgery::Nonce => {
                let account = self.rules().chain().account.clone();
                one(names::nonces(&account), b"99999".to_vec())
            }
            Forgery::Unban => {
                let board = self.store.views[0].board();
                let mut members = board.rules().members();
                let banned = members.find(|member| board.is_banned(&member.node_id))?;
                let key = names::banned(&banned.node_id);
                self.delete(key)
            }
            Forgery::Overwrite => {
                let voters: Vec<_> = ballot.as_ref()?.votes.keys().cloned().collect();
                let voter = voters.get(self.rng.usize(0..voters.len().max(1)))?;
                let tx_id = tx_id?;
                let key = names::vote(&tx_id, voter);
                self.store.keys.as_ref()?.model.get(&key)?;
                let member = self.cluster.index(voter)?;
                let value = Value::Number(666);
                let mut vote = self.cluster.vote(member, &tx_id, value, self.true_wall());
                // Whoever writes has liars' keys at best.
                if !self.is_liar_member(member) {
                    vote.signature[0] ^= 1;
                }
                let record = self.record(ops::record_vote(vote), None);
                one(key, record.encode())
            }
            Forgery::Past => {
                let first = self.records().first()?.create_revision;
                let slander = self.slander(member);
                let record = self.record(slander, Some(first));
                one(names::operation(record.id), record.encode())
            }
            Forgery::Head => {
                let key = names::HEAD.to_owned();
                self.store.keys.as_ref()?.model.get(&key)?;
                // Nobody believes it, so nobody has anything to find.
                Some((vec![Write::Delete(key)], Vec::new()))
            }
            Forgery::Everything => {
                let keys = self.records().into_iter().map(|kv| kv.key).collect();
                Some((vec![Write::DeleteAll(String::new())], keys))
            }
            // Keys hold no events.
            Forgery::Events => None,
        }
    }

    /// A ban for two votes of which one is made up. (One for silence, without any proof,
    /// is refused as well, but it could be an honest node's that came late.)
    fn slander(&self, member: usize) -> BoardOp {
        let tx_id = quorate_testkit::tx("tx-0");
        let wall = self.true_wall();
        let [first, mut second] = [1, 2].map(|number| {
            let value = Value::Number(number);
            self.cluster.vote(member, &tx_id, value, wall)
        });
        second.signature[0] ^= 1;
        let double = wire::DoubleVote {
            first: Some(first),
            second: Some(second),
        };
        let lie = wire::Misbehaviour {
            kind: Some(wire::misbehaviour::Kind::DoubleVote(double)),
        };
        ops::ban_for(&self.cluster.node_id(member), lie)
    }

    /// Only what is there can be deleted.
    fn delete(&self, key: String) -> Option<Lie> {
        self.store.keys.as_ref()?.model.get(&key)?;
        Some((vec![Write::Delete(key.clone())], vec![key]))
    }

    /// All records that are there, and were believed.
    fn records(&self) -> Vec<KeyValue> {
        let Some(keys) = &self.store.keys else {
            return Vec::new();
        };
        let mut records = keys.model.all();
        records.retain(|kv| Name::of(&kv.key) == Name::Record && keys.knows(&kv.key));
        records.sort_by_key(|kv| kv.create_revision);
        records
    }

    /// Some only of what the board would refuse: the rest is no lie.
    fn would_be_refused(&self, op: &BoardOp) -> Option<()> {
        let mut board = self.store.views[0].board().clone();
        let done = board.apply(op, self.true_wall(), &quorate_testkit::FakeVerifier);
        done.is_err().then_some(())
    }

    fn record(&mut self, op: BoardOp, origin: Option<u64>) -> Record {
        let mut id = [0xee; 16];
        id[8..].copy_from_slice(&self.rng.u64(..).to_be_bytes());
        Record {
            id: OpId(id),
            op,
            time_ms: self.true_wall(),
            index: 0,
            origin,
        }
    }
}
