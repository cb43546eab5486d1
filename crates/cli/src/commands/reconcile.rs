//! `quorate reconcile`: after `STORE_ROLLBACK`, lets a node sign again.

use std::path::PathBuf;

use clap::Args;
use quorate_consensus::ballot::state_name;
use quorate_node::reconcile::{
    Fate, Lost, Options, ReconcileError, Reconciliation, Reserved, reconcile,
};
use quorate_node::{Config, StartError};
use serde_json::{Value, json};

use super::audit;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Out, Tone};

const EXAMPLES: &str = "\
Examples:
  quorate reconcile --config node1.toml --dry-run
  quorate reconcile --config node1.toml

For a node that has said STORE_ROLLBACK: the board's store was put back to an older copy. Stop all
nodes, run this once for each, then start them. What the node has believed (log.db in its data
directory) is put on the board again with the times that it had; board, audit store and chain are
compared. The exit code is 1 while something must keep the node from signing, or does not fit.";

/// Shows this many lost entries; --json has them all.
const SHOWN: usize = 20;

/// Compare board, audit store and chain after STORE_ROLLBACK, and put back what was lost
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReconcileArgs {
    /// The configuration of the node, which must not run
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// Change nothing, and tell what would become of it
    #[arg(long)]
    dry_run: bool,

    /// Let the node sign again although not everything can be put back: look at the
    /// conflicts first
    #[arg(long)]
    accept_loss: bool,
}

pub(crate) async fn run(args: ReconcileArgs, out: Out) -> Outcome {
    let config = Config::load(Some(&args.config), &[]).map_err(|error| {
        Failure::usage(error).hint("`quorate run --print-default-config` explains every key")
    })?;
    let options = Options {
        dry_run: args.dry_run,
        accept_loss: args.accept_loss,
    };
    let done = reconcile(config, options)
        .await
        .map_err(|error| not_done(&error))?;
    out.json_pretty(&as_json(&done, args.dry_run));
    tell_board(&done, args.dry_run, out);
    tell_record(&done, out);
    tell_chain(&done, out);
    verdict(&done, args.dry_run, out)
}

fn tell_board(done: &Reconciliation, dry_run: bool, out: Out) {
    let Reconciliation {
        seen,
        kept,
        found,
        same,
        ..
    } = done;
    out.line(format!(
        "board   revision {found}; this node has seen {seen} and kept {kept}; the same up to {same}"
    ));
    let would = if dry_run { "would be " } else { "" };
    for lost in done.lost.iter().take(SHOWN) {
        let Lost { revision, what, .. } = lost;
        let fate = match &lost.fate {
            Fate::PutBack => format!("{would}put back"),
            Fate::Needless => "needless: the board says the same".to_owned(),
            Fate::Refused(why) => out.paint(Tone::Bad, format!("{would}refused: {why}")),
        };
        out.line(format!("        {revision:>8}  {what}: {fate}"));
    }
    if done.lost.len() > SHOWN {
        let more = done.lost.len() - SHOWN;
        out.line(format!("        and {more} more (--json has them all)"));
    }
    if done.others > 0 {
        let others = done.others;
        out.line(format!(
            "        {others} entries of others stand where this node has believed something else"
        ));
    }
    for conflict in &done.conflicts {
        let word = out.paint(Tone::Bad, "conflict");
        out.line(format!("        {word}  {conflict}"));
    }
}

fn tell_record(done: &Reconciliation, out: Out) {
    match &done.audit {
        Ok(revision) => out.line(format!("audit   revision {revision}")),
        Err(why) => out.line(format!("audit   not compared: {why}")),
    }
    for finding in &done.audit_findings {
        out.line(format!("        {}", audit::told(finding, out)));
    }
}

fn tell_chain(done: &Reconciliation, out: Out) {
    let count = done.reserved.len();
    let odd: Vec<_> = done.reserved.iter().filter(|r| !r.fits).collect();
    out.line(format!(
        "chain   {count} reservations, {} of them as the board says",
        count - odd.len()
    ));
    for Reserved {
        tx_id,
        state,
        nonce,
        shows,
        ..
    } in odd
    {
        let word = out.paint(Tone::Bad, "differs");
        let state = state_name(*state);
        out.line(format!(
            "        {word}  {tx_id}, {state}, nonce {nonce}: the chain shows {shows}"
        ));
    }
    if let Some(unexplained) = &done.unexplained {
        let word = out.paint(Tone::Bad, "unexplained");
        out.line(format!("        {word}  {unexplained}"));
    }
}

fn verdict(done: &Reconciliation, dry_run: bool, out: Out) -> Outcome {
    if !done.may_sign {
        let why = match (done.conflicts.is_empty(), done.seen > done.kept) {
            (false, _) => "the board contradicts what this node has believed",
            (true, true) => "the store has lost entries that this node has not kept either",
            (true, false) => "not everything could be put back",
        };
        return Err(Failure::failed(format!("this node must not sign: {why}")).hint(
            "reconcile the other nodes first: one of them may have kept more; a newer copy of the store is better still. Only when neither is to be had: --accept-loss",
        ));
    }
    let odd = !done.audit_findings.is_empty()
        || done.unexplained.is_some()
        || done.reserved.iter().any(|reserved| !reserved.fits);
    if odd {
        return Err(Failure::failed(
            "audit store or chain do not say what the board says: see above",
        )
        .hint("as far as the board goes the node may sign; find out about the rest first"));
    }
    let may = out.paint(Tone::Good, if dry_run { "could" } else { "may" });
    out.line(format!(
        "this node {may} sign again: start it when all are reconciled"
    ));
    Ok(())
}

fn as_json(done: &Reconciliation, dry_run: bool) -> Value {
    let lost = done.lost.iter().map(|lost| {
        let (fate, why) = match &lost.fate {
            Fate::PutBack => ("put_back", None),
            Fate::Needless => ("needless", None),
            Fate::Refused(why) => ("refused", Some(why)),
        };
        json!({
            "revision": lost.revision,
            "time_ms": lost.time_ms,
            "what": lost.what,
            "fate": fate,
            "why": why,
        })
    });
    let reserved = done.reserved.iter().map(|reserved| {
        json!({
            "tx_id": reserved.tx_id.to_string(),
            "state": state_name(reserved.state),
            "nonce": reserved.nonce,
            "chain": reserved.shows,
            "fits": reserved.fits,
        })
    });
    json!({
        "dry_run": dry_run,
        "may_sign": done.may_sign,
        "seen": done.seen,
        "kept": done.kept,
        "found": done.found,
        "same": done.same,
        "others": done.others,
        "lost": lost.collect::<Vec<_>>(),
        "conflicts": done.conflicts,
        "audit_revision": done.audit.as_ref().ok(),
        "audit_error": done.audit.as_ref().err(),
        "audit_findings": audit::findings_json(&done.audit_findings),
        "reserved": reserved.collect::<Vec<_>>(),
        "unexplained": done.unexplained,
    })
}

fn not_done(error: &ReconcileError) -> Failure {
    match error {
        ReconcileError::Open(StartError::Rules { .. }) => Failure::usage(error),
        ReconcileError::Open(StartError::Journal(_)) => {
            Failure::failed(error).hint("stop the node: it is reconciled while it does not run")
        }
        ReconcileError::Open(StartError::Board(error)) if error.is_passing() => {
            Failure::new(Exit::Unavailable, error).hint("is the store running? Repeating is safe")
        }
        ReconcileError::Refill { .. } => Failure::new(Exit::Unavailable, error)
            .hint("repeating is safe: what is on the board again is not put there twice"),
        other => Failure::failed(other),
    }
}
