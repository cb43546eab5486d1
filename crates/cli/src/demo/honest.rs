//! Scenarios in which nobody lies.

use futures_util::future::try_join_all;
use quorate_consensus::proof::Fact;
use quorate_consensus::{TxId, Value};
use quorate_wire::v1::{
    Ballot, BallotState, Standing, SubmitRequest, SubmitResponse, WaitFor, submit_request::Vote,
};

use super::check::Report;
use super::theatre::{Records, Theatre};
use crate::failure::{Failure, Outcome, code_name};
use crate::local::{Cluster, Mode};
use crate::output::state_word;

/// A transaction's id.
pub(super) fn tx(text: &str) -> Outcome<TxId> {
    TxId::new(text).map_err(Failure::failed)
}

/// A vote for a number.
pub(super) fn vote(tx_id: &TxId, number: u64, wait: WaitFor) -> SubmitRequest {
    SubmitRequest {
        tx_id: tx_id.to_string(),
        vote: Some(Vote::Number(number)),
        wait: wait.into(),
    }
}

/// The ballot in an answer.
pub(super) fn ballot(answer: SubmitResponse) -> Outcome<Ballot> {
    answer
        .ballot
        .ok_or_else(|| Failure::failed("the node answered without a ballot"))
}

/// The first four trustees vote for a number at their nodes, all at once, and wait
/// for the chain. Gives the ballot as the first one sees it then.
///
/// # Errors
/// When one of them is refused.
pub(super) async fn four_votes(cluster: &Cluster, tx_id: &TxId, number: u64) -> Outcome<Ballot> {
    let mut votes = Vec::new();
    for node_id in cluster.node_ids().iter().take(4) {
        let client = cluster.client(node_id)?;
        let request = vote(tx_id, number, WaitFor::Confirmed);
        votes.push(async move { client.submit(request).await });
    }
    let mut answers = try_join_all(votes).await?;
    ballot(answers.swap_remove(0))
}

/// Scenario 1.
pub(super) async fn four_equal_votes(report: &mut Report, theatre: &Theatre) -> Outcome {
    let cluster = Cluster::start(&theatre.plan("honest"), Mode::Inside).await?;
    let shown = four_equal_votes_on(report, theatre, &cluster).await;
    cluster.stop().await;
    shown
}

async fn four_equal_votes_on(report: &mut Report, theatre: &Theatre, cluster: &Cluster) -> Outcome {
    const VALUE: u64 = 42;
    let tx_id = tx("demo-1")?;
    report.restart_clock();
    let ended = four_votes(cluster, &tx_id, VALUE).await?;
    report.ended(&ended);
    report.state(&ended, BallotState::Confirmed);
    for node_id in cluster.node_ids().iter().take(4) {
        report.standing(&ended, node_id.as_str(), Standing::Agreed, false);
    }
    let records = Records::open(cluster)?;
    report.equal("ledger entries", records.entries(&tx_id).await?, 1);
    let row = records.audit_state(&tx_id, "CONFIRMED").await?;
    report.equal(
        "the row in the audit store says",
        row,
        "CONFIRMED".to_owned(),
    );
    let first = cluster.client(&cluster.node_ids()[0])?;
    let fact = theatre
        .proven(&first, &tx_id, cluster.rules().cluster_id())
        .await?;
    let holds = matches!(
        &fact,
        Fact::Decided { tx_id: proven, value, voters, .. }
            if *proven == tx_id && *value == Value::Number(VALUE) && voters.len() == 4
    );
    report.claim(
        "the saved certificate proves it offline, with the cluster id alone",
        holds,
        match &fact {
            Fact::Decided { value, voters, .. } => format!("{value} by {} votes", voters.len()),
            other => format!("{other:?}"),
        },
    );
    Ok(())
}

/// Scenario 7.
pub(super) async fn second_value(report: &mut Report, theatre: &Theatre) -> Outcome {
    let cluster = Cluster::start(&theatre.plan("guard"), Mode::Inside).await?;
    let shown = second_value_on(report, &cluster).await;
    cluster.stop().await;
    shown
}

async fn second_value_on(report: &mut Report, cluster: &Cluster) -> Outcome {
    const FIRST: u64 = 4711;
    let tx_id = tx("demo-7")?;
    let node_ids = cluster.node_ids();
    let first = cluster.client(&node_ids[0])?;
    report.restart_clock();
    first.submit(vote(&tx_id, FIRST, WaitFor::Recorded)).await?;
    let second = first
        .submit(vote(&tx_id, FIRST + 1, WaitFor::Recorded))
        .await;
    let after = first.status(tx_id.as_str()).await?;
    report.ended(&after);
    match second {
        Ok(_) => report.claim("the second value is refused", false, "it was taken"),
        Err(refusal) => {
            let code = refusal.code().map_or("no code", code_name);
            report.equal(
                "the second value is refused with",
                code,
                "FAILED_PRECONDITION",
            );
            let names_first = refusal.message().contains(&FIRST.to_string());
            report.claim(
                "the refusal names the first value",
                names_first,
                refusal.message(),
            );
        }
    }
    let again = first.submit(vote(&tx_id, FIRST, WaitFor::Recorded)).await?;
    let seen = if again.repeated {
        "recorded before"
    } else {
        "recorded anew"
    };
    report.equal(
        "the first value again has no effect",
        seen,
        "recorded before",
    );
    let after = first.status(tx_id.as_str()).await?;
    let state = state_word(after.state()).0;
    report.equal("the ballot goes on", state, "COLLECTING");
    report.standing(&after, node_ids[0].as_str(), Standing::Voted, false);
    report.equal("violations", after.violations.len(), 0);
    Ok(())
}
