//! `Ban`, `Unban` and `Send`: handed to the engine, and followed until the board or the
//! other node shows what came of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate_consensus::NodeId;
use quorate_consensus::detector::proof_digest;
use quorate_consensus::wire::{
    BanResponse, SendRequest, SendResponse, SignedStatement, UnbanRequest, UnbanResponse,
};
use quorate_engine::{Engine, Event, OperatorAct, RequestId};

use super::{Operators, node_id};
use crate::mailbox::{Gone, Message};
use crate::status::ApiError;

/// How long an answer waits for the board. What takes longer still goes on.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

impl Operators {
    /// Hands an act to the engine and waits for its word.
    async fn act(&self, act: OperatorAct, limit: Duration) -> Result<(), ApiError> {
        let request = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let asked = self
            .mailbox
            .ask(|answer| Message::Operate(request, Box::new(act), answer));
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => Ok(answer??),
            Err(_) => {
                let abandon = self.mailbox.event(Event::Abandon { request });
                // Nobody waits for a node that is gone.
                let _: Result<(), Gone> = abandon.await;
                Err(ApiError::DeadlineExceeded)
            }
        }
    }
}

pub(super) async fn ban(node: &Operators, by: &str, whom: NodeId) -> Result<BanResponse, ApiError> {
    let node_id = whom.clone();
    node.act(OperatorAct::Ban { node_id }, SHOWN_WITHIN).await?;
    tracing::warn!(operator = by, node_id = %whom, "operator.ban");
    let wanted = whom.clone();
    let shown = move |engine: &Engine| {
        Some(accused(engine, &wanted)).filter(|answer| answer.accused || answer.banned)
    };
    match node.until(SHOWN_WITHIN, shown).await? {
        Some(answer) => Ok(answer),
        // The refusal stands, and the accusation is put on the board when that can be
        // had.
        None => node.look(move |engine| accused(engine, &whom)).await,
    }
}

fn accused(engine: &Engine, whom: &NodeId) -> BanResponse {
    let board = engine.board();
    let member = board.member(whom).cloned().unwrap_or_default();
    BanResponse {
        node_id: whom.to_string(),
        accused: member.accusations.contains_key(engine.node_id()),
        accused_by: member.accusations.keys().map(NodeId::to_string).collect(),
        threshold: u32::try_from(board.rules().threshold()).unwrap_or(u32::MAX),
        banned: member.ban.is_some(),
    }
}

pub(super) async fn unban(
    node: &Operators,
    by: &str,
    request: UnbanRequest,
) -> Result<UnbanResponse, ApiError> {
    let whom = node_id(&request.node_id)?;
    let pardoned = request.pardoned.iter().map(|digest| {
        let digest = <[u8; 32]>::try_from(&**digest);
        digest.map_err(|_| ApiError::Invalid {
            field: "pardoned",
            detail: "must be digests of 32 bytes, as Violations gives them".to_owned(),
        })
    });
    let act = OperatorAct::Unban {
        node_id: whom.clone(),
        pardoned: pardoned.collect::<Result<_, _>>()?,
        acts: request.acts,
    };
    let before = whom.clone();
    let (was_banned, refused) = node
        .look(move |engine| (engine.board().is_banned(&before), engine.refuses(&before)))
        .await?;
    if !was_banned && refused {
        return Err(ApiError::NotPossible {
            reason: "NOT_BANNED",
            why: format!(
                "the cluster has not banned {whom}: it is this node that refuses and accuses it, and an accusation stands until a ban that rests on it is lifted"
            ),
        });
    }
    node.act(act, SHOWN_WITHIN).await?;
    if was_banned {
        tracing::warn!(operator = by, node_id = %whom, "operator.unban");
    }
    let wanted = whom.clone();
    let said = move |engine: &Engine| {
        let answer = lifted(engine, &wanted);
        let complete = answer.acts_by.len() >= answer.threshold as usize;
        Some(answer).filter(|answer| answer.lifted || (answer.act.is_some() && !complete))
    };
    if let Some(answer) = node.until(SHOWN_WITHIN, said).await? {
        return Ok(answer);
    }
    let answer = node.look(move |engine| lifted(engine, &whom)).await?;
    if answer.act.is_some() {
        return Ok(answer);
    }
    Err(ApiError::Unavailable {
        reason: "NODE_KEY_AWAY",
        why: "the node key did not sign the act".to_owned(),
        retry: Duration::from_secs(1),
    })
}

fn lifted(engine: &Engine, whom: &NodeId) -> UnbanResponse {
    let board = engine.board();
    let ban = board.member(whom).and_then(|member| member.ban.as_ref());
    let acts = engine.unban_acts(whom);
    let own = |(by, _): &&(NodeId, SignedStatement)| by == engine.node_id();
    UnbanResponse {
        node_id: whom.to_string(),
        act: acts.iter().find(own).map(|(_, act)| act.clone()),
        pardoned: ban
            .map(|ban| proof_digest(&ban.proof).to_vec())
            .into_iter()
            .collect(),
        acts_by: acts.iter().map(|(by, _)| by.to_string()).collect(),
        threshold: u32::try_from(board.rules().threshold()).unwrap_or(u32::MAX),
        lifted: ban.is_none(),
    }
}

pub(super) async fn send(
    node: &Operators,
    by: &str,
    request: SendRequest,
    limit: Duration,
) -> Result<SendResponse, ApiError> {
    let to = node_id(&request.node_id)?;
    let bytes = request.data.len();
    let began = Instant::now();
    let act = OperatorAct::Send {
        node_id: to.clone(),
        data: request.data,
    };
    node.act(act, limit).await?;
    let round_trip_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(operator = by, node_id = %to, bytes, "operator.send");
    Ok(SendResponse { round_trip_ms })
}
