//! Makes a local cluster's files (keys, certificates, genesis, configurations), or
//! takes up those that are there.

use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use quorate_chain::ChainKey;
use quorate_consensus::{NodeId, Rules};
use quorate_crypto::genesis::{GenesisParams, init_rules, read_genesis};
use quorate_crypto::{SigningKey, file};
use quorate_telemetry::LogHandle;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{self, InitCa, Issue, Request, SignRequest, Validity};

use super::layout::{Layout, node_ids};
use crate::failure::{Failure, Outcome};
use crate::files::write_atomically;

/// What a local cluster is made from. What is not given is taken from the cluster
/// that is there, or has a default.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where it goes.
    pub(crate) dir: PathBuf,
    /// N; 5 for a new cluster.
    pub(crate) nodes: Option<usize>,
    /// t; two thirds of N, rounded up, for a new cluster.
    pub(crate) threshold: Option<usize>,
    /// The first node's port, the others follow, and those for health and metrics a
    /// hundred above; 0 for any that are free.
    pub(crate) base_port: u16,
    /// Milliseconds to vote; the protocol's default for a new cluster.
    pub(crate) vote_timeout_ms: Option<u64>,
    /// Milliseconds between threshold and reservation; likewise.
    pub(crate) settle_window_ms: Option<u64>,
    /// Makes a new cluster's signing keys reproducible, and worth nothing.
    pub(crate) seed: Option<String>,
    /// The log of this process, which nodes inside share.
    pub(crate) log: Option<LogHandle>,
    /// What the nodes log.
    pub(crate) log_level: String,
    /// Where etcd is, if it keeps the board; else the board is a file.
    pub(crate) etcd: Option<Vec<String>>,
}

impl Plan {
    /// Five trustees, four of whom decide, as the protocol's defaults have it.
    pub(crate) fn five(dir: PathBuf) -> Self {
        Self {
            dir,
            nodes: Some(5),
            threshold: Some(4),
            base_port: 0,
            vote_timeout_ms: None,
            settle_window_ms: None,
            seed: None,
            log: None,
            log_level: "error".into(),
            etcd: None,
        }
    }
}

/// Where one node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For gRPC.
    pub(crate) grpc: u16,
    /// For health and metrics.
    pub(crate) health: u16,
}

/// A local cluster's files.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where they are.
    pub(crate) layout: Layout,
    /// The genesis.
    pub(crate) rules: Rules,
    /// The trustees with the ports of their nodes.
    pub(crate) nodes: Vec<(NodeId, Ports)>,
    /// They were there already.
    pub(crate) continued: bool,
    /// Its keys come from a seed: everybody who knows it has them.
    pub(crate) seeded: bool,
    /// Where etcd is, if it keeps the board.
    pub(crate) etcd: Option<Vec<String>>,
    /// Nobody else runs this cluster meanwhile.
    _lock: File,
}

/// Makes the files, or takes up those that are there.
///
/// # Errors
/// When a file or port cannot be had, or the cluster that is there is another one.
pub(crate) fn build(plan: &Plan) -> Outcome<Built> {
    let layout = Layout::new(plan.dir.clone());
    let lock = lock(&layout)?;
    let genesis = layout.genesis();
    let continued = genesis.exists();
    let rules = if continued {
        let rules = read_genesis(&genesis).map_err(Failure::usage)?;
        same_cluster(plan, &rules)?;
        same_seed(plan, &layout)?;
        same_board(plan, &layout, &rules)?;
        rules
    } else {
        create(plan, &layout)?
    };
    for member in rules.members() {
        certify_operator(&layout, &member.node_id)?;
    }
    let ports = ports(plan.base_port, rules.total())?;
    let ids = rules.members().map(|member| member.node_id.clone());
    let nodes: Vec<_> = ids.zip(ports).collect();
    for (node_id, ports) in &nodes {
        let text = config(plan, &layout, &rules, node_id, *ports, &nodes);
        write_atomically(&layout.node(node_id).config(), text.as_bytes())?;
    }
    Ok(Built {
        seeded: layout.seed().exists(),
        layout,
        rules,
        nodes,
        continued,
        etcd: plan.etcd.clone(),
        _lock: lock,
    })
}

/// Nobody runs the cluster in this directory.
///
/// # Errors
/// When somebody does.
pub(crate) fn check_not_running(dir: &Path) -> Outcome {
    lock(&Layout::new(dir.to_owned())).map(drop)
}

/// Before anything is written: the files of a running cluster must stay as they are.
fn lock(layout: &Layout) -> Outcome<File> {
    let (root, path) = (layout.root(), layout.lock());
    file::create_private_dir(root).map_err(Failure::failed)?;
    let cannot =
        |e: &dyn std::fmt::Display| Failure::failed(format!("cannot lock {}: {e}", path.display()));
    let lock = File::create(&path).map_err(|e| cannot(&e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::failed(format!(
            "the cluster in {} is running already",
            root.display()
        ))
        .hint("stop that one first, or start another with --data-dir DIR --base-port 9101")),
        Err(TryLockError::Error(e)) => Err(cannot(&e)),
    }
}

/// A cluster cannot change its rules by a flag.
fn same_cluster(plan: &Plan, rules: &Rules) -> Outcome {
    let count = |asked: Option<usize>| asked.map(|count| count as u64);
    let found = [
        ("nodes", rules.total() as u64, count(plan.nodes)),
        ("threshold", rules.threshold() as u64, count(plan.threshold)),
        (
            "vote-timeout (ms)",
            rules.vote_timeout_ms(),
            plan.vote_timeout_ms,
        ),
        (
            "settle-window (ms)",
            rules.settle_window_ms(),
            plan.settle_window_ms,
        ),
    ];
    for (flag, is, asked) in found {
        if let Some(asked) = asked.filter(|asked| *asked != is) {
            return Err(Failure::usage(format!(
                "the cluster in {} has --{flag} {is}, not {asked}: its rules are signed and do \
                 not change by a flag",
                plan.dir.display()
            ))
            .hint("use another --data-dir, or delete this one to start a new cluster"));
        }
    }
    Ok(())
}

/// Keys that are there stay what they are.
fn same_seed(plan: &Plan, layout: &Layout) -> Outcome {
    let Some(asked) = &plan.seed else {
        return Ok(());
    };
    let found = std::fs::read_to_string(layout.seed()).ok();
    if found.as_deref() == Some(asked) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the cluster in {} has other keys than those of seed {asked:?}",
        plan.dir.display()
    ))
    .hint("start anew with --clean, or use another --data-dir"))
}

/// A key of a seed: one for each purpose.
fn seeded(seed: &str, purpose: &str) -> [u8; 32] {
    let mut material = seed.as_bytes().to_vec();
    material.push(0);
    material.extend_from_slice(purpose.as_bytes());
    blake3::derive_key("quorate dev --seed, 2026: keys worth nothing", &material)
}

/// A board does not move from a file to etcd or back: to its nodes it would look as if
/// it had been put back to its beginning.
fn same_board(plan: &Plan, layout: &Layout, rules: &Rules) -> Outcome {
    let first = rules.members().next();
    let Some(config) = first.map(|member| layout.node(&member.node_id).config()) else {
        return Ok(());
    };
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let in_etcd = text.lines().any(|line| line == IN_ETCD);
    if text.is_empty() || in_etcd == plan.etcd.is_some() {
        return Ok(());
    }
    let (is, how) = match in_etcd {
        true => ("in etcd", "start it with --etcd"),
        false => ("in a file", "start it without --etcd"),
    };
    Err(Failure::usage(format!(
        "the cluster in {} keeps its board {is}",
        plan.dir.display()
    ))
    .hint(format!(
        "{how}, or use another --data-dir for a new cluster"
    )))
}

/// The line of a node's configuration that says so.
const IN_ETCD: &str = "coordinator = \"etcd\"";

fn create(plan: &Plan, layout: &Layout) -> Outcome<Rules> {
    let count = plan.nodes.unwrap_or(5);
    let threshold = plan.threshold.unwrap_or((2 * count).div_ceil(3));
    if threshold > count {
        let message = format!("--threshold {threshold} is more than --nodes {count}");
        return Err(
            Failure::usage(message).hint("choose a threshold from 1 to the number of nodes")
        );
    }
    let cannot = |e: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "cannot make a cluster in {}: {e}",
            plan.dir.display()
        ))
        .hint("if an earlier start was cut short, delete the directory and start again")
    };
    let name = "dev".to_owned();
    file::create_private_dir(&layout.shared()).map_err(|e| cannot(&e))?;
    let init = InitCa {
        dir: layout.ca_dir(),
        cluster_name: name.clone(),
        validity: Validity::authority(),
    };
    pki::init_cluster_ca(&init).map_err(|e| cannot(&e))?;
    let chain_key = match &plan.seed {
        Some(seed) => Ok(ChainKey::from_bytes(seeded(seed, "chain"))),
        None => ChainKey::generate(),
    };
    chain_key
        .and_then(|key| key.write_new(&layout.chain_key()))
        .map_err(|e| cannot(&e))?;
    if let Some(seed) = &plan.seed {
        write_atomically(&layout.seed(), seed.as_bytes())?;
    }
    let mut members = Vec::new();
    for node_id in node_ids(count) {
        let node = layout.node(&node_id);
        let request = Request {
            dir: node.dir.clone(),
            cluster_name: name.clone(),
            node_id: node_id.clone(),
            sans: Vec::new(),
            authority_validity: Validity::authority(),
        };
        let requested = match &plan.seed {
            None => pki::request(&request),
            Some(seed) => {
                let key = |role| SigningKey::from_seed(seeded(seed, &format!("{role} {node_id}")));
                pki::request_with(&request, key("vote"), key("node"))
            }
        };
        requested.map_err(|e| cannot(&e))?;
        let sign = SignRequest {
            ca_dir: layout.ca_dir(),
            csr: node.files.csr.clone(),
            node_id: node_id.clone(),
            sans: Vec::new(),
            out: node.files.cert.clone(),
            validity: Validity::leaf(),
        };
        pki::sign_request(&sign).map_err(|e| cannot(&e))?;
        let issue = Issue {
            trustee_dir: node.dir.clone(),
            node_id: node_id.clone(),
            role: PersonRole::Client,
            name: super::layout::NodeLayout::CLIENT.into(),
            out_dir: node.dir.clone(),
            validity: Validity::leaf(),
        };
        pki::issue(&issue).map_err(|e| cannot(&e))?;
        members.push(node.files.member);
    }
    let mut params = GenesisParams::new(name, u32::try_from(threshold).unwrap_or(u32::MAX));
    params.vote_timeout_ms = plan.vote_timeout_ms.unwrap_or(params.vote_timeout_ms);
    params.settle_window_ms = plan.settle_window_ms.unwrap_or(params.settle_window_ms);
    init_rules(&params, &members, &layout.genesis()).map_err(|e| cannot(&e))
}

/// A cluster of an earlier version has no operators yet.
fn certify_operator(layout: &Layout, node_id: &NodeId) -> Outcome {
    let node = layout.node(node_id);
    if node.operator.cert.exists() {
        return Ok(());
    }
    let issue = Issue {
        trustee_dir: node.dir.clone(),
        node_id: node_id.clone(),
        role: PersonRole::Operator,
        name: super::layout::NodeLayout::OPERATOR.into(),
        out_dir: node.dir,
        validity: Validity::leaf(),
    };
    pki::issue(&issue).map(drop).map_err(|e| {
        Failure::failed(format!("cannot make the operator of {node_id}: {e}"))
            .hint("if an earlier start was cut short, delete the directory and start again")
    })
}

/// How far the ports for health and metrics are above those for gRPC, at least.
const HEALTH_ABOVE: u16 = 100;

/// Two ports per node, all of them free now.
fn ports(base: u16, nodes: usize) -> Outcome<Vec<Ports>> {
    let count = u16::try_from(nodes).unwrap_or(u16::MAX);
    let (grpc, health) = match base {
        0 => {
            let mut grpc = any_ports(count.saturating_mul(2))?;
            let health = grpc.split_off(nodes);
            (grpc, health)
        }
        _ => {
            let above = base.saturating_add(count.max(HEALTH_ABOVE));
            (range(base, count)?, range(above, count)?)
        }
    };
    let both = grpc.into_iter().zip(health);
    Ok(both.map(|(grpc, health)| Ports { grpc, health }).collect())
}

/// Ports in a row, all of them free now.
fn range(base: u16, count: u16) -> Outcome<Vec<u16>> {
    let range = base..base.saturating_add(count);
    if range.len() != usize::from(count) {
        return Err(
            Failure::usage("there are no ports beyond 65535").hint("choose a lower --base-port")
        );
    }
    if let Some((port, error)) = range.clone().find_map(|port| Some((port, taken(port)?))) {
        return Err(
            Failure::failed(format!("port {port} cannot be used: {error}"))
                .hint("stop what listens there, or choose another --base-port (0 for any)"),
        );
    }
    Ok(range.collect())
}

/// Below the range from which systems take ports for outgoing connections: such a
/// connection could otherwise take the port before its node does.
fn any_ports(count: u16) -> Outcome<Vec<u16>> {
    const RANGE: std::ops::Range<u16> = 20_000..32_000;
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(|e| Failure::failed(format!("no randomness: {e}")))?;
    let begin = u16::from_le_bytes(random) % (RANGE.end - RANGE.start);
    // Once around the range from a random place, so that clusters started at the same
    // time do not meet.
    let around = (begin..RANGE.end - RANGE.start).chain(0..begin);
    let free: Vec<_> = around
        .map(|offset| RANGE.start + offset)
        .filter(|port| taken(*port).is_none())
        .take(usize::from(count))
        .collect();
    if free.len() < usize::from(count) {
        return Err(Failure::failed("there are not enough free ports")
            .hint("stop some of what listens on this machine"));
    }
    Ok(free)
}

fn taken(port: u16) -> Option<std::io::Error> {
    TcpListener::bind(("127.0.0.1", port)).err()
}

/// A node's configuration file. Paths are absolute, so that it can be started from
/// anywhere.
fn config(
    plan: &Plan,
    layout: &Layout,
    rules: &Rules,
    node_id: &NodeId,
    ports: Ports,
    nodes: &[(NodeId, Ports)],
) -> String {
    let Ports { grpc: port, health } = ports;
    let node = layout.node(node_id);
    let path = |path: PathBuf| toml::Value::String(path.display().to_string());
    // Two are enough, in case that one is down; from them it learns of the rest.
    let peers: Vec<_> = nodes
        .iter()
        .filter(|(peer, _)| peer != node_id)
        .take(2)
        .map(|(peer, ports)| format!("\"{peer}@127.0.0.1:{}\"", ports.grpc))
        .collect();
    let board = match &plan.etcd {
        None => "coordinator = \"embedded\"".to_owned(),
        Some(endpoints) => format!("{IN_ETCD}\netcd_endpoints = {endpoints:?}"),
    };
    format!(
        "# Written by `quorate dev`. Start this node alone with\n\
         #   quorate run --config {}\n\n\
         [node]\nnode_id = \"{node_id}\"\nlisten_addr = \"127.0.0.1:{port}\"\n\
         advertise_addr = \"127.0.0.1:{port}\"\nhealth_addr = \"127.0.0.1:{health}\"\ndata_dir = {}\n\n\
         [keys]\nvote_key_path = {}\nnode_key_path = {}\n\n\
         [mtls]\nca_cert_path = {}\nclients_ca_path = {}\nnode_cert_path = {}\n\
         node_key_path = {}\n\n\
         [network]\nbootstrap_peers = [{}]\n\n\
         [storage]\n{board}\nembedded_dir = {}\n\n\
         [consensus]\ncluster_id = \"{}\"\nrules_path = {}\ntotal_nodes = {}\nthreshold = {}\n\n\
         [chain]\nkey_path = {}\n\n\
         [logging]\nlevel = {}\n",
        node.config().display(),
        path(node.data()),
        path(node.files.vote_key),
        path(node.files.node_key),
        path(pki::cluster_ca_cert(&layout.ca_dir())),
        path(node.files.clients_ca_cert),
        path(node.files.cert),
        path(node.files.key),
        peers.join(", "),
        path(layout.shared()),
        rules.cluster_id(),
        path(layout.genesis()),
        rules.total(),
        rules.threshold(),
        path(layout.chain_key()),
        toml::Value::String(plan.log_level.clone()),
    )
}
