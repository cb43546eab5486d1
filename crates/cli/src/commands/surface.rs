//! `quorate surface`, which help does not show: everything that people can name, as JSON,
//! for `tools/surface` and the tests that hold the list complete.

use std::collections::BTreeMap;

use clap::{ArgAction, Args, Command, CommandFactory};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::output::Out;
use crate::remote::RemoteArgs;

/// List every command, flag, configuration key and RPC method, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate surface | jq .methods")]
pub(crate) struct SurfaceArgs {}

pub(crate) fn run(_: SurfaceArgs, out: Out) -> Outcome {
    let mut root = crate::cli::Cli::command();
    root.build();
    let mut commands = Vec::new();
    list(&root, &[], &mut commands);
    let keys: Vec<_> = quorate_node::config::keys()
        .map(|key| {
            json!({
                "key": format!("{}.{}", key.section, key.key),
                "variable": key.variable,
                "short_variable": key.short_variable,
            })
        })
        .collect();
    let surface = json!({
        "commands": commands,
        // On each command that talks to a node, and listed once.
        "remote_flags": flags(&RemoteArgs::augment_args(Command::new(""))),
        "keys": keys,
        "methods": methods()?,
    });
    out.raw(&format!("{surface:#}\n"));
    Ok(())
}

/// A command and all below it.
fn list(command: &Command, above: &[&str], commands: &mut Vec<Value>) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let path: Vec<_> = above.iter().copied().chain([command.get_name()]).collect();
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
        .collect();
    let own: Vec<_> = flags(command);
    let remote = flags(&RemoteArgs::augment_args(Command::new("")));
    // Those that are the same everywhere are said once, and global ones at the top.
    let is_remote = remote.iter().all(|flag| own.contains(flag));
    let global = |flag: &str| {
        !above.is_empty()
            && command
                .get_arguments()
                .any(|a| a.is_global_set() && a.get_long() == flag.strip_prefix("--"))
    };
    let inherited = |flag: &Value| {
        let flag = flag["flag"].as_str().unwrap_or_default();
        let of_parent = flag == "--json" || above.len() > 1;
        global(flag) && of_parent
    };
    let own: Vec<_> = own
        .iter()
        .filter(|flag| !(is_remote && remote.contains(flag) || inherited(flag)))
        .collect();
    commands.push(json!({
        "command": path.join(" "),
        // A group of commands does nothing by itself, unless it may stand alone.
        "group": !below.is_empty() && command.is_subcommand_required_set(),
        "remote": is_remote,
        "flags": own,
        "about": command.get_about().map(ToString::to_string),
    }));
    for command in below {
        list(command, &path, commands);
    }
}

/// The flags of a command, but for those that every program has and those that help
/// does not show.
fn flags(command: &Command) -> Vec<Value> {
    let shown = command.get_arguments().filter(|arg| {
        let builtin = matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        !arg.is_hide_set() && !builtin
    });
    let names = shown.filter_map(|arg| {
        let short = arg.get_short().map(|short| format!("-{short}"));
        let long = arg.get_long()?;
        Some(json!({ "flag": format!("--{long}"), "short": short }))
    });
    names.collect()
}

fn methods() -> Outcome<Vec<String>> {
    let set = quorate_proto::FILE_DESCRIPTOR_SET;
    let pool = prost_reflect::DescriptorPool::decode(set).map_err(Failure::failed)?;
    let ours: BTreeMap<_, _> = pool
        .services()
        .filter(|service| service.package_name().starts_with("quorate."))
        .map(|service| (service.name().to_owned(), service))
        .collect();
    let methods = ours.iter().flat_map(|(name, service)| {
        let methods = service.methods().map(|method| method.name().to_owned());
        let methods: Vec<_> = methods.map(|method| format!("{name}.{method}")).collect();
        methods
    });
    Ok(methods.collect())
}
