//! How many ballots one client may keep open that too few others have voted on. The
//! board gives a trustee 10,000 of them; without a share of its own, one client with a
//! bug would use all of them up, and its trustee could vote on nothing more until they
//! expire.
//!
//! What is counted is what this node took from the client since its start: the board's
//! own limit holds across restarts.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_consensus::TxId;
use quorate_engine::Engine;
use quorate_tls::Identity;

use super::Api;
use crate::status::ApiError;

/// The shortest time between two looks at all that one client keeps open: a client at
/// its limit that goes on asking costs the engine no more than this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a vote whose call ended without an answer may still reach the board: so
/// long it counts, although no board shows it.
const UNDERWAY: Duration = Duration::from_secs(30);

/// What each client keeps open.
pub(crate) struct Quota {
    most: usize,
    clients: Arc<Clients>,
}

type Clients = Mutex<HashMap<Identity, Open>>;

/// One client's ballots.
#[derive(Debug, Default)]
struct Open {
    ballots: BTreeMap<TxId, Standing>,
    looked: Option<Instant>,
}

/// Whether the board can be asked about a vote.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// Its call has not ended.
    Called,
    /// From then on.
    From(Instant),
}

/// A client is at its limit: what has to be looked at before it may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Those of its ballots that may have gone; empty when they were looked at just
    /// now.
    pub(super) ballots: Vec<TxId>,
}

/// A ballot that is counted for as long as its call lasts, and then as its end says.
#[must_use]
#[derive(Debug)]
pub(super) struct Entered {
    clients: Arc<Clients>,
    client: Identity,
    tx_id: TxId,
}

impl Quota {
    pub(crate) fn new(most: NonZeroU32) -> Self {
        Self {
            most: usize::try_from(most.get()).unwrap_or(usize::MAX),
            clients: Arc::default(),
        }
    }

    /// The most ballots of one client.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Counts a ballot; none when it was counted before.
    pub(super) fn enter(&self, client: &Identity, tx_id: &TxId) -> Result<Option<Entered>, Full> {
        let mut clients = lock(&self.clients);
        let open = clients.entry(client.clone()).or_default();
        if open.ballots.contains_key(tx_id) {
            return Ok(None);
        }
        if open.ballots.len() < self.most {
            open.ballots.insert(tx_id.clone(), Standing::Called);
            return Ok(Some(Entered {
                clients: self.clients.clone(),
                client: client.clone(),
                tx_id: tx_id.clone(),
            }));
        }
        let now = Instant::now();
        if open.looked.is_some_and(|at| now < at + LOOK_AGAIN) {
            let ballots = Vec::new();
            return Err(Full { ballots });
        }
        open.looked = Some(now);
        let settled = |standing: &Standing| matches!(standing, Standing::From(at) if now >= *at);
        let ballots = open.ballots.iter().filter(|(_, s)| settled(s));
        let ballots = ballots.map(|(tx_id, _)| tx_id.clone()).collect();
        Err(Full { ballots })
    }

    /// These have started, ended, or were never recorded.
    pub(super) fn leave<'a>(&self, client: &Identity, gone: impl IntoIterator<Item = &'a TxId>) {
        if let Some(open) = lock(&self.clients).get_mut(client) {
            for tx_id in gone {
                open.ballots.remove(tx_id);
            }
        }
    }
}

impl Entered {
    /// The vote is recorded: the board knows whether the ballot counts.
    pub(super) fn recorded(self) {
        self.stands(Instant::now());
    }

    /// The vote was refused for good: no ballot was opened by it.
    pub(super) fn refused(self) {
        if let Some(open) = lock(&self.clients).get_mut(&self.client) {
            open.ballots.remove(&self.tx_id);
        }
    }

    fn stands(&self, from: Instant) {
        if let Some(open) = lock(&self.clients).get_mut(&self.client)
            && let Some(standing @ Standing::Called) = open.ballots.get_mut(&self.tx_id)
        {
            *standing = Standing::From(from);
        }
    }
}

/// A call that ended without an answer, or whose caller went away.
impl Drop for Entered {
    fn drop(&mut self) {
        self.stands(Instant::now() + UNDERWAY);
    }
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<Identity, Open>> {
    // A panic leaves a number of ballots, which the next look corrects.
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Api {
    /// Counts the ballot among those that this client keeps open, while it has room
    /// for one more; none when it need not be counted.
    pub(super) async fn enter(
        &self,
        client: &Identity,
        tx_id: &TxId,
    ) -> Result<Option<Entered>, ApiError> {
        let full = match self.quota.enter(client, tx_id) {
            Ok(entered) => return Ok(entered),
            Err(full) => full,
        };
        let wanted = tx_id.clone();
        let look = move |engine: &Engine| {
            let mut gone = full.ballots;
            gone.retain(|tx_id| !counts(engine, tx_id));
            (gone, would_count(engine, &wanted))
        };
        let (gone, opens) = self.look(look).await?;
        self.quota.leave(client, &gone);
        match opens {
            false => Ok(None),
            true => self
                .quota
                .enter(client, tx_id)
                .map_err(|_| self.over_quota(client)),
        }
    }

    fn over_quota(&self, client: &Identity) -> ApiError {
        self.meter.rate_limited.of(["unstarted"]).inc();
        ApiError::ClientQuota {
            caller: client.to_string(),
            most: self.quota.most(),
        }
    }
}

/// Whether a ballot counts: it is open, and not started yet.
fn counts(engine: &Engine, tx_id: &TxId) -> bool {
    let ballot = engine.board().ballot(tx_id);
    ballot.is_some_and(|ballot| ballot.is_open() && !ballot.is_started())
}

/// Whether a vote on it would leave a ballot that counts.
fn would_count(engine: &Engine, tx_id: &TxId) -> bool {
    let board = engine.board();
    match board.ballot(tx_id) {
        None => board.collected(tx_id).is_none(),
        Some(ballot) => {
            let starts = ballot.votes.len() + 1 >= ballot.rules.starters();
            ballot.is_open() && !ballot.is_started() && !starts
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::NodeId;
    use quorate_tls::identity::PersonRole;

    use super::*;

    fn client(name: &str) -> Identity {
        let node = NodeId::new("node1").unwrap();
        Identity::person("c", PersonRole::Client, node, name).unwrap()
    }

    fn tx(name: &str) -> TxId {
        TxId::new(name).unwrap()
    }

    fn full(of: &[&str]) -> Option<Full> {
        let ballots = of.iter().map(|name| tx(name)).collect();
        Some(Full { ballots })
    }

    #[test]
    fn each_client_has_a_share_of_its_own_and_gets_room_back() {
        let quota = Quota::new(NonZeroU32::new(2).unwrap());
        let (alice, bob) = (client("alice"), client("bob"));
        for name in ["a", "b"] {
            let entered = quota.enter(&alice, &tx(name)).unwrap();
            entered.expect("it is new").recorded();
        }
        assert!(quota.enter(&alice, &tx("b")).unwrap().is_none());
        assert_eq!(quota.enter(&alice, &tx("c")).err(), full(&["a", "b"]));
        // Who goes on asking costs no second look at once.
        assert_eq!(quota.enter(&alice, &tx("c")).err(), full(&[]));
        assert!(quota.enter(&bob, &tx("c")).unwrap().is_some());
        quota.leave(&alice, [&tx("a")]);
        assert!(quota.enter(&alice, &tx("c")).unwrap().is_some());
    }

    #[test]
    fn a_vote_that_may_still_be_recorded_counts() {
        let quota = Quota::new(NonZeroU32::new(3).unwrap());
        let alice = client("alice");
        let called = quota.enter(&alice, &tx("called")).unwrap();
        drop(quota.enter(&alice, &tx("unanswered")).unwrap());
        let refused = quota.enter(&alice, &tx("refused")).unwrap();
        // Nobody knows yet what became of any of them: none is to be looked at.
        assert_eq!(quota.enter(&alice, &tx("d")).err(), full(&[]));
        refused.expect("it is new").refused();
        let last = quota.enter(&alice, &tx("d")).unwrap().expect("it is new");
        assert_eq!(quota.enter(&alice, &tx("e")).err(), full(&[]));
        last.refused();
        drop(called);
    }
}
