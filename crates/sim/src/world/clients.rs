//! Clients: each wants one vote recorded, and repeats itself until it has an answer
//! that repeating does not change. And operators, who act together.

use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{self, OperatorActKind, SignedStatement, ban_proof};
use quorate_consensus::{Choice, NodeId};
use quorate_engine::{Answer, Event, Handed, Reject, RequestId, Submit, Wait};

use super::{Due, World};
use crate::invariants::Happening;
use crate::plan::{self, Tx};

/// After its node died a client waits so long before it asks again.
const AGAIN_MS: u64 = 500;

/// The longest that a client waits before it asks again.
const LONGEST_MS: u64 = 1_500;

/// A client that wants one vote recorded.
#[derive(Clone, Debug)]
pub struct Client {
    /// Whose.
    pub node: usize,
    /// On which ballot.
    pub tx: Tx,
    /// The vote.
    pub choice: Choice,
    /// Who signs it.
    pub handed: plan::Handed,
    /// When it asked first: milliseconds from the start.
    pub asked_ms: u64,
    /// The vote that it handed in, once it was signed elsewhere.
    pub signed: Option<SignedStatement>,
    /// The first good answer, and when it came.
    pub acknowledged: Option<(u64, Answer)>,
    /// The answer that no repetition changes, if it was a refusal.
    pub refused: Option<Reject>,
    /// The machine that it talks to, of a twin.
    place: usize,
    /// The request under way, and the life of the process that has it.
    request: Option<(u64, u64)>,
    /// When it looks after its question next; it has one alarm.
    due_at: Option<u64>,
}

impl Client {
    /// It asks no more.
    pub fn is_done(&self) -> bool {
        self.acknowledged.is_some() || self.refused.is_some()
    }
}

impl World {
    pub(super) fn client(&mut self, node: usize, tx: Tx, choice: Choice, handed: plan::Handed) {
        // The clients of a twin's two machines take turns.
        let machines: Vec<_> = (0..self.places.len())
            .filter(|place| self.places[*place].member == node)
            .collect();
        let place = machines[self.clients.len() % machines.len()];
        self.clients.push(Client {
            node,
            tx,
            choice,
            handed,
            asked_ms: self.now,
            signed: None,
            acknowledged: None,
            refused: None,
            place,
            request: None,
            due_at: None,
        });
        self.ask_again(self.clients.len() - 1);
        if self.places[place].runs_engine && self.places[place].liar.is_some() {
            // The engine answers; the liar beside it hears of it, too.
            let choice = self.clients[self.clients.len() - 1].choice.clone();
            self.cue_asked(place, tx.id(), &choice);
        }
    }

    /// A client's alarm rings.
    pub(super) fn client_due(&mut self, index: usize, at: u64) {
        if self.clients[index].due_at == Some(at) {
            self.clients[index].due_at = None;
            self.ask_again(index);
        }
    }

    fn ask_in(&mut self, index: usize, in_ms: u64) {
        let at = self.now + in_ms;
        let alarm = &mut self.clients[index].due_at;
        if alarm.is_none_or(|due| due > at) {
            *alarm = Some(at);
            self.schedule(in_ms, Due::Client(index, at));
        }
    }

    /// A client asks, or asks again.
    pub(super) fn ask_again(&mut self, index: usize) {
        let (place, done) = (self.clients[index].place, self.clients[index].is_done());
        if done {
            return;
        }
        let life = self.places[place].life;
        if self.clients[index]
            .request
            .is_some_and(|(_, asked)| asked == life)
        {
            self.ask_in(index, 4 * AGAIN_MS);
            return;
        }
        if self.places[place].engine.is_none() {
            if self.places[place].runs_engine {
                self.ask_in(index, AGAIN_MS);
            } else {
                let client = self.clients[index].clone();
                self.cue_asked(place, client.tx.id(), &client.choice);
            }
            return;
        }
        let wall = self.wall(place);
        let client = &mut self.clients[index];
        let tx_id = client.tx.id();
        let handed = match client.handed {
            plan::Handed::Choice => Handed::Choice(client.choice.clone()),
            plan::Handed::Signed(off_ms) => {
                let signed = client.signed.get_or_insert_with(|| {
                    let time_ms = wall.saturating_add_signed(off_ms);
                    let choice = client.choice.clone();
                    self.cluster.vote(client.node, &tx_id, choice, time_ms)
                });
                Handed::Statement(signed.clone())
            }
        };
        self.requests += 1;
        client.request = Some((self.requests, life));
        self.request_of.insert(self.requests, index);
        let request = RequestId(self.requests);
        let submit = Submit {
            tx_id: Some(tx_id),
            handed,
            wait: Wait::Recorded,
        };
        self.post(0, place, Event::Submit { request, submit });
        // A process that died with the question says nothing: look after it.
        self.ask_in(index, 4 * AGAIN_MS);
    }

    pub(super) fn answered(&mut self, request: RequestId, result: Result<Answer, Reject>) {
        let Some(index) = self.request_of.remove(&request.0) else {
            let detail = format!("a second answer to request {}", request.0);
            self.fail("stage", detail);
            return;
        };
        self.judge(&Happening::Answered {
            client: index,
            result: &result,
        });
        let now = self.now;
        let client = &mut self.clients[index];
        client.request = None;
        match result {
            Ok(answer) => client.acknowledged = Some((now, answer)),
            Err(Reject::Unavailable { retry_ms, .. }) => {
                self.ask_in(index, retry_ms.clamp(1, LONGEST_MS));
            }
            Err(reject) => client.refused = Some(reject),
        }
    }

    /// t operators give a submission up; then one of them cancels it on the chain.
    pub(super) fn give_up(&mut self, tx: Tx) {
        let tx_id = tx.id();
        let acts = self.acts(OperatorActKind::GiveUp, tx_id.as_str(), &[]);
        let op = wire::GiveUpOp {
            tx_id: tx_id.to_string(),
            acts,
        };
        self.operate(Op::GiveUp(op));
        let ballot = self.store.views[0].board().ballot(&tx_id);
        let given_up = ballot.filter(|ballot| ballot.given_up);
        if let Some(reservation) = given_up.and_then(|ballot| ballot.reservation.clone()) {
            self.cancellations.push(reservation.nonce);
            self.cancel();
        }
    }

    /// Operators send the cancellations that the chain does not have, until it does.
    pub(super) fn cancel(&mut self) {
        self.advance_chain();
        for nonce in self.cancellations.clone() {
            self.chain.transact(nonce, Vec::new());
        }
    }

    /// t operators lift a ban, and pardon what it was for.
    pub(super) fn unban(&mut self, node: usize) {
        let node_id = self.cluster.node_id(node);
        let member = self.store.views[0].board().member(&node_id);
        let Some(ban) = member.and_then(|member| member.ban.clone()) else {
            return;
        };
        let pardoned = [quorate_consensus::detector::proof_digest(&ban.proof)];
        let acts = self.acts(OperatorActKind::Unban, node_id.as_str(), &pardoned);
        let op = wire::UnbanOp {
            node_id: node_id.to_string(),
            acts,
        };
        self.operate(Op::Unban(op));
    }

    fn acts(
        &self,
        kind: OperatorActKind,
        subject: &str,
        pardoned: &[[u8; 32]],
    ) -> Vec<SignedStatement> {
        let board = self.store.views[0].board();
        // Banned members' acts count for lifting a ban, not for giving up.
        let may = |node_id: &NodeId| kind == OperatorActKind::Unban || !board.is_banned(node_id);
        (0..self.cluster.n())
            .filter(|i| may(&self.cluster.node_id(*i)))
            .take(self.cluster.t())
            .map(|i| {
                let wall = self.true_wall();
                self.cluster.act(i, kind, subject, pardoned.to_vec(), wall)
            })
            .collect()
    }

    /// An operator's own hand on the board.
    pub(super) fn operate(&mut self, op: Op) {
        self.operate_now(&wire::BoardOp { op: Some(op) });
    }
}

/// A ban without any proof, for who forges.
pub(super) fn baseless_ban(node_id: &NodeId) -> wire::BoardOp {
    quorate_testkit::ops::ban(node_id, ban_proof::Kind::Silence(wire::Silence {}))
}
