//! What this node's operator does. A ban is the node's own refusal and an accusation,
//! of which t ban. Lifting a ban takes t signed acts: they go out on the streams, are
//! kept by whoever hears them, and who first holds t puts them on the board. Those of
//! banned trustees count too; no stream carries them, so an operator may hand in acts
//! that others signed. A direct message is acknowledged, shown, and kept nowhere.

use std::collections::BTreeMap;

use quorate_consensus::NodeId;
use quorate_consensus::detector::proof_digest;
use quorate_consensus::statement::{self, AccusationBody, OperatorActBody, Signed};
use quorate_consensus::wire::{
    self, AccusationKind, GoodbyeReason, OperatorActKind, SignedStatement, board_op::Op, frame,
};

use super::duties::Duty;
use super::mesh::Worth;
use super::{Engine, Pending, Signing, Timer};
use crate::api::{Effect, MAX_MESSAGE, Now, OperatorAct, Reject, RequestId, StreamId};

/// When to try again where a peer is away, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What is told of a refusal.
const REFUSED: &str = "refused by an operator";

/// A direct message that was not acknowledged yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    stream: StreamId,
    request: RequestId,
}

fn away(why: String) -> Reject {
    Reject::Unavailable {
        reason: "PEER_AWAY",
        why,
        retry_ms: RETRY_MS,
    }
}

impl Engine {
    /// Whether this node speaks with a peer no more: it is banned, or was accused by
    /// this node.
    pub fn refuses(&self, node_id: &NodeId) -> bool {
        self.refused.contains(node_id)
    }

    /// The acts in hand that lift the ban in force of a member, by whom, ascending.
    pub fn unban_acts(&self, node_id: &NodeId) -> Vec<(NodeId, SignedStatement)> {
        let of_member = self.acts.iter().filter(|((of, _), _)| of == node_id);
        of_member
            .filter(|(_, act)| self.lifts(act))
            .map(|((_, by), act)| (by.clone(), act.signed.clone()))
            .collect()
    }

    pub(super) fn operate(&mut self, now: Now, request: RequestId, act: OperatorAct) {
        let done = match act {
            OperatorAct::Ban { node_id } => self.operator_ban(now, node_id),
            OperatorAct::Unban {
                node_id,
                pardoned,
                acts,
            } => self.operator_unban(now, node_id, pardoned, &acts),
            OperatorAct::Send { node_id, data } => {
                match self.send_message(request, &node_id, data) {
                    // Answered when it is acknowledged.
                    Ok(()) => return,
                    Err(reject) => Err(reject),
                }
            }
        };
        self.operated(request, done);
    }

    fn operated(&mut self, request: RequestId, result: Result<(), Reject>) {
        self.out.push(Effect::Operated { request, result });
    }

    fn check_member(&self, node_id: &NodeId) -> Result<(), Reject> {
        let rules = self.board.rules();
        if rules.is_member(node_id) {
            return Ok(());
        }
        let members: Vec<_> = rules.members().map(|m| m.node_id.as_str()).collect();
        Err(Reject::Invalid {
            field: "node_id",
            detail: format!("{node_id} is no trustee: they are {}", members.join(", ")),
        })
    }

    fn check_other(&self, node_id: &NodeId, what: &str) -> Result<(), Reject> {
        self.check_member(node_id)?;
        if !self.is_own(node_id) {
            return Ok(());
        }
        Err(Reject::Invalid {
            field: "node_id",
            detail: format!("{node_id} is this node's own trustee: {what}"),
        })
    }

    /// What this node would put on the board now, it can.
    fn check_live(&self) -> Result<(), Reject> {
        let why = match &self.signing {
            Signing::Stopped(why) => ("SIGNING_STOPPED", why.clone()),
            _ if !self.is_in_service() => ("STARTING", "this node is still starting".to_owned()),
            _ => return Ok(()),
        };
        Err(Reject::Unavailable {
            reason: why.0,
            why: why.1,
            retry_ms: RETRY_MS,
        })
    }

    fn operator_ban(&mut self, now: Now, node_id: NodeId) -> Result<(), Reject> {
        self.check_other(&node_id, "ban another one's")?;
        self.check_live()?;
        if let Some(ban) = self.own_ban() {
            return Err(ban);
        }
        if self.board.is_banned(&node_id) {
            return Ok(());
        }
        self.refuse(&node_id, GoodbyeReason::Banned, REFUSED);
        let own = &self.config.node_id;
        let member = self.board.member(&node_id);
        if member.is_none_or(|member| !member.accusations.contains_key(own)) {
            let body = AccusationBody {
                subject_digest: *blake3::hash(node_id.as_str().as_bytes()).as_bytes(),
                accused: node_id,
                kind: AccusationKind::Operator,
                tx_id: None,
                time_ms: now.wall_ms,
            };
            self.accuse(now, body, REFUSED);
        }
        Ok(())
    }

    fn operator_unban(
        &mut self,
        now: Now,
        node_id: NodeId,
        mut pardoned: Vec<[u8; 32]>,
        acts: &[SignedStatement],
    ) -> Result<(), Reject> {
        self.check_member(&node_id)?;
        self.check_live()?;
        let Some(ban) = self.board.member(&node_id).and_then(|m| m.ban.as_ref()) else {
            return Ok(());
        };
        let digest = proof_digest(&ban.proof);
        pardoned.sort_unstable();
        pardoned.dedup();
        if pardoned.is_empty() {
            pardoned.push(digest);
        } else if !pardoned.contains(&digest) {
            return Err(Reject::Invalid {
                field: "pardoned",
                detail: format!(
                    "does not name the proof of the ban in force, {}",
                    wire_hex(&digest)
                ),
            });
        }
        let rules = self.board.rules().clone();
        for signed in acts {
            let opened = statement::open::<OperatorActBody>(signed, &rules, self.verifier.as_ref());
            let act = opened.map_err(|error| Reject::Invalid {
                field: "acts",
                detail: error.to_string(),
            })?;
            self.take_act(now, act);
        }
        let own = (node_id.clone(), self.config.node_id.clone());
        let said = self.acts.get(&own);
        if said.is_some_and(|act| self.lifts(act) && act.body.pardoned == pardoned) {
            return Ok(());
        }
        let body = OperatorActBody {
            kind: OperatorActKind::Unban,
            subject: node_id.to_string(),
            pardoned,
            time_ms: now.wall_ms,
        };
        self.sign(now, Pending::SignAct, &rules, &body);
        Ok(())
    }

    /// The node key has signed an act. If it has not, the operator hears nothing of it
    /// and asks again.
    pub(super) fn act_signed(&mut self, now: Now, signed: SignedStatement) {
        let rules = self.board.rules().clone();
        let opened = statement::open::<OperatorActBody>(&signed, &rules, self.verifier.as_ref());
        let Ok(act) = opened else { return };
        self.take_act(now, act);
        let operator_acts = vec![signed];
        let batch = wire::Batch {
            operator_acts,
            ..wire::Batch::default()
        };
        self.broadcast(now, batch);
    }

    /// Keeps an act until its ban is lifted: the latest of each member for each. Also
    /// one for a ban that this node has not read of yet.
    pub(super) fn take_act(&mut self, now: Now, act: Signed<OperatorActBody>) -> Worth {
        let Ok(subject) = NodeId::new(&act.body.subject) else {
            return Worth::Spent;
        };
        if act.body.kind != OperatorActKind::Unban || !self.board.rules().is_member(&subject) {
            return Worth::Spent;
        }
        let key = (subject, act.node_id.clone());
        let newer = |known: &Signed<OperatorActBody>| known.body.time_ms >= act.body.time_ms;
        if self.acts.get(&key).is_some_and(newer) {
            return Worth::Spent;
        }
        self.acts.insert(key, act);
        self.wake_by(Timer::Members, now.mono_ms);
        Worth::New
    }

    /// Whether the board would take this act for the ban in force.
    fn lifts(&self, act: &Signed<OperatorActBody>) -> bool {
        let ban = NodeId::new(&act.body.subject)
            .ok()
            .and_then(|node_id| self.board.member(&node_id)?.ban.as_ref());
        let skew = self.board.rules().clock_skew_ms();
        ban.is_some_and(|ban| {
            act.body.pardoned.contains(&proof_digest(&ban.proof))
                && act.body.time_ms.saturating_add(skew) >= ban.since_ms
        })
    }

    /// A ban was lifted: its acts have done their work.
    pub(super) fn forget_acts(&mut self, subject: &NodeId) {
        self.acts.retain(|(of, _), _| of != subject);
    }

    /// Bans that t acts in hand lift.
    pub(super) fn unban_duties(&self, due: &mut BTreeMap<Duty, (u64, Op)>) {
        let t = self.board.rules().threshold();
        let subjects: std::collections::BTreeSet<_> = self.acts.keys().map(|(of, _)| of).collect();
        for node_id in subjects {
            let acts: Vec<_> = self.unban_acts(node_id).into_iter().take(t).collect();
            if acts.len() == t {
                let op = wire::UnbanOp {
                    node_id: node_id.to_string(),
                    acts: acts.into_iter().map(|(_, signed)| signed).collect(),
                };
                let rank = self.rank(node_id.as_str());
                due.insert(Duty::Unban(node_id.clone()), (rank, Op::Unban(op)));
            }
        }
    }

    /// The acts in hand, for a peer that may not have heard them.
    pub(super) fn acts_to_resend(&self) -> impl Iterator<Item = SignedStatement> {
        self.acts.values().map(|act| act.signed.clone())
    }

    fn send_message(
        &mut self,
        request: RequestId,
        node_id: &NodeId,
        data: Vec<u8>,
    ) -> Result<(), Reject> {
        self.check_other(node_id, "send to another one's")?;
        if data.is_empty() || data.len() > MAX_MESSAGE {
            return Err(Reject::Invalid {
                field: "data",
                detail: format!("must have 1 to {MAX_MESSAGE} bytes, not {}", data.len()),
            });
        }
        let Some(stream) = self.peers.get(node_id).copied() else {
            return Err(away(format!("there is no stream to {node_id}")));
        };
        if self.streams.get(&stream).is_none_or(|stream| stream.full) {
            return Err(away(format!("{node_id} does not keep up")));
        }
        self.messages_sent += 1;
        let token = self.messages_sent;
        self.messages.insert(token, Sent { stream, request });
        let message = wire::DirectMessage { token, data };
        self.send(stream, frame::Body::DirectMessage(message));
        Ok(())
    }

    /// A direct message came on an established stream.
    pub(super) fn message(&mut self, id: StreamId, message: wire::DirectMessage) {
        let Some(from) = self.streams.get(&id).map(|stream| stream.peer.clone()) else {
            return;
        };
        let wire::DirectMessage { token, data } = message;
        if data.is_empty() || data.len() > MAX_MESSAGE {
            self.close(
                id,
                GoodbyeReason::Protocol,
                "a direct message has 1 to 65,536 bytes",
            );
            return;
        }
        self.out.push(Effect::Message { from, data });
        let acknowledgement = wire::DirectAcknowledgement { token };
        self.send(id, frame::Body::DirectAcknowledgement(acknowledgement));
    }

    pub(super) fn acknowledged(&mut self, id: StreamId, token: u64) {
        if self
            .messages
            .get(&token)
            .is_some_and(|sent| sent.stream == id)
            && let Some(sent) = self.messages.remove(&token)
        {
            self.operated(sent.request, Ok(()));
        }
    }

    /// The stream is gone: whether what was sent on it came, nobody will say.
    pub(super) fn messages_lost(&mut self, id: StreamId) {
        let lost = self.messages.extract_if(.., |_, sent| sent.stream == id);
        let lost: Vec<_> = lost.map(|(_, sent)| sent.request).collect();
        for request in lost {
            let why = "the stream ended before the message was acknowledged";
            self.operated(request, Err(away(why.to_owned())));
        }
    }

    /// Nobody waits for this acknowledgement any more.
    pub(super) fn abandon_message(&mut self, request: RequestId) {
        self.messages.retain(|_, sent| sent.request != request);
    }
}

fn wire_hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}
