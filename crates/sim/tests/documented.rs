//! docs/simulator.md names what there is.
#![allow(clippy::expect_used, missing_docs)]

use quorate_sim::invariants;
use quorate_sim::plan::draw::Family;

#[test]
fn the_page_names_every_family_and_every_invariant() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulator.md");
    let page = std::fs::read_to_string(path).expect("docs/simulator.md");
    let names = invariants::all()
        .into_iter()
        .map(|invariant| invariant.name());
    for name in names.chain(Family::ALL.iter().map(|family| family.name())) {
        assert!(
            page.contains(&format!("\n| `{name}` | ")),
            "{name} is missing"
        );
    }
}
