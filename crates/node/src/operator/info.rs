//! `Info`: what the node is, how it is, and what waits in it.

use std::collections::BTreeMap;

use quorate_consensus::wire::{BallotCount, InfoResponse, NotReadyCause, Queues};
use quorate_engine::{PROTOCOL_MIN, PROTOCOL_VERSION};
use quorate_telemetry::LogHandle;

use super::Operators;
use crate::service::in_time;
use crate::status::ApiError;

/// What a look at the engine gives.
struct Seen {
    wall_ms: u64,
    generation: u64,
    in_service: bool,
    signing_stopped: Option<String>,
    revision: u64,
    ballots: Vec<BallotCount>,
    load: quorate_engine::Load,
}

pub(super) async fn info(node: &Operators) -> Result<InfoResponse, ApiError> {
    let look = node.mailbox.look(|engine, now| {
        let mut ballots: BTreeMap<i32, u64> = BTreeMap::new();
        for ballot in engine.board().ballots() {
            *ballots.entry(ballot.state.into()).or_default() += 1;
        }
        let ballots = ballots.into_iter();
        Seen {
            wall_ms: now.wall_ms,
            generation: engine.generation(),
            in_service: engine.is_in_service(),
            signing_stopped: engine.signing_stopped(now),
            revision: engine.board().revision(),
            ballots: ballots
                .map(|(state, count)| BallotCount { state, count })
                .collect(),
            load: engine.load(),
        }
    });
    let seen = in_time(look).await??;
    let readiness = node.readiness.borrow().clone();
    let causes = readiness.findings.iter().map(|finding| NotReadyCause {
        cause: finding.cause.word().to_owned(),
        detail: finding.detail.clone(),
        advice: finding.cause.advice().to_owned(),
    });
    let audit_revision = node.audit.known().revision;
    let load = seen.load;
    let member = node.rules.member(&node.own);
    Ok(InfoResponse {
        node_id: node.own.to_string(),
        peer_id: member.map_or_else(Vec::new, |m| m.peer_id.0.to_vec()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_name: node.rules.cluster_name().to_owned(),
        cluster_id: node.rules.cluster_id().0.to_vec(),
        rules: Some(node.rules.summary()),
        server_time_ms: seen.wall_ms,
        started_ms: node.started_ms,
        generation: seen.generation,
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_VERSION,
        in_service: seen.in_service,
        signing_stopped: seen.signing_stopped.unwrap_or_default(),
        ready: readiness.is_ready(),
        causes: causes.collect(),
        coordinator: node.coordinator.to_owned(),
        board_revision: seen.revision,
        audit_store: node.audit.store().backend().to_owned(),
        audit_revision,
        chain: node.chain.to_owned(),
        listen_addr: node.addr.to_string(),
        health_addr: node.health_addr.map(|a| a.to_string()).unwrap_or_default(),
        certificate_not_after_ms: node.tls.own().not_after_ms,
        log_level: node.log.as_ref().map(LogHandle::level).unwrap_or_default(),
        ballots: seen.ballots,
        queues: Some(Queues {
            mailbox: count(node.mailbox.waiting()),
            requests: count(load.requests),
            own_votes: count(load.own_votes),
            held_votes: count(load.held_votes),
            held_entries: count(load.held_entries),
            questions: count(load.questions),
            transactions: count(load.transactions),
            streams: count(load.streams),
            audit_lag: seen.revision.saturating_sub(audit_revision),
        }),
    })
}

fn count(number: usize) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
