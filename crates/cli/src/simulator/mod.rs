//! The simulator as people use it: one schedule with its story, or a hunt through many
//! with its progress, and what is told of a failure.

mod failed;
mod long;
mod one;
mod progress;
mod scenario;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_sim::plan::draw;

use crate::failure::{Failure, Outcome};
use crate::output::Out;
use crate::signals::until_told_to_stop;

pub(crate) use failed::Folder;
pub(crate) use long::Long;
pub(crate) use one::Wanted;
pub(crate) use scenario::{Scenario, list};

/// Fresh seeds have so many bits: easy to type, exact in every JSON reader, and seldom
/// met twice.
const SEED_BITS: u32 = 40;

/// A seed that nobody has chosen: of a schedule with so many members, if that is asked.
///
/// # Errors
/// When the operating system has no randomness.
pub(crate) fn fresh_seed(nodes: Option<usize>) -> Outcome<u64> {
    loop {
        let drawn = getrandom::u64().map_err(|e| Failure::failed(format!("no randomness: {e}")))?;
        let seed = drawn >> (u64::BITS - SEED_BITS);
        if nodes.is_none_or(|nodes| draw::nodes(seed) == nodes) {
            return Ok(seed);
        }
    }
}

/// How many threads run at once here.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs what is wanted. Ctrl-C ends a hunt, which then tells what it came to; the
/// second one ends everything.
///
/// # Errors
/// When something that must hold did not.
pub(crate) async fn run(wanted: Wanted, folder: Folder, out: Out) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let mut work = tokio::task::spawn_blocking(move || wanted.run(&told, &folder, out));
    tokio::select! {
        done = &mut work => return ended(done),
        _ = until_told_to_stop() => stop.store(true, Ordering::Relaxed),
    }
    tokio::select! {
        done = work => ended(done),
        name = until_told_to_stop() => Err(Failure::failed(format!("ended by {name}"))),
    }
}

fn ended(done: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    done.unwrap_or_else(|e| Err(Failure::failed(format!("the simulator broke: {e}"))))
}

/// A number with a comma after each thousand.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something, in the singular or the plural.
fn counted(number: u64, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{} {more}", grouped(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "ballot", "ballots"), "1 ballot");
        assert_eq!(counted(2_000, "ballot", "ballots"), "2,000 ballots");
    }

    #[test]
    fn fresh_seeds_are_short() {
        for _ in 0..100 {
            assert!(fresh_seed(None).expect("randomness") < 1 << SEED_BITS);
        }
        for nodes in 1..=draw::MOST_NODES {
            let seed = fresh_seed(Some(nodes)).expect("randomness");
            assert_eq!(draw::plan(seed).shape.nodes, nodes);
        }
    }
}
