//! `quorate audit`: looks after the audit record.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_audit::AuditError;
use quorate_audit::postgres::{Options, PostgresAudit};
use quorate_audit::verify::{Finding, Report, VerifyError};
use quorate_node::Config;
use quorate_node::StartError;
use quorate_node::record::{CheckError, check_record};
use serde_json::json;

use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Out, Tone};

const EXAMPLES: &str = "\
Examples:
  quorate audit verify --config /etc/quorate/config.toml
  quorate audit migrate --postgres-url postgresql://owner@localhost/quorate --node-role quorate_node";

const VERIFY_EXAMPLES: &str = "\
Examples:
  quorate audit verify --config /etc/quorate/config.toml
  quorate audit verify --config config.toml --json

The board's log is repeated from the genesis on, and every violation, decision, certificate and
submission in the audit store is compared with what it gives. The violations are sealed one by the
other, too. Nodes may be running meanwhile. The exit code is 1 when a row was edited, removed or
put in.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  quorate audit migrate --postgres-url postgresql://owner@localhost/quorate --node-role quorate_node
  POSTGRES_URL=postgresql://owner:password@db/quorate quorate audit migrate --ca db-ca.crt

Whoever owns the tables can do anything with them. So let a role of its own make them, and the
nodes work as another one (CREATE ROLE quorate_node LOGIN), which can neither change nor delete a
violation. Without --node-role only the tables are made.";

/// Check the audit record, or make its tables
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(VerifyArgs),
    Migrate(MigrateArgs),
}

/// Compare the audit store with the board's log: was a row edited, removed or put in?
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    /// The configuration of a node
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Make or upgrade the tables on PostgreSQL as their owner, for nodes that may not
#[derive(Debug, Args)]
#[command(after_help = MIGRATE_EXAMPLES)]
struct MigrateArgs {
    /// The database, as the role that shall own the tables
    #[arg(long, value_name = "URL", env = "POSTGRES_URL", hide_env_values = true)]
    postgres_url: String,

    /// The CA that signed PostgreSQL's certificate: then TLS is used, and nothing else
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The role of the nodes' URL, which gets what a node needs and no more
    #[arg(long, value_name = "ROLE")]
    node_role: Option<String>,
}

pub(crate) async fn run(args: AuditArgs, out: Out) -> Outcome {
    match args.command {
        Command::Verify(args) => verify(args, out).await,
        Command::Migrate(args) => migrate(args, out).await,
    }
}

async fn verify(args: VerifyArgs, out: Out) -> Outcome {
    let config = Config::load(Some(&args.config), &[]).map_err(|error| {
        Failure::usage(error).hint("`quorate run --print-default-config` explains every key")
    })?;
    let report = check_record(config)
        .await
        .map_err(|error| not_told(&error))?;
    out.json_pretty(&as_json(&report));
    let compared = format!(
        "{} violations and {} transactions, up to revision {}",
        report.violations, report.transactions, report.revision
    );
    if report.findings.is_empty() {
        let holds = out.paint(Tone::Good, "holds");
        out.line(format!(
            "{holds}: the audit record is as the board's log says"
        ));
        out.line(format!("  compared: {compared}"));
        if report.head > report.revision {
            out.line(format!(
                "  the log goes on to revision {}: the rest is not projected yet",
                report.head
            ));
        }
        return Ok(());
    }
    for finding in &report.findings {
        out.line(told(finding, out));
    }
    Err(Failure::failed(format!(
        "{} rows of the audit record are not as the board's log says (compared: {compared})",
        report.findings.len()
    ))
    .hint("find out who may write to the database; the board's log still has what is true"))
}

fn as_json(report: &Report) -> serde_json::Value {
    json!({
        "holds": report.findings.is_empty(),
        "revision": report.revision,
        "log_head": report.head,
        "violations": report.violations,
        "transactions": report.transactions,
        "findings": findings_json(&report.findings),
    })
}

/// A row that is not as it must be, in one line.
pub(crate) fn told(finding: &Finding, out: Out) -> String {
    let kind = out.paint(Tone::Bad, finding.kind.as_str());
    let (table, row, why) = (finding.table, &finding.row, &finding.why);
    format!("{kind}  {table}  {row}: {why}")
}

pub(crate) fn findings_json(findings: &[Finding]) -> serde_json::Value {
    let findings = findings.iter().map(|finding| {
        json!({
            "kind": finding.kind.as_str(),
            "table": finding.table,
            "row": finding.row,
            "why": finding.why,
        })
    });
    findings.collect()
}

fn not_told(error: &CheckError) -> Failure {
    match error {
        CheckError::Open(StartError::Audit(error))
        | CheckError::Verify(VerifyError::Audit(error)) => of_store(error),
        CheckError::Open(StartError::Rules { .. }) => Failure::usage(error),
        other => Failure::failed(other),
    }
}

async fn migrate(args: MigrateArgs, out: Out) -> Outcome {
    let options = Options {
        ca_path: args.ca,
        ..Options::default()
    };
    let role = args.node_role.as_deref();
    let version = PostgresAudit::migrate(&args.postgres_url, role, &options)
        .await
        .map_err(|error| of_store(&error))?;
    out.json_pretty(&json!({ "schema_version": version, "node_role": role }));
    let may = match role {
        Some(role) => format!("; {role} may use them as a node does"),
        None => String::new(),
    };
    out.line(format!("the tables have version {version}{may}"));
    Ok(())
}

pub(crate) fn of_store(error: &AuditError) -> Failure {
    match error {
        AuditError::Settings(_) => Failure::usage(error),
        AuditError::Unavailable(_) => Failure::new(Exit::Unavailable, error)
            .hint("is PostgreSQL running, and reached from here? Repeating is safe"),
        AuditError::Refused(_) => Failure::failed(error).hint(
            "check the role, the password and the database of the URL, and what the role may do",
        ),
        other => Failure::failed(other),
    }
}
