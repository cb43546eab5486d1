//! A local cluster that one can hurt while it runs: nodes are stopped, killed, paused,
//! cut off, slowed down and replaced by liars. `quorate dev` owns it, `quorate dev ACT`
//! asks it through its control.

mod act;
mod control;
mod liar;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use quorate_consensus::NodeId;
use quorate_node::{Faults, Freezer, Hurt, Network};

pub(crate) use act::{Act, NodeReport, Report, parse_delay};
use act::{known, parts};
pub(crate) use control::{Control, ask};
use liar::Standing;

use crate::byzantine::{Liar, TestType};
use crate::failure::{Failure, Outcome};
use crate::local::{Cluster, Mode, Plan};

/// How long a node has to say that it is in service.
const ASKED: Duration = Duration::from_secs(5);

/// What is in a node's place.
enum State {
    Running,
    Paused,
    Stopped,
    Killed,
    Lying(
        TestType,
        #[allow(dead_code, reason = "it lies until it is dropped")] Standing,
    ),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Lying(..) => "lying",
        }
    }
}

/// One node, and what is done to it.
struct Toy {
    state: State,
    faults: Faults,
    delay: Duration,
    /// A liar was in its place: the others may have banned it, and a node that nobody
    /// talks to does not come into service.
    lied: bool,
}

/// The cluster and what is done to it.
pub(crate) struct Playground {
    cluster: Cluster,
    toys: BTreeMap<NodeId, Toy>,
    parts: Vec<BTreeSet<NodeId>>,
    /// Which part has the board.
    board: usize,
}

impl Playground {
    /// Starts a cluster with nothing wrong.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub(crate) async fn start(plan: &Plan, mode: Mode) -> Outcome<Self> {
        let made = std::sync::Mutex::new(BTreeMap::new());
        let faults = |node_id: &NodeId| {
            let faults = Faults {
                network: Some(Network::default()),
                freezer: Some(Freezer::default()),
                ..Faults::default()
            };
            let mut made = made.lock().unwrap_or_else(|e| e.into_inner());
            made.insert(node_id.clone(), faults.clone());
            faults
        };
        let cluster = Cluster::start_with(plan, mode, faults).await?;
        let made = made.into_inner().unwrap_or_else(|e| e.into_inner());
        let toys = made.into_iter().map(|(node_id, faults)| {
            let toy = Toy {
                state: State::Running,
                faults,
                delay: Duration::ZERO,
                lied: false,
            };
            (node_id, toy)
        });
        let toys: BTreeMap<_, _> = toys.collect();
        Ok(Self {
            parts: vec![toys.keys().cloned().collect()],
            toys,
            cluster,
            board: 0,
        })
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops it, drained.
    pub(crate) async fn stop(mut self) {
        self.toys.clear();
        self.cluster.stop().await;
    }

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; what is told then is what to try.
    pub(crate) async fn act(&mut self, act: Act) -> Outcome<Report> {
        let done = match act {
            Act::Status {} => "nothing was changed".to_owned(),
            Act::Stop { node } => self.down(&node, false).await?,
            Act::Kill { node } => self.down(&node, true).await?,
            Act::Start { node } => self.up(&node).await?,
            Act::Pause { node } => self.freeze(&node, true)?,
            Act::Resume { node } => self.freeze(&node, false)?,
            Act::Partition { parts } => self.partition(&parts)?,
            Act::Delay { node, delay_ms } => self.delay(&node, delay_ms)?,
            Act::Heal {} => self.heal(),
            Act::Lie { node, liar } => self.lie(&node, &liar).await?,
        };
        Ok(self.report(done).await)
    }

    fn toy(&mut self, name: &str) -> Outcome<(NodeId, &mut Toy)> {
        let all: Vec<_> = self.toys.keys().cloned().collect();
        let node_id = known(name, &all)?;
        match self.toys.get_mut(&node_id) {
            Some(toy) => Ok((node_id, toy)),
            None => Err(Failure::failed(format!("there is no node {name:?}"))),
        }
    }

    async fn down(&mut self, name: &str, killed: bool) -> Outcome<String> {
        let (node_id, toy) = self.toy(name)?;
        if let State::Stopped | State::Killed = toy.state {
            return Err(is_already(&node_id, &toy.state, "start"));
        }
        thaw(toy);
        toy.state = match killed {
            true => State::Killed,
            false => State::Stopped,
        };
        match killed {
            true => self.cluster.kill_node(&node_id).await,
            false => self.cluster.stop_node(&node_id).await,
        }
        Ok(match killed {
            true => format!("{node_id} was killed, as kill -9 does"),
            false => format!("{node_id} has drained and stopped"),
        })
    }

    async fn up(&mut self, name: &str) -> Outcome<String> {
        let (node_id, toy) = self.toy(name)?;
        match toy.state {
            State::Running => return Err(is_already(&node_id, &toy.state, "stop")),
            State::Paused => return self.freeze(name, false),
            // A liar goes when its state does.
            State::Stopped | State::Killed | State::Lying(..) => toy.state = State::Stopped,
        }
        let (faults, lied) = (toy.faults.clone(), toy.lied);
        self.cluster.start_node(&node_id, &faults).await?;
        if let Some(toy) = self.toys.get_mut(&node_id) {
            toy.state = State::Running;
        }
        // A node that is cut off from the board is in service when that is mended.
        if self.reaches_board(&node_id) {
            let in_service = self.cluster.until_one_in_service(&node_id);
            match lied {
                false => in_service.await?,
                // What it says when it is may be seen at once; that it comes to that is
                // not promised.
                true => drop(tokio::time::timeout(ASKED, in_service).await),
            }
        }
        Ok(match lied {
            true => format!("{node_id} runs, honest now; if it was banned, it stays so"),
            false => format!("{node_id} runs"),
        })
    }

    fn freeze(&mut self, name: &str, frozen: bool) -> Outcome<String> {
        let (node_id, toy) = self.toy(name)?;
        match (&toy.state, frozen) {
            (State::Running, true) | (State::Paused, false) => {}
            (State::Paused, true) => return Err(is_already(&node_id, &toy.state, "resume")),
            (state, true) => {
                return Err(Failure::failed(format!("{node_id} is {}", state.name()))
                    .hint(format!("start it first: quorate dev start {node_id}")));
            }
            (state, false) => {
                return Err(Failure::failed(format!("{node_id} is {}", state.name()))
                    .hint("only a node that is paused goes on"));
            }
        }
        toy.state = match frozen {
            true => State::Paused,
            false => State::Running,
        };
        let faults = toy.faults.clone();
        self.cluster.freeze_node(&node_id, &faults, frozen)?;
        Ok(match frozen {
            true => format!("{node_id} stands still"),
            false => format!("{node_id} goes on"),
        })
    }

    fn partition(&mut self, named: &[Vec<String>]) -> Outcome<String> {
        let all: Vec<_> = self.toys.keys().cloned().collect();
        let (cut, board) = parts(named, &all)?;
        if cut.len() < 2 {
            return Err(Failure::usage("that is the whole network in one part")
                .hint("name one part: dev partition node1,node2; `dev heal` joins all"));
        }
        (self.parts, self.board) = (cut, board);
        self.apply();
        let with_board = names(&self.parts[self.board]);
        let parts: Vec<_> = self.parts.iter().map(names).collect();
        Ok(format!(
            "the network is cut: {}; {with_board} keep the board",
            parts.join(" | ")
        ))
    }

    fn delay(&mut self, name: &str, delay_ms: u64) -> Outcome<String> {
        let delay = Duration::from_millis(delay_ms);
        if delay > act::LONGEST_DELAY {
            return Err(Failure::usage(format!("{delay_ms} ms is too long"))
                .hint("delays go from 0 to 2s: beyond that, `dev pause` is what you want"));
        }
        let (node_id, toy) = self.toy(name)?;
        toy.delay = delay;
        self.apply();
        Ok(format!(
            "each frame and each request to the board waits {delay_ms} ms at {node_id}"
        ))
    }

    fn heal(&mut self) -> String {
        self.parts = vec![self.toys.keys().cloned().collect()];
        self.board = 0;
        for toy in self.toys.values_mut() {
            toy.delay = Duration::ZERO;
        }
        self.apply();
        "one network again, without delays; who is down stays down".to_owned()
    }

    async fn lie(&mut self, name: &str, liar: &str) -> Outcome<String> {
        let lie: TestType = liar.parse().map_err(Failure::usage)?;
        let (node_id, toy) = self.toy(name)?;
        // A liar that is there already goes now.
        thaw(toy);
        toy.state = State::Stopped;
        self.cluster.stop_node(&node_id).await;
        let rules = self.cluster.rules().clone();
        let context = self.cluster.context(&node_id);
        let files = self.cluster.layout().node(&node_id);
        let keys = Liar::load(&node_id, rules.clone(), &files, &context.cacert)?;
        let others = self.toys.keys().filter(|other| **other != node_id);
        let others = others.map(|other| (other.clone(), self.cluster.context(other).endpoint));
        let standing = Standing::start(keys, rules, others.collect(), lie.liar());
        let listen = |other: &NodeId| self.runs(other) && self.same_part(other, &node_id);
        let listeners: Vec<_> = self
            .toys
            .keys()
            .filter(|other| listen(other))
            .cloned()
            .collect();
        standing.until_settled(&listeners).await;
        if let Some(toy) = self.toys.get_mut(&node_id) {
            toy.state = State::Lying(lie, standing);
            toy.lied = true;
        }
        Ok(format!(
            "{node_id} lies from now on ({}), whenever the others vote",
            lie.name()
        ))
    }

    fn runs(&self, node_id: &NodeId) -> bool {
        let toy = self.toys.get(node_id);
        toy.is_some_and(|toy| matches!(toy.state, State::Running))
    }

    fn same_part(&self, one: &NodeId, other: &NodeId) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.contains(one) && part.contains(other))
    }

    fn reaches_board(&self, node_id: &NodeId) -> bool {
        let part = self.parts.get(self.board);
        part.is_some_and(|part| part.contains(node_id))
    }

    /// Puts every node's network into the state that it should have. What is between
    /// two nodes is in both their hands, so a liar, which has none, is cut off too.
    fn apply(&self) {
        for (node_id, toy) in &self.toys {
            let own = self.parts.iter().find(|part| part.contains(node_id));
            let others = self.toys.keys();
            let cut = others.filter(|other| !own.is_some_and(|part| part.contains(*other)));
            let hurt = Hurt {
                cut: cut.cloned().collect(),
                board_away: !self.reaches_board(node_id),
                delay: toy.delay,
            };
            self.cluster.hurt_node(node_id, &toy.faults, hurt);
        }
    }

    async fn report(&self, done: String) -> Report {
        let nodes = self.toys.iter().map(async |(node_id, toy)| {
            let part = self.parts.iter().position(|part| part.contains(node_id));
            let asks = matches!(toy.state, State::Running);
            let runs = matches!(toy.state, State::Running | State::Paused);
            let pid = self.cluster.pid(node_id).map(|pid| *pid.borrow());
            NodeReport {
                node_id: node_id.to_string(),
                state: toy.state.name().to_owned(),
                liar: match &toy.state {
                    State::Lying(lie, _) => Some(lie.name().to_owned()),
                    _ => None,
                },
                in_service: asks && self.cluster.is_in_service(node_id, ASKED).await,
                part: part.map_or(0, |part| part + 1),
                board: self.reaches_board(node_id),
                delay_ms: u64::try_from(toy.delay.as_millis()).unwrap_or(u64::MAX),
                pid: runs.then(|| pid.unwrap_or_else(std::process::id)),
            }
        });
        Report {
            done,
            data_dir: self.cluster.layout().root().to_owned(),
            mode: match self.cluster.mode() {
                Mode::Inside => "tasks",
                Mode::Processes => "processes",
            }
            .to_owned(),
            board: match self.cluster.etcd() {
                Some(_) => "etcd",
                None => "file",
            }
            .to_owned(),
            nodes: join_all(nodes).await,
        }
    }
}

/// A node that stands still drains nothing.
fn thaw(toy: &Toy) {
    if let Some(freezer) = &toy.faults.freezer {
        quorate_node::Loop::ALL
            .into_iter()
            .for_each(|which| freezer.thaw(which));
    }
}

fn is_already(node_id: &NodeId, state: &State, other: &str) -> Failure {
    Failure::failed(format!("{node_id} is {} already", state.name()))
        .hint(format!("did you mean `quorate dev {other} {node_id}`?"))
}

fn names(part: &BTreeSet<NodeId>) -> String {
    let names: Vec<_> = part.iter().map(NodeId::as_str).collect();
    names.join(", ")
}
