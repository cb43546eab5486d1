//! `quorate sim`: the same seed gives the same schedule, threads change nothing, a
//! schedule can be taken away as text and run again, and wrong wishes are told.

mod common;

use common::Home;
use serde_json::Value;

/// What a run came to, without how long it took.
fn timeless(mut json: Value) -> Value {
    for name in ["took_ms", "schedules_per_s", "ballots_per_s", "threads"] {
        json.as_object_mut().expect("an object").remove(name);
    }
    json
}

#[test]
fn a_seed_is_one_schedule_and_a_script() {
    let home = Home::new();
    let run = |args: &[&str]| timeless(home.run(&[args, &["--json"]].concat()).json());
    let told = run(&["sim", "--seed", "42"]);
    assert_eq!(told, run(&["sim", "--seed", "42"]));
    assert_eq!(told["seed"], 42);
    assert!(told["ballots"].as_u64() >= Some(8), "{told:#}");
    assert!(told["faults"].as_u64() >= Some(20), "{told:#}");
    // In another family it is another one.
    let family = told["scenario"].as_str().expect("a family");
    let same = run(&["sim", "--seed", "42", "--scenario", family]);
    assert_eq!(same["fingerprint"], told["fingerprint"]);
    let other = ["chains", "clocks"][usize::from(family == "chains")];
    let other = run(&["sim", "--seed", "42", "--scenario", other]);
    assert_ne!(other["fingerprint"], told["fingerprint"]);
    // Its text runs alike.
    let script = told["script"].as_str().expect("a script");
    std::fs::write(home.path().join("seed.txt"), script).expect("a file");
    let again = run(&["sim", "--script", "seed.txt"]);
    assert_eq!(again["fingerprint"], told["fingerprint"]);
    assert_eq!(again["script"], told["script"]);
    // Its story changes nothing, and begins at the beginning.
    let traced = run(&["sim", "--seed", "42", "--trace"]);
    assert_eq!(traced["fingerprint"], told["fingerprint"]);
    let story = traced["story"].as_array().expect("a story");
    assert!(story.len() > 20, "{story:#?}");
}

#[test]
fn threads_change_nothing() {
    let home = Home::new();
    let run = |threads: &str| {
        let args = ["sim", "--seed", "1", "--schedules", "6", "--keep-going"];
        let more = ["--threads", threads, "--json", "--out", threads];
        let mut json = timeless(home.run(&[&args[..], &more].concat()).json());
        // Where they were written differs.
        for failure in json["failures"].as_array_mut().into_iter().flatten() {
            failure["script"].take();
            failure["script_replay"].take();
        }
        json
    };
    let told = run("1");
    assert_eq!(told["schedules"], 6);
    assert!(told["ballots"].as_u64() > Some(0), "{told:#}");
    assert!(told["least"]["faults"].as_u64() >= Some(20), "{told:#}");
    assert_eq!(told, run("3"));
}

#[test]
fn only_schedules_of_so_many_nodes_are_run() {
    let home = Home::new();
    let args = [
        "sim",
        "--seed",
        "1",
        "--nodes",
        "2",
        "--schedules",
        "3",
        "--json",
    ];
    let told = home.run(&args).expect(0).json();
    assert_eq!((&told["schedules"], &told["nodes"]), (&3.into(), &2.into()));
    // The same by hand: each of them is the schedule that its seed has alone.
    let fits = |seed: &u64| quorate_sim::plan::draw::nodes(*seed) == 2;
    let seeds: Vec<u64> = (1..).filter(fits).take(3).collect();
    let one = |seed: u64| {
        let seed = seed.to_string();
        home.run(&["sim", "--seed", &seed, "--json"])
            .expect(0)
            .json()
    };
    let alone: Vec<Value> = seeds.iter().map(|seed| one(*seed)).collect();
    assert!(alone.iter().all(|one| one["nodes"] == 2), "{alone:#?}");
    let events = alone
        .iter()
        .map(|one| one["events"].as_u64().expect("a number"));
    assert_eq!(told["events"], events.sum::<u64>());
    // One story of a fresh seed, and a seed whose schedule has others.
    let fresh = home
        .run(&["sim", "--nodes", "2", "--trace", "--json"])
        .expect(0);
    assert_eq!(fresh.json()["nodes"], 2);
    let first = seeds[0].to_string();
    home.run(&["sim", "--seed", &first, "--nodes", "2"])
        .expect(0);
    let run = home
        .run(&["sim", "--seed", &first, "--nodes", "3"])
        .expect(2);
    assert!(run.stderr.contains("has 2 nodes, not 3"), "{}", run.stderr);
}

#[test]
fn a_golden_script_tells_its_story() {
    let home = Home::new();
    let name = "row-01-first-vote";
    let run = home.run(&["sim", "--scenario", name, "--trace"]).expect(0);
    let script = quorate_sim::golden::scripts().find(|script| script.name == name);
    let story = script.expect("a script").story();
    assert!(run.stdout.contains(story), "{}", run.stdout);
    assert!(!run.stdout.contains('\x1b'), "{}", run.stdout);
    let list = home.run(&["sim", "--scenario", "list"]).expect(0).stdout;
    assert!(
        list.contains(name) && list.contains("lying-store"),
        "{list}"
    );
    let list = home.run(&["sim", "--scenario", "list", "--json"]);
    let list = list.expect(0).json();
    let all = list["scenarios"].as_array().expect("scenarios");
    assert!(all.iter().any(|scenario| scenario["name"] == name));
}

#[test]
fn a_fresh_seed_is_told() {
    let home = Home::new();
    let run = || home.run(&["sim", "--schedules", "1", "--json"]).json();
    assert_ne!(run()["seed"], run()["seed"]);
    let args = ["sim", "--minutes", "0.001", "--scenario", "clocks"];
    let text = home.run(&args).stdout;
    assert!(text.starts_with("Hunting from seed "), "{text}");
}

#[test]
fn wrong_wishes_are_2() {
    let home = Home::new();
    let scripts = [
        ("nonsense.txt", "nodes 3\nat 10 dance node1\n"),
        ("rules.txt", "nodes 3\ntimeout 1\n"),
    ];
    for (name, text) in scripts {
        std::fs::write(home.path().join(name), text).expect("a file");
    }
    for (args, says) in [
        (&["--scenario", "nowhere"][..], "--scenario list"),
        (
            &["--scenario", "row-01-first-vote", "--seed", "1"],
            "--seed",
        ),
        (&["--script", "no-such-file"], "no-such-file"),
        (&["--script", "nonsense.txt"], "line 2"),
        (&["--script", "rules.txt"], "vote_timeout_ms"),
        (&["--script", "rules.txt", "--seed", "1"], "--seed"),
        (&["--trace", "--schedules", "2"], "--trace"),
        (&["--schedules", "0"], "--schedules"),
        (&["--minutes", "0"], "minutes above 0"),
        (&["--threads", "0"], "--threads"),
        (&["--nodes", "13"], "from 1 to 12"),
        (
            &["--nodes", "3", "--scenario", "row-01-first-vote"],
            "--nodes",
        ),
        (&["--nodes", "3", "--script", "rules.txt"], "--nodes"),
    ] {
        let run = home.run(&[&["sim"], args].concat()).expect(2);
        assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
    }
}
