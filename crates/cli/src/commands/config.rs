//! `quorate config`: a node's configuration, and the named contexts of this user.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::config_check::{self, CheckArgs};
use crate::contexts::{Context, Contexts};
use crate::failure::{Failure, Outcome};
use crate::files::absolute;
use crate::output::{Out, Tone};

const EXAMPLES: &str = "\
Examples:
  quorate config check --config /etc/quorate/config.toml
  quorate config get-contexts
  quorate config set-context prod --endpoint a.example.org:9000,b.example.org:9000 \\
    --cacert ca.crt --cert app.crt --key app.key
  quorate config use-context prod
  quorate config current-context
  quorate config delete-context prod

The contexts lie in ~/.config/quorate/contexts.toml; QUORATE_CONFIG names another file.";

/// Explain a node's configuration; show, make and choose the named contexts
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(CheckArgs),
    /// List the contexts; the current one has a star
    #[command(after_help = "Example:\n  quorate config get-contexts")]
    GetContexts,
    /// Print the name of the context that is used when nothing else is said
    #[command(after_help = "Example:\n  quorate config current-context")]
    CurrentContext,
    SetContext(SetContextArgs),
    /// Choose the context that is used when nothing else is said
    #[command(after_help = "Example:\n  quorate config use-context node2")]
    UseContext {
        /// Its name
        name: String,
    },
    /// Forget a context; its files stay
    #[command(after_help = "Example:\n  quorate config delete-context node2")]
    DeleteContext {
        /// Its name
        name: String,
    },
}

const SET_EXAMPLES: &str = "\
Examples:
  quorate config set-context prod --endpoint node1.example.org:9000 \\
    --cacert ca.crt --cert app.crt --key app.key --use
  quorate config set-context prod --endpoint a.example.org:9000,b.example.org:9000";

/// Make a context, or change what is given of one
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
struct SetContextArgs {
    /// Its name
    name: String,

    /// The node's address; several with commas are tried one after the other
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,

    /// The cluster CA, which certified the node
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// The client certificate, by the CA of the node's own trustee
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The private key of the client certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// An operator's certificate, by the same CA: for what operators do
    #[arg(long, value_name = "FILE")]
    operator_cert: Option<PathBuf>,

    /// The private key of the operator's certificate
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,

    /// The cluster's id, 64 hexadecimal digits: for people, who compare it
    #[arg(long, value_name = "HEX")]
    cluster_id: Option<String>,

    /// Choose it, too
    #[arg(long = "use")]
    chosen: bool,
}

pub(crate) fn run(args: ConfigArgs, out: Out) -> Outcome {
    if let ConfigCommand::Check(args) = args.command {
        return config_check::run(args, out);
    }
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    match args.command {
        ConfigCommand::GetContexts | ConfigCommand::Check(_) => {}
        ConfigCommand::CurrentContext => return print_current(out, &path, &contexts),
        ConfigCommand::SetContext(args) => {
            set(&mut contexts, args)?;
            contexts.save(&path)?;
        }
        ConfigCommand::UseContext { name } => {
            contexts.named(&name)?;
            contexts.current = Some(name);
            contexts.save(&path)?;
        }
        ConfigCommand::DeleteContext { name } => {
            contexts.named(&name)?;
            contexts.contexts.remove(&name);
            if contexts.current.as_deref() == Some(&name) {
                contexts.current = None;
            }
            contexts.save(&path)?;
        }
    }
    print(out, &path, &contexts);
    Ok(())
}

/// Makes a context, or changes what is given of one.
fn set(contexts: &mut Contexts, args: SetContextArgs) -> Outcome {
    let old = contexts.contexts.get(&args.name).cloned();
    let missing = |flag: &str| {
        Failure::usage(format!("a new context needs --{flag}")).hint(
            "give --endpoint, --cacert, --cert and --key; a context that is there keeps what is \
             not given",
        )
    };
    let file = |flag: &str, given: Option<PathBuf>, old: Option<PathBuf>| {
        let given = given.map(|path| absolute(&path));
        given.or(old).ok_or_else(|| missing(flag))
    };
    let endpoint = args
        .endpoint
        .or_else(|| old.as_ref().map(|c| c.endpoint.clone()));
    let context = Context {
        endpoint: endpoint.ok_or_else(|| missing("endpoint"))?,
        cacert: file(
            "cacert",
            args.cacert,
            old.as_ref().map(|c| c.cacert.clone()),
        )?,
        cert: file("cert", args.cert, old.as_ref().map(|c| c.cert.clone()))?,
        key: file("key", args.key, old.as_ref().map(|c| c.key.clone()))?,
        operator_cert: (args.operator_cert.map(|path| absolute(&path)))
            .or_else(|| old.as_ref().and_then(|c| c.operator_cert.clone())),
        operator_key: (args.operator_key.map(|path| absolute(&path)))
            .or_else(|| old.as_ref().and_then(|c| c.operator_key.clone())),
        cluster_id: args.cluster_id.or_else(|| old.and_then(|c| c.cluster_id)),
    };
    if context.operator_cert.is_some() != context.operator_key.is_some() {
        return Err(Failure::usage(
            "--operator-cert and --operator-key go together",
        ));
    }
    if args.chosen {
        contexts.current = Some(args.name.clone());
    }
    contexts.contexts.insert(args.name, context);
    Ok(())
}

fn print_current(out: Out, path: &std::path::Path, contexts: &Contexts) -> Outcome {
    let Some(current) = &contexts.current else {
        return Err(Failure::usage("no context is chosen")
            .hint("choose one with `quorate config use-context NAME`"));
    };
    out.json_pretty(&json!({ "file": path, "current": current }));
    out.line(current);
    Ok(())
}

fn print(out: Out, path: &std::path::Path, contexts: &Contexts) {
    let all: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, context)| {
            let current = contexts.current.as_deref() == Some(name);
            json!({ "name": name, "current": current, "endpoint": context.endpoint,
                    "cacert": context.cacert, "cert": context.cert, "key": context.key,
                    "cluster_id": context.cluster_id })
        })
        .collect();
    out.json_pretty(&json!({ "file": path, "current": contexts.current, "contexts": all }));
    if contexts.contexts.is_empty() {
        out.line(format!(
            "no contexts in {}: `quorate dev` writes some",
            path.display()
        ));
        return;
    }
    let mut table = out.table(&["", "name", "endpoint", "client certificate"]);
    for (name, context) in &contexts.contexts {
        let current = contexts.current.as_deref() == Some(name);
        table.add_row([
            out.cell(Tone::Good, if current { "*" } else { "" }),
            out.cell(Tone::Plain, name),
            out.cell(Tone::Plain, &context.endpoint),
            out.cell(Tone::Faint, context.cert.display()),
        ]);
    }
    out.line(table);
}
