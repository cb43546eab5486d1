//! Golden scripts: what a reader should see. Each file in `golden/` is a plan, a line
//! `---`, and the story that it must give, to the letter.
//!
//! `QUORATE_REWRITE=1 cargo test -p quorate-sim --test golden` writes the stories anew:
//! read them before you commit them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_sim::golden::CUT;
use quorate_sim::hunt::Runner;
use quorate_sim::liars::LiarKind;
use quorate_sim::plan::Plan;

/// More lines nobody reads.
const MOST_LINES: usize = 80;

struct Script {
    path: PathBuf,
    text: String,
    plan: Plan,
    story: String,
}

fn scripts() -> BTreeMap<String, Script> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = std::fs::read_dir(&folder).expect("the folder golden/");
    let mut scripts = BTreeMap::new();
    for file in files {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read_to_string(&path).unwrap();
        let (text, story) = whole.split_once(CUT).unwrap_or((&whole, ""));
        let plan = text.parse();
        let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (text, story) = (text.to_owned(), story.to_owned());
        let script = Script {
            path,
            text,
            plan,
            story,
        };
        scripts.insert(name, script);
    }
    scripts
}

/// The first line in which two stories differ.
fn difference(expected: &str, found: &str) -> String {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (left, right) = (expected.next(), found.next());
        if left != right {
            let left = left.unwrap_or("(the end)");
            let right = right.unwrap_or("(the end)");
            return format!("story line {number}\n  expected {left}\n  found    {right}");
        }
    }
}

#[test]
fn every_script_gives_its_story() {
    let rewrite = std::env::var_os("QUORATE_REWRITE").is_some();
    let mut runner = Runner::default();
    let mut wrong = Vec::new();
    let mut rewritten = 0;
    for (name, script) in scripts() {
        let (outcome, story) = runner.tell(&Arc::new(script.plan));
        if let Some(failure) = outcome.failure {
            let (invariant, at_ms, detail) = (failure.invariant, failure.at_ms, failure.detail);
            wrong.push(format!("{name}: {invariant} at {at_ms} ms: {detail}"));
        }
        let lines = story.lines.len();
        if lines > MOST_LINES {
            wrong.push(format!("{name}: {lines} lines, more than {MOST_LINES}"));
        }
        let mut told = story.lines.join("\n");
        told.push('\n');
        if told == script.story {
            continue;
        }
        if rewrite {
            std::fs::write(&script.path, format!("{}{CUT}{told}", script.text)).unwrap();
            rewritten += 1;
        } else {
            wrong.push(format!("{name}: {}", difference(&script.story, &told)));
        }
    }
    if rewrite {
        println!("{rewritten} stories were written anew: read them before you commit them");
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} are wrong; QUORATE_REWRITE=1 writes stories anew",
        wrong.join("\n"),
        wrong.len()
    );
}

#[test]
fn every_script_says_first_what_a_reader_should_see() {
    for (name, script) in scripts() {
        let first = script.text.lines().next().unwrap_or_default();
        let said = first.strip_prefix("# ").unwrap_or_default();
        assert!(said.len() > 20, "{name} begins with {first:?}");
    }
}

#[test]
fn every_row_of_the_table_has_a_script() {
    let scripts = scripts();
    for row in 1..=15 {
        let prefix = format!("row-{row:02}-");
        let mut of_row = scripts.keys().filter(|name| name.starts_with(&prefix));
        assert!(of_row.next().is_some(), "no golden/{prefix}*.txt");
    }
    // Rows that move a ballot are named where they do.
    for row in [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13] {
        let prefix = format!("row-{row:02}-");
        for (name, script) in scripts.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            let moves = format!("(row {row}:");
            let stays = name.ends_with("-outvote");
            assert!(
                stays || script.story.contains(&moves),
                "{name} has no {moves}"
            );
        }
    }
}

#[test]
fn every_liar_has_a_script() {
    let scripts = scripts();
    for kind in LiarKind::ALL {
        let name = format!("liar-{}", kind.name());
        let script = scripts.get(&name);
        let script = script.unwrap_or_else(|| panic!("no golden/{name}.txt"));
        let liars = &script.plan.liars;
        assert!(liars.values().any(|liar| liar == kind), "{name} has none");
    }
}
