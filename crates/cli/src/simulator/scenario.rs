//! Scenarios by name: kinds of bad days, and scripts.

use quorate_sim::golden::{self, Script};
use quorate_sim::plan::draw::Family;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::{Out, Tone, wrap};

/// What `--scenario` names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scenario {
    /// A kind of bad day: a seed makes a schedule of it.
    Family(Family),
    /// One schedule.
    Script(Script),
}

impl Scenario {
    /// By its name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn parse(name: &str) -> Outcome<Self> {
        let family = Family::ALL.iter().find(|family| family.name() == name);
        let script = || golden::scripts().find(|script| script.name == name);
        family
            .map(|family| Self::Family(*family))
            .or_else(|| script().map(Self::Script))
            .ok_or_else(|| {
                Failure::usage(format!("there is no scenario {name:?}"))
                    .hint("`quorate sim --scenario list` lists them")
            })
    }
}

/// Prints all scenarios.
pub(crate) fn list(out: Out) {
    let families = Family::ALL
        .iter()
        .map(|family| json!({ "name": family.name(), "kind": "family", "about": family.about() }));
    let scripts = golden::scripts()
        .map(|script| json!({ "name": script.name, "kind": "script", "about": script.about() }));
    let all: Vec<_> = families.chain(scripts).collect();
    out.json_pretty(&json!({ "scenarios": all }));
    let mut table = out.table(&["a kind of bad day", "what goes wrong"]);
    for family in Family::ALL {
        table.add_row([
            out.cell(Tone::Plain, family.name()),
            out.cell(Tone::Plain, family.about()),
        ]);
    }
    out.line(table);
    let mut table = out.table(&["script", "what happens in it"]);
    for script in golden::scripts() {
        table.add_row([
            out.cell(Tone::Plain, script.name),
            out.cell(Tone::Plain, script.about()),
        ]);
    }
    wrap(&mut table);
    out.line(table);
    out.line("Next: quorate sim --scenario crashes, or quorate sim --scenario SCRIPT --trace");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unambiguous() {
        for family in Family::ALL {
            let found = Scenario::parse(family.name()).expect("a family");
            assert_eq!(found, Scenario::Family(*family));
            assert!(golden::scripts().all(|script| script.name != family.name()));
        }
        for script in golden::scripts() {
            let found = Scenario::parse(script.name).expect("a script");
            assert_eq!(found, Scenario::Script(script));
        }
        assert!(Scenario::parse("list").is_err());
    }
}
