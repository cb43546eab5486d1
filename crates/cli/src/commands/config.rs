//! `quorate config`: the named contexts of this user.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::contexts::Contexts;
use crate::failure::Outcome;
use crate::output::{Out, Tone};

const EXAMPLES: &str = "\
Examples:
  quorate config get-contexts
  quorate config use-context node2
  quorate config delete-context node2

The file is ~/.config/quorate/contexts.toml; QUORATE_CONFIG names another.";

/// Show and choose the named contexts: which node commands talk to
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// List the contexts; the current one has a star
    #[command(after_help = "Example:\n  quorate config get-contexts")]
    GetContexts,
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

pub(crate) fn run(args: ConfigArgs, out: Out) -> Outcome {
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    match args.command {
        ConfigCommand::GetContexts => {}
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
