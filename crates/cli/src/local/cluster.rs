//! The running nodes of a local cluster.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{NodeId, Rules};
use quorate_node::{Config, Faults, Hurt, Loop, Network, Node, NodeHandle, Parts, Stopped};
use quorate_telemetry::LogHandle;
use quorate_tls::pki;
use tokio::sync::watch;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::build::{Built, Plan, Ports, build};
use super::layout::{Layout, NodeLayout};
use super::network::line_of;
use super::process::Supervised;
use super::ready::{Ready, ReadyNode};
use crate::client::{Client, channel};
use crate::contexts::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::remote::Target;
use crate::waiting::{PATIENCE, until_some};

/// How long a client of a local cluster waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As tasks of this process.
    Inside,
    /// As processes of their own.
    Processes,
}

enum Running {
    Inside(Box<NodeHandle>),
    Process(Supervised),
}

/// A local cluster.
pub(crate) struct Cluster {
    built: Built,
    rules: Arc<Rules>,
    mode: Mode,
    log: Option<LogHandle>,
    running: BTreeMap<NodeId, Running>,
}

impl Cluster {
    /// Where etcd is, if it keeps the board.
    pub(crate) fn etcd(&self) -> Option<&[String]> {
        self.built.etcd.as_deref()
    }

    /// Makes the files, or takes up those that are there, starts every node and waits
    /// until all are in service.
    ///
    /// # Errors
    /// When a file or port cannot be had, a node does not start, or does not come into
    /// service.
    pub(crate) async fn start(plan: &Plan, mode: Mode) -> Outcome<Self> {
        Self::start_with(plan, mode, |_| Faults::default()).await
    }

    /// The same with faults in the nodes, which must run inside.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub(crate) async fn start_with(
        plan: &Plan,
        mode: Mode,
        faults: impl Fn(&NodeId) -> Faults,
    ) -> Outcome<Self> {
        let built = build(plan)?;
        let rules = Arc::new(built.rules.clone());
        let mut cluster = Self {
            built,
            rules,
            mode,
            log: plan.log.clone(),
            running: BTreeMap::new(),
        };
        for node_id in cluster.node_ids() {
            if let Err(failure) = cluster.start_node(&node_id, &faults(&node_id)).await {
                cluster.stop().await;
                return Err(failure);
            }
        }
        if let Err(failure) = cluster.until_in_service().await {
            cluster.stop().await;
            return Err(failure);
        }
        Ok(cluster)
    }

    /// Starts one node that does not run.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start_node(&mut self, node_id: &NodeId, faults: &Faults) -> Outcome {
        let Entry::Vacant(place) = self.running.entry(node_id.clone()) else {
            return Ok(());
        };
        let node = self.built.layout.node(node_id);
        let running = match self.mode {
            Mode::Processes => {
                let hurt = faults.network.as_ref().map(Network::hurt);
                let line = line_of(&hurt.unwrap_or_default());
                Running::Process(Supervised::start(node, line)?)
            }
            Mode::Inside => Running::Inside(Box::new(
                start_inside(&node, faults, self.log.clone()).await?,
            )),
        };
        place.insert(running);
        Ok(())
    }

    /// Waits until a node inside has ended by itself, and gives how; none for a node that
    /// does not run inside.
    pub(crate) async fn stopped(&self, node_id: &NodeId) -> Option<Stopped> {
        match self.running.get(node_id) {
            Some(Running::Inside(node)) => Some(node.stopped().await),
            _ => None,
        }
    }

    /// Stops one node, drained.
    pub(crate) async fn stop_node(&mut self, node_id: &NodeId) {
        match self.running.remove(node_id) {
            Some(Running::Inside(node)) => node.shutdown().await,
            Some(Running::Process(process)) => process.stop().await,
            None => {}
        }
    }

    /// Ends one node as a crash does.
    pub(crate) async fn kill_node(&mut self, node_id: &NodeId) {
        match self.running.remove(node_id) {
            Some(Running::Inside(node)) => node.kill().await,
            Some(Running::Process(process)) => process.kill().await,
            None => {}
        }
    }

    /// Stops one node where it stands, or lets it go on; `faults` are those that it was
    /// started with.
    ///
    /// # Errors
    /// When its process cannot be signalled.
    pub(crate) fn freeze_node(&self, node_id: &NodeId, faults: &Faults, frozen: bool) -> Outcome {
        match self.running.get(node_id) {
            Some(Running::Process(process)) => process.freeze(frozen),
            Some(Running::Inside(_)) => {
                if let Some(freezer) = &faults.freezer {
                    Loop::ALL.into_iter().for_each(|which| match frozen {
                        true => freezer.freeze(which),
                        false => freezer.thaw(which),
                    });
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Puts the network of one node into this state; `faults` are those that it was
    /// started with.
    pub(crate) fn hurt_node(&self, node_id: &NodeId, faults: &Faults, hurt: Hurt) {
        if let Some(Running::Process(process)) = self.running.get(node_id) {
            process.tell(line_of(&hurt));
        }
        if let Some(network) = &faults.network {
            network.set(hurt);
        }
    }

    /// Whether the node says within this time that it is in service.
    pub(crate) async fn is_in_service(&self, node_id: &NodeId, within: Duration) -> bool {
        let asked = async {
            let mut health = HealthClient::new(channel(&self.context(node_id)).ok()?);
            let service = String::new();
            let answer = health.check(HealthCheckRequest { service }).await.ok()?;
            Some(answer.into_inner().status() == ServingStatus::Serving)
        };
        let runs = self.running.contains_key(node_id);
        runs && tokio::time::timeout(within, asked).await == Ok(Some(true))
    }

    /// Stops every node, drained, all at once.
    pub(crate) async fn stop(mut self) {
        let running = std::mem::take(&mut self.running);
        let stops = running.into_values().map(|running| async {
            match running {
                Running::Inside(node) => node.shutdown().await,
                Running::Process(process) => process.stop().await,
            }
        });
        futures_util::future::join_all(stops).await;
    }

    /// Waits until every running node says that it is in service.
    ///
    /// # Errors
    /// When one of them does not.
    pub(crate) async fn until_in_service(&self) -> Outcome {
        for node_id in self.running.keys() {
            self.until_one_in_service(node_id).await?;
        }
        Ok(())
    }

    /// Waits until this node says that it is in service.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn until_one_in_service(&self, node_id: &NodeId) -> Outcome {
        let mut health = HealthClient::new(channel(&self.context(node_id))?);
        let what = format!("{node_id} to come into service");
        let waited = until_some(&what, PATIENCE, async || {
            let request = HealthCheckRequest {
                service: String::new(),
            };
            let answer = health.check(request).await;
            let serving = answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving);
            Ok(serving.then_some(()))
        })
        .await;
        waited.map_err(|failure| {
            let log = self.built.layout.node(node_id).log();
            let hint = match self.mode {
                Mode::Processes => format!("its log is {}", log.display()),
                Mode::Inside => "start with RUST_LOG=info to see why".to_owned(),
            };
            Failure::new(Exit::Unavailable, failure).hint(hint)
        })
    }

    /// The trustees, ascending.
    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        self.built
            .nodes
            .iter()
            .map(|(node_id, _)| node_id.clone())
            .collect()
    }

    /// The rules.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Where the files are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.built.layout
    }

    /// Where the nodes run.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Its keys come from a seed: everybody who knows it has them.
    pub(crate) fn seeded(&self) -> bool {
        self.built.seeded
    }

    /// The files were there already.
    pub(crate) fn continued(&self) -> bool {
        self.built.continued
    }

    /// How to talk to a node.
    pub(crate) fn context(&self, node_id: &NodeId) -> Context {
        let node = self.built.layout.node(node_id);
        let port = self.ports(node_id).map(|ports| ports.grpc);
        Context {
            endpoint: format!("127.0.0.1:{}", port.unwrap_or_default()),
            cacert: pki::cluster_ca_cert(&self.built.layout.ca_dir()),
            cert: node.client.cert,
            key: node.client.key,
            operator_cert: Some(node.operator.cert),
            operator_key: Some(node.operator.key),
            cluster_id: Some(self.rules.cluster_id().to_string()),
        }
    }

    fn ports(&self, node_id: &NodeId) -> Option<Ports> {
        let mut nodes = self.built.nodes.iter();
        let found = nodes.find(|(id, _)| id == node_id);
        found.map(|(_, ports)| *ports)
    }

    /// A client of a node.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub(crate) fn client(&self, node_id: &NodeId) -> Outcome<Client> {
        Client::connect(&Target {
            name: node_id.to_string(),
            context: self.context(node_id),
            timeout: ANSWER,
        })
    }

    /// What others need to know.
    pub(crate) fn ready(&self) -> Ready {
        let nodes = self.node_ids().into_iter().map(|node_id| {
            let context = self.context(&node_id);
            let NodeLayout {
                files, operator, ..
            } = self.built.layout.node(&node_id);
            let health = self.ports(&node_id).map_or(0, |ports| ports.health);
            ReadyNode {
                health: format!("127.0.0.1:{health}"),
                endpoint: context.endpoint,
                cacert: context.cacert,
                cert: context.cert,
                key: context.key,
                operator_cert: operator.cert,
                operator_key: operator.key,
                vote_key: files.vote_key,
                node_key: files.node_key,
                config: self.built.layout.node(&node_id).config(),
                pid: self
                    .pid(&node_id)
                    .map_or_else(std::process::id, |pid| *pid.borrow()),
                node_id: node_id.to_string(),
            }
        });
        Ready {
            cluster_id: self.rules.cluster_id().to_string(),
            data_dir: self.built.layout.root().to_owned(),
            nodes: nodes.collect(),
        }
    }

    /// The process of a node that has one of its own, now and whenever it changes.
    pub(crate) fn pid(&self, node_id: &NodeId) -> Option<watch::Receiver<u32>> {
        match self.running.get(node_id) {
            Some(Running::Process(process)) => Some(process.pid()),
            _ => None,
        }
    }
}

/// The environment of this process says nothing about nodes inside, for all of them
/// would take it for theirs: but for where their traces go.
async fn start_inside(
    node: &NodeLayout,
    faults: &Faults,
    log: Option<LogHandle>,
) -> Outcome<NodeHandle> {
    let path = node.config();
    let text = crate::files::read(&path)?;
    let text = String::from_utf8_lossy(&text);
    let name = path.display().to_string();
    let traces: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("QUORATE_TELEMETRY_"))
        .collect();
    let config = Config::from_parts(Some((&name, &text)), &traces, &[]).map_err(Failure::usage)?;
    let opened = tokio::task::spawn_blocking(move || Parts::open(&config)).await;
    let mut parts = opened.map_err(Failure::failed)?.map_err(Failure::failed)?;
    parts.faults = faults.clone();
    parts.log = log;
    Node::start(parts).await.map_err(Failure::failed)
}
