//! `quorate gc`: archives old rows of the audit record.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use quorate_audit::archive::{Archived, Horizon, archive_all};
use quorate_node::record::open_record;
use quorate_node::{Config, StartError};
use serde_json::json;

use super::audit::of_store;
use crate::failure::{Failure, Outcome};
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate gc --config /etc/quorate/config.toml --dry-run
  quorate gc --config config.toml

Submissions that were confirmed 30 days ago and votes of 90 days ago, of transactions that have
ended, are moved to the tables blockchain_submissions_archive and vote_history_archive. How a
transaction ended stays in submission_keys for good. One node does this every hour by itself.";

/// Archive old submissions and votes of the audit record
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GcArgs {
    /// The configuration of a node
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// Only say what would be archived
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: GcArgs, out: Out) -> Outcome {
    let config = Config::load(Some(&args.config), &[]).map_err(|error| {
        Failure::usage(error).hint("`quorate run --print-default-config` explains every key")
    })?;
    let record = open_record(config).await.map_err(|error| match &error {
        StartError::Audit(error) => of_store(error),
        StartError::Rules { .. } => Failure::usage(&error),
        other => Failure::failed(other),
    })?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let horizon = Horizon::at(since.map_or(0, |since| since.as_millis() as u64));
    let done = match args.dry_run {
        true => record.archivable(horizon).await,
        false => archive_all(record.as_ref(), horizon).await,
    };
    let Archived { submissions, votes } = done.map_err(|error| of_store(&error))?;
    out.json_pretty(&json!({
        "dry_run": args.dry_run,
        "submissions": submissions,
        "votes": votes,
    }));
    let word = match args.dry_run {
        true => "to be archived",
        false => "archived",
    };
    out.line(format!("{word}: {submissions} submissions, {votes} votes"));
    Ok(())
}
