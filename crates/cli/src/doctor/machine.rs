//! One node, from its own machine: configuration, keys, certificate and its names,
//! rules, ports, data directory, stores, peers. The node may be running or not; nothing
//! is changed.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use quorate_consensus::Rules;
use quorate_crypto::SigningKey;
use quorate_node::Config;
use quorate_node::config::{CoordinatorKind, PeerAddress};
use quorate_node::parts::configured_rules;
use quorate_node::record::{look_at_board, open_record};
use quorate_tls::pki::{self, CertFacts, Verify};
use quorate_tls::{ClientPaths, ClientTls, DialOptions, ExpectedPeer, Registry, dial};
use tokio::net::TcpStream;

use super::{Findings, expiry};
use crate::output::clock_ms;

/// How long a port, a store or a peer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Looks at everything that one configuration names.
pub(crate) async fn examine(path: &Path, findings: &mut Findings) {
    let file = path.display().to_string();
    let config = match Config::load(Some(path), &[]) {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct it; `quorate run --print-default-config` explains every key";
            return findings.bad("configuration", (file, error), advice);
        }
    };
    findings.good("configuration", file, format!("of {}", config.node.node_id));
    let rules = rules(&config, findings);
    keys(&config, rules.as_deref(), findings);
    certificate(&config, rules.as_deref(), findings);
    data_dir(&config, findings);
    let runs = ports(&config, findings).await;
    stores(&config, findings).await;
    peers(&config, findings).await;
    if !runs {
        findings.warn(
            "node",
            (&config.node.node_id, "nobody listens at its address"),
            "start it: `quorate run --config FILE`",
        );
    }
}

fn rules(config: &Config, findings: &mut Findings) -> Option<std::sync::Arc<Rules>> {
    let file = config.consensus.rules_path.display();
    match configured_rules(config) {
        Err(error) => {
            let advice = "get the rules document that all trustees have, compare its id with \
                          `quorate rules show`, and pin that with `quorate rules accept`";
            findings.bad("rules", (file, error), advice);
            None
        }
        Ok(rules) => {
            let told = format!(
                "epoch {}, N = {}, t = {}, digest {}",
                rules.epoch(),
                rules.total(),
                rules.threshold(),
                hex::encode(rules.digest().0)
            );
            findings.good("rules", file, told);
            Some(rules)
        }
    }
}

fn keys(config: &Config, rules: Option<&Rules>, findings: &mut Findings) {
    let member = rules.and_then(|rules| rules.member(&config.node.node_id));
    if let (Some(rules), None) = (rules, member) {
        let found = format!("{} is no trustee under these rules", config.node.node_id);
        findings.bad(
            "rules",
            (rules.cluster_name(), found),
            "set node.node_id to the trustee's id, or use the rules of its cluster",
        );
    }
    let signing = [
        ("vote", config.keys.vote_key_path.as_deref()),
        ("node", Some(&*config.keys.node_key_path)),
    ];
    for (name, path) in signing {
        let Some(path) = path else {
            findings.good("keys", name, "not on this node: votes are signed elsewhere");
            continue;
        };
        let ruled = member.map(|m| match name {
            "vote" => &m.vote_key,
            _ => &m.node_key,
        });
        let file = path.display();
        match (SigningKey::read(path), ruled) {
            (Err(error), _) => findings.bad(
                "keys",
                (file, error),
                "the file must be there, whole, and readable for this user alone (chmod 600)",
            ),
            (Ok(key), Some(ruled)) if key.public_key() != *ruled => findings.bad(
                "keys",
                (file, format!("is not the {name} key that the rules name")),
                "use the key that this trustee's member record was made with",
            ),
            (Ok(_), _) => findings.good("keys", file, format!("{name} key, private")),
        }
    }
    let others = [
        Some(&config.mtls.node_key_path),
        config.chain.key_path.as_ref(),
    ];
    for path in others.into_iter().flatten() {
        secret(path, findings);
    }
}

/// A key file that only its user may read.
pub(crate) fn secret(path: &Path, findings: &mut Findings) {
    let file = path.display();
    match std::fs::metadata(path) {
        Err(error) => findings.bad(
            "keys",
            (file, error),
            "put the key there, readable for the user that needs it",
        ),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let mode = found.permissions().mode() & 0o777;
            let advice = format!("chmod 600 {}", path.display());
            findings.bad(
                "keys",
                (file, format!("mode {mode:o}: open to others")),
                &advice,
            );
        }
        Ok(_) => findings.good("keys", file, "private"),
    }
}

fn certificate(config: &Config, rules: Option<&Rules>, findings: &mut Findings) {
    let file = config.mtls.node_cert_path.display().to_string();
    let verified = pki::verify(&Verify {
        cert: config.mtls.node_cert_path.clone(),
        ca: config.mtls.ca_cert_path.clone(),
        crl: config.mtls.crl_path.clone(),
        now: SystemTime::now(),
    });
    let facts = match verified {
        Ok(facts) => facts,
        Err(error) => {
            let advice = "`quorate certs show FILE` tells what it is; have a new one signed with \
                          `quorate certs request` and `certs sign`";
            return findings.bad("certificate", (file, error), advice);
        }
    };
    expiry(findings, &file, facts.not_after_ms, clock_ms());
    let own = &config.node.node_id;
    if let Ok(identity) = &facts.identity {
        let cluster = rules.map(Rules::cluster_name);
        let other = identity.node_id != *own || cluster.is_some_and(|c| c != identity.cluster);
        match other {
            true => findings.bad(
                "identity",
                (&file, format!("names {identity}, and this node is {own}")),
                "use this node's own certificate",
            ),
            false => findings.good("identity", &file, identity),
        }
    }
    names(config, &facts, findings);
    match std::fs::read(&config.mtls.clients_ca_path) {
        Err(error) => findings.bad(
            "certificate",
            (config.mtls.clients_ca_path.display(), error),
            "it is made by `quorate certs request`: without it no client and no operator is taken",
        ),
        Ok(pem) => match pki::show(&pem) {
            Err(error) => findings.bad(
                "certificate",
                (config.mtls.clients_ca_path.display(), error),
                "it is made by `quorate certs request`",
            ),
            Ok(facts) => expiry(
                findings,
                config.mtls.clients_ca_path.display(),
                facts.not_after_ms,
                clock_ms(),
            ),
        },
    }
}

/// Whoever dials checks that the certificate carries the name that was dialled.
fn names(config: &Config, facts: &CertFacts, findings: &mut Findings) {
    let host = match &config.node.advertise_addr {
        Some(address) => address.host().to_owned(),
        None if config.node.listen_addr.ip().is_unspecified() => {
            return findings.warn(
                "names",
                (
                    "node.advertise_addr",
                    "is not set, and node.listen_addr names no address that others could dial",
                ),
                "set node.advertise_addr to the host and port that the others reach this node at",
            );
        }
        None => config.node.listen_addr.ip().to_string(),
    };
    match carries(facts, &host) {
        true => findings.good("names", &host, "is in the certificate"),
        false => {
            let names = facts.dns.iter().cloned();
            let names: Vec<_> = names
                .chain(facts.ips.iter().map(IpAddr::to_string))
                .collect();
            let found = format!("is not among the certificate's names, {}", names.join(", "));
            let advice = format!(
                "have a certificate signed with --san {host}: who dials that name refuses this one"
            );
            findings.bad("names", (&host, found), &advice);
        }
    }
}

fn carries(facts: &CertFacts, host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => facts.ips.contains(&ip),
        Err(_) => facts.dns.iter().any(|name| name.eq_ignore_ascii_case(host)),
    }
}

fn data_dir(config: &Config, findings: &mut Findings) {
    let dirs = [
        ("node.data_dir", &config.node.data_dir),
        ("storage.embedded_dir", &config.storage.embedded_dir),
    ];
    for (key, dir) in dirs {
        let subject = format!("{key} {}", dir.display());
        // The same as the node: it must be able to make files there.
        match tempfile::tempfile_in(dir) {
            Ok(_) => findings.good("directories", subject, "can be written"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => findings.good(
                "directories",
                subject,
                "is not there yet: the node makes it at its first start",
            ),
            Err(error) => findings.bad(
                "directories",
                (subject, error),
                "give it to the user that the node runs as, and see that the disk has room",
            ),
        }
    }
}

/// Whether somebody listens where the node should.
async fn ports(config: &Config, findings: &mut Findings) -> bool {
    let mut runs = false;
    let ports = [
        ("node.listen_addr", Some(config.node.listen_addr)),
        ("node.health_addr", config.node.health_addr),
    ];
    for (key, addr) in ports {
        let Some(addr) = addr else { continue };
        let subject = format!("{key} {addr}");
        let listens = tokio::time::timeout(ANSWER, TcpStream::connect(reachable(addr)));
        if let Ok(Ok(_)) = listens.await {
            runs |= key == "node.listen_addr";
            findings.good("ports", subject, "somebody listens: this node, if it runs");
            continue;
        }
        match std::net::TcpListener::bind(addr) {
            Ok(_) => findings.good("ports", subject, "free"),
            Err(error) => findings.bad(
                "ports",
                (subject, error),
                "choose an address of this machine and a port that this user may take",
            ),
        }
    }
    runs
}

/// Where to knock at an address that stands for all of them.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), addr.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), addr.port())
        }
        _ => addr,
    }
}

async fn stores(config: &Config, findings: &mut Findings) {
    let embedded = matches!(config.storage.coordinator, CoordinatorKind::Embedded);
    let fresh = |name: &str| !config.storage.embedded_dir.join(name).exists();
    let later = "is not there yet: the node makes it at its first start";
    if embedded && fresh("board.db") {
        findings.good("board", "embedded", later);
    } else {
        match look_at_board(config.clone()).await {
            Err(error) => findings.bad(
                "board",
                ("storage.coordinator", error),
                "see that what keeps the board runs and can be reached; votes are not taken \
                 without it",
            ),
            Ok(look) => {
                let found = format!("answers, revision {}", look.head);
                findings.good("board", look.backend, found);
                for trouble in look.trouble {
                    let advice = "mend or replace that member while the others make a majority";
                    findings.warn("board", (look.backend, trouble), advice);
                }
            }
        }
    }
    let postgres = config.storage.postgres_url.is_some();
    if !postgres && fresh("audit.db") {
        return findings.good("audit", "sqlite", later);
    }
    let asked = async {
        let record = open_record(config.clone())
            .await
            .map_err(|e| e.to_string())?;
        let cursor = record.cursor().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((record.backend(), cursor))
    };
    let answer = tokio::time::timeout(ANSWER, asked).await;
    match answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs()))) {
        Ok((backend, cursor)) => {
            findings.good("audit", backend, format!("answers, at revision {cursor}"));
        }
        Err(error) => findings.bad(
            "audit",
            ("audit store", error),
            "see that the database runs, and what `quorate audit migrate --config FILE` says; \
             submissions wait meanwhile",
        ),
    }
}

/// Dials each peer as this node does: address, names, CA and identity must fit.
async fn peers(config: &Config, findings: &mut Findings) {
    let tls = ClientTls::load(&ClientPaths {
        ca_cert: config.mtls.ca_cert_path.clone(),
        cert: config.mtls.node_cert_path.clone(),
        key: config.mtls.node_key_path.clone(),
    });
    // What is wrong with the files was found before.
    let Ok(tls) = tls else { return };
    if config.network.bootstrap_peers.is_empty() {
        findings.warn(
            "peers",
            ("network.bootstrap_peers", "names nobody"),
            "name the other nodes, unless this one is alone or is dialled by all others",
        );
    }
    for peer in &config.network.bootstrap_peers {
        let address = PeerAddress {
            node_id: None,
            ..peer.clone()
        };
        let expected = ExpectedPeer {
            node_id: peer.node_id.clone(),
            server_name: None,
        };
        let options = DialOptions {
            connect_timeout: ANSWER,
            ..DialOptions::default()
        };
        let registry = Registry::new();
        match dial(&tls, &address.to_string(), expected, &registry, options).await {
            Ok(dialled) => {
                findings.good("peers", peer, format!("is {}", dialled.peer.identity));
                dialled.peer.cancel.cancel();
            }
            Err(error) => findings.warn(
                "peers",
                (peer, error),
                "see that it runs and can be reached from here, and that its certificate carries \
                 this name",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_knocked_at_here() {
        for (addr, expected) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.0.0.1:9000", "10.0.0.1:9000"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(reachable(addr).to_string(), expected);
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_bad() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let judged = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let mut findings = Findings::default();
            secret(file.path(), &mut findings);
            findings.0.remove(0)
        };
        assert_eq!(judged(0o600).level, super::super::Level::Good);
        let open = judged(0o644);
        assert_eq!(open.level, super::super::Level::Bad);
        assert!(open.advice.starts_with("chmod 600 "), "{open:?}");
    }
}
