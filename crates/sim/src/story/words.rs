//! Statements, operations and alerts in words.

use prost::Message as _;
use quorate_consensus::ballot::state_name;
use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{
    self, BallotState, BoardOp, SignedStatement, ban_proof, frame, misbehaviour,
};
use quorate_consensus::words::{abort_word, accusation_word, outcome_word, violation_word};
use quorate_consensus::{Choice, Domain, NodeId};
use quorate_engine::Alert;
use quorate_testkit::{NOW, fake_signature};

use super::seconds;
use crate::world::World;

/// More parts of one frame than that are counted, not named.
const MOST_PARTS: usize = 3;

/// A choice as a plan has it.
pub(super) fn choice(choice: &Choice) -> String {
    match choice {
        Choice::Abstention => "abstention".into(),
        Choice::Value(value) => value.to_string(),
    }
}

fn wire_choice(said: Option<&wire::Choice>) -> String {
    let said = said.map(Choice::try_from).and_then(Result::ok);
    said.map_or("nothing".into(), |said| choice(&said))
}

/// A state's name as the table has it.
pub(super) fn state(state: BallotState) -> &'static str {
    match state {
        BallotState::Unspecified => "new",
        state => state_name(state),
    }
}

/// Who signed, by the names in the statements.
pub(super) fn signers<'a>(statements: impl IntoIterator<Item = &'a SignedStatement>) -> String {
    // The members of all bodies of a kind have the same numbers: a decision is read as
    // far as its name.
    let names = statements.into_iter().map(|signed| {
        let read = wire::DecisionStatement::decode(signed.statement.as_slice());
        let aborts = wire::AbortStatement::decode(signed.statement.as_slice());
        let name = read.map(|body| body.node_id);
        name.or_else(|_| aborts.map(|body| body.node_id))
            .unwrap_or_default()
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What an engine signs, if a reader should see it.
pub(super) fn signs(domain: Domain, statement: &[u8]) -> Option<String> {
    match domain {
        Domain::Decision => {
            let body = wire::DecisionStatement::decode(statement).ok()?;
            let nonce = body.reservation.as_ref().map_or(0, |r| r.nonce);
            let value = wire_choice(body.value.as_ref());
            let tx = body.tx_id;
            Some(format!(
                "signs: {tx} is decided, {value} with nonce {nonce}"
            ))
        }
        Domain::Abort => {
            let body = wire::AbortStatement::decode(statement).ok()?;
            let reason = abort_word(body.reason());
            Some(format!("signs: {} is aborted, {reason}", body.tx_id))
        }
        Domain::Observation => {
            let body = wire::ObservationStatement::decode(statement).ok()?;
            Some(format!("signs: {}", observed(&body)))
        }
        Domain::Accusation => {
            let body = wire::AccusationStatement::decode(statement).ok()?;
            let kind = accusation_word(body.kind());
            Some(format!("signs: {} is guilty of {kind}", body.accused))
        }
        _ => None,
    }
}

fn observed(body: &wire::ObservationStatement) -> String {
    let (tx, nonce, outcome) = (&body.tx_id, body.nonce, outcome_word(body.outcome()));
    match body.block_number {
        0 => format!("{tx}, nonce {nonce}, is {outcome}"),
        block => format!("{tx}, nonce {nonce}, is {outcome} in block {block}"),
    }
}

/// An alert, for people.
pub(super) fn alert(alert: &Alert) -> String {
    match alert {
        Alert::Misbehaviour {
            node_id,
            kind,
            detail,
        } => format!("{} of {node_id}: {detail}", violation_word(*kind)),
        Alert::StoreTampering { detail } => format!("STORE_TAMPERING: {detail}"),
        Alert::StoreRollback { detail } => format!("STORE_ROLLBACK: {detail}"),
        Alert::NewerSelf { generation } => {
            format!(
                "a newer process of this trustee runs, in generation {generation}: no more signatures"
            )
        }
        Alert::Quarantine { until_ms } => {
            let until = seconds(until_ms.saturating_sub(NOW));
            format!("the journal was lost or is old: no signature before {until} s")
        }
        Alert::NonceTaken { tx_id, nonce } => {
            format!("NONCE_TAKEN: a stranger used nonce {nonce} of {tx_id}")
        }
        Alert::Submission { tx_id, detail } => format!("{tx_id}: {detail}"),
        Alert::NoCommonVersion { node_id, detail } => {
            format!("no common protocol version with {node_id}: {detail}")
        }
        Alert::Clock { detail } => detail.clone(),
    }
}

/// What a liar says, if it is more than a greeting.
pub(super) fn body(world: &World, place: usize, body: &frame::Body) -> Option<String> {
    let batch = match body {
        frame::Body::Batch(batch) => batch,
        frame::Body::Ping(_) => return Some("a ping".into()),
        frame::Body::Pong(_) => return Some("a pong that nobody asked for".into()),
        frame::Body::Goodbye(_) => return Some("a goodbye".into()),
        frame::Body::Addresses(_) => return Some("where members are reached".into()),
        frame::Body::Resync(_) => return Some("a wish to hear all again".into()),
        frame::Body::Challenge(_) => return Some("a challenge".into()),
        frame::Body::Hello(_) => return Some("a hello".into()),
        frame::Body::DirectMessage(_) => return Some("a direct message".into()),
        frame::Body::DirectAcknowledgement(_) => {
            return Some("an acknowledgement of a direct message".into());
        }
        frame::Body::Announcement(_) => return Some("an announcement".into()),
        frame::Body::StatementRequest(_) => return Some("a request for statements".into()),
        frame::Body::Graft(_) => return Some("a graft".into()),
        frame::Body::Prune(_) => return Some("a prune".into()),
    };
    let own = world.node_id(place);
    let votes = batch.votes.iter().map(|traced| match &traced.vote {
        Some(signed) => vote(world, own, signed),
        None => "a vote that is not there".into(),
    });
    let decisions = batch.decisions.iter().map(|signed| {
        let read = wire::DecisionStatement::decode(signed.statement.as_slice());
        let said = |body: wire::DecisionStatement| {
            let value = wire_choice(body.value.as_ref());
            let what = format!("the decision {value} on {}", body.tx_id);
            let by = (body.node_id.as_str(), body.rules_digest.as_slice());
            what + &flaws(world, own, by, Domain::Decision, signed)
        };
        read.map_or("a decision that is none".into(), said)
    });
    let aborts = batch.aborts.iter().map(|signed| {
        let read = wire::AbortStatement::decode(signed.statement.as_slice());
        let said = |body: wire::AbortStatement| {
            let what = format!("the end of {}", body.tx_id);
            let by = (body.node_id.as_str(), body.rules_digest.as_slice());
            what + &flaws(world, own, by, Domain::Abort, signed)
        };
        read.map_or("an abort that is none".into(), said)
    });
    let observations = batch.observations.iter().map(|signed| {
        let read = wire::ObservationStatement::decode(signed.statement.as_slice());
        let said = |body: wire::ObservationStatement| {
            let what = format!("that {}", observed(&body));
            let by = (body.node_id.as_str(), body.rules_digest.as_slice());
            what + &flaws(world, own, by, Domain::Observation, signed)
        };
        read.map_or("an observation that is none".into(), said)
    });
    let accusations = batch.accusations.iter();
    let accusations = accusations.map(|signed| accuses(world, own, signed));
    let evidence = batch.evidence.iter().map(misbehaves);
    let parts = votes
        .chain(decisions)
        .chain(aborts)
        .chain(observations)
        .chain(accusations)
        .chain(evidence);
    let mut parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        return Some("an empty batch".into());
    }
    if parts.len() > MOST_PARTS {
        let more = parts.len() - MOST_PARTS;
        parts.truncate(MOST_PARTS);
        parts.push(format!("{more} more"));
    }
    Some(parts.join(" and "))
}

fn vote(world: &World, own: &NodeId, signed: &SignedStatement) -> String {
    let read = wire::VoteStatement::decode(signed.statement.as_slice());
    let said = |body: wire::VoteStatement| {
        let what = format!("{} on {}", wire_choice(body.choice.as_ref()), body.tx_id);
        let by = (body.node_id.as_str(), body.rules_digest.as_slice());
        what + &flaws(world, own, by, Domain::Vote, signed)
    };
    read.map_or("a vote that is none".into(), said)
}

fn accuses(world: &World, own: &NodeId, signed: &SignedStatement) -> String {
    let read = wire::AccusationStatement::decode(signed.statement.as_slice());
    let said = |body: wire::AccusationStatement| {
        let what = format!(
            "that {} is guilty of {}",
            body.accused,
            accusation_word(body.kind())
        );
        let by = (body.node_id.as_str(), body.rules_digest.as_slice());
        what + &flaws(world, own, by, Domain::Accusation, signed)
    };
    read.map_or("an accusation that is none".into(), said)
}

fn misbehaves(proof: &wire::Misbehaviour) -> String {
    let (kind, said) = match &proof.kind {
        Some(misbehaviour::Kind::DoubleVote(proof)) => ("DOUBLE_VOTING", &proof.first),
        Some(misbehaviour::Kind::MinorityVote(proof)) => ("MINORITY_VOTE", &proof.dissent),
        None => return "evidence of nothing".into(),
    };
    let read = said.as_ref().map(|signed| {
        let read = wire::VoteStatement::decode(signed.statement.as_slice());
        read.map(|body| body.node_id).unwrap_or_default()
    });
    let of = read.filter(|name| !name.is_empty());
    let of = of.unwrap_or_else(|| "nobody".into());
    format!("evidence of {kind} of {of}")
}

/// What is wrong with a statement, as far as it can be seen.
fn flaws(
    world: &World,
    own: &NodeId,
    (name, rules_digest): (&str, &[u8]),
    domain: Domain,
    signed: &SignedStatement,
) -> String {
    let role = match domain {
        Domain::Vote => KeyRole::Vote,
        _ => KeyRole::Node,
    };
    let cluster = world.cluster();
    let named = NodeId::new(name).ok();
    let index = named.and_then(|node_id| cluster.index(&node_id));
    let good = index.is_some_and(|index| {
        fake_signature(cluster.key(index, role), domain, &signed.statement) == signed.signature
    });
    let mut flaws = match (name == own.as_str(), good) {
        (true, true) => String::new(),
        (true, false) => " with a bad signature".into(),
        (false, true) => format!(", signed by {name}"),
        (false, false) => format!(" in {name}'s name with a bad signature"),
    };
    if rules_digest != world.rules().digest().0 {
        flaws += " under rules of its own";
    }
    flaws
}

/// What a liar asks of the board.
pub(super) fn op(world: &World, place: usize, op: &BoardOp) -> String {
    let own = world.node_id(place);
    let Some(op) = &op.op else {
        return "asks the board for nothing".into();
    };
    let asked = match op {
        Op::RecordVote(op) => match &op.vote {
            Some(signed) => format!("to record {}", vote(world, own, signed)),
            None => "to record no vote".into(),
        },
        Op::Advance(op) => format!("to move {} to {}", op.tx_id, state(op.to())),
        Op::Reserve(op) => {
            let nonce = op.reservation.as_ref().map_or(0, |r| r.nonce);
            format!("to reserve nonce {nonce} for {}", op.tx_id)
        }
        Op::Certify(op) => {
            let by = signers(&op.decisions);
            match by.as_str() {
                "" => format!("to certify {} by nobody's decision", op.tx_id),
                by => format!("to certify {} by decisions of {by}", op.tx_id),
            }
        }
        Op::Conclude(op) => format!("to conclude {}", op.tx_id),
        Op::ProveAbort(op) => format!("to take {} for proven dead", op.tx_id),
        Op::Ban(op) => {
            let kind = op.proof.as_ref().and_then(|proof| proof.kind.as_ref());
            let why = match kind {
                Some(ban_proof::Kind::Misbehaviour(proof)) => misbehaves(proof),
                Some(ban_proof::Kind::Accusations(by)) => {
                    format!("{} accusations", by.accusations.len())
                }
                Some(ban_proof::Kind::Silence(_)) => "silence".into(),
                None => "nothing".into(),
            };
            format!("to ban {} for {why}", op.node_id)
        }
        Op::Unban(op) => format!("to lift the ban of {}", op.node_id),
        Op::GiveUp(op) => format!("to give {} up", op.tx_id),
        Op::Accuse(op) => match &op.accusation {
            Some(signed) => format!("to note {}", accuses(world, own, signed)),
            None => "to note no accusation".into(),
        },
        Op::MarkSilent(op) => format!("to mark who is silent on {}", op.tx_id),
        Op::Expire(op) => format!("to remove {}", op.tx_id),
        Op::Boot(op) => {
            let signed = op.boot.as_ref();
            let read = signed.map(|boot| wire::BootStatement::decode(boot.statement.as_slice()));
            match read {
                Some(Ok(body)) => {
                    format!(
                        "to start {} in generation {}",
                        body.node_id, body.generation
                    )
                }
                _ => "to start nobody".into(),
            }
        }
        Op::Lease(op) => format!("for the lease of {} for {}", op.tx_id, op.node_id),
        Op::Release(op) => format!("to take the lease of {} from {}", op.tx_id, op.node_id),
        Op::Collect(op) => format!("to forget {}", op.tx_id),
    };
    format!("asks the board {asked}")
}
