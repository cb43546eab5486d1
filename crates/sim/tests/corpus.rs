//! The corpus: every schedule that ever failed, as text in `corpus/`, with the seed that
//! it was found by, the invariant that it broke, what was wrong, and how it was mended.
//! None of them may fail again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;

use quorate_sim::hunt::Runner;
use quorate_sim::plan::Plan;

/// What the comments that a schedule begins with must say, each on a line of its own.
const SAID: [&str; 4] = ["# seed: ", "# invariant: ", "# wrong: ", "# mended: "];

fn corpus() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files = std::fs::read_dir(&folder).expect("the folder corpus/");
    let mut corpus: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn no_schedule_fails_that_failed_once() {
    let mut runner = Runner::default();
    let mut failed = Vec::new();
    let corpus = corpus();
    assert!(!corpus.is_empty());
    for (name, text) in corpus {
        let plan: Plan = match text.parse() {
            Ok(plan) => plan,
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        if let Some(failure) = runner.run(&Arc::new(plan)).failure {
            failed.push(format!(
                "{name}: {} at {} ms: {}",
                failure.invariant, failure.at_ms, failure.detail
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_schedule_says_what_was_wrong_and_how_it_was_mended() {
    for (name, text) in corpus() {
        for said in SAID {
            let mut lines = text.lines().take_while(|line| line.starts_with('#'));
            let line = lines.find(|line| line.starts_with(said));
            let words = line.and_then(|line| line.strip_prefix(said));
            assert!(
                words.is_some_and(|words| words.len() > 1),
                "{name} has no line that begins with {said:?}"
            );
        }
    }
}
