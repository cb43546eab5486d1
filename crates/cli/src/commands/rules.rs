//! `quorate rules`: makes, pins and shows the rules document.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{ClusterId, Rules};
use quorate_crypto::genesis::{GenesisParams, init_rules, read_genesis};
use quorate_crypto::member::member_files;
use quorate_wire::v1::GetRulesResponse;
use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{Out, Tone, message_json, short_hex};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate rules init --cluster bridge --threshold 4 --members members/ -o genesis.rules
  quorate rules accept genesis.rules --cluster-id <64 hex digits> --config node1/config.toml
  quorate rules show                       the rules that a node stands under
  quorate rules show genesis.rules         those in a file";

/// Make, accept and show the rules: who may decide, and how
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    Init(InitArgs),
    Accept(AcceptArgs),
    Show(ShowArgs),
}

/// Make the genesis rules from the members' records; prints the cluster id
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate rules init --cluster bridge --threshold 4 --members members/ -o genesis.rules")]
struct InitArgs {
    /// The cluster's name: a-z 0-9 -, 1 to 63 characters, as in the member records
    #[arg(long, value_name = "NAME")]
    cluster: String,

    /// Votes that decide (t): 1 to the number of members
    #[arg(short, long, value_name = "T")]
    threshold: u32,

    /// Member records, or directories that hold them
    #[arg(long, value_name = "FILE|DIR", required = true, num_args = 1..)]
    members: Vec<PathBuf>,

    /// Where to write the document; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    policy: PolicyArgs,
}

/// The policies of a genesis, with the defaults of the protocol.
#[derive(Clone, Debug, Args)]
struct PolicyArgs {
    /// What one trustee's dissent from a value with t votes means
    #[arg(long, value_enum, default_value_t = Dissent::Abort)]
    dissent: Dissent,

    /// What silence costs a trustee whose reputation has fallen below 0.3
    #[arg(long, value_enum, default_value_t = Silence::Mark)]
    silence: Silence,

    /// Milliseconds from the vote that starts a ballot to its deadline
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    vote_timeout_ms: u64,

    /// Milliseconds between reaching the threshold and reserving
    #[arg(long, value_name = "MS", default_value_t = 100)]
    settle_window_ms: u64,

    /// Milliseconds that two clocks may differ
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    clock_skew_ms: u64,

    /// The account that pays on the chain
    #[arg(long, value_name = "NAME", default_value = "quorate")]
    account: String,

    /// Where decided values go on the chain
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    destination: String,

    /// The nonce of the first submission
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_nonce: u64,

    /// Depth at which a block is believed: 1 is the head itself
    #[arg(long, value_name = "N", default_value_t = 1)]
    confirmations: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dissent {
    /// The ballot aborts and the dissenter is a liar
    Abort,
    /// The ballot goes on without it
    Outvote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Silence {
    /// A mark and a lower reputation
    Mark,
    /// A ban
    Ban,
}

/// Compare the cluster id and pin it: what a node stands under from its first start on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate rules accept genesis.rules --cluster-id <64 hex digits> --config node1/config.toml

Take the cluster id from the other trustees, by a way that you trust, and not from the file: that
is what this command compares it with.")]
struct AcceptArgs {
    /// The genesis document
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The id that the trustees agreed on
    #[arg(long, value_name = "HEX")]
    cluster_id: ClusterId,

    /// The node's configuration file: its [consensus] gets cluster_id and rules_path
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Show the rules that a node stands under, or those in a file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate rules show
  quorate rules show --node node3 --json
  quorate rules show genesis.rules")]
struct ShowArgs {
    /// A genesis document; without it a node is asked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: RulesArgs, out: Out) -> Outcome {
    match args.command {
        RulesCommand::Init(args) => init(args, out),
        RulesCommand::Accept(args) => accept(args, out),
        RulesCommand::Show(args) => match &args.file {
            Some(file) => {
                let rules = read_genesis(file).map_err(Failure::usage)?;
                print_rules(out, &rules);
                Ok(())
            }
            None => show(&args.remote, out).await,
        },
    }
}

fn init(args: InitArgs, out: Out) -> Outcome {
    let policy = args.policy;
    let mut params = GenesisParams::new(args.cluster, args.threshold);
    params.dissent = match policy.dissent {
        Dissent::Abort => DissentPolicy::Abort,
        Dissent::Outvote => DissentPolicy::Outvote,
    };
    params.silence = match policy.silence {
        Silence::Mark => SilencePolicy::Mark,
        Silence::Ban => SilencePolicy::Ban,
    };
    params.vote_timeout_ms = policy.vote_timeout_ms;
    params.settle_window_ms = policy.settle_window_ms;
    params.clock_skew_ms = policy.clock_skew_ms;
    params.chain.account = policy.account;
    params.chain.destination = policy.destination;
    params.chain.first_nonce = policy.first_nonce;
    params.chain.confirmations = policy.confirmations;
    let mut records = Vec::new();
    for path in args.members {
        if path.is_dir() {
            records.extend(member_files(&path).map_err(Failure::usage)?);
        } else {
            records.push(path);
        }
    }
    let rules = init_rules(&params, &records, &args.output).map_err(|e| {
        Failure::usage(format!("no rules were made: {e}")).hint(
            "each trustee makes its record with `quorate certs request`, for this cluster's name",
        )
    })?;
    print_rules(out, &rules);
    if let Some(warning) = weak_threshold(rules.threshold(), rules.total()) {
        out.note(format!("warning: {warning}"));
    }
    out.line(format!(
        "written to {}. Next, at every trustee, after comparing the id:\n  quorate rules accept {} \
         --cluster-id {} --config <its config.toml>",
        args.output.display(),
        args.output.display(),
        rules.cluster_id()
    ));
    Ok(())
}

/// What a low threshold gives away.
fn weak_threshold(t: usize, n: usize) -> Option<String> {
    if 2 * t <= n {
        return Some(format!(
            "with t = {t} of N = {n} two halves can both reach t: nothing that this cluster \
             decides is safe from a liar"
        ));
    }
    let advised = (2 * n).div_ceil(3);
    (t < advised)
        .then(|| format!("t = {t} is below two thirds of N = {n}; {advised} or more are advised"))
}

fn accept(args: AcceptArgs, out: Out) -> Outcome {
    let rules = read_genesis(&args.file).map_err(Failure::usage)?;
    if rules.cluster_id() != args.cluster_id {
        return Err(Failure::failed(format!(
            "{} is the genesis of cluster {}, not of {}: nothing was pinned",
            args.file.display(),
            rules.cluster_id(),
            args.cluster_id
        ))
        .hint("ask the other trustees which of the two is right, and do not start a node before"));
    }
    print_rules(out, &rules);
    let rules_path = files::absolute(&args.file);
    let Some(config) = &args.config else {
        out.line(format!(
            "the id is right. Put this into the node's configuration:\n\n[consensus]\n\
             cluster_id = \"{}\"\nrules_path = {}",
            rules.cluster_id(),
            toml_string(&rules_path)
        ));
        return Ok(());
    };
    pin(config, rules.cluster_id(), &rules_path)?;
    out.line(format!(
        "pinned in {}. Next: quorate run --config {}",
        config.display(),
        config.display()
    ));
    Ok(())
}

fn pin(config: &Path, cluster_id: ClusterId, rules_path: &Path) -> Outcome {
    let text = files::read(config)?;
    let text = String::from_utf8(text)
        .map_err(|_| Failure::usage(format!("{} is not text", config.display())))?;
    let lines = [
        ("cluster_id", format!("\"{cluster_id}\"")),
        ("rules_path", toml_string(rules_path)),
    ];
    let text = with_keys(&text, "consensus", &lines);
    toml::from_str::<toml::Table>(&text).map_err(|e| {
        Failure::usage(format!(
            "{} would not be a configuration any more: {e}",
            config.display()
        ))
        .hint("put cluster_id and rules_path into [consensus] by hand")
    })?;
    files::write_atomically(config, text.as_bytes())
}

/// Sets keys of one section of a TOML text and leaves every other line, comments
/// included, as it is.
fn with_keys(text: &str, section: &str, keys: &[(&str, String)]) -> String {
    let heading = format!("[{section}]");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_heading = |line: &str| line.split('#').next().unwrap_or_default().trim() == heading;
    let start = match lines.iter().position(|line| is_heading(line)) {
        Some(index) => index + 1,
        None => {
            lines.push(heading);
            lines.len()
        }
    };
    let rest = lines[start..]
        .iter()
        .position(|line| line.trim_start().starts_with('['));
    let mut end = rest.map_or(lines.len(), |length| start + length);
    for (key, value) in keys {
        let line = format!("{key} = {value}");
        let is_key = |line: &String| {
            line.split_once('=')
                .is_some_and(|(name, _)| name.trim() == *key)
        };
        match lines[start..end].iter().position(is_key) {
            Some(index) => lines[start + index] = line,
            None => {
                lines.insert(start, line);
                end += 1;
            }
        }
    }
    lines.join("\n") + "\n"
}

fn toml_string(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

async fn show(remote: &RemoteArgs, out: Out) -> Outcome {
    let target = remote.target()?;
    let answer = Client::connect(&target)?.rules().await?;
    let rules = current(&answer)?;
    let mut json = rules_json(&rules);
    if let Some(map) = json.as_object_mut() {
        map.insert("node_id".into(), answer.node_id.clone().into());
        map.insert("peer_id".into(), hex::encode(&answer.peer_id).into());
        map.insert("server_time_ms".into(), answer.server_time_ms.into());
        map.insert(
            "summary".into(),
            message_json("RulesSummary", &rules.summary()),
        );
    }
    out.json_pretty(&json);
    out.line(format!(
        "rules of {} as {} stands under them",
        rules.cluster_name(),
        answer.node_id
    ));
    print_text(out, &rules);
    Ok(())
}

/// The document in force, checked from the genesis on.
fn current(answer: &GetRulesResponse) -> Outcome<std::sync::Arc<Rules>> {
    let bad = |why: String| Failure::failed(format!("the node's rules do not hold: {why}"));
    let cluster_id = ClusterId::try_from(&*answer.cluster_id).map_err(|e| bad(e.to_string()))?;
    let chain = answer.rules.clone().unwrap_or_default();
    let all = quorate_consensus::proof::verify_rules(
        &chain,
        &cluster_id,
        &quorate_crypto::Ed25519Verifier,
    )
    .map_err(|e| bad(e.to_string()))?;
    all.last()
        .cloned()
        .ok_or_else(|| bad("there are none".into()))
}

fn print_rules(out: Out, rules: &Rules) {
    out.json_pretty(&rules_json(rules));
    print_text(out, rules);
}

fn print_text(out: Out, rules: &Rules) {
    out.line(format!("cluster id  {}", out.bold(rules.cluster_id())));
    out.line(format!(
        "cluster     {}, epoch {}, digest {}",
        rules.cluster_name(),
        rules.epoch(),
        short_hex(&rules.digest().0)
    ));
    out.line(format!(
        "decides     t = {} of N = {} ({} may be away); dissent: {}, silence: {}",
        rules.threshold(),
        rules.total(),
        rules.total() - rules.threshold(),
        dissent_word(rules.dissent()),
        silence_word(rules.silence())
    ));
    out.line(format!(
        "times       vote {} ms, settle {} ms, clock skew {} ms",
        rules.vote_timeout_ms(),
        rules.settle_window_ms(),
        rules.clock_skew_ms()
    ));
    let chain = rules.chain();
    out.line(format!(
        "chain       {}, account {}, first nonce {}, believed at depth {}",
        chain.chain_id, chain.account, chain.first_nonce, chain.confirmations
    ));
    let mut table = out.table(&["trustee", "peer id", "vote key", "node key"]);
    for member in rules.members() {
        table.add_row([
            out.cell(Tone::Plain, &member.node_id),
            out.cell(Tone::Faint, short_hex(&member.peer_id.0)),
            out.cell(Tone::Faint, short_hex(&member.vote_key.bytes)),
            out.cell(Tone::Faint, short_hex(&member.node_key.bytes)),
        ]);
    }
    out.line(table);
}

fn rules_json(rules: &Rules) -> Value {
    let members: Vec<_> = rules
        .members()
        .map(|member| {
            json!({
                "node_id": member.node_id.to_string(),
                "peer_id": member.peer_id.to_string(),
                "vote_key": hex::encode(&member.vote_key.bytes),
                "node_key": hex::encode(&member.node_key.bytes),
            })
        })
        .collect();
    json!({
        "cluster_id": rules.cluster_id().to_string(),
        "cluster_name": rules.cluster_name(),
        "epoch": rules.epoch(),
        "digest": rules.digest().to_string(),
        "threshold": rules.threshold(),
        "total_nodes": rules.total(),
        "tolerated": rules.tolerated(),
        "dissent": dissent_word(rules.dissent()),
        "silence": silence_word(rules.silence()),
        "vote_timeout_ms": rules.vote_timeout_ms(),
        "settle_window_ms": rules.settle_window_ms(),
        "clock_skew_ms": rules.clock_skew_ms(),
        "chain": message_json("ChainTarget", rules.chain()),
        "members": members,
    })
}

fn dissent_word(policy: DissentPolicy) -> &'static str {
    match policy {
        DissentPolicy::Outvote => "outvote",
        _ => "abort",
    }
}

fn silence_word(policy: SilencePolicy) -> &'static str {
    match policy {
        SilencePolicy::Ban => "ban",
        _ => "mark",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinning_leaves_other_lines_alone() {
        let text = "# mine\n[node]\nnode_id = \"a\"\n\n[consensus] # who\nthreshold = 4\ncluster_id = \"old\"\n[chain]\ncluster_id = \"not this\"\n";
        let keys = [
            ("cluster_id", "\"new\"".to_owned()),
            ("rules_path", "\"r\"".to_owned()),
        ];
        let table: toml::Table = toml::from_str(&with_keys(text, "consensus", &keys)).unwrap();
        assert_eq!(table["consensus"]["cluster_id"].as_str(), Some("new"));
        assert_eq!(table["consensus"]["rules_path"].as_str(), Some("r"));
        assert_eq!(table["consensus"]["threshold"].as_integer(), Some(4));
        assert_eq!(table["chain"]["cluster_id"].as_str(), Some("not this"));
        assert!(with_keys(text, "consensus", &keys).starts_with("# mine\n"));
    }

    #[test]
    fn low_thresholds_are_warned_of() {
        assert!(weak_threshold(2, 4).is_some_and(|text| text.contains("halves")));
        assert!(weak_threshold(3, 5).is_some_and(|text| text.contains("4 or more")));
        assert_eq!(weak_threshold(4, 5), None);
        assert_eq!(weak_threshold(1, 1), None);
    }

    #[test]
    fn pinning_makes_the_section() {
        let keys = [("cluster_id", "\"new\"".to_owned())];
        let text = with_keys("[node]\nnode_id = \"a\"\n", "consensus", &keys);
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["consensus"]["cluster_id"].as_str(), Some("new"));
    }
}
