//! `quorate audit`: looks after the audit record.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quorate_audit::AuditError;
use quorate_audit::parting::Losses;
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
put in. What was set aside because the board has lost it (quorate reconcile --accept-loss) is named
as lost, and is no reason for that.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  quorate audit migrate --postgres-url postgresql://owner@localhost/quorate --node-role quorate_node
  POSTGRES_URL=postgresql://owner:password@db/quorate quorate audit migrate --ca db-ca.crt
  quorate audit migrate --postgres-url-file owner-url --ca db-ca.crt

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
    /// The database, as the role that shall own the tables; with a password only in the
    /// environment, for everybody on the machine can read a command line
    #[arg(long, value_name = "URL", env = "POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,

    /// A file of mode 0600 with that URL in it
    #[arg(long, value_name = "FILE", conflicts_with = "postgres_url")]
    postgres_url_file: Option<PathBuf>,

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
    for line in lost(&report.losses) {
        out.line(format!("{}  {line}", out.paint(Tone::Warn, "lost")));
    }
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
        "lost_pasts": lost_pasts_json(&report.losses),
    })
}

/// What the board has lost and the record has set aside: past by past, and what people
/// have to know of each.
fn lost(losses: &Losses) -> Vec<String> {
    let mut lines = Vec::new();
    for past in &losses.pasts {
        let rows = losses.rows.iter().filter(|row| row.past == past.id);
        lines.push(format!(
            "past {}: the board went on without revisions {} to {}; {} rows are set aside",
            past.id,
            past.parted_at + 1,
            past.reached,
            rows.count()
        ));
        for row in losses.submissions().filter(|row| row.past == past.id) {
            let state = row.state.map_or("", |state| state.as_str());
            let place = match &row.place {
                Some((account, nonce)) => format!(" with nonce {nonce} of account {account}"),
                None => String::new(),
            };
            lines.push(format!("  {}  {}: {state}{place}", row.table, row.key));
        }
    }
    lines
}

fn lost_pasts_json(losses: &Losses) -> serde_json::Value {
    let pasts = losses.pasts.iter().map(|past| {
        let rows = losses.rows.iter().filter(|row| row.past == past.id);
        let rows = rows.map(|row| {
            json!({
                "table": row.table,
                "row": row.key,
                "state": row.state.map(|state| state.as_str()),
                "account": row.place.as_ref().map(|(account, _)| account),
                "nonce": row.place.as_ref().map(|(_, nonce)| nonce),
                "was": row.row,
            })
        });
        json!({
            "past": past.id,
            "found_at_ms": past.found_at_ms,
            "parted_at": past.parted_at,
            "reached": past.reached,
            "rows": rows.collect::<Vec<_>>(),
        })
    });
    pasts.collect()
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
    let url = database(args.postgres_url, args.postgres_url_file.as_deref())?;
    let version = PostgresAudit::migrate(&url, role, &options)
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

/// The URL, from wherever it may come.
fn database(given: Option<String>, file: Option<&Path>) -> Outcome<String> {
    let how = "set POSTGRES_URL, or put the URL into a file of mode 0600 and name it with \
               --postgres-url-file";
    if let Some(file) = file {
        let bytes = quorate_crypto::file::read_secret(file).map_err(Failure::usage)?;
        let text = std::str::from_utf8(bytes.trim_ascii());
        return Ok(text.map_err(Failure::usage)?.to_owned());
    }
    let given = given.ok_or_else(|| Failure::usage("no database was named").hint(how))?;
    let from_environment = std::env::var("POSTGRES_URL").is_ok_and(|url| url == given);
    match has_password(&given) && !from_environment {
        true => Err(Failure::usage(
            "--postgres-url holds a password, and everybody on this machine can read a command line",
        )
        .hint(how)),
        false => Ok(given),
    }
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || rest.contains("password=")
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
