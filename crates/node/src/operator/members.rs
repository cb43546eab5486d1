//! `Peers` and `Reputation`: the other trustees as this node and the board see them.

use quorate_consensus::NodeId;
use quorate_consensus::wire::{
    PeerNode, PeersResponse, ReputationResponse, TrusteeReputation, ViolationType,
};
use quorate_engine::Engine;
use quorate_tls::{PeerInfo, Role};

use super::Operators;
use crate::status::ApiError;

pub(super) async fn peers(node: &Operators) -> Result<PeersResponse, ApiError> {
    let mut peers = node.look(seen).await?;
    let connections: Vec<_> = node.registry.connections();
    for peer in &mut peers {
        let of_peer = |info: &&PeerInfo| {
            info.identity.role == Role::Node && info.identity.node_id.as_str() == peer.node_id
        };
        if let Some(connection) = connections.iter().find(of_peer).filter(|_| peer.connected) {
            peer.remote_addr = connection.remote_addr.to_string();
            peer.outgoing = connection.outgoing;
        }
    }
    Ok(PeersResponse {
        node_id: node.own.to_string(),
        peers,
    })
}

fn seen(engine: &Engine) -> Vec<PeerNode> {
    let board = engine.board();
    let others = board.rules().members();
    let others = others.filter(|member| member.node_id != *engine.node_id());
    let peer = |member: &quorate_consensus::rules::Member| PeerNode {
        node_id: member.node_id.to_string(),
        peer_id: member.peer_id.0.to_vec(),
        connected: engine.connected().any(|id| *id == member.node_id),
        remote_addr: String::new(),
        outgoing: false,
        banned: board.is_banned(&member.node_id),
        refused: engine.refuses(&member.node_id),
        generation: board.member(&member.node_id).map_or(0, |m| m.generation),
    };
    others.map(peer).collect()
}

pub(super) async fn reputation(
    node: &Operators,
    of: Option<NodeId>,
) -> Result<ReputationResponse, ApiError> {
    if let Some(node_id) = of.as_ref().filter(|id| !node.rules.is_member(id)) {
        let members: Vec<_> = node.rules.members().map(|m| m.node_id.as_str()).collect();
        return Err(ApiError::Invalid {
            field: "node_id",
            detail: format!("{node_id} is no trustee: they are {}", members.join(", ")),
        });
    }
    let trustees = node
        .look(move |engine| standing(engine, of.as_ref()))
        .await?;
    Ok(ReputationResponse { trustees })
}

fn standing(engine: &Engine, of: Option<&NodeId>) -> Vec<TrusteeReputation> {
    let board = engine.board();
    let members = board.rules().members();
    let members = members.filter(|member| of.is_none_or(|of| member.node_id == *of));
    let standing = |member: &quorate_consensus::rules::Member| {
        let node_id = &member.node_id;
        let state = board.member(node_id).cloned().unwrap_or_default();
        let ban = state.ban.as_ref();
        let acts = engine.unban_acts(node_id);
        TrusteeReputation {
            node_id: node_id.to_string(),
            peer_id: member.peer_id.0.to_vec(),
            thousandths: state.reputation,
            total_votes: state.total_votes,
            violations: state.violations,
            absences: state.absences,
            banned: ban.is_some(),
            banned_for: ban
                .map_or(ViolationType::Unspecified, |ban| ban.kind)
                .into(),
            banned_since_ms: ban.map_or(0, |ban| ban.since_ms),
            accused_by: state.accusations.keys().map(NodeId::to_string).collect(),
            unban_acts_by: acts.iter().map(|(by, _)| by.to_string()).collect(),
        }
    };
    members.map(standing).collect()
}
