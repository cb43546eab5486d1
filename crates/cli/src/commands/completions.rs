//! `quorate completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::failure::Outcome;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate completions bash > /etc/bash_completion.d/quorate
  quorate completions zsh > \"${fpath[1]}/_quorate\"
  quorate completions fish > ~/.config/fish/completions/quorate.fish
  quorate completions powershell >> $PROFILE";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: CompletionsArgs, out: Out) -> Outcome {
    let mut script = Vec::new();
    generate(
        args.shell,
        &mut crate::cli::Cli::command(),
        "quorate",
        &mut script,
    );
    out.raw(&String::from_utf8_lossy(&script));
    Ok(())
}
