//! Real nodes in this process: own keys, own certificates, own ports, mutual TLS.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

pub mod calls;
pub mod scrape;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_audit::AuditStore;
use quorate_consensus::statement::{Body, VoteBody, bytes_to_sign};
use quorate_consensus::wire::{self, Ballot, BallotState, SignedStatement, SubmitRequest};
use quorate_consensus::{Choice, NodeId, Rules, TxId};
use quorate_crypto::{GenesisParams, SigningKey, init_rules};
use quorate_node::config::PeerAddress;
use quorate_node::exchange::{RawSession, RawTarget, raw_session};

use quorate_node::stores::open_audit;
use quorate_node::{Config, Faults, Node, NodeHandle, Parts};
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use quorate_testkit::servers::{Etcd, Postgres};
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{
    self, InitCa, Issue, NodeFiles, PersonFiles, Request, SignRequest, Validity,
};
use quorate_tls::{ClientPaths, ClientTls, DialOptions, ExpectedPeer, connect};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Long enough for a machine under load; everything is waited for, nothing slept for.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub type Client = VoteServiceClient<Channel>;

/// The files of a cluster, and the ports that its nodes will listen on.
pub struct Cluster {
    dir: TempDir,
    pub rules: Rules,
    pub ids: Vec<NodeId>,
    addrs: Vec<SocketAddr>,
    /// The audit store, if on PostgreSQL.
    pub postgres_url: Option<String>,
    /// Lines of `[storage]` that put the board into etcd.
    pub etcd: Option<String>,
    /// Held from the start, so that nobody else takes a port before its node starts.
    sockets: Vec<Option<TcpListener>>,
}

impl Cluster {
    pub fn new(n: usize, t: u32) -> Self {
        Self::with(n, t, |_| {})
    }

    /// With other rules than the defaults, which suit tests: a short settle window.
    pub fn with(n: usize, t: u32, change: impl FnOnce(&mut GenesisParams)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let name = "test".to_owned();
        pki::init_cluster_ca(&InitCa {
            dir: root.join("ca"),
            cluster_name: name.clone(),
            validity: Validity::authority(),
        })
        .unwrap();
        let ids: Vec<_> = (1..=n)
            .map(|i| NodeId::new(&format!("node{i}")).unwrap())
            .collect();
        let mut members = Vec::new();
        for node_id in &ids {
            let home = root.join(node_id.as_str());
            let files = NodeFiles::in_dir(&home, node_id);
            pki::request(&Request {
                dir: home.clone(),
                cluster_name: name.clone(),
                node_id: node_id.clone(),
                sans: Vec::new(),
                authority_validity: Validity::authority(),
            })
            .unwrap();
            pki::sign_request(&SignRequest {
                ca_dir: root.join("ca"),
                csr: files.csr.clone(),
                node_id: node_id.clone(),
                sans: Vec::new(),
                out: files.cert.clone(),
                validity: Validity::leaf(),
            })
            .unwrap();
            for (role, person) in [
                (PersonRole::Client, "client"),
                (PersonRole::Operator, "operator"),
            ] {
                pki::issue(&Issue {
                    trustee_dir: home.clone(),
                    node_id: node_id.clone(),
                    role,
                    name: person.to_owned(),
                    out_dir: home.clone(),
                    validity: Validity::leaf(),
                })
                .unwrap();
            }
            members.push(files.member);
        }
        quorate_chain::ChainKey::generate()
            .unwrap()
            .write_new(&root.join("chain.key"))
            .unwrap();
        let mut params = GenesisParams::new(name, t);
        params.settle_window_ms = 20;
        change(&mut params);
        let rules = init_rules(&params, &members, &root.join("genesis.rules")).unwrap();
        let sockets: Vec<_> = ids
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addrs = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        Self {
            dir,
            rules,
            ids,
            addrs,
            postgres_url: postgres_url(),
            etcd: etcd(),
            sockets: sockets.into_iter().map(Some).collect(),
        }
    }

    pub fn home(&self, i: usize) -> PathBuf {
        self.dir.path().join(self.ids[i].as_str())
    }

    pub fn files(&self, i: usize) -> NodeFiles {
        NodeFiles::in_dir(&self.home(i), &self.ids[i])
    }

    pub fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    pub fn ca_cert(&self) -> PathBuf {
        pki::cluster_ca_cert(&self.dir.path().join("ca"))
    }

    pub fn addr(&self, i: usize) -> String {
        self.addrs[i].to_string()
    }

    /// The audit store that the nodes share.
    pub fn audit(&self) -> Arc<dyn AuditStore> {
        let lineage = Arc::new(self.rules.clone()).into();
        open_audit(&self.config(0).storage, lineage).unwrap()
    }

    pub fn config(&self, i: usize) -> Config {
        let toml = self.config_text(i, "127.0.0.1:0");
        Config::from_parts(Some(("test.toml", &toml)), &Default::default(), &[]).unwrap()
    }

    /// Gives node `i`'s port up to a process of its own, whose configuration this is.
    pub fn hand_over(&mut self, i: usize) -> String {
        self.sockets[i] = None;
        self.config_text(i, &self.addr(i))
    }

    fn config_text(&self, i: usize, listen_addr: &str) -> String {
        let text = |path: PathBuf| toml::Value::String(path.display().to_string());
        let files = self.files(i);
        format!(
            "[node]\nnode_id = \"{}\"\nlisten_addr = \"{listen_addr}\"\nhealth_addr = \"127.0.0.1:0\"\ndata_dir = {}\n\
             [keys]\nvote_key_path = {}\nnode_key_path = {}\n\
             [mtls]\nca_cert_path = {}\nclients_ca_path = {}\nnode_cert_path = {}\nnode_key_path = {}\n\
             [storage]\nembedded_dir = {}\npostgres_url = \"{}\"\n{}\n\
             [consensus]\ncluster_id = \"{}\"\nrules_path = {}\n\
             [chain]\nkey_path = {}\n",
            self.ids[i],
            text(self.home(i).join("data")),
            text(files.vote_key),
            text(files.node_key),
            text(self.ca_cert()),
            text(files.clients_ca_cert),
            text(files.cert),
            text(files.key),
            text(self.shared()),
            self.postgres_url.as_deref().unwrap_or_default(),
            self.etcd.as_deref().unwrap_or_default(),
            self.rules.cluster_id(),
            text(self.dir.path().join("genesis.rules")),
            text(self.dir.path().join("chain.key")),
        )
    }

    /// The parts of node `i`, as from its configuration.
    pub fn parts(&mut self, i: usize) -> Parts {
        let mut parts = self.open(i);
        let again = || TcpListener::bind(self.addrs[i]).unwrap();
        parts.listener = self.sockets[i].take().unwrap_or_else(again);
        let peer = |p: usize| PeerAddress {
            node_id: Some(self.ids[p].clone()),
            host: self.addrs[p].ip().to_string(),
            port: self.addrs[p].port(),
        };
        parts.peers = (0..self.ids.len()).filter(|p| *p != i).map(peer).collect();
        parts
    }

    /// The same without peers, on a port that nobody knows.
    pub fn parts_on_any_port(&self, i: usize) -> Parts {
        self.open(i)
    }

    fn open(&self, i: usize) -> Parts {
        let config = self.config(i);
        match &self.etcd {
            None => Parts::open(&config).unwrap(),
            // It waits for etcd, which only a thread that may block can do.
            Some(_) => tokio::task::block_in_place(|| Parts::open(&config)).unwrap(),
        }
    }

    pub async fn start(&mut self, i: usize) -> NodeHandle {
        self.start_with(i, |_| {}).await
    }

    pub async fn start_with(&mut self, i: usize, change: impl FnOnce(&mut Parts)) -> NodeHandle {
        let mut parts = self.parts(i);
        change(&mut parts);
        Node::start(parts).await.unwrap()
    }

    pub async fn start_faulty(&mut self, i: usize, faults: Faults) -> NodeHandle {
        self.start_with(i, |parts| parts.faults = faults).await
    }

    /// Starts all nodes and waits until each is in service and has a stream to each
    /// other.
    pub async fn start_all(&mut self) -> Vec<NodeHandle> {
        let mut nodes = Vec::new();
        for i in 0..self.ids.len() {
            nodes.push(self.start(i).await);
        }
        for node in &nodes {
            connected(node, self.ids.len() - 1).await;
        }
        nodes
    }

    /// What dials as some person of node `i`'s trustee.
    pub fn person(&self, i: usize, name: &str) -> Arc<ClientTls> {
        let files = PersonFiles::in_dir(&self.home(i), name);
        ClientTls::load(&ClientPaths {
            ca_cert: self.ca_cert(),
            cert: files.cert,
            key: files.key,
        })
        .unwrap()
    }

    /// What dials with node `i`'s own certificate.
    pub fn node_tls(&self, i: usize) -> Arc<ClientTls> {
        let files = self.files(i);
        ClientTls::load(&ClientPaths {
            ca_cert: self.ca_cert(),
            cert: files.cert,
            key: files.key,
        })
        .unwrap()
    }

    pub fn channel(&self, i: usize, tls: &Arc<ClientTls>) -> Channel {
        let options = DialOptions::default();
        connect(tls, &self.addr(i), ExpectedPeer::any(), options).unwrap()
    }

    /// A client of node `i`, by its own trustee's certificate.
    pub fn client(&self, i: usize) -> Client {
        VoteServiceClient::new(self.channel(i, &self.person(i, "client")))
    }

    pub fn node_key(&self, i: usize) -> SigningKey {
        SigningKey::read(&self.files(i).node_key).unwrap()
    }

    pub fn vote_key(&self, i: usize) -> SigningKey {
        SigningKey::read(&self.files(i).vote_key).unwrap()
    }

    /// A vote of trustee `i`, signed here.
    pub fn vote(
        &self,
        i: usize,
        tx_id: &str,
        choice: impl Into<Choice>,
        time_ms: u64,
    ) -> SignedStatement {
        let body = VoteBody {
            tx_id: TxId::new(tx_id).unwrap(),
            choice: choice.into(),
            time_ms,
        };
        let statement = bytes_to_sign(&self.rules, &self.ids[i], &body);
        let signature = self.vote_key(i).sign(VoteBody::DOMAIN, &statement);
        SignedStatement {
            statement,
            signature,
        }
    }

    pub fn target(&self, as_node: usize, to: usize) -> RawTarget {
        RawTarget {
            tls: self.node_tls(as_node),
            addr: self.addr(to),
        }
    }

    /// A stream to node `to` on which trustee `as_node` may say anything.
    pub async fn raw(&self, as_node: usize, to: usize) -> RawSession {
        let target = self.target(as_node, to);
        raw_session(
            &target,
            &self.rules,
            &self.ids[as_node],
            &self.node_key(as_node),
            1,
        )
        .await
        .unwrap()
    }
}

/// With this in the environment all clusters keep their audit record on PostgreSQL:
/// `QUORATE_TEST_AUDIT=postgres cargo test -p quorate-node`.
const AUDIT: &str = "QUORATE_TEST_AUDIT";

fn postgres_url() -> Option<String> {
    match std::env::var(AUDIT).ok()?.as_str() {
        "" | "sqlite" => None,
        "postgres" => Some(Postgres::shared().database().url()),
        other => panic!("{AUDIT} is sqlite or postgres, not {other}"),
    }
}

/// With this in the environment all clusters keep their board in etcd:
/// `QUORATE_TEST_BOARD=etcd cargo test -p quorate-node`.
const BOARD: &str = "QUORATE_TEST_BOARD";

fn etcd() -> Option<String> {
    match std::env::var(BOARD).ok()?.as_str() {
        "" | "embedded" => None,
        "etcd" => Some(in_etcd(Etcd::shared())),
        other => panic!("{BOARD} is embedded or etcd, not {other}"),
    }
}

/// The lines of `[storage]` that put a board of its own into these servers.
pub fn in_etcd(etcd: &Etcd) -> String {
    format!(
        "coordinator = \"etcd\"\netcd_endpoints = {:?}\netcd_prefix = {:?}",
        etcd.endpoints(),
        etcd.fresh_prefix()
    )
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Waits, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Waits until a node is in service and has that many streams.
pub async fn connected(node: &NodeHandle, peers: usize) {
    let look = move |engine: &quorate_engine::Engine| {
        (engine.is_in_service() && engine.connected().count() >= peers).then_some(())
    };
    let what = format!("{} in service with {peers} peers", node.node_id());
    soon(&what, node.until(look)).await.unwrap();
}

/// Waits until a node's own board shows a ballot in one of these states.
pub async fn ballot_in(node: &NodeHandle, tx_id: &str, states: &[BallotState]) -> Ballot {
    let (tx_id, states) = (TxId::new(tx_id).unwrap(), states.to_vec());
    let what = format!("{tx_id} in {states:?} at {}", node.node_id());
    let look = move |engine: &quorate_engine::Engine| {
        engine
            .view(&tx_id)
            .filter(|ballot| states.contains(&ballot.state()))
    };
    soon(&what, node.until(look)).await.unwrap()
}

/// Waits until a node's board shows a member banned.
pub async fn banned(node: &NodeHandle, member: &NodeId) {
    let (what, member) = (
        format!("{member} banned at {}", node.node_id()),
        member.clone(),
    );
    let look =
        move |engine: &quorate_engine::Engine| engine.board().is_banned(&member).then_some(());
    soon(&what, node.until(look)).await.unwrap();
}

pub fn number(tx_id: &str, number: u64) -> SubmitRequest {
    SubmitRequest {
        tx_id: tx_id.to_owned(),
        vote: Some(wire::submit_request::Vote::Number(number)),
        wait: wire::WaitFor::Recorded.into(),
    }
}

pub fn handed(tx_id: &str, statement: SignedStatement) -> SubmitRequest {
    SubmitRequest {
        tx_id: tx_id.to_owned(),
        vote: Some(wire::submit_request::Vote::Statement(statement)),
        wait: wire::WaitFor::Recorded.into(),
    }
}

/// Votes the same number at some nodes, one after the other.
pub async fn vote_at(cluster: &Cluster, at: impl IntoIterator<Item = usize>, tx_id: &str, n: u64) {
    for i in at {
        let submitted = cluster.client(i).submit(number(tx_id, n)).await;
        submitted.unwrap_or_else(|status| panic!("node {i}: {status}"));
    }
}

/// The stable reason of an error.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"))
        .reason
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, why: &str) -> Status {
    let status = result.expect_err("must be refused");
    assert_eq!(
        (status.code(), &*reason(&status)),
        (code, why),
        "{status:?}"
    );
    status
}
