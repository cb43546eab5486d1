//! Every query of the dashboards and of the alerts names metrics that are exported, and
//! labels that they have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quorate_telemetry::metrics::{Kind, LIST};
use serde_json::Value;

/// Labels that Prometheus gives, and the edge of a bucket.
const OF_PROMETHEUS: [&str; 3] = ["job", "instance", "le"];

/// Words of the query language that may stand where a label's name may.
const KEYWORDS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker")
}

/// The labels of every series that is exported, by its name.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all = BTreeMap::new();
    for metric in LIST {
        let labels: BTreeSet<_> = metric.labels.iter().copied().collect();
        let endings: &[&str] = match metric.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        for ending in endings {
            all.insert(format!("{}{ending}", metric.name()), labels.clone());
        }
    }
    all
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a text with the place where each begins.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(is_word) {
        let tail = &rest[begin..];
        let len = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        words.push((text.len() - rest.len() + begin, &tail[..len]));
        rest = &tail[len..];
    }
    words
}

/// The names on the left of the matchers within braces.
fn matched(braces: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut quoted = false;
    let mut begin = 0;
    for (at, c) in braces.char_indices().chain([(braces.len(), ',')]) {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                let matcher = braces[begin..at].trim();
                names.extend(words(matcher).first().map(|(_, name)| *name));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// What is wrong with a query; empty when nothing is.
fn faults(query: &str, legend: &str) -> Vec<String> {
    let series = series();
    let mut faults = Vec::new();
    let mut labels: BTreeSet<&str> = OF_PROMETHEUS.into();
    let mut named = 0;
    for (at, word) in words(query) {
        if !word.starts_with("quorate_") {
            continue;
        }
        named += 1;
        let Some(own) = series.get(word) else {
            faults.push(format!("{word} is not exported"));
            continue;
        };
        labels.extend(own);
        if let Some(braces) = query[at + word.len()..].strip_prefix('{') {
            let end = braces.find('}').expect("braces end");
            for name in matched(&braces[..end]) {
                if !own.contains(name) && !OF_PROMETHEUS.contains(&name) {
                    faults.push(format!("{word} has no label {name}"));
                }
            }
        }
    }
    if named == 0 && !query.starts_with("up{") {
        faults.push("it names no metric of ours".to_owned());
    }
    for (at, word) in words(query) {
        let after = query[at + word.len()..].trim_start();
        if !KEYWORDS.contains(&word) || !after.starts_with('(') {
            continue;
        }
        let list = after[1..].split(')').next().unwrap_or_default();
        for (_, name) in words(list) {
            if !labels.contains(name) {
                faults.push(format!("{word} ({name}): no metric in it has that label"));
            }
        }
    }
    for name in legend.split("{{").skip(1) {
        let name = name.split("}}").next().unwrap_or_default().trim();
        if !labels.contains(name) {
            faults.push(format!(
                "the legend shows {name}, which no metric in it has"
            ));
        }
    }
    faults
}

/// Every query of a dashboard with its legend: of panels, also within rows, and of
/// variables.
fn queries(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(query)) = object.get("expr") {
                let legend = object.get("legendFormat").and_then(Value::as_str);
                found.push((query.clone(), legend.unwrap_or_default().to_owned()));
            }
            if let Some(Value::String(query)) = object.get("query") {
                let inside = query.strip_prefix("label_values(").unwrap_or(query);
                found.push((inside.trim_end_matches(')').to_owned(), String::new()));
            }
            object.values().for_each(|value| queries(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboards_has_its_metric() {
    let mut dashboards = 0;
    let mut count = 0;
    for entry in std::fs::read_dir(docker().join("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        queries(&dashboard, &mut found);
        for (query, legend) in &found {
            let faults = faults(query, legend);
            assert!(faults.is_empty(), "{}: {query}: {faults:?}", path.display());
        }
        dashboards += 1;
        count += found.len();
    }
    assert!(dashboards >= 5 && count >= 50, "{dashboards}, {count}");
}

/// The expressions of the rules: on the line of `expr:`, or below it where a bar stands.
fn expressions(rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("expr: ") else {
            continue;
        };
        if rest != "|" {
            found.push(rest.trim_matches('\'').to_owned());
            continue;
        }
        let depth = line.len() - line.trim_start().len();
        let mut expression = String::new();
        while let Some(more) = lines.next_if(|l| l.len() - l.trim_start().len() > depth) {
            expression.push_str(more.trim_start());
            expression.push('\n');
        }
        found.push(expression);
    }
    found
}

#[test]
fn every_alert_has_its_metric() {
    let rules = std::fs::read_to_string(docker().join("prometheus/alerts.yml")).unwrap();
    let expressions = expressions(&rules);
    assert_eq!(expressions.len(), rules.matches("- alert: ").count());
    for query in expressions {
        let faults = faults(&query, "");
        assert!(faults.is_empty(), "{query}: {faults:?}");
    }
}

#[test]
fn what_is_wrong_is_found() {
    for (query, legend, fault) in [
        ("rate(quorate_votes_received[5m])", "", "not exported"),
        ("quorate_stage_duration_seconds", "", "not exported"),
        ("quorate_store_up{shop=\"board\"}", "", "no label shop"),
        ("sum by (node) (quorate_peer_reputation)", "", "by (node)"),
        ("quorate_ready", "{{node_id}}", "the legend shows node_id"),
        ("vector(1)", "", "no metric"),
    ] {
        let faults = faults(query, legend);
        assert!(
            faults.iter().any(|f| f.contains(fault)),
            "{query}: {faults:?}"
        );
    }
    let good = "max by (store) (quorate_store_up{store=~\"board,audit\",job=\"quorate\"}) == 0";
    assert_eq!(faults(good, "{{store}}"), [""; 0]);
}
