//! Scenarios in which trustee 5 lies, or says nothing.

use quorate_audit::AuditStore;
use quorate_audit::rows::Filter;
use quorate_consensus::proof::Fact;
use quorate_consensus::words::violation_word;
use quorate_consensus::{NodeId, TxId, Value};
use quorate_sim::liars::LiarKind;
use quorate_wire::v1::{Ballot, BallotState, Standing, ViolationType, choice::Kind};

use super::check::Report;
use super::honest::tx;
use super::theatre::{Records, Theatre, stage};
use crate::byzantine::{Stage, double_vote as doubly, minority, offence, silent};
use crate::failure::{Failure, Outcome};
use crate::local::{Cluster, Mode, Plan};

/// What every scenario with a liar begins and ends with.
struct Act {
    cluster: Cluster,
    stage: Stage,
    liar: NodeId,
}

impl Act {
    async fn open(plan: &Plan, tx_id: &TxId) -> Outcome<Self> {
        let mut cluster = Cluster::start(plan, Mode::Inside).await?;
        match stage(&mut cluster, tx_id).await {
            Ok(stage) => {
                let liar = stage.liar.node_id().clone();
                Ok(Self {
                    cluster,
                    stage,
                    liar,
                })
            }
            Err(failure) => {
                cluster.stop().await;
                Err(failure)
            }
        }
    }

    async fn close(self, told: Outcome) -> Outcome {
        self.cluster.stop().await;
        told
    }
}

/// Scenario 2.
pub(super) async fn double_vote(report: &mut Report, theatre: &Theatre) -> Outcome {
    let act = Act::open(&theatre.plan("double-vote"), &tx("demo-2")?).await?;
    let told = tell_double_vote(report, theatre, &act).await;
    act.close(told).await
}

async fn tell_double_vote(report: &mut Report, theatre: &Theatre, act: &Act) -> Outcome {
    report.restart_clock();
    let ended = doubly::act(&act.stage).await?;
    report.ended(&ended);
    report.standing(&ended, act.liar.as_str(), Standing::Equivocated, true);
    tell_proven_lie(report, theatre, act, &ended, ViolationType::DoubleVoting).await
}

/// Scenario 3.
pub(super) async fn dissent(report: &mut Report, theatre: &Theatre) -> Outcome {
    let act = Act::open(&theatre.plan("dissent"), &tx("demo-3")?).await?;
    let told = tell_dissent(report, theatre, &act).await;
    act.close(told).await
}

async fn tell_dissent(report: &mut Report, theatre: &Theatre, act: &Act) -> Outcome {
    report.restart_clock();
    let ended = minority::act(&act.stage).await?;
    report.ended(&ended);
    report.standing(&ended, act.liar.as_str(), Standing::Dissented, true);
    tell_proven_lie(report, theatre, act, &ended, ViolationType::MinorityVote).await
}

/// Abort, evidence, ban, abort proof, audit rows, and an empty ledger.
async fn tell_proven_lie(
    report: &mut Report,
    theatre: &Theatre,
    act: &Act,
    ended: &Ballot,
    kind: ViolationType,
) -> Outcome {
    let (tx_id, cluster_id) = (&act.stage.tx_id, act.stage.rules.cluster_id());
    report.state(ended, BallotState::AbortedByzantine);
    report.violation(ended, act.liar.as_str(), kind);
    let client = &act.stage.first()?.client;
    let evidence = theatre.evidence(client, tx_id, cluster_id).await?;
    let holds = matches!(
        &evidence,
        Fact::Lied(lie) if lie.node_id == act.liar && lie.kind == kind && lie.tx_id == *tx_id
    );
    report.claim(
        "the saved evidence proves the lie offline, with the cluster id alone",
        holds,
        match &evidence {
            Fact::Lied(lie) => format!("{} by {}", violation_word(lie.kind), lie.node_id),
            other => format!("{other:?}"),
        },
    );
    let proof = theatre.proven(client, tx_id, cluster_id).await?;
    let holds = matches!(&proof, Fact::Dead { tx_id: dead, .. } if dead == tx_id);
    let seen = match &proof {
        Fact::Dead { reasons, .. } => format!("signed by {}", reasons.len()),
        other => format!("{other:?}"),
    };
    report.claim(
        "the saved abort proof shows that the transaction is dead",
        holds,
        seen,
    );
    let records = Records::open(&act.cluster)?;
    let row = records.audit_state(tx_id, "ABORTED_BYZANTINE").await?;
    report.equal(
        "the row in the audit store says",
        row,
        "ABORTED_BYZANTINE".to_owned(),
    );
    let rows = records
        .audit
        .violations(&Filter::tx(tx_id))
        .await
        .map_err(Failure::failed)?;
    let charged: Vec<_> = rows
        .iter()
        .filter(|row| row.violation_type == kind)
        .collect();
    let holds = charged.len() == 1 && charged[0].node_id == act.liar;
    report.claim(
        "one violation in the audit store, the liar's",
        holds,
        charged.len(),
    );
    report.equal("ledger entries", records.entries(tx_id).await?, 0);
    Ok(())
}

/// Scenario 4.
pub(super) async fn forged_vote(report: &mut Report, theatre: &Theatre) -> Outcome {
    let act = Act::open(&theatre.plan("forged"), &tx("demo-4")?).await?;
    let told = tell_forged_vote(report, &act).await;
    act.close(told).await
}

async fn tell_forged_vote(report: &mut Report, act: &Act) -> Outcome {
    let (tx_id, victim) = (&act.stage.tx_id, act.stage.first()?.node_id.clone());
    report.restart_clock();
    let ended = offence::act(&act.stage, LiarKind::Impersonator).await?;
    report.ended(&ended);
    report.state(&ended, BallotState::Confirmed);
    report.standing(&ended, victim.as_str(), Standing::Agreed, false);
    let forged = Kind::Number(offence::FORGED);
    let has_forged = ended
        .tally
        .iter()
        .any(|tally| tally.value.as_ref().and_then(|value| value.kind.as_ref()) == Some(&forged));
    report.claim(
        "the forged vote counts nowhere",
        !has_forged,
        format!("{} value", ended.tally.len()),
    );
    report.standing(&ended, act.liar.as_str(), Standing::Banned, true);
    let records = Records::open(&act.cluster)?;
    let accusations = Filter::node(&act.liar);
    let rows = records
        .audit
        .accusations(&accusations)
        .await
        .map_err(Failure::failed)?;
    let mut by: Vec<_> = rows.iter().map(|row| row.by.to_string()).collect();
    by.sort();
    by.dedup();
    let enough = by.len() >= act.stage.rules.threshold();
    report.claim("t trustees accuse the forger", enough, by.join(", "));
    let rows = records
        .audit
        .accusations(&Filter::node(&victim))
        .await
        .map_err(Failure::failed)?;
    report.equal(format!("accusations of {victim}"), rows.len(), 0);
    report.equal("ledger entries", records.entries(tx_id).await?, 1);
    Ok(())
}

/// Scenario 5.
pub(super) async fn silence(report: &mut Report, theatre: &Theatre) -> Outcome {
    let mut plan = theatre.plan("silent");
    plan.vote_timeout_ms = Some(2_000);
    let act = Act::open(&plan, &tx("demo-5")?).await?;
    let told = tell_silence(report, &act).await;
    act.close(told).await
}

async fn tell_silence(report: &mut Report, act: &Act) -> Outcome {
    let tx_id = &act.stage.tx_id;
    report.restart_clock();
    let ended = silent::act(&act.stage).await?;
    report.ended(&ended);
    report.state(&ended, BallotState::Confirmed);
    let decided = ended.value.as_ref().map(Value::try_from);
    let seen = match &decided {
        Some(Ok(value)) => value.to_string(),
        _ => "nothing".into(),
    };
    report.equal("the others decide for", seen, "1".to_owned());
    report.standing(&ended, act.liar.as_str(), Standing::Silent, false);
    report.violation(&ended, act.liar.as_str(), ViolationType::SilentFailure);
    let records = Records::open(&act.cluster)?;
    report.equal("ledger entries", records.entries(tx_id).await?, 1);
    Ok(())
}
