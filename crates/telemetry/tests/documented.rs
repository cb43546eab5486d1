//! Holds `docs/metrics.md` against the list of metrics, and the list against what is
//! really exported, both ways each.
//!
//! `QUORATE_REWRITE=1 cargo test -p quorate-telemetry --test documented` writes the
//! table of the page anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use quorate_telemetry::Metrics;
use quorate_telemetry::metrics::{Kind, LIST};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

const BEGIN: &str = "<!-- list: begin -->\n";
const END: &str = "<!-- list: end -->\n";

/// Type, unit and labels of what an export shows, by exported name.
type Shown = BTreeMap<String, (String, String, BTreeSet<String>)>;

fn listed() -> Shown {
    let all = LIST.iter().map(|metric| {
        let labels = metric.labels.iter().map(|l| (*l).to_owned()).collect();
        let unit = metric.unit.unwrap_or_default().to_owned();
        (metric.name(), (metric.kind.to_string(), unit, labels))
    });
    all.collect()
}

/// The names of the labels of a sample, but the edge of a bucket.
fn labels(sample: &str) -> BTreeSet<String> {
    let inside = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'));
    let pairs = inside.map(|(pairs, _)| pairs).unwrap_or_default();
    let names = pairs.split(',').filter_map(|pair| pair.split_once('='));
    names
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "le")
        .collect()
}

/// Reads an export.
fn shown(text: &str) -> Shown {
    let mut shown = Shown::new();
    let mut family = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                let ending = match kind {
                    "counter" => "_total",
                    _ => "",
                };
                family = (name.to_owned(), format!("{name}{ending}"));
                let entry = shown.entry(family.1.clone()).or_default();
                assert!(entry.0.is_empty(), "{name} is there twice");
                entry.0 = kind.to_owned();
            }
            ["#", "UNIT", name, unit] => {
                assert_eq!(name, family.0);
                shown.entry(family.1.clone()).or_default().1 = unit.to_owned();
            }
            ["#", ..] => {}
            _ => {
                assert!(line.starts_with(&family.0), "{line} is no {}", family.0);
                let entry = shown.entry(family.1.clone()).or_default();
                entry.2.extend(labels(line));
            }
        }
    }
    shown
}

#[test]
fn what_is_exported_is_what_is_listed() {
    let (metrics, exporter) = Metrics::new();
    metrics.touch_all();
    let text = exporter.export();
    assert!(text.ends_with("# EOF\n"), "no end in\n{text}");
    assert_eq!(shown(&text), listed());
    assert_eq!(listed().len(), LIST.len(), "a name is listed twice");
}

#[test]
fn names_follow_the_conventions() {
    for metric in LIST {
        let name = metric.name();
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(good), "{name}");
        assert!(
            !metric.base.ends_with("_total"),
            "{name}: the ending comes by itself"
        );
        assert!(
            !metric.help.is_empty() && !metric.help.ends_with('.'),
            "{name}"
        );
        assert!(
            !metric.labels.contains(&"tx_id"),
            "{name}: that is unbounded"
        );
        if metric.kind == Kind::Histogram && metric.unit.is_none() {
            assert!(metric.base.ends_with("_size"), "{name} has no unit");
        }
    }
}

fn table() -> String {
    let mut table = String::from("\n| name | type | labels | what it says |\n|---|---|---|---|\n");
    for metric in LIST {
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let labels = match labels.is_empty() {
            true => "–".to_owned(),
            false => labels.join(", "),
        };
        let (name, kind, help) = (metric.name(), metric.kind, metric.help);
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
    }
    table.push('\n');
    table
}

#[test]
fn the_page_shows_the_list() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the list begins");
    let (found, after) = rest.split_once(END).expect("the list ends");
    if std::env::var_os("QUORATE_REWRITE").is_some() {
        std::fs::write(PAGE, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(
        found,
        table(),
        "docs/metrics.md differs from the list; QUORATE_REWRITE=1 writes it anew"
    );
    // Whatever else the page speaks of must exist, too.
    let names: BTreeSet<_> = LIST.iter().map(|metric| metric.name()).collect();
    for text in [before, after] {
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let is_metric = word.starts_with("quorate_") && word != "quorate_";
            assert!(!is_metric || names.contains(word), "{word} is no metric");
        }
    }
}
