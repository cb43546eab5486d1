//! What goes into an engine and what comes out of it. The driver (the node, or the
//! simulator) feeds [`Event`]s and carries out [`Effect`]s in the order given;
//! everything up to and including an [`Effect::Persist`] must be durable before any
//! effect after it is carried out.

use quorate_consensus::board::Refusal;
use quorate_consensus::statement::{KeyRole, StatementError};
use quorate_consensus::wire::{self, BallotState, BoardEntry, BoardOp, Frame};
use quorate_consensus::{Choice, Domain, NodeId, TxId};

/// The two clocks, read by the driver with each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch; may jump.
    pub wall_ms: u64,
    /// Milliseconds since some fixed moment of this process; never runs backwards.
    pub mono_ms: u64,
}

/// Names a question that an effect asks, so that its answer finds its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The boot generation that asked; answers to an earlier one are ignored.
    pub generation: u64,
    /// Counts the questions of this generation.
    pub number: u64,
}

/// Names a stream to a peer; the driver never gives the same number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Names a client's request; the driver never gives the same number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How far a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Until the board has recorded the vote.
    Recorded,
    /// Until the ballot is SUBMITTED or final.
    Decided,
    /// Until the ballot is CONFIRMED, FAILED or aborted.
    Confirmed,
}

/// What a client hands in.
#[derive(Clone, Debug, PartialEq)]
pub enum Handed {
    /// A choice that the node signs.
    Choice(Choice),
    /// A vote signed by the trustee's vote key elsewhere.
    Statement(wire::SignedStatement),
}

/// A Submit call.
#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// The transaction; may be absent when a statement is handed in.
    pub tx_id: Option<TxId>,
    /// The vote.
    pub handed: Handed,
    /// How far to wait.
    pub wait: Wait,
}

/// What a submitted vote came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The ballot after the vote.
    pub ballot: wire::Ballot,
    /// The vote as the board has it.
    pub vote: wire::SignedStatement,
    /// It was there already.
    pub repeated: bool,
}

/// Why a client's request was refused. Each has a stable reason; the driver makes
/// gRPC statuses of them in one table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reject {
    /// A field of the request holds what it must not.
    #[error("{field}: {detail}")]
    Invalid {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// The statement handed in is no good.
    #[error("the statement is refused: {0}")]
    Statement(#[from] StatementError),
    /// The statement is another trustee's.
    #[error("this node takes votes of {own} only; this one is {found}'s: hand it to its own node")]
    OtherTrustee {
        /// This node's trustee.
        own: NodeId,
        /// The statement's.
        found: NodeId,
    },
    /// The time signed is too far from this node's clock.
    #[error(
        "the vote is {off_ms} ms off this node's clock, more than the {limit_ms} ms allowed: check the clock and sign again"
    )]
    ClockOff {
        /// How far; negative is the past.
        off_ms: i64,
        /// The limit.
        limit_ms: u64,
    },
    /// The sign guard holds another choice of this trustee.
    #[error(
        "this trustee has already chosen {first} for {tx_id}: a trustee never signs two choices"
    )]
    SecondChoice {
        /// The transaction.
        tx_id: TxId,
        /// The first choice.
        first: Choice,
    },
    /// The ballot is over.
    #[error("the ballot {tx_id} is closed: it ended as {}", .state.as_str_name())]
    BallotClosed {
        /// The transaction.
        tx_id: TxId,
        /// How it ended.
        state: BallotState,
    },
    /// This trustee is banned.
    #[error("trustee {node_id} is banned for {reason}")]
    Banned {
        /// The trustee.
        node_id: NodeId,
        /// For what.
        reason: String,
    },
    /// The ballot was removed before it started; whoever waited is told.
    #[error("the ballot {tx_id} never started and has expired")]
    Expired {
        /// The transaction.
        tx_id: TxId,
    },
    /// Not now: unknown whether the vote was recorded; repeating it is safe.
    #[error("not now: {why}; repeat the same vote in {retry_ms} ms")]
    Unavailable {
        /// A stable, upper-case reason.
        reason: &'static str,
        /// For people.
        why: String,
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
    /// The board refused the vote for a reason of its own.
    #[error("the board refused the vote: {0}")]
    Refused(Refusal),
}

/// Why the coordinator did not carry out an operation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// The board refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is away: unknown whether it took effect.
    #[error("the coordinator is away: {0}")]
    Unavailable(String),
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It is in the log at this revision.
    Applied(u64),
    /// The board had it already; the log's head when that was seen.
    Unchanged(u64),
}

/// What a chain endpoint shows for (account, nonce).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Nothing.
    Nothing,
    /// A transaction that waits for a block.
    Pending {
        /// Its hash.
        tx_hash: Vec<u8>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A transaction in a block.
    Included {
        /// Its hash.
        tx_hash: Vec<u8>,
        /// Its payload.
        payload: Vec<u8>,
        /// It took effect; false when the chain reverted it.
        succeeded: bool,
        /// Height of its block.
        block_number: u64,
        /// Hash of its block.
        block_hash: Vec<u8>,
        /// How deep the block lies: 1 is the head itself.
        depth: u64,
    },
}

/// A signed chain transaction, not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its hash, known before it is sent.
    pub tx_hash: Vec<u8>,
    /// Its signed bytes.
    pub raw: Vec<u8>,
}

/// What the chain answered to a transaction sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Taken.
    Accepted,
    /// The nonce is used: look who used it.
    NonceTooLow,
    /// The fee is too low for the chain now.
    Underpriced,
    /// No answer: unknown whether it was taken.
    Unknown(String),
}

/// A question to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAsk {
    /// What is there for (account, nonce)? Read-only.
    Look {
        /// The account.
        account: String,
        /// The nonce.
        nonce: u64,
    },
    /// Sign a transaction without sending it.
    Prepare {
        /// What was reserved.
        reservation: wire::Reservation,
        /// 0 for the first; a higher number pays a higher fee.
        attempt: u32,
    },
    /// Send signed bytes.
    Send {
        /// The bytes.
        raw: Vec<u8>,
    },
}

/// The chain's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAnswer {
    /// To a look.
    Seen(Sighting),
    /// To a preparation.
    Prepared(Prepared),
    /// To a sending.
    Sent(SendOutcome),
    /// The endpoint could not be asked.
    Unavailable(String),
}

/// A question to the audit store about a submission. The rest of the audit record is
/// a projection of the board's log and not the engine's business.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditAsk {
    /// Write the PENDING row of a reservation; one that is there already with the
    /// same account and nonce is success.
    Pending {
        /// The transaction.
        tx_id: TxId,
        /// The value decided.
        value: quorate_consensus::Value,
        /// What was reserved.
        reservation: wire::Reservation,
    },
    /// Store a signed variant before it is sent; the same again is success.
    Variant {
        /// The transaction.
        tx_id: TxId,
        /// Which attempt.
        attempt: u32,
        /// Hash and bytes.
        prepared: Prepared,
    },
    /// Give back all stored variants of a transaction, oldest first.
    Variants {
        /// The transaction.
        tx_id: TxId,
    },
    /// Count one sending.
    Attempted {
        /// The transaction.
        tx_id: TxId,
        /// How often it was sent in all.
        attempts: u32,
    },
}

/// The audit store's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditAnswer {
    /// Durable.
    Done,
    /// To [`AuditAsk::Variants`].
    Variants(Vec<(u32, Prepared)>),
    /// Another row holds the tx_id or the (account, nonce): a fence that must never
    /// be met.
    Conflict(String),
    /// The store could not be asked.
    Unavailable(String),
}

/// A journal entry. Each kind has one slot per key; a later one replaces the
/// earlier.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The boot generation in use, and the last one that the board acknowledged.
    /// One slot.
    Generation {
        /// In use.
        generation: u64,
        /// Acknowledged by the board; 0 for none.
        acknowledged: u64,
    },
    /// The sign guard: the vote that is about to be signed, or that was adopted. One
    /// slot per transaction, never overwritten with another choice, never pruned.
    Guard {
        /// The transaction.
        tx_id: TxId,
        /// The choice.
        choice: Choice,
        /// The statement's canonical bytes.
        statement: Vec<u8>,
    },
    /// The decision or abort that is about to be signed: never both for one
    /// transaction. One slot per transaction.
    Verdict {
        /// The transaction.
        tx_id: TxId,
        /// [`Domain::Decision`] or [`Domain::Abort`].
        domain: Domain,
        /// The statement's canonical bytes.
        statement: Vec<u8>,
    },
    /// The ballot ended so. One slot per transaction, for good.
    Final {
        /// The transaction.
        tx_id: TxId,
        /// The state.
        state: BallotState,
    },
    /// The board's revision that this node has believed so far. One slot.
    Seen {
        /// The revision.
        revision: u64,
    },
}

/// What the journal holds about one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalEntry {
    /// The guard: choice and statement bytes.
    pub guard: Option<(Choice, Vec<u8>)>,
    /// The verdict: domain and statement bytes.
    pub verdict: Option<(Domain, Vec<u8>)>,
    /// The final state.
    pub ended: Option<BallotState>,
}

/// What an engine starts from: what the journal holds beside the transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// From [`Record::Generation`]; 0 when there is no journal.
    pub generation: u64,
    /// From [`Record::Generation`].
    pub acknowledged: u64,
    /// From [`Record::Seen`].
    pub seen: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed: the moment that [`crate::Engine::next_wake`] named has come.
    Tick,
    /// A client submits.
    Submit {
        /// Names the request.
        request: RequestId,
        /// What it asks.
        submit: Submit,
    },
    /// The client went away or its deadline passed; no answer is wanted any more.
    Abandon {
        /// Names the request.
        request: RequestId,
    },
    /// A stream to a node stands; mutual TLS says that it is this node's.
    StreamUp {
        /// Names the stream.
        stream: StreamId,
        /// The node id in the other end's certificate.
        peer: NodeId,
        /// BLAKE3-256 of this end's certificate.
        own_certificate: [u8; 32],
        /// BLAKE3-256 of the other end's certificate.
        peer_certificate: [u8; 32],
        /// 32 fresh random bytes to challenge the other end with.
        challenge: [u8; 32],
    },
    /// A frame came in.
    Frame {
        /// On which stream.
        stream: StreamId,
        /// The frame.
        frame: Frame,
    },
    /// Bytes came in that are no frame, or too many.
    BadFrame {
        /// On which stream.
        stream: StreamId,
        /// BLAKE3-256 of the bytes, as far as they were read.
        subject_digest: [u8; 32],
        /// What is wrong with them.
        why: String,
    },
    /// The stream ended.
    StreamDown {
        /// Names the stream.
        stream: StreamId,
    },
    /// The stream's queue is full: frames sent from now on are lost until
    /// [`Event::Drained`].
    QueueFull {
        /// Names the stream.
        stream: StreamId,
    },
    /// The stream's queue has room again.
    Drained {
        /// Names the stream.
        stream: StreamId,
    },
    /// Answer to [`Effect::Sign`].
    Signed {
        /// Names the question.
        ticket: Ticket,
        /// The signature, or why there is none.
        result: Result<Vec<u8>, String>,
    },
    /// Answer to [`Effect::Propose`].
    Proposed {
        /// Names the question.
        ticket: Ticket,
        /// What became of it.
        result: Result<Proposed, ProposeError>,
    },
    /// The next entries of the board's log, in order.
    Entries {
        /// From the revision after [`crate::Engine::revision`] on.
        entries: Vec<BoardEntry>,
    },
    /// Answer to [`Effect::ReadHead`]: a linearizable read of the log's head.
    Head {
        /// Names the question.
        ticket: Ticket,
        /// The revision.
        result: Result<u64, String>,
    },
    /// Answer to [`Effect::Lookup`].
    Found {
        /// Names the question.
        ticket: Ticket,
        /// What the journal holds.
        entry: JournalEntry,
    },
    /// Answer to [`Effect::Chain`].
    Chain {
        /// Names the question.
        ticket: Ticket,
        /// The answer.
        answer: ChainAnswer,
    },
    /// Answer to [`Effect::Audit`].
    Audit {
        /// Names the question.
        ticket: Ticket,
        /// The answer.
        answer: AuditAnswer,
    },
}

/// Something an operator must hear of.
#[derive(Clone, Debug, PartialEq)]
pub enum Alert {
    /// A trustee was caught; the board or this node has the details.
    Misbehaviour {
        /// Whose.
        node_id: NodeId,
        /// Which.
        kind: wire::ViolationType,
        /// For people.
        detail: String,
    },
    /// An entry of the store's log that the pure board refuses.
    StoreTampering {
        /// For people.
        detail: String,
    },
    /// The store is older than what this node has seen: nothing is signed or sent
    /// until `quorate reconcile`.
    StoreRollback {
        /// For people.
        detail: String,
    },
    /// A process with this trustee's keys started after this one: this one signs
    /// nothing any more.
    NewerSelf {
        /// The other's boot generation.
        generation: u64,
    },
    /// This node's journal was lost or is old: it signs nothing until this wall
    /// time.
    Quarantine {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// Somebody else's transaction took a reserved nonce.
    NonceTaken {
        /// The transaction.
        tx_id: TxId,
        /// The nonce.
        nonce: u64,
    },
    /// A submission failed, or a confirmed one was undone by the chain.
    Submission {
        /// The transaction.
        tx_id: TxId,
        /// For people.
        detail: String,
    },
    /// Two clocks are further apart than the skew.
    Clock {
        /// For people.
        detail: String,
    },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make durable before anything that follows.
    Persist(Record),
    /// Look a transaction up in the journal; answered by [`Event::Found`].
    Lookup {
        /// Names the question.
        ticket: Ticket,
        /// The transaction.
        tx_id: TxId,
    },
    /// Sign; answered by [`Event::Signed`].
    Sign {
        /// Names the question.
        ticket: Ticket,
        /// By which key.
        key: KeyRole,
        /// In which domain.
        domain: Domain,
        /// The statement's bytes.
        statement: Vec<u8>,
    },
    /// Ask the coordinator; answered by [`Event::Proposed`].
    Propose {
        /// Names the question.
        ticket: Ticket,
        /// The operation.
        op: BoardOp,
        /// Its time: milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Read the log's head linearizably; answered by [`Event::Head`].
    ReadHead {
        /// Names the question.
        ticket: Ticket,
    },
    /// Ask the chain; answered by [`Event::Chain`].
    Chain {
        /// Names the question.
        ticket: Ticket,
        /// The question.
        ask: ChainAsk,
    },
    /// Ask the audit store; answered by [`Event::Audit`].
    Audit {
        /// Names the question.
        ticket: Ticket,
        /// The question.
        ask: AuditAsk,
    },
    /// Send a frame.
    Send {
        /// On which stream.
        stream: StreamId,
        /// The frame.
        frame: Frame,
    },
    /// Send a goodbye if there is one, then close the stream.
    Close {
        /// Names the stream.
        stream: StreamId,
        /// Why.
        goodbye: wire::Goodbye,
    },
    /// From now on accept (or refuse) connections of this node and dial it (or not).
    Admit {
        /// The node.
        node_id: NodeId,
        /// Whether it is welcome.
        welcome: bool,
    },
    /// Answer a client.
    Answer {
        /// Names the request.
        request: RequestId,
        /// The answer.
        result: Box<Result<Answer, Reject>>,
    },
    /// Entries that this engine's own mirror of the board has derived and believes:
    /// for watchers and logs.
    Believed {
        /// The entries, in order.
        entries: Vec<BoardEntry>,
    },
    /// Tell an operator.
    Alert(Alert),
}
