//! `quorate man`: manual pages.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::files::write_atomically;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate man ~/.local/share/man/man1       then: man quorate, man quorate-vote
  sudo quorate man /usr/local/share/man/man1";

/// Write manual pages, one for each command
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Where they go: a directory, which is made
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: ManArgs, out: Out) -> Outcome {
    let mut files = Vec::new();
    let mut root = crate::cli::Cli::command();
    // Flags of the whole program stand on each page.
    root.build();
    write(&root, &args.dir, &mut files)?;
    out.json_pretty(&json!({ "files": files }));
    out.line(format!("{} pages in {}", files.len(), args.dir.display()));
    Ok(())
}

/// The pages of a command and of all below it.
fn write(command: &clap::Command, dir: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let name = page_of(command);
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .render(&mut page)
        .map_err(|e| Failure::failed(format!("cannot write the page {name}: {e}")))?;
    let path = dir.join(format!("{name}.1"));
    write_atomically(&path, &page)?;
    files.push(path);
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    for command in below.filter(|command| command.get_name() != "help") {
        write(command, dir, files)?;
    }
    Ok(())
}

/// `quorate-dev-stop`, as clap names a command that is built.
fn page_of(command: &clap::Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name()).to_owned()
}
