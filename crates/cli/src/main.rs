//! The command `quorate`: runs nodes, talks to them, and checks what they prove.
// The doc comments of arguments are the help that clap prints: <FILE> is no HTML there.
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]

mod byzantine;
mod cli;
mod client;
mod commands;
mod contexts;
mod demo;
mod doctor;
mod failure;
mod files;
mod local;
mod operator;
mod output;
mod playground;
mod remote;
mod rounds;
mod screen;
mod signals;
mod simulator;
mod waiting;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::{Exit, Failure};

/// Votes are many small values that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(remote::node_options_last(std::env::args_os()));
    let out = output::Out::new(cli.json);
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))
        .and_then(|runtime| {
            let done = runtime.block_on(cli.run(out));
            // Whatever still reads a terminal or a name server must not hold the exit.
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit() as u8)
        }
    }
}
