//! What goes into an engine and what comes out of it. The driver (the node, or the
//! simulator) feeds [`Event`]s and carries out [`Effect`]s in the order given;
//! everything up to and including an [`Effect::Persist`] must be durable before any
//! effect after it is carried out.

use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::{self, BoardEntry, BoardOp, Frame};
use quorate_consensus::{Address, Domain, NodeId, TxId};

mod clients;
mod journal;
mod operator;
mod stores;

pub use clients::{Answer, Handed, Reject, Submit, Wait};
pub use journal::{Durable, JournalEntry, Record};
pub use operator::{MAX_MESSAGE, OperatorAct};
pub use stores::{
    AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, Prepared, ProposeError, Proposed, SendOutcome,
    Sighting,
};

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
    /// This node's operator acts; answered by [`Effect::Operated`].
    Operate {
        /// Names the request.
        request: RequestId,
        /// What is done.
        act: OperatorAct,
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
    /// The store shows another entry than this node has believed in an earlier life.
    Rewritten {
        /// The entry's revision.
        revision: u64,
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
    /// An entry of the store's log that the pure board refuses, or something else in the
    /// store that no node writes.
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
    /// A peer speaks no version of the protocol that this node speaks: there is no
    /// stream with it.
    NoCommonVersion {
        /// The peer.
        node_id: NodeId,
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
    /// From now on this member is reached there; replaces what was learned before.
    Reach {
        /// The member.
        node_id: NodeId,
        /// Where.
        address: Address,
    },
    /// Answer a client.
    Answer {
        /// Names the request.
        request: RequestId,
        /// The answer.
        result: Box<Result<Answer, Reject>>,
    },
    /// Answer an operator: the act was begun (a message: it was acknowledged), or why
    /// not.
    Operated {
        /// Names the request.
        request: RequestId,
        /// The answer.
        result: Result<(), Reject>,
    },
    /// Show a direct message to whoever watches; it is kept nowhere.
    Message {
        /// Whose node sent it.
        from: NodeId,
        /// What it says.
        data: Vec<u8>,
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
