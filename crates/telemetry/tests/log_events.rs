//! Every event of the log is named, and docs/logs.md lists each with its levels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Events = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The string literals of a macro call whose arguments begin `text`, up to its end.
fn literals(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 1;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    literal.push(c);
                    if c == '\\' {
                        literal.extend(chars.next());
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// "audit.away: submissions pause" is named `audit.away`.
fn name(literal: &str) -> Option<&str> {
    let name = literal.split(':').next()?;
    let (area, event) = name.split_once('.')?;
    let word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (word(area) && word(event)).then_some(name)
}

fn in_source() -> Events {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    let mut events = Events::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (at, call) in text.match_indices(&format!("tracing::{level}!(")) {
                let literals = literals(&text[at + call.len()..]);
                let named = literals.iter().find_map(|literal| name(literal));
                let named = named.unwrap_or_else(|| {
                    panic!("{}: an event without a name: {literals:?}", file.display())
                });
                let levels = events.entry(named.to_owned()).or_default();
                levels.insert(level.to_owned());
            }
        }
    }
    events
}

fn in_docs() -> Events {
    let page = std::fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let mut events = Events::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (event, levels) = (cells.next().unwrap(), cells.next().unwrap());
        let levels = levels.split(", ").map(str::to_owned).collect();
        let before = events.insert(event.trim_matches('`').to_owned(), levels);
        assert!(before.is_none(), "{event} is listed twice");
    }
    events
}

#[test]
fn the_page_lists_what_the_source_logs() {
    let (source, docs) = (in_source(), in_docs());
    assert!(source.len() > 50, "the source was not found");
    for (event, levels) in &source {
        assert_eq!(docs.get(event), Some(levels), "{event} in docs/logs.md");
    }
    for event in docs.keys() {
        assert!(
            source.contains_key(event),
            "nobody logs {event} of docs/logs.md"
        );
    }
}
