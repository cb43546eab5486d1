//! `quorate demo`: seven scenarios, every outcome as told, nothing left behind.

mod common;

use common::Home;

#[test]
fn all_scenarios_come_out_as_told() {
    let home = Home::new();
    let temp = home.path().join("tmp");
    std::fs::create_dir(&temp).expect("a directory");
    let output = home
        .command()
        .env("TMPDIR", &temp)
        .args(["demo", "--json", "--keep", "kept"])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(output.status.success(), "{told:#}");
    assert_eq!(told["holds"], true, "{told:#}");
    let scenarios = told["scenarios"].as_array().expect("scenarios");
    assert_eq!(scenarios.len(), 7);
    for scenario in scenarios {
        let claims = scenario["claims"].as_array().expect("claims");
        assert!(claims.len() >= 5, "{scenario:#}");
        assert!(
            claims.iter().all(|claim| claim["holds"] == true),
            "{scenario:#}"
        );
    }
    let path = "COLLECTING → THRESHOLD_REACHED → SUBMITTED → CONFIRMED";
    assert_eq!(scenarios[0]["path"], path);
    assert_eq!(scenarios[1]["path"], "COLLECTING → ABORTED_BYZANTINE");

    // Kept on request, everything else gone, no context written.
    assert!(home.path().join("kept/demo-1.proof").exists());
    let left = std::fs::read_dir(&temp).expect("a directory").count();
    assert_eq!(left, 0, "something is left in the temporary directory");
    assert!(!home.contexts().exists());
}
