use quorate_telemetry::Format;

use super::source::{KEYS, SECRETS};
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_parts(Some(("node.toml", text)), &BTreeMap::new(), &[])
}

fn with_environment(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Config::from_parts(Some(("node.toml", DEFAULT_TOML)), &environment, &[])
}

fn failure(result: Result<Config, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

/// The key stands for another one, beside which it may not be set.
fn names_a_secret(key: &str) -> bool {
    let secrets = SECRETS.iter().map(|(_, secret)| secret);
    secrets
        .into_iter()
        .any(|secret| key.strip_suffix("_path") == Some(secret))
}

/// The default file with every commented key made a real one.
fn all_keys_set() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| KEYS.iter().any(|k| k.1 == key) && !names_a_secret(key))
    };
    DEFAULT_TOML
        .lines()
        .map(|line| if is_key(line) { &line[2..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_default_file_names_every_key_and_shows_the_defaults() {
    let text = all_keys_set();
    for (section, key, _, short) in KEYS {
        let after = text.split(&format!("[{section}]\n")).nth(1).unwrap();
        let body = after.split("\n[").next().unwrap();
        assert!(
            body.lines()
                .any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = "))),
            "{section}.{key} is not in default.toml"
        );
        if let Some(short) = short {
            assert!(body.contains(short), "{short} is not in default.toml");
        }
    }
    let (set, unset) = (parse(&text).unwrap(), parse(DEFAULT_TOML).unwrap());
    assert_eq!(set.node.listen_addr, unset.node.listen_addr);
    assert_eq!(set.node.data_dir, unset.node.data_dir);
    assert_eq!(set.logging, unset.logging);
    assert!(set.chain.submit && set.chain.key_path.is_some());
    assert!(
        !unset.chain.submit,
        "without a key nothing can be submitted"
    );
    assert_eq!(set.storage.embedded_dir, unset.storage.embedded_dir);
    let limits = |c: &Config| {
        let n = &c.network;
        (
            n.rate_limit_votes_per_sec,
            n.rate_limit_burst,
            n.rate_limit_frames_per_sec,
            n.max_unstarted_per_client,
        )
    };
    assert_eq!(limits(&set), limits(&unset));
    assert_eq!(limits(&set), (1000, 1000, 10_000, 2500));
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_what_was_meant() {
    let text = "[node]\nnode_id = \"a\"\n  lisen_addr = \"0.0.0.0:1\"\n";
    assert_eq!(
        failure(parse(text)),
        "node.toml:3:3: there is no key lisen_addr in [node]: did you mean listen_addr?"
    );
    assert_eq!(
        failure(parse("[netwrok]\n")),
        "node.toml:1:2: there is no section [netwrok]: did you mean [network]?"
    );
    assert_eq!(
        failure(parse("[node]\nthreshold = 4\n")),
        "node.toml:2:1: there is no key threshold in [node]: did you mean threshold in [consensus]?"
    );
    assert_eq!(
        failure(parse("node_id = \"a\"\n")),
        "node.toml:1:1: there is no key node_id outside of a section: put it under [node]"
    );
    assert_eq!(
        failure(parse("[node]\nzzzzzzzz = 4\n")),
        "node.toml:2:1: there is no key zzzzzzzz in [node]"
    );
}

#[test]
fn broken_files_and_values_are_named_with_their_place() {
    assert!(failure(parse("[node]\nnode_id = \n")).starts_with("node.toml:2:"));
    for (text, part) in [
        (
            "[node]\nnode_id = 7",
            "node.toml:2:11: node.node_id must be a text",
        ),
        (
            "[node]\nnode_id = \"A\"",
            "node.toml:2:11: node.node_id is no good",
        ),
        ("[consensus]\nthreshold = -1", "whole number, not negative"),
        ("[network]\nrate_limit_burst = 0", "must be 1 to"),
        ("[network]\nbootstrap_peers = [\"x\"]", "must be host:port"),
        (
            "[network]\nbootstrap_peers = [\"X@h:1\"]",
            "node_id may hold",
        ),
        ("[mtls]\ntls_version = \"1.2\"", "must be \"1.3\""),
        ("[logging]\nlevel = \"loud\"", "is not a level"),
        ("[logging]\nformat = \"xml\"", "is unknown"),
        (
            "[storage]\ncoordinator = \"redis\"",
            "must be \"embedded\" or \"etcd\"",
        ),
    ] {
        // The default file first, so that nothing is missing but what is tested.
        let section = text.split('\n').next().unwrap();
        let key = text.split('\n').nth(1).unwrap();
        let name = key.split(' ').next().unwrap();
        let kept: Vec<_> = DEFAULT_TOML
            .lines()
            .filter(|l| !l.starts_with(name))
            .collect();
        let whole = kept.join("\n").replace(section, text);
        let message = failure(parse(&whole));
        let expected = part.split(": ").last().unwrap();
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with("node.toml:"), "{message}");
    }
}

#[test]
fn what_later_versions_have_is_refused_as_such() {
    let text = DEFAULT_TOML.replace("[storage]", "[storage]\ncoordinator = \"pbft\"");
    assert!(failure(parse(&text)).contains("not in this version"));
}

#[test]
fn traces_go_where_they_are_told_and_nowhere_by_default() {
    let unset = parse(DEFAULT_TOML).unwrap().telemetry;
    assert!(unset.otlp_endpoint.is_none());
    assert_eq!((unset.sample_ratio, unset.trace_values), (1.0, false));
    let set = with_environment(&[
        ("QUORATE_TELEMETRY_OTLP_ENDPOINT", "http://jaeger:4317"),
        ("QUORATE_TELEMETRY_SAMPLE_RATIO", "0.25"),
        ("QUORATE_TELEMETRY_TRACE_VALUES", "true"),
    ]);
    let set = set.unwrap().telemetry;
    let uri = set.otlp_endpoint.map(|endpoint| endpoint.uri().to_string());
    assert_eq!(uri.as_deref(), Some("http://jaeger:4317/"));
    assert_eq!((set.sample_ratio, set.trace_values), (0.25, true));
    for ratio in ["0", "1", "1.0", "0.01"] {
        let text = DEFAULT_TOML.replace("# sample_ratio = 1.0", &format!("sample_ratio = {ratio}"));
        assert!(parse(&text).is_ok(), "{ratio}");
    }
    for bad in ["-0.1", "1.5", "\"half\"", "nan"] {
        let text = DEFAULT_TOML.replace("# sample_ratio = 1.0", &format!("sample_ratio = {bad}"));
        assert!(failure(parse(&text)).contains("from 0 to 1"), "{bad}");
    }
    let tls = with_environment(&[("QUORATE_TELEMETRY_OTLP_ENDPOINT", "https://jaeger:4317")]);
    assert!(failure(tls).contains("http://host:port"));
}

#[test]
fn a_missing_key_says_where_to_put_it() {
    assert_eq!(
        failure(parse("")),
        "node.node_id is missing: set it in the file under [node] or as QUORATE_NODE_NODE_ID"
    );
    let keyless = with_environment(&[("QUORATE_CHAIN_SUBMIT", "true")]);
    assert!(failure(keyless).starts_with("chain.key_path is missing"));
    let without = DEFAULT_TOML.replace("\nrules_path", "\n# rules_path");
    assert!(failure(parse(&without)).starts_with("consensus.rules_path is missing"));
}

#[test]
fn environment_lies_over_the_file_and_flags_over_both() {
    let config = with_environment(&[
        ("NODE_ID", "node7"),
        ("LISTEN_ADDR", "127.0.0.1:7"),
        ("BOOTSTRAP_PEERS", "node2@h:2, [::1]:3"),
        ("QUORATE_NODE_DATA_DIR", "/tmp/d"),
        ("QUORATE_CHAIN_SUBMIT", "false"),
        ("QUORATE_CHAIN_KEY_PATH", "k"),
        ("RUST_LOG", "debug"),
        ("QUORATE_ENDPOINT", "is the command line's"),
        ("HOME", "/"),
    ])
    .unwrap();
    assert_eq!(config.node.node_id.as_str(), "node7");
    assert_eq!(config.node.listen_addr.port(), 7);
    assert_eq!(config.node.data_dir, Path::new("/tmp/d"));
    assert_eq!(config.storage.embedded_dir, Path::new("/tmp/d"));
    assert!(!config.chain.submit);
    assert_eq!(config.logging.level, "debug");
    let peers: Vec<_> = config
        .network
        .bootstrap_peers
        .iter()
        .map(|p| p.to_string())
        .collect();
    assert_eq!(peers, ["node2@h:2", "[::1]:3"]);

    let environment = BTreeMap::from([("NODE_ID".to_owned(), "node7".to_owned())]);
    let flags = [("node.node_id".to_owned(), "node8".to_owned())];
    let config = Config::from_parts(Some(("n", DEFAULT_TOML)), &environment, &flags).unwrap();
    assert_eq!(config.node.node_id.as_str(), "node8");
}

#[test]
fn a_bad_environment_is_named() {
    assert_eq!(
        failure(with_environment(&[("THRESHOLD", "four")])),
        "environment THRESHOLD: consensus.threshold must be a whole number, not negative, not this \"four\""
    );
    assert_eq!(
        failure(with_environment(&[("QUORATE_NODE_DATADIR", "x")])),
        "environment QUORATE_NODE_DATADIR: there is no key datadir in [node]: did you mean data_dir?"
    );
}

#[test]
fn numbers_that_differ_from_the_rules_stop_the_start_with_both_values() {
    let cluster = quorate_testkit::Cluster::new(5, 4);
    let rules = cluster.rules();
    let timeout = (rules.vote_timeout_ms() / 1000).to_string();
    let good = [
        ("TOTAL_NODES", "5"),
        ("THRESHOLD", "4"),
        ("VOTE_TIMEOUT_SECS", &*timeout),
    ];
    with_environment(&good).unwrap().check(rules).unwrap();
    with_environment(&[]).unwrap().check(rules).unwrap();
    for (name, value, part) in [
        (
            "TOTAL_NODES",
            "6",
            "total_nodes is 6, but the rules document says 5",
        ),
        (
            "THRESHOLD",
            "3",
            "environment THRESHOLD: consensus.threshold is 3, but the rules document says 4",
        ),
        (
            "VOTE_TIMEOUT_SECS",
            "1",
            "vote_timeout_secs is 1, but the rules document says",
        ),
        ("VOTE_TIMEOUT_SECS", "18446744073709551615", "but the rules"),
        (
            "NODE_ID",
            "node9",
            "node.node_id is node9, but the rules document says the members are node1, node2",
        ),
    ] {
        let config = with_environment(&[(name, value)]).unwrap();
        let message = config.check(rules).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let own = rules.members().next().unwrap().peer_id.to_string();
    let other = rules.members().nth(1).unwrap().peer_id.to_string();
    let check = |id: &str| with_environment(&[("PEER_ID", id)]).unwrap().check(rules);
    check(&own).unwrap();
    assert!(check(&other).unwrap_err().to_string().contains(&own));
}

#[test]
fn the_url_of_postgresql_is_shown_nowhere() {
    let url = "postgresql://quorate:s3cret@db/quorate";
    let config = with_environment(&[("POSTGRES_URL", url)]).unwrap();
    let known = config.storage.postgres_url.as_ref().unwrap();
    assert_eq!(known.expose(), url);
    assert!(!format!("{config:?}").contains("s3cret"));
    let text = DEFAULT_TOML.replace(
        "[storage]",
        "[storage]\npostgres_url = [\"postgresql://quorate:s3cret@db/quorate\"]",
    );
    let wrong = failure(parse(&text));
    assert!(!wrong.contains("s3cret"), "{wrong}");
    assert!(parse(DEFAULT_TOML).unwrap().storage.postgres_url.is_none());
}

#[test]
fn a_secret_comes_by_file_or_environment_and_never_by_a_flag() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, "postgresql://quorate:s3cret@db/quorate\n").unwrap();
    let mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o600);
    let named = path.to_str().unwrap();
    let variable = "QUORATE_STORAGE_POSTGRES_URL_PATH";
    let config = with_environment(&[(variable, named)]).unwrap();
    let url = config.storage.postgres_url.unwrap();
    assert_eq!(url.expose(), "postgresql://quorate:s3cret@db/quorate");
    let both = with_environment(&[(variable, named), ("POSTGRES_URL", "postgresql://x/y")]);
    assert!(failure(both).contains("keep one of the two"));
    mode(0o644);
    let open = failure(with_environment(&[(variable, named)]));
    assert!(open.contains("chmod"), "{open}");

    for (section, key) in SECRETS {
        let sister = format!("{key}_path");
        assert!(KEYS.iter().any(|k| k.0 == *section && k.1 == sister));
        let flags = [(format!("{section}.{key}"), "s3cret".to_owned())];
        let refused = Config::from_parts(Some(("n", DEFAULT_TOML)), &BTreeMap::new(), &flags);
        let refused = failure(refused);
        assert!(refused.contains(&sister), "{refused}");
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}

#[test]
fn what_is_written_arrives_in_its_section() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    quorate_crypto::file::write_new(&password, b"s3cret\n", quorate_crypto::file::SECRET).unwrap();
    let config = with_environment(&[
        ("QUORATE_NODE_ADVERTISE_ADDR", "node1.example.org:9000"),
        ("QUORATE_MTLS_TLS_VERSION", "1.3"),
        ("QUORATE_NETWORK_RATE_LIMIT_VOTES_PER_SEC", "5"),
        ("QUORATE_NETWORK_RATE_LIMIT_FRAMES_PER_SEC", "6"),
        ("QUORATE_STORAGE_COORDINATOR", "etcd"),
        ("ETCD_ENDPOINTS", "https://a:1, https://b:2"),
        ("QUORATE_STORAGE_ETCD_PREFIX", "/mine/"),
        ("QUORATE_STORAGE_ETCD_USER", "quorate"),
        (
            "QUORATE_STORAGE_ETCD_PASSWORD_PATH",
            password.to_str().unwrap(),
        ),
        ("QUORATE_STORAGE_ETCD_CA_PATH", "etcd-ca.crt"),
        ("QUORATE_STORAGE_ETCD_CERT_PATH", "etcd.crt"),
        ("QUORATE_STORAGE_ETCD_KEY_PATH", "etcd.key"),
        ("QUORATE_STORAGE_POSTGRES_CA_PATH", "postgres-ca.crt"),
        ("QUORATE_LOGGING_FORMAT", "json"),
    ])
    .unwrap();
    let advertised = config.node.advertise_addr.map(|addr| addr.to_string());
    assert_eq!(advertised.as_deref(), Some("node1.example.org:9000"));
    let network = &config.network;
    // What may be saved up follows the rate.
    assert_eq!(
        (network.rate_limit_votes_per_sec, network.rate_limit_burst),
        (5, 5)
    );
    assert_eq!(network.rate_limit_frames_per_sec, 6);
    let CoordinatorKind::Etcd(etcd) = &config.storage.coordinator else {
        panic!("another coordinator");
    };
    assert_eq!(etcd.endpoints, ["https://a:1", "https://b:2"]);
    assert_eq!(etcd.prefix.as_deref(), Some("/mine/"));
    let (user, secret) = etcd.user.as_ref().unwrap();
    assert_eq!((&**user, secret.expose()), ("quorate", "s3cret"));
    assert_eq!(etcd.ca_path.as_deref(), Some(Path::new("etcd-ca.crt")));
    let own = etcd.own.as_ref().unwrap();
    assert_eq!(own, &("etcd.crt".into(), "etcd.key".into()));
    let ca = config.storage.postgres_ca_path.as_deref();
    assert_eq!(ca, Some(Path::new("postgres-ca.crt")));
    assert_eq!(config.logging.format, Format::Json);
    // Without endpoints there is no etcd to go to.
    let nowhere = with_environment(&[("QUORATE_STORAGE_COORDINATOR", "etcd")]);
    assert!(failure(nowhere).starts_with("storage.etcd_endpoints is missing"));
}

#[test]
fn what_is_to_secure_etcd_is_never_passed_over() {
    let refused = |lines: &[(&'static str, &'static str)], endpoints: &'static str| {
        let mut all = vec![
            ("QUORATE_STORAGE_COORDINATOR", "etcd"),
            ("ETCD_ENDPOINTS", endpoints),
        ];
        all.extend(lines);
        failure(with_environment(&all))
    };
    let ca = ("QUORATE_STORAGE_ETCD_CA_PATH", "etcd-ca.crt");
    let certificate = ("QUORATE_STORAGE_ETCD_CERT_PATH", "etcd.crt");
    let key = ("QUORATE_STORAGE_ETCD_KEY_PATH", "etcd.key");
    for plain in ["a:1", "http://a:1", "https://a:1, b:2"] {
        let why = refused(&[ca], plain);
        assert!(why.contains("must all begin with https://"), "{why}");
    }
    for (lines, missing) in [
        (&[][..], "storage.etcd_ca_path"),
        (&[certificate, key][..], "storage.etcd_ca_path"),
        (&[ca, certificate][..], "storage.etcd_key_path"),
        (&[ca, key][..], "storage.etcd_cert_path"),
        (
            &[ca, ("QUORATE_STORAGE_ETCD_USER", "u")][..],
            "storage.etcd_password",
        ),
        (
            &[ca, ("QUORATE_STORAGE_ETCD_PASSWORD", "p")][..],
            "storage.etcd_user",
        ),
    ] {
        let why = refused(lines, "https://a:1");
        assert!(why.starts_with(&format!("{missing} is missing")), "{why}");
    }
    let why = refused(&[], "HTTPS://a:1");
    assert!(why.contains("write host:port"), "{why}");
}
