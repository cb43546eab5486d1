//! What the command line promises without a cluster: help with examples, exit codes,
//! errors that say what to try, contexts, certificates and rules.

mod common;

use common::{Home, NOBODY, enrol, until};

/// Every command, with its subcommands.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["demo"],
    &["dev"],
    &["dev", "status"],
    &["dev", "stop"],
    &["dev", "start"],
    &["dev", "pause"],
    &["dev", "resume"],
    &["dev", "kill"],
    &["dev", "partition"],
    &["dev", "delay"],
    &["dev", "heal"],
    &["dev", "lie"],
    &["run"],
    &["vote"],
    &["status"],
    &["watch"],
    &["trace"],
    &["list"],
    &["certificate"],
    &["info"],
    &["peers"],
    &["reputation"],
    &["violations"],
    &["ban"],
    &["unban"],
    &["send"],
    &["monitor"],
    &["doctor"],
    &["log-level"],
    &["drain"],
    &["verify"],
    &["audit"],
    &["audit", "verify"],
    &["audit", "migrate"],
    &["gc"],
    &["reconcile"],
    &["rules"],
    &["rules", "init"],
    &["rules", "accept"],
    &["rules", "show"],
    &["certs"],
    &["certs", "init"],
    &["certs", "request"],
    &["certs", "sign"],
    &["certs", "issue"],
    &["certs", "renew"],
    &["certs", "revoke"],
    &["certs", "crl"],
    &["certs", "show"],
    &["certs", "verify"],
    &["keygen"],
    &["config"],
    &["config", "check"],
    &["config", "get-contexts"],
    &["config", "current-context"],
    &["config", "set-context"],
    &["config", "use-context"],
    &["config", "delete-context"],
    &["sim"],
    &["test-byzantine"],
    &["completions"],
    &["man"],
    &["version"],
];

#[test]
fn every_command_has_help_with_an_example() {
    let home = Home::new();
    for command in COMMANDS {
        let help = home.run(&[*command, &["--help"]].concat()).expect(0).stdout;
        assert!(help.contains("Example"), "{command:?}:\n{help}");
        let line = format!("quorate {}", command.join(" "));
        let uses = help
            .lines()
            .filter(|text| text.trim_start().starts_with(&line))
            .count();
        assert!(uses >= 1, "{command:?} shows no example of itself:\n{help}");
    }
    let help = home.run(&["--help"]).expect(0).stdout;
    for code in 0..=6 {
        assert!(
            help.contains(&format!("\n  {code}  ")),
            "exit code {code}:\n{help}"
        );
    }
    // None is missing from the list above.
    for command in help.lines().skip_while(|line| *line != "Commands:").skip(1) {
        let Some(entry) = command.strip_prefix("  ") else {
            break;
        };
        // A description may go on in the next line.
        let Some(name) = entry.split(' ').next().filter(|name| !name.is_empty()) else {
            continue;
        };
        let known = name == "help" || COMMANDS.iter().any(|known| known.first() == Some(&name));
        assert!(known, "{name} is not tested here");
    }
}

#[test]
fn wrong_usage_is_2() {
    let home = Home::new();
    for args in [
        &["nonsense"][..],
        &["vote", "tx_001"],
        &["vote", "--value", "1"],
        &["vote", "tx 001", "--value", "1"],
        &["vote", "tx_001", "--value", "-1"],
        &["vote", "tx_001", "--value", "18446744073709551616"],
        &["vote", "tx_001", "--value", "1", "--abstain"],
        &["vote", "tx_001", "--data", "xyz"],
        &["vote", "tx_001", "--data", ""],
        &["vote", "tx_001", "--data", "@no-such-file"],
        &["watch", "--until-final"],
        &["status", "tx_001", "--endpoint", "localhost:1"],
        &["status", "tx_001", "--node", "nowhere"],
        &["status", "tx_001"],
        &["dev", "--nodes", "3", "--threshold", "4"],
        &["list", "--state", "unheard-of"],
        &["run", "--config", "no-such-file"],
        &["run", "--set", "listen_addr=x"],
        &["verify", "no-such-file"],
        &["config", "use-context", "nowhere"],
    ] {
        home.run(args).expect(2);
    }
    let too_long = "00".repeat(1025);
    home.run(&["vote", "tx_001", "--data", &too_long]).expect(2);
}

#[test]
fn errors_say_what_to_try() {
    let home = Home::new();
    let lost = home.run(&["list"]).expect(2);
    assert!(lost.stderr.contains("quorate dev"), "{}", lost.stderr);
    let unknown = home.run(&["run", "--set", "node.listen_adr=x"]).expect(2);
    assert!(unknown.stderr.contains("listen_addr"), "{}", unknown.stderr);
    for value in ["-1", "1.5", "abc", "18446744073709551616"] {
        let bad = home.run(&["vote", "tx_001", "--value", value]).expect(2);
        let says = bad
            .stderr
            .contains("whole number, 0 to 18446744073709551615");
        assert!(says, "{value}: {}", bad.stderr);
    }
    // Options that name a node may stand before the command, too.
    let early = home.run(&["--node", "here", "list"]).expect(2).stderr;
    assert!(early.contains("no context named \"here\""), "{early}");
    let homeless = home.run(&["--node", "here", "version"]).expect(2).stderr;
    assert!(homeless.contains("quorate version"), "{homeless}");
    let error = home.run(&["list", "--json"]).expect(2).error();
    assert_eq!(error["exit_code"], 2);
    for name in ["code", "reason", "message", "hint", "metadata"] {
        assert!(error.get(name).is_some(), "{name} is missing: {error}");
    }
    std::fs::write(home.path().join("x.proof"), b"nonsense").expect("a file");
    home.run(&["verify", "x.proof"]).expect(1);
    home.run(&["verify", "x.proof", "--cluster-id", &"00".repeat(32)])
        .expect(1);
    home.run(&["verify", "x.proof", "--cluster-id", "00"])
        .expect(2);
}

#[test]
fn nobody_there_is_3() {
    let home = Home::enrolled();
    let endpoint = NOBODY;
    let run = home
        .run(&[
            "status",
            "tx_001",
            "--json",
            "--endpoint",
            endpoint,
            "--cacert",
            "certs/ca.crt",
            "--cert",
            "certs/app.crt",
            "--key",
            "certs/app.key",
        ])
        .expect(3);
    let hint = run.error()["hint"].as_str().expect("a hint").to_owned();
    assert!(hint.contains("quorate dev"), "{hint}");
    // The same from the environment.
    let output = home
        .command()
        .args(["status", "tx_001"])
        .env("QUORATE_ENDPOINT", endpoint)
        .env("QUORATE_CACERT", "certs/ca.crt")
        .env("QUORATE_CERT", "certs/app.crt")
        .env("QUORATE_KEY", "certs/app.key")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(3));
    // A node by name wins over that.
    let output = home
        .command()
        .args(["status", "tx_001", "--node", "nowhere"])
        .env("QUORATE_ENDPOINT", endpoint)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn contexts_are_listed_chosen_and_forgotten() {
    let home = Home::new();
    let empty = home.run(&["config", "get-contexts"]).expect(0);
    assert!(empty.stdout.contains("quorate dev"), "{}", empty.stdout);
    let file = home.contexts();
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
    let context = |name: &str, port: u16| {
        format!(
            "[contexts.{name}]\nendpoint = \"localhost:{port}\"\ncacert = \"ca.crt\"\n\
             cert = \"c.crt\"\nkey = \"c.key\"\n"
        )
    };
    let text = format!("current = \"a\"\n{}{}", context("a", 1), context("b", 2));
    std::fs::write(&file, text).expect("a file");
    let json = home
        .run(&["config", "use-context", "b", "--json"])
        .expect(0)
        .json();
    assert_eq!(json["current"], "b");
    let json = home
        .run(&["config", "get-contexts", "--json"])
        .expect(0)
        .json();
    assert_eq!(json["contexts"][1]["name"], "b");
    assert_eq!(json["contexts"][1]["current"], true);
    assert_eq!(json["contexts"][1]["endpoint"], "localhost:2");
    let json = home
        .run(&["config", "delete-context", "b", "--json"])
        .expect(0)
        .json();
    assert_eq!(json["current"], serde_json::Value::Null);
    let missing = home.run(&["config", "use-context", "b"]).expect(2);
    assert!(
        missing.stderr.contains("known here are a"),
        "{}",
        missing.stderr
    );
    // Another file by QUORATE_CONFIG.
    let output = home
        .command()
        .args(["config", "get-contexts", "--json"])
        .env("QUORATE_CONFIG", home.path().join("other.toml"))
        .output()
        .expect("the binary runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["contexts"], serde_json::json!([]));
}

#[test]
fn version_completions_and_the_default_configuration() {
    let home = Home::new();
    let json = home.run(&["version", "--json"]).expect(0).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = home.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("test-byzantine"), "{shell}");
    }
    let pages = home.run(&["man", "pages", "--json"]).expect(0).json();
    let pages = pages["files"].as_array().expect("pages");
    // One for each command, those below others among them.
    assert_eq!(pages.len(), COMMANDS.len());
    let page = |name: &str| std::fs::read_to_string(home.path().join("pages").join(name));
    let all = page("quorate.1").expect("a page");
    assert!(
        all.contains("Exit codes") && all.contains("unavailable"),
        "{all}"
    );
    let one = page("quorate-dev-partition.1").expect("a page");
    assert!(one.contains("quorate dev partition"), "{one}");
    let toml = home
        .run(&["run", "--print-default-config"])
        .expect(0)
        .stdout;
    assert!(toml.contains("[consensus]"));
}

#[test]
fn no_colours_in_a_pipe() {
    let home = Home::enrolled();
    let rules = home
        .run(&["rules", "show", "genesis.rules"])
        .expect(0)
        .stdout;
    assert!(rules.contains("cluster id"));
    assert!(!rules.contains('\x1b'), "{rules:?}");
}

#[test]
fn certificates_show_and_verify() {
    let home = Home::enrolled();
    let show = home.certificate("certs/alone.crt");
    assert_eq!(show["identity"], "spiffe://solo/node/alone");
    assert_eq!(show["role"], "node");
    home.run(&["certs", "verify", "certs/alone.crt", "--ca", "certs/ca.crt"])
        .expect(0);
    home.run(&[
        "certs",
        "verify",
        "certs/app.crt",
        "--ca",
        "certs/alone-clients-ca.crt",
    ])
    .expect(0);
    // The cluster CA makes nobody a client.
    let wrong = home
        .run(&["certs", "verify", "certs/app.crt", "--ca", "certs/ca.crt"])
        .expect(1);
    assert!(wrong.stderr.contains("clients' CA"), "{}", wrong.stderr);
    let key = home
        .run(&["keygen", "-o", "new.key", "--json"])
        .expect(0)
        .json();
    assert_eq!(key["public_key"].as_str().map(str::len), Some(64));
    home.run(&["keygen", "-o", "new.key"]).expect(1);
}

#[test]
fn one_node_from_its_configuration_and_nothing_else() {
    let home = Home::new();
    let cluster_id = enrol(&home);
    home.run(&["keygen", "--kind", "chain", "-o", "chain.key"])
        .expect(0);
    let config = "[node]\nnode_id = \"alone\"\nlisten_addr = \"127.0.0.1:0\"\nhealth_addr = \"none\"\ndata_dir = \"data\"\n\
         [keys]\nvote_key_path = \"certs/alone-vote.key\"\n\
         node_key_path = \"certs/alone-node.key\"\n\
         [mtls]\nca_cert_path = \"certs/ca.crt\"\n\
         clients_ca_path = \"certs/alone-clients-ca.crt\"\n\
         node_cert_path = \"certs/alone.crt\"\nnode_key_path = \"certs/alone.key\"\n\
         [chain]\nkey_path = \"chain.key\"\n\
         [logging]\nlevel = \"info\"\nformat = \"json\"\n";
    std::fs::write(home.path().join("node.toml"), config).expect("a file");
    let accept = [
        "rules",
        "accept",
        "genesis.rules",
        "--config",
        "node.toml",
        "--cluster-id",
    ];
    home.run(&[&accept[..], &["00".repeat(32).as_str()]].concat())
        .expect(1);
    // Not pinned, not started.
    home.run(&["run", "--config", "node.toml"]).expect(2);
    home.run(&[&accept[..], &[cluster_id.as_str()]].concat())
        .expect(0);
    let lost = [
        "run",
        "--config",
        "node.toml",
        "--set",
        "mtls.ca_cert_path=lost",
    ];
    let lost = home.run(&lost).expect(2).stderr;
    assert!(
        lost.contains("cannot read lost") && lost.contains("try:"),
        "{lost}"
    );
    let stranger = ["run", "--config", "node.toml", "--set", "node.node_id=bob"];
    home.run(&stranger).expect(2);
    let mut node = home
        .command()
        .args(["run", "--config", "node.toml"])
        .stderr(std::fs::File::create(home.path().join("node.log")).expect("a log"))
        .spawn()
        .expect("the binary runs");
    // It took a port that was free, and says which.
    let port = until("the node to listen", || {
        assert!(
            node.try_wait().expect("a child").is_none(),
            "the node ended"
        );
        let said = std::fs::read_to_string(home.path().join("node.log")).expect("a log");
        let (_, after) = said.split_once("listens at 127.0.0.1:")?;
        let (port, _) = after.split_once(|c: char| !c.is_ascii_digit())?;
        Some(port.to_owned())
    });
    let endpoint = format!("localhost:{port}");
    let remote = [
        "--endpoint",
        &endpoint,
        "--cacert",
        "certs/ca.crt",
        "--cert",
        "certs/app.crt",
        "--key",
        "certs/app.key",
        "--json",
    ];
    let vote = ["vote", "tx_001", "--data", "c0ffee", "--wait", "confirmed"];
    let voted = until("the node to be in service and take a vote", || {
        assert!(
            node.try_wait().expect("a child").is_none(),
            "the node ended"
        );
        let run = home.run(&[&vote[..], &remote].concat());
        (run.code == 0).then(|| run.json())
    });
    assert_eq!(voted["votes"][0]["ballot"]["state"], "CONFIRMED");
    assert_eq!(voted["votes"][0]["ballot"]["value"]["data"], "c0ffee");
    let second = home
        .run(&[&["vote", "tx_001", "--abstain"][..], &remote].concat())
        .expect(1);
    assert_eq!(second.error()["code"], "FAILED_PRECONDITION");
    assert_eq!(second.error()["reason"], "SECOND_CHOICE");
    home.run(&[&["status", "tx_002"][..], &remote].concat())
        .expect(4);

    // The level of the log, while it runs.
    let logged = |event: &str| {
        let log = std::fs::read_to_string(home.path().join("node.log")).expect("a log");
        log.lines().any(|line| line.contains(event))
    };
    let with_level = |level: &str, says: &str| {
        let config = std::fs::read_to_string(home.path().join("node.toml")).expect("a file");
        let (before, after) = config.split_once("level = \"").expect("a level");
        let (_, after) = after.split_once('"').expect("its end");
        let config = format!("{before}level = \"{level}\"{after}");
        std::fs::write(home.path().join("node.toml"), config).expect("a file");
        common::signal(node.id().into(), "HUP");
        until(says, || logged(says).then_some(()));
    };
    // The client is answered first.
    let traced = "\"tx_id\":\"tx_001\",\"trace_id\":\"";
    for event in ["ballot.state_changed", traced] {
        until(event, || logged(event).then_some(()));
    }
    assert!(!logged("vote.recorded"));
    with_level("loud", "config.not_read_again");
    with_level("trace", "config.read_again");
    home.run(&[&["vote", "tx_003", "--data", "c0ffee"][..], &remote].concat())
        .expect(0);
    until("vote.recorded", || logged("vote.recorded").then_some(()));
    for key in ["alone-vote.key", "alone-node.key", "alone.key"] {
        let key = std::fs::read_to_string(home.path().join("certs").join(key)).expect("a key");
        let mut secrets = key
            .lines()
            .filter(|line| line.len() > 20 && !line.contains('-'));
        assert!(secrets.clone().count() > 0 && !secrets.any(logged));
    }

    common::signal(node.id().into(), "TERM");
    let status = until("the node to end", || node.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_readme_has_the_exit_codes_of_the_help() {
    let home = Home::new();
    let help = home.run(&["--help"]).expect(0).stdout;
    let readme = include_str!("../../../README.md");
    let (_, codes) = help.split_once("Exit codes:\n").expect("exit codes");
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").expect("a code");
        // What is code in the README is plain in a terminal.
        let row = format!("| {code} | {meaning} |");
        assert!(readme.replace('`', "").contains(&row), "{row}");
    }
}
