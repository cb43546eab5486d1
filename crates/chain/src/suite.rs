//! The suite that every chain passes as far as it can. A backend brings a [`Builder`];
//! what its chain cannot be made to do is left out by [`Place::can`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use quorate_consensus::wire::Reservation;
use quorate_engine::{ChainAnswer, ChainAsk, Prepared, SendOutcome, Sighting};

use crate::api::{Chain, ChainError};
use crate::faults::{Faults, FaultyChain};

/// Makes chains for the suite.
#[async_trait]
pub trait Builder: Send + Sync {
    /// A fresh chain that nothing was sent to, shared with no other test.
    async fn place(&self) -> Box<dyn Place>;
}

/// A fault that not every chain can be made to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// [`Faults::hold`] and [`Faults::drop_waiting`].
    Hold,
    /// [`Faults::reorganise`], its transactions waiting again.
    ReorganiseAndKeep,
    /// [`Faults::reorganise`], its transactions gone.
    ReorganiseAndDrop,
    /// [`Faults::revert_next`].
    Revert,
}

/// One chain; it goes with the value.
#[async_trait]
pub trait Place: Send + Sync {
    /// Another endpoint of the chain, one that can sign for [`Place::account`].
    async fn open(&self) -> Result<Arc<dyn Chain>, ChainError>;

    /// Makes the chain go wrong.
    fn faults(&self) -> &dyn Faults;

    /// Whether the chain can be made to show a fault.
    fn can(&self, fault: Fault) -> bool;

    /// An account that can pay.
    fn account(&self) -> String;

    /// Its first nonce.
    fn first_nonce(&self) -> u64;
}

/// Runs every test of the suite, one after the other, each on a chain of its own.
///
/// # Panics
/// When the backend does not behave; the message says where.
pub async fn run_all(builder: &dyn Builder) {
    Test::new(builder).await.looking_changes_nothing().await;
    Test::new(builder)
        .await
        .a_transaction_is_included_once()
        .await;
    Test::new(builder).await.a_nonce_is_used_once().await;
    Test::new(builder).await.depth_counts_from_the_head().await;
    Test::new(builder)
        .await
        .a_later_nonce_waits_for_the_one_before()
        .await;
    Test::new(builder).await.blocks_are_chained().await;
    Test::new(builder).await.nonsense_is_not_taken().await;
    Test::new(builder)
        .await
        .of_many_senders_at_once_one_wins()
        .await;
    Test::new(builder)
        .await
        .a_lost_reply_is_found_by_looking()
        .await;
    Test::new(builder)
        .await
        .a_strangers_transaction_shows()
        .await;
    Test::new(builder)
        .await
        .what_waits_can_be_replaced_and_dropped()
        .await;
    Test::new(builder)
        .await
        .an_undone_transaction_can_be_sent_again()
        .await;
    Test::new(builder)
        .await
        .a_reverted_transaction_uses_its_nonce()
        .await;
}

/// One test's chain.
struct Test {
    place: Box<dyn Place>,
    chain: Arc<dyn Chain>,
}

impl Test {
    async fn new(builder: &dyn Builder) -> Self {
        let place = builder.place().await;
        let chain = place.open().await.expect("the chain opens");
        Self { place, chain }
    }

    /// The nonce so many after the first.
    fn nonce(&self, after: u64) -> u64 {
        self.place.first_nonce() + after
    }

    async fn look(&self, nonce: u64) -> Sighting {
        let account = self.place.account();
        match self.chain.ask(ChainAsk::Look { account, nonce }).await {
            ChainAnswer::Seen(seen) => seen,
            other => panic!("{other:?}"),
        }
    }

    async fn prepare(&self, nonce: u64, payload: &[u8], attempt: u32) -> Prepared {
        let reservation = Reservation {
            account: self.place.account(),
            nonce,
            payload: payload.to_vec(),
        };
        let ask = ChainAsk::Prepare {
            reservation,
            attempt,
        };
        match self.chain.ask(ask).await {
            ChainAnswer::Prepared(prepared) => prepared,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, prepared: &Prepared) -> SendOutcome {
        send(&*self.chain, prepared).await
    }

    async fn mine(&self, blocks: u32) {
        self.place.faults().mine(blocks).await.expect("blocks");
    }

    /// Sends a payload and brings it into a block.
    async fn submit(&self, nonce: u64, payload: &[u8]) -> Prepared {
        let prepared = self.prepare(nonce, payload, 0).await;
        assert_eq!(self.send(&prepared).await, SendOutcome::Accepted);
        self.mine(1).await;
        prepared
    }

    /// How often the payload is in a block.
    async fn count(&self, payload: &[u8]) -> usize {
        let blocks = self.chain.recent_blocks(usize::MAX).await.expect("blocks");
        let all = blocks.iter().flat_map(|block| &block.transactions);
        all.filter(|found| found.payload == payload).count()
    }

    async fn looking_changes_nothing(self) {
        let nonce = self.nonce(0);
        let before = self.chain.recent_blocks(10).await.expect("blocks");
        assert_eq!(self.look(nonce).await, Sighting::Nothing);
        assert_eq!(self.look(u64::MAX).await, Sighting::Nothing);
        let prepared = self.prepare(nonce, b"payload", 0).await;
        assert!(!prepared.tx_hash.is_empty() && !prepared.raw.is_empty());
        let dearer = self.prepare(nonce, b"payload", 1).await;
        assert_ne!(dearer.tx_hash, prepared.tx_hash);
        assert_eq!(self.look(nonce).await, Sighting::Nothing);
        let after = self.chain.recent_blocks(10).await.expect("blocks");
        assert_eq!(after, before);
    }

    async fn a_transaction_is_included_once(self) {
        let nonce = self.nonce(0);
        let prepared = self.submit(nonce, b"payload").await;
        let seen = self.look(nonce).await;
        let Sighting::Included {
            tx_hash,
            payload,
            succeeded,
            block_hash,
            depth,
            ..
        } = &seen
        else {
            panic!("{seen:?}");
        };
        assert_eq!(*tx_hash, prepared.tx_hash, "known before it was sent");
        assert_eq!((&**payload, *succeeded), (&b"payload"[..], true));
        assert!(!block_hash.is_empty() && *depth >= 1);

        for _ in 0..2 {
            assert_eq!(self.send(&prepared).await, SendOutcome::NonceTooLow);
        }
        self.mine(1).await;
        assert_eq!(self.count(b"payload").await, 1);
        let other = self.place.open().await.expect("another endpoint");
        assert_eq!(send(&*other, &prepared).await, SendOutcome::NonceTooLow);
    }

    async fn a_nonce_is_used_once(self) {
        let nonce = self.nonce(0);
        let first = self.submit(nonce, b"first").await;
        for attempt in [0, 1, 5] {
            let second = self.prepare(nonce, b"second", attempt).await;
            assert_eq!(self.send(&second).await, SendOutcome::NonceTooLow);
        }
        self.mine(1).await;
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Included { tx_hash, .. } if tx_hash == first.tx_hash
        ));
        assert_eq!(self.count(b"second").await, 0);
        self.submit(self.nonce(1), b"second").await;
        assert_eq!(self.count(b"second").await, 1);
    }

    async fn depth_counts_from_the_head(self) {
        let nonce = self.nonce(0);
        self.submit(nonce, b"payload").await;
        let depth = self.depth(nonce).await;
        self.mine(1).await;
        assert_eq!(self.depth(nonce).await, depth + 1);
        self.mine(3).await;
        assert_eq!(self.depth(nonce).await, depth + 4);
        self.submit(self.nonce(1), b"next").await;
        assert!(self.depth(nonce).await > depth + 4);
    }

    async fn depth(&self, nonce: u64) -> u64 {
        match self.look(nonce).await {
            Sighting::Included {
                depth,
                block_number,
                ..
            } => {
                let blocks = self.chain.recent_blocks(1).await.expect("blocks");
                assert_eq!(depth, blocks[0].number - block_number + 1);
                depth
            }
            other => panic!("{other:?}"),
        }
    }

    async fn a_later_nonce_waits_for_the_one_before(self) {
        let later = self.prepare(self.nonce(1), b"later", 0).await;
        assert_eq!(self.send(&later).await, SendOutcome::Accepted);
        self.mine(1).await;
        assert!(matches!(
            self.look(self.nonce(1)).await,
            Sighting::Pending { tx_hash, payload }
                if tx_hash == later.tx_hash && payload == b"later"
        ));
        self.submit(self.nonce(0), b"earlier").await;
        for (after, payload) in [(0, &b"earlier"[..]), (1, b"later")] {
            assert!(matches!(
                self.look(self.nonce(after)).await,
                Sighting::Included { payload: found, .. } if found == payload
            ));
            assert_eq!(self.count(payload).await, 1);
        }
    }

    async fn blocks_are_chained(self) {
        for after in 0..3 {
            self.submit(self.nonce(after), &[after as u8 + 1]).await;
        }
        let blocks = self.chain.recent_blocks(3).await.expect("blocks");
        assert_eq!(blocks.len(), 3);
        for pair in blocks.windows(2) {
            assert_eq!(pair[0].number, pair[1].number + 1, "newest first");
            assert_eq!(pair[0].parent, pair[1].hash);
            assert_ne!(pair[0].hash, pair[1].hash);
        }
        assert!(self.chain.recent_blocks(0).await.expect("none").is_empty());
        let all = self.chain.recent_blocks(usize::MAX).await.expect("blocks");
        let ours = all.iter().rev().flat_map(|block| &block.transactions);
        let ours: Vec<_> = ours
            .filter(|found| found.account == self.place.account())
            .map(|found| (found.nonce, found.payload.clone(), found.succeeded))
            .collect();
        let expected = (0..3).map(|after| (self.nonce(after), vec![after as u8 + 1], true));
        assert_eq!(ours, expected.collect::<Vec<_>>());
    }

    async fn nonsense_is_not_taken(self) {
        let nonce = self.nonce(0);
        let good = self.prepare(nonce, b"payload", 0).await;
        let mut forged = good.clone();
        *forged.raw.last_mut().expect("bytes") ^= 1;
        let mut short = good.clone();
        short.raw.pop();
        let mut long = good.clone();
        long.raw.push(0);
        let tx_hash = good.tx_hash.clone();
        let empty = Prepared {
            tx_hash: tx_hash.clone(),
            raw: vec![],
        };
        let noise = Prepared {
            tx_hash,
            raw: vec![0xff; 4096],
        };
        for nonsense in [forged, short, long, empty, noise] {
            // A signature by an unknown key may be taken for a poor stranger's.
            let ask = ChainAsk::Send { raw: nonsense.raw };
            let answer = self.chain.ask(ask).await;
            assert_ne!(answer, ChainAnswer::Sent(SendOutcome::Accepted));
        }
        self.mine(1).await;
        assert_eq!(self.look(nonce).await, Sighting::Nothing);
        assert_eq!(self.send(&good).await, SendOutcome::Accepted);
    }

    async fn of_many_senders_at_once_one_wins(self) {
        let nonce = self.nonce(0);
        let mut sending = tokio::task::JoinSet::new();
        let mut hashes = BTreeSet::new();
        for i in 0..16 {
            let prepared = self.prepare(nonce, &[i], 0).await;
            hashes.insert(prepared.tx_hash.clone());
            let endpoint = self.place.open().await.expect("an endpoint");
            sending.spawn(async move { send(&*endpoint, &prepared).await });
        }
        assert_eq!(hashes.len(), 16);
        let outcomes = sending.join_all().await;
        let accepted = outcomes.iter().filter(|o| **o == SendOutcome::Accepted);
        assert_eq!(accepted.count(), 1, "{outcomes:?}");
        self.mine(1).await;
        let blocks = self.chain.recent_blocks(usize::MAX).await.expect("blocks");
        let all: Vec<_> = blocks
            .iter()
            .flat_map(|block| &block.transactions)
            .filter(|found| found.nonce == nonce && found.account == self.place.account())
            .collect();
        assert_eq!(all.len(), 1);
        assert!(hashes.contains(&all[0].tx_hash));
    }

    async fn a_lost_reply_is_found_by_looking(self) {
        let nonce = self.nonce(0);
        let endpoint = FaultyChain::new(Shared(Arc::clone(&self.chain)));
        let prepared = self.prepare(nonce, b"payload", 0).await;
        endpoint.lose_requests(1);
        endpoint.lose_replies(1);
        let outcome = send(&endpoint, &prepared).await;
        assert!(matches!(outcome, SendOutcome::Unknown(_)));
        self.mine(1).await;
        assert_eq!(self.look(nonce).await, Sighting::Nothing);
        let outcome = send(&endpoint, &prepared).await;
        assert!(matches!(outcome, SendOutcome::Unknown(_)));
        self.mine(1).await;
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Included { tx_hash, .. } if tx_hash == prepared.tx_hash
        ));
        assert_eq!(send(&endpoint, &prepared).await, SendOutcome::NonceTooLow);
        assert_eq!((endpoint.sends(), self.count(b"payload").await), (2, 1));

        endpoint.set_away(true);
        let account = self.place.account();
        let answer = endpoint.ask(ChainAsk::Look { account, nonce }).await;
        assert!(matches!(answer, ChainAnswer::Unavailable(_)));
        assert!(endpoint.recent_blocks(1).await.is_err());
        endpoint.set_away(false);
        assert_eq!(endpoint.kind(), self.chain.kind());
        assert!(endpoint.recent_blocks(1).await.is_ok());
    }

    async fn a_strangers_transaction_shows(self) {
        let nonce = self.nonce(0);
        let (account, faults) = (self.place.account(), self.place.faults());
        let ours = self.prepare(nonce, b"ours", 0).await;
        faults
            .take_nonce(&account, nonce, b"theirs")
            .await
            .expect("taken");
        self.mine(1).await;
        assert_eq!(self.send(&ours).await, SendOutcome::NonceTooLow);
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Included { payload, .. } if payload == b"theirs"
        ));
        assert!(faults.take_nonce(&account, nonce, b"again").await.is_err());
    }

    async fn what_waits_can_be_replaced_and_dropped(self) {
        if !self.place.can(Fault::Hold) {
            return;
        }
        let (nonce, faults) = (self.nonce(0), self.place.faults());
        faults.hold(true).await.expect("held");
        let cheap = self.prepare(nonce, b"payload", 0).await;
        for _ in 0..2 {
            // The same bytes again are nothing new.
            assert_eq!(self.send(&cheap).await, SendOutcome::Accepted);
        }
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Pending { tx_hash, .. } if tx_hash == cheap.tx_hash
        ));
        let rival = self.prepare(nonce, b"rival", 0).await;
        assert_eq!(self.send(&rival).await, SendOutcome::Underpriced);
        let dear = self.prepare(nonce, b"payload", 1).await;
        assert_eq!(self.send(&dear).await, SendOutcome::Accepted);
        assert_eq!(self.send(&cheap).await, SendOutcome::Underpriced);
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Pending { tx_hash, .. } if tx_hash == dear.tx_hash
        ));

        faults.drop_waiting().await.expect("dropped");
        assert_eq!(self.look(nonce).await, Sighting::Nothing);
        assert_eq!(self.send(&cheap).await, SendOutcome::Accepted);
        self.mine(1).await;
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Included { tx_hash, .. } if tx_hash == cheap.tx_hash
        ));
        assert_eq!(self.send(&dear).await, SendOutcome::NonceTooLow);
        faults.hold(false).await.expect("released");
        assert_eq!(self.count(b"payload").await, 1);
    }

    async fn an_undone_transaction_can_be_sent_again(self) {
        let faults = self.place.faults();
        let mut nonce = self.nonce(0);
        for (keep, fault) in [
            (true, Fault::ReorganiseAndKeep),
            (false, Fault::ReorganiseAndDrop),
        ] {
            if !self.place.can(fault) {
                continue;
            }
            let payload = [u8::from(keep) + 1];
            let prepared = self.submit(nonce, &payload).await;
            self.mine(2).await;
            let before = self.look(nonce).await;
            let Sighting::Included {
                block_hash, depth, ..
            } = before
            else {
                panic!("{before:?}");
            };
            let depth = u32::try_from(depth).expect("a small depth");
            faults.reorganise(depth - 1, keep).await.expect("undone");
            assert_eq!(self.depth(nonce).await, 1, "it is the head now");
            faults.reorganise(1, keep).await.expect("undone");
            match self.look(nonce).await {
                Sighting::Pending { tx_hash, .. } if keep => assert_eq!(tx_hash, prepared.tx_hash),
                Sighting::Nothing if !keep => {}
                other => panic!("keep {keep}: {other:?}"),
            }
            assert_eq!(self.send(&prepared).await, SendOutcome::Accepted);
            self.mine(1).await;
            assert!(matches!(
                self.look(nonce).await,
                Sighting::Included { tx_hash, block_hash: other, .. }
                    if tx_hash == prepared.tx_hash && other != block_hash
            ));
            assert_eq!(self.count(&payload).await, 1);
            nonce += 1;
        }
    }

    async fn a_reverted_transaction_uses_its_nonce(self) {
        if !self.place.can(Fault::Revert) {
            return;
        }
        let nonce = self.nonce(0);
        self.place.faults().revert_next().await.expect("set");
        let prepared = self.submit(nonce, b"payload").await;
        assert!(matches!(
            self.look(nonce).await,
            Sighting::Included {
                succeeded: false,
                ..
            }
        ));
        assert_eq!(self.send(&prepared).await, SendOutcome::NonceTooLow);
        self.submit(self.nonce(1), b"next").await;
        assert!(matches!(
            self.look(self.nonce(1)).await,
            Sighting::Included {
                succeeded: true,
                ..
            }
        ));
    }
}

async fn send(chain: &dyn Chain, prepared: &Prepared) -> SendOutcome {
    let raw = prepared.raw.clone();
    match chain.ask(ChainAsk::Send { raw }).await {
        ChainAnswer::Sent(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// An endpoint that others use too.
struct Shared(Arc<dyn Chain>);

#[async_trait]
impl Chain for Shared {
    async fn ask(&self, ask: ChainAsk) -> ChainAnswer {
        self.0.ask(ask).await
    }

    async fn recent_blocks(&self, limit: usize) -> Result<Vec<crate::api::Block>, ChainError> {
        self.0.recent_blocks(limit).await
    }

    fn kind(&self) -> &'static str {
        self.0.kind()
    }
}
