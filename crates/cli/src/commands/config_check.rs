//! `quorate config check`: what a node would run with, and where each value comes from.

use std::path::{Path, PathBuf};

use clap::Args;
use quorate_node::config::{Explained, Origin, Place, Setting};
use quorate_node::parts::configured_rules;
use serde_json::json;

use super::run::parse_setting;
use crate::failure::{Failure, Outcome};
use crate::output::{Out, Tone, wrap};

const EXAMPLES: &str = "\
Examples:
  quorate config check --config /etc/quorate/config.toml
  quorate config check --config config.toml --all
  quorate config check --config config.toml --set node.listen_addr=0.0.0.0:9001 --json

Ends 0 when a node would start with it as far as files and rules tell, and 2 when not. Secrets are
masked.";

/// Explain a node's configuration: what is in force, and from where
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Sets one key over file and environment, as with `quorate run`; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,

    /// Also the keys that nobody set and that have no default
    #[arg(long)]
    all: bool,
}

/// One thing that was looked at.
struct Finding {
    what: String,
    trouble: Option<String>,
}

pub(crate) fn run(args: CheckArgs, out: Out) -> Outcome {
    let explained = Explained::load(args.config.as_deref(), &args.set).map_err(|e| {
        Failure::usage(e).hint("`quorate run --print-default-config` explains every key")
    })?;
    let findings = look(&explained);
    print(out, &explained, &findings, args.all);
    let troubles = findings.iter().filter(|f| f.trouble.is_some()).count();
    match troubles {
        0 => Ok(()),
        1 => Err(Failure::usage(
            "a node would not start with this: see above",
        )),
        n => Err(Failure::usage(format!(
            "a node would not start with this: {n} findings above"
        ))),
    }
}

fn look(explained: &Explained) -> Vec<Finding> {
    let rules = Finding {
        what: match configured_rules(&explained.config) {
            Ok(rules) => format!(
                "the rules: {}, epoch {}, t = {} of N = {}",
                rules.cluster_name(),
                rules.epoch(),
                rules.threshold(),
                rules.total()
            ),
            Err(_) => "the rules".to_owned(),
        },
        trouble: configured_rules(&explained.config)
            .err()
            .map(|e| e.to_string()),
    };
    let files = explained.files().into_iter();
    let files = files
        // The rules were read above.
        .filter(|(key, _)| key != "consensus.rules_path")
        .map(|(key, path)| Finding {
            what: format!("{key}: {}", path.display()),
            trouble: unreadable(&key, &path),
        });
    std::iter::once(rules).chain(files).collect()
}

/// Why the file of a key is no good, as far as one look tells.
fn unreadable(key: &str, path: &Path) -> Option<String> {
    let holds_a_key = key.contains("key_path") || key.contains("password") || key.contains("url");
    match holds_a_key {
        true => quorate_crypto::file::read_secret(path).err(),
        false => quorate_crypto::file::read(path).err(),
    }
    .map(|e| e.to_string())
}

fn origin_of(setting: &Setting) -> (&'static str, Option<String>) {
    match &setting.origin {
        Origin::Written(place) => {
            let kind = match place {
                Place::File { .. } => "file",
                Place::Environment(_) => "environment",
                Place::Flag(_) => "flag",
                Place::Missing(_) => "unset",
            };
            (kind, Some(place.to_string()))
        }
        Origin::Default => ("default", None),
        Origin::Unset => ("unset", None),
    }
}

fn print(out: Out, explained: &Explained, findings: &[Finding], all: bool) {
    let settings: Vec<_> = explained
        .settings
        .iter()
        .map(|setting| {
            let (origin, place) = origin_of(setting);
            json!({
                "key": format!("{}.{}", setting.section, setting.key),
                "value": setting.value,
                "origin": origin,
                "place": place,
                "secret": setting.secret,
                "variable": setting.variable,
                "short_variable": setting.short_variable,
            })
        })
        .collect();
    let looked_at: Vec<_> = findings
        .iter()
        .map(|finding| json!({ "what": finding.what, "trouble": finding.trouble }))
        .collect();
    let ok = findings.iter().all(|finding| finding.trouble.is_none());
    out.json_pretty(&json!({ "ok": ok, "settings": settings, "findings": looked_at }));
    let mut table = out.table(&["key", "in force", "from"]);
    for setting in &explained.settings {
        let (origin, place) = origin_of(setting);
        if setting.origin == Origin::Unset && !all {
            continue;
        }
        let tone = match setting.origin {
            Origin::Written(_) => Tone::Plain,
            _ => Tone::Faint,
        };
        table.add_row([
            out.cell(Tone::Plain, format!("{}.{}", setting.section, setting.key)),
            out.cell(tone, setting.value.as_deref().unwrap_or("-")),
            out.cell(tone, place.as_deref().unwrap_or(origin)),
        ]);
    }
    wrap(&mut table);
    out.line(table);
    for finding in findings {
        match &finding.trouble {
            None => out.line(format!(
                "{}  {}",
                out.paint(Tone::Good, "ok  "),
                finding.what
            )),
            Some(why) => out.line(format!(
                "{}  {}: {why}",
                out.paint(Tone::Bad, "bad "),
                finding.what
            )),
        }
    }
}
