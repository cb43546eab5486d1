//! Trustees that lie on purpose, one file each. A liar has a trustee's keys and
//! streams and no conscience: it is told what reaches it ([`Cue`]) and says what it
//! wants ([`Lie`]). It does no I/O, so that the simulator, the tests and
//! `quorate test-byzantine` drive the same liars.

use prost::Message as _;
use quorate_consensus::board::Board;
use quorate_consensus::statement::{Body, Header, KeyRole, VoteBody, bytes_to_sign};
use quorate_consensus::wire::{
    self, BoardEntry, BoardOp, SignedStatement, TracedVote, board_event, frame,
};
use quorate_consensus::{Choice, Domain, NodeId, Rules, RulesDigest, TxId, Value};

/// What a liar is told.
#[derive(Clone, Debug)]
pub enum Cue<'a> {
    /// Everything is there: its streams will come up, and news from the board. Comes
    /// once, first.
    Start,
    /// The time that it asked for with [`Lie::Wake`] has come.
    Wake,
    /// Its own client wants it to vote so, as an honest trustee would.
    Asked {
        /// On what.
        tx_id: &'a TxId,
        /// How.
        choice: &'a Choice,
    },
    /// A stream to a member stands, greetings said.
    Met {
        /// Which.
        peer: &'a NodeId,
    },
    /// A member said something.
    Heard {
        /// Which.
        peer: &'a NodeId,
        /// What.
        body: &'a frame::Body,
    },
    /// The board's log goes on so.
    Entries(&'a [BoardEntry]),
}

/// What a liar does.
#[derive(Clone, Debug, PartialEq)]
pub enum Lie {
    /// Says this to a member, on its authenticated stream.
    Say {
        /// To which.
        to: NodeId,
        /// What.
        body: frame::Body,
    },
    /// Sends bytes that are no frame.
    Garble {
        /// To which.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Asks the board.
    Propose {
        /// What.
        op: BoardOp,
        /// Stamped with this time: milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// Sends a transaction of the chain account, with the chain key.
    Transact {
        /// Nonce.
        nonce: u64,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Wants to be woken.
    Wake {
        /// In so many milliseconds.
        in_ms: u64,
    },
}

/// What a liar can see and use when it is cued.
pub struct Stage<'a> {
    /// Its trustee.
    pub me: &'a NodeId,
    /// The rules.
    pub rules: &'a Rules,
    /// Its wall clock: milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The board as far as the liar has read it, if it reads it.
    pub board: Option<&'a Board>,
    /// Its trustee's keys.
    pub keys: &'a dyn Keys,
    /// A number that differs from cue to cue, for whoever wants to be unpredictable.
    pub dice: u64,
}

/// A trustee's two keys.
pub trait Keys {
    /// A signature over the domain's tag and the statement.
    fn sign(&self, role: KeyRole, domain: Domain, statement: &[u8]) -> Vec<u8>;
}

impl Stage<'_> {
    /// The other members, ascending by id.
    pub fn others(&self) -> impl Iterator<Item = &NodeId> {
        let members = self.rules.members().map(|member| &member.node_id);
        members.filter(|node_id| *node_id != self.me)
    }

    /// A statement of its own, signed.
    pub fn state<B: Body>(&self, body: &B) -> SignedStatement {
        self.state_as(self.me, body)
    }

    /// A statement in somebody's name, signed with its own key.
    pub fn state_as<B: Body>(&self, name: &NodeId, body: &B) -> SignedStatement {
        let statement = bytes_to_sign(self.rules, name, body);
        SignedStatement {
            signature: self.keys.sign(B::KEY, B::DOMAIN, &statement),
            statement,
        }
    }

    /// A statement of its own under rules of this digest, signed.
    pub fn state_under<B: Body>(&self, rules_digest: RulesDigest, body: &B) -> SignedStatement {
        let header = Header {
            cluster_id: self.rules.cluster_id(),
            rules_digest,
            node_id: self.me.clone(),
        };
        let statement = body.to_wire(&header).encode_to_vec();
        SignedStatement {
            signature: self.keys.sign(B::KEY, B::DOMAIN, &statement),
            statement,
        }
    }

    /// A vote of its own, signed now.
    pub fn vote(&self, tx_id: &TxId, choice: Choice) -> SignedStatement {
        self.vote_at(tx_id, choice, self.now_ms)
    }

    /// A vote of its own that bears this time.
    pub fn vote_at(&self, tx_id: &TxId, choice: Choice, time_ms: u64) -> SignedStatement {
        let tx_id = tx_id.clone();
        self.state(&VoteBody {
            tx_id,
            choice,
            time_ms,
        })
    }

    /// The same to every other member.
    pub fn to_all(&self, body: &frame::Body) -> Vec<Lie> {
        let say = |to: &NodeId| Lie::Say {
            to: to.clone(),
            body: body.clone(),
        };
        self.others().map(say).collect()
    }

    /// An operation for the board, stamped with the liar's time.
    pub fn ask(&self, op: wire::board_op::Op) -> Lie {
        self.propose(BoardOp { op: Some(op) })
    }

    /// The same for a whole operation.
    pub fn propose(&self, op: BoardOp) -> Lie {
        let now_ms = self.now_ms;
        Lie::Propose { op, now_ms }
    }

    /// One of `among` (0 to `among` − 1; 0 when there are none), by the dice. Each
    /// `throw` of one cue is another one; dice of 0 give 0.
    pub fn pick(&self, among: usize, throw: u32) -> usize {
        let mixed = self.dice.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let thrown = mixed.rotate_left(throw.wrapping_mul(13)) >> 16;
        (thrown % among.max(1) as u64) as usize
    }

    /// One of the other members, by the dice.
    pub fn pick_other(&self, throw: u32) -> Option<&NodeId> {
        let others = self.others().count();
        self.others().nth(self.pick(others, throw))
    }
}

/// Votes in one frame.
pub fn votes(votes: impl IntoIterator<Item = SignedStatement>) -> frame::Body {
    let traced = |vote| TracedVote {
        vote: Some(vote),
        traceparent: String::new(),
    };
    frame::Body::Batch(wire::Batch {
        votes: votes.into_iter().map(traced).collect(),
        ..wire::Batch::default()
    })
}

/// A batch for [`Lie::Say`].
fn batch(batch: wire::Batch) -> frame::Body {
    frame::Body::Batch(batch)
}

/// Another value than the one chosen.
pub fn another(choice: &Choice) -> Value {
    match choice {
        Choice::Value(Value::Number(number)) => Value::Number(number.wrapping_add(1)),
        _ => Value::Number(1),
    }
}

/// What the entries say about transactions.
fn told(entries: &[BoardEntry]) -> impl Iterator<Item = (TxId, &board_event::Event)> {
    let events = entries.iter().flat_map(|entry| &entry.events);
    events.filter_map(|event| Some((TxId::new(&event.tx_id).ok()?, event.event.as_ref()?)))
}

/// So many lies and no more, so that two liars cannot keep each other busy for ever.
#[derive(Debug, Default)]
struct Budget<const MOST: usize> {
    spent: usize,
}

impl<const MOST: usize> Budget<MOST> {
    /// Whether there is nothing left.
    fn is_spent(&self) -> bool {
        self.spent >= MOST
    }

    /// As many of these as are left.
    fn of(&mut self, mut lies: Vec<Lie>) -> Vec<Lie> {
        lies.truncate(MOST - self.spent);
        self.spent += lies.len();
        lies
    }
}

/// A trustee that lies.
pub trait Liar: Send {
    /// What it does about a cue.
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie>;
}

/// How a liar lives beside an honest engine, in the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// There is none: the liar says all that its trustee says.
    Nothing,
    /// An honest engine runs with the same keys and streams; the liar adds its lies.
    Engine,
    /// The same, and all that the engine does comes so many milliseconds late.
    LateEngine(u64),
    /// Two honest engines on two machines, with two journals.
    Twins,
}

macro_rules! liars {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal $module:ident $beside:expr,)*) => {
        $(mod $module;)*

        /// The liars there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LiarKind {
            $($(#[doc = $doc])+ $kind,)*
        }

        impl LiarKind {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name, as people type it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// How it lives in the simulator.
            pub fn beside(self) -> Beside {
                match self {
                    $(Self::$kind => $beside,)*
                }
            }

            /// A liar of this kind.
            pub fn make(self) -> Box<dyn Liar> {
                match self {
                    $(Self::$kind => Box::new($module::$kind::default()),)*
                }
            }
        }
    };
}

liars! {
    /// Signs two values for one transaction and tells each half of the members
    /// another one.
    Equivocator "equivocator" equivocator Beside::Nothing,
    /// Votes for another value than its client asks for, in time or late.
    Minority "minority" minority Beside::Nothing,
    /// Votes in its own name with signatures that do not verify.
    Forger "forger" forger Beside::Nothing,
    /// Speaks in all others' names, signing with its own key.
    Impersonator "impersonator" impersonator Beside::Nothing,
    /// Repeats whatever it hears and reads, at once and much later, to everybody.
    Replayer "replayer" replayer Beside::Engine,
    /// Says nothing at all.
    Silent "silent" silent Beside::Nothing,
    /// Says everything, seconds late.
    Late "late" late Beside::LateEngine(late::LATE_MS),
    /// Sends bytes that are no frame, and statements that are none.
    Malformed "malformed" malformed Beside::Nothing,
    /// Asks the store for what nothing justifies.
    Tamperer "tamperer" tamperer Beside::Engine,
    /// Signs everything under rules that nobody has.
    WrongRules "wrong-rules" wrong_rules Beside::Nothing,
    /// Votes on hundreds of transactions that nobody asked for, and pings.
    Flooder "flooder" flooder Beside::Engine,
    /// Sends made-up evidence against honest trustees.
    FalseWitness "false-witness" false_witness Beside::Engine,
    /// Sends to the chain without a decision.
    Greedy "greedy" greedy Beside::Engine,
    /// One trustee's keys on two machines.
    Twin "twin" twin Beside::Twins,
    /// Accuses honest trustees, to peers and on the board.
    Accuser "accuser" accuser Beside::Engine,
    /// Votes on transactions that can be guessed, before anybody asks.
    Squatter "squatter" squatter Beside::Nothing,
    /// Takes every submission lease and does nothing with it.
    LeaseHog "lease-hog" lease_hog Beside::Engine,
    /// Votes and decides alone, under a rules document of its own with t = 1.
    SelfMade "self-made-rules" self_made Beside::Nothing,
    /// Signs observations of what the chain does not show.
    FalseObserver "false-observer" false_observer Beside::Engine,
    /// Stamps operations and votes early or late.
    ClockLiar "clock-liar" clock_liar Beside::Nothing,
}

impl std::str::FromStr for LiarKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no liar {name:?}; there are {}", names.join(", "))
        })
    }
}
