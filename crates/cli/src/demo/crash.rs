//! The scenario in which a submitter dies at the worst moment.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_consensus::NodeId;
use quorate_engine::{AuditAsk, Effect};
use quorate_node::{Faults, Stopped};
use quorate_wire::v1::{BallotState, Standing};

use super::check::Report;
use super::honest::{four_votes, tx};
use super::theatre::{Records, Theatre};
use crate::failure::Outcome;
use crate::local::{Cluster, Mode};
use crate::output::state_word;
use crate::waiting::{PATIENCE, is_final, until_ballot};

/// Who crashed.
type Crashed = Arc<Mutex<Option<NodeId>>>;

/// Scenario 6.
pub(super) async fn after_sending(report: &mut Report, theatre: &Theatre) -> Outcome {
    let crashed = Crashed::default();
    let faults = |node_id: &NodeId| crash_after_sending(node_id.clone(), crashed.clone());
    let mut cluster = Cluster::start_with(&theatre.plan("crash"), Mode::Inside, faults).await?;
    let told = tell(report, &mut cluster, &crashed).await;
    cluster.stop().await;
    told
}

/// The first node whose chain has taken a transaction dies before it can note down
/// that it sent it.
fn crash_after_sending(node_id: NodeId, crashed: Crashed) -> Faults {
    Faults::crash_before(move |effect| {
        let sent = matches!(
            effect,
            Effect::Audit {
                ask: AuditAsk::Attempted { .. },
                ..
            }
        );
        if !sent {
            return false;
        }
        let mut first = crashed.lock().unwrap_or_else(PoisonError::into_inner);
        let dies = first.is_none();
        first.get_or_insert_with(|| node_id.clone());
        dies
    })
}

async fn tell(report: &mut Report, cluster: &mut Cluster, crashed: &Crashed) -> Outcome {
    let tx_id = tx("demo-6")?;
    report.restart_clock();
    // The node that dies answers nobody any more, and its client's call fails: that is
    // part of the story.
    let _ = four_votes(cluster, &tx_id, 42).await;
    let dead = crate::waiting::until_some("a submitter to die", PATIENCE, async || {
        Ok(crashed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    })
    .await?;
    let node_ids = cluster.node_ids();
    let witness = node_ids
        .iter()
        .find(|node_id| **node_id != dead)
        .unwrap_or(&dead)
        .clone();
    let client = cluster.client(&witness)?;
    let ended = until_ballot(
        &client,
        tx_id.as_str(),
        "the ballot to end",
        PATIENCE,
        is_final,
    )
    .await?;
    report.ended(&ended);
    let stopped = cluster.stopped(&dead).await;
    report.claim(
        "the submitter died after sending",
        stopped == Some(Stopped::Crash),
        stopped.map_or_else(|| "it runs".into(), |how| format!("{dead}: {how:?}")),
    );
    report.state(&ended, BallotState::Confirmed);
    let records = Records::open(cluster)?;
    report.equal("ledger entries", records.entries(&tx_id).await?, 1);
    // The dead one comes back without the fault, on what it left behind.
    cluster.stop_node(&dead).await;
    cluster.start_node(&dead, &Faults::default()).await?;
    cluster.until_in_service().await?;
    let back = cluster.client(&dead)?;
    let seen = until_ballot(
        &back,
        tx_id.as_str(),
        "the ballot to end",
        PATIENCE,
        is_final,
    )
    .await?;
    let text = format!("{dead}, started again, sees the same end");
    report.equal(
        text,
        state_word(seen.state()).0,
        state_word(ended.state()).0,
    );
    report.standing(&seen, dead.as_str(), Standing::Agreed, false);
    report.equal(
        "ledger entries, after that",
        records.entries(&tx_id).await?,
        1,
    );
    let row = records.audit_state(&tx_id, "CONFIRMED").await?;
    report.equal(
        "the row in the audit store says",
        row,
        "CONFIRMED".to_owned(),
    );
    Ok(())
}
