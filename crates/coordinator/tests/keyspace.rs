//! The mapping from operations to keys keeps what every coordinator promises, on the
//! model of etcd: the whole conformance suite, without a server. Handles read the
//! store only when they must, so what they propose is often derived from an old view.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use quorate_consensus::Rules;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_coordinator::suite::{Builder, Store, run_all};
use quorate_coordinator::{Coordinator, StoreError};
use quorate_engine::{ProposeError, Proposed};
use quorate_keyspace::{Ask, OpId, Reader, Reply, Taken, Verdict, model};
use quorate_testkit::FakeVerifier;
use tokio::sync::watch;

#[derive(Debug)]
struct Shared {
    store: Mutex<model::Store>,
    notice: watch::Sender<u64>,
    ids: AtomicU64,
}

struct Modelled {
    shared: Arc<Shared>,
    reader: Mutex<Reader>,
}

impl Modelled {
    fn read(&self, reader: &mut Reader, store: &mut model::Store) -> Vec<(OpId, Reply)> {
        let mut replies = Vec::new();
        let mut take = |taken: Taken, store: &mut model::Store| {
            assert_eq!(taken.findings, [], "nobody tampers here");
            for step in &taken.mending {
                store.step(step);
            }
            replies.extend(taken.replies);
        };
        if reader.revision() == 0 {
            take(reader.take_all(store.revision(), store.all()), store);
        }
        // Mending makes new revisions, which are read too.
        loop {
            let changes = store
                .changes_after(reader.revision())
                .expect("not compacted");
            if changes.is_empty() {
                return replies;
            }
            for (revision, changes) in changes {
                take(reader.take(revision, changes), store);
            }
        }
    }
}

#[async_trait]
impl Coordinator for Modelled {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        let number = self.shared.ids.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let id = OpId(id);
        let asks = [Ask::new(id, op, now_ms)];
        let mut reader = self.reader.lock().expect("no test panics with it");
        let mut store = self.shared.store.lock().expect("no test panics with it");
        let mut fresh = false;
        for _ in 0..5 {
            let planned = reader.plan(&asks, 64);
            assert_eq!(planned.waiting, []);
            if let Some((_, verdict)) = planned.settled.into_iter().next() {
                match verdict {
                    _ if !fresh => {}
                    Verdict::Unchanged => {
                        return Ok(Proposed::Unchanged(reader.board().revision()));
                    }
                    Verdict::Refused(refusal) => return Err(refusal.into()),
                }
            } else {
                store.commit(&planned.batch);
            }
            let replies = self.read(&mut reader, &mut store);
            self.shared.notice.send_replace(reader.board().revision());
            let own = replies.into_iter().find(|(replied, _)| *replied == id);
            match own.map(|(_, reply)| reply) {
                Some(Reply::Applied(revision)) => return Ok(Proposed::Applied(revision)),
                Some(Reply::Unchanged(revision)) => return Ok(Proposed::Unchanged(revision)),
                Some(Reply::Refused(refusal)) => return Err(refusal.into()),
                None => fresh = true,
            }
        }
        panic!("nobody else writes, so the second try is the last");
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let mut reader = self.reader.lock().expect("no test panics with it");
        let mut store = self.shared.store.lock().expect("no test panics with it");
        self.read(&mut reader, &mut store);
        Ok(reader
            .entries(after, limit)
            .map(|entry| BoardEntry::clone(entry))
            .collect())
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let mut reader = self.reader.lock().expect("no test panics with it");
        let mut store = self.shared.store.lock().expect("no test panics with it");
        self.read(&mut reader, &mut store);
        Ok(reader.board().revision())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.notice.subscribe()
    }

    fn backend(&self) -> &'static str {
        "model"
    }
}

struct Models;

struct Model {
    shared: Arc<Shared>,
    rules: Arc<Rules>,
}

#[async_trait]
impl Builder for Models {
    async fn store(&self, rules: Arc<Rules>) -> Box<dyn Store> {
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            notice: watch::Sender::new(0),
            ids: AtomicU64::new(1),
        });
        Box::new(Model { shared, rules })
    }
}

#[async_trait]
impl Store for Model {
    async fn handle(&self) -> Arc<dyn Coordinator> {
        Arc::new(Modelled {
            shared: Arc::clone(&self.shared),
            reader: Mutex::new(Reader::new(Arc::clone(&self.rules), Arc::new(FakeVerifier))),
        })
    }

    async fn restart(&self) {
        self.shared
            .store
            .lock()
            .expect("no test panics with it")
            .compact();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    run_all(&Models).await;
}
