//! N members under one rules document, and what they say.

use std::sync::Arc;

use prost::Message;
use quorate_consensus::rules::RulesError;
use quorate_consensus::statement::{
    AbortBody, AccusationBody, Body, BootBody, DecisionBody, KeyRole, ObservationBody,
    OperatorActBody, VoteBody, bytes_to_sign,
};
use quorate_consensus::wire::{
    self, AbortReason, AccusationKind, ChainKind, ChainOutcome, ChainTarget, DissentPolicy,
    OperatorActKind, PayloadEncoding, Reservation, SignatureScheme, SignedStatement, SilencePolicy,
};
use quorate_consensus::{Choice, Domain, NodeId, PublicKey, Rules, TxId, Value};

use crate::scheme::{FakeVerifier, fake_key, fake_signature};

/// A time to start tests at: milliseconds since the Unix epoch, in November 2026.
pub const NOW: u64 = 1_795_000_000_000;

/// A transaction's id.
///
/// # Panics
/// When it is none.
pub fn tx(text: &str) -> TxId {
    TxId::new(text).expect("a good tx_id")
}

/// A value that is a number.
pub fn number(number: u64) -> Value {
    Value::Number(number)
}

/// A value that is bytes.
///
/// # Panics
/// Unless there are 1 to 1024.
pub fn data(bytes: &[u8]) -> Value {
    Value::data(bytes).expect("good data")
}

/// What the rules say apart from N and t.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name.
    pub name: String,
    /// What dissent means.
    pub dissent: DissentPolicy,
    /// What silence means.
    pub silence: SilencePolicy,
    /// Milliseconds from start to deadline.
    pub vote_timeout_ms: u64,
    /// Milliseconds from threshold to reservation.
    pub settle_window_ms: u64,
    /// Milliseconds that clocks may differ.
    pub clock_skew_ms: u64,
    /// Where decided values go.
    pub chain: ChainTarget,
}

impl Default for Options {
    /// Cluster "test"; dissent aborts, silence marks; 300 s, 1 s, 30 s; a ledger,
    /// first nonce 7, one confirmation.
    fn default() -> Self {
        Self {
            name: "test".into(),
            dissent: DissentPolicy::Abort,
            silence: SilencePolicy::Mark,
            vote_timeout_ms: 300_000,
            settle_window_ms: 1_000,
            clock_skew_ms: 30_000,
            chain: ChainTarget {
                kind: ChainKind::Ledger.into(),
                chain_id: "ledger".into(),
                account: "treasury".into(),
                destination: "vault".into(),
                encoding: PayloadEncoding::QuorateV1.into(),
                first_nonce: 7,
                confirmations: 1,
            },
        }
    }
}

impl Options {
    /// The same with `dissent = "outvote"`.
    pub fn outvote(mut self) -> Self {
        self.dissent = DissentPolicy::Outvote;
        self
    }

    /// The same with `silence = "ban"`.
    pub fn ban_silence(mut self) -> Self {
        self.silence = SilencePolicy::Ban;
        self
    }

    /// The same with other times, in milliseconds.
    pub fn times(mut self, vote_timeout_ms: u64, settle_window_ms: u64, skew_ms: u64) -> Self {
        self.vote_timeout_ms = vote_timeout_ms;
        self.settle_window_ms = settle_window_ms;
        self.clock_skew_ms = skew_ms;
        self
    }
}

#[derive(Clone, Debug)]
struct Keys {
    node_id: NodeId,
    vote: PublicKey,
    node: PublicKey,
}

impl Keys {
    fn new(cluster: &str, node_id: &str) -> Self {
        Self {
            node_id: NodeId::new(node_id).expect("a good node_id"),
            vote: fake_key(&format!("{cluster}/{node_id}/vote")),
            node: fake_key(&format!("{cluster}/{node_id}/node")),
        }
    }

    fn record(&self, cluster_name: &str) -> wire::SignedMemberRecord {
        let record = wire::MemberRecord {
            cluster_name: cluster_name.into(),
            node_id: self.node_id.to_string(),
            scheme: SignatureScheme::Ed25519.into(),
            vote_key: self.vote.bytes.to_vec(),
            node_key: self.node.bytes.to_vec(),
        }
        .encode_to_vec();
        wire::SignedMemberRecord {
            vote_signature: fake_signature(&self.vote, Domain::Member, &record),
            node_signature: fake_signature(&self.node, Domain::Member, &record),
            record,
        }
    }
}

/// N members, their keys and their rules. Members are named by index, 0 to N − 1;
/// ids ascend with it: `node1` … `node9`, or `node01` …, `node001` … where N has
/// more digits.
#[derive(Clone, Debug)]
pub struct Cluster {
    rules: Arc<Rules>,
    keys: Vec<Keys>,
}

impl Cluster {
    /// A cluster of `n` that decides with `t` votes, under [`Options::default`].
    ///
    /// # Panics
    /// When there are no such rules.
    pub fn new(n: usize, t: usize) -> Self {
        Self::with(n, t, Options::default())
    }

    /// A cluster of `n` that decides with `t` votes.
    ///
    /// # Panics
    /// When there are no such rules.
    pub fn with(n: usize, t: usize, options: Options) -> Self {
        Self::try_with(n, t, options).expect("good rules")
    }

    /// A cluster of `n` that decides with `t` votes.
    ///
    /// # Errors
    /// When there are no such rules.
    pub fn try_with(n: usize, t: usize, options: Options) -> Result<Self, RulesError> {
        let (keys, document) = document(n, t, &options, 1, Vec::new());
        let rules = Arc::new(Rules::genesis(&document, &FakeVerifier)?);
        Ok(Self { rules, keys })
    }

    /// The rules of the epoch after: any `n`, `t` and options; members of one id
    /// keep their keys.
    ///
    /// # Panics
    /// When there are no such rules.
    pub fn successor(&self, n: usize, t: usize, options: Options) -> Self {
        let predecessor = self.rules.digest().0.to_vec();
        let (keys, document) = document(n, t, &options, self.rules.epoch() + 1, predecessor);
        let rules = self.rules.successor(&document, &FakeVerifier);
        let rules = Arc::new(rules.expect("good rules"));
        Self { rules, keys }
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// N.
    pub fn n(&self) -> usize {
        self.keys.len()
    }

    /// t.
    pub fn t(&self) -> usize {
        self.rules.threshold()
    }

    /// The id of member `i`.
    pub fn node_id(&self, i: usize) -> NodeId {
        self.keys[i].node_id.clone()
    }

    /// The index of a member.
    pub fn index(&self, node_id: &NodeId) -> Option<usize> {
        self.keys.iter().position(|keys| keys.node_id == *node_id)
    }

    /// The public key of member `i` in a role.
    pub fn key(&self, i: usize, role: KeyRole) -> &PublicKey {
        match role {
            KeyRole::Vote => &self.keys[i].vote,
            KeyRole::Node => &self.keys[i].node,
        }
    }

    /// Any bytes, signed by member `i`.
    pub fn sign(
        &self,
        i: usize,
        role: KeyRole,
        domain: Domain,
        statement: Vec<u8>,
    ) -> SignedStatement {
        SignedStatement {
            signature: fake_signature(self.key(i, role), domain, &statement),
            statement,
        }
    }

    /// Any statement of member `i` under the cluster's rules.
    pub fn say<B: Body>(&self, i: usize, body: &B) -> SignedStatement {
        let bytes = bytes_to_sign(&self.rules, &self.keys[i].node_id, body);
        self.sign(i, B::KEY, B::DOMAIN, bytes)
    }

    /// A vote of member `i`.
    pub fn vote(
        &self,
        i: usize,
        tx_id: &TxId,
        choice: impl Into<Choice>,
        time_ms: u64,
    ) -> SignedStatement {
        let body = VoteBody {
            tx_id: tx_id.clone(),
            choice: choice.into(),
            time_ms,
        };
        self.say(i, &body)
    }

    /// A decision of member `i`.
    pub fn decision(
        &self,
        i: usize,
        tx_id: &TxId,
        value: &Value,
        reservation: Option<&Reservation>,
    ) -> SignedStatement {
        let body = DecisionBody {
            tx_id: tx_id.clone(),
            value: value.clone(),
            reservation: reservation.cloned(),
        };
        self.say(i, &body)
    }

    /// An abort statement of member `i`.
    pub fn abort(&self, i: usize, tx_id: &TxId, reason: AbortReason) -> SignedStatement {
        let tx_id = tx_id.clone();
        self.say(i, &AbortBody { tx_id, reason })
    }

    /// An observation of member `i`: what [`Cluster::seen`] gives.
    pub fn observation(
        &self,
        i: usize,
        tx_id: &TxId,
        reservation: &Reservation,
        outcome: ChainOutcome,
    ) -> SignedStatement {
        self.say(i, &self.seen(tx_id, reservation, outcome))
    }

    /// The same after so many conclusions.
    pub fn observation_in_round(
        &self,
        i: usize,
        tx_id: &TxId,
        reservation: &Reservation,
        outcome: ChainOutcome,
        round: u32,
    ) -> SignedStatement {
        let body = ObservationBody {
            round,
            ..self.seen(tx_id, reservation, outcome)
        };
        self.say(i, &body)
    }

    /// An observation's body with hashes made from tx_id, nonce and outcome, in
    /// block 100.
    pub fn seen(
        &self,
        tx_id: &TxId,
        reservation: &Reservation,
        outcome: ChainOutcome,
    ) -> ObservationBody {
        let hash = |what: &str| {
            let text = format!("{what}/{tx_id}/{}/{outcome:?}", reservation.nonce);
            blake3::hash(text.as_bytes()).as_bytes().to_vec()
        };
        ObservationBody {
            tx_id: tx_id.clone(),
            account: reservation.account.clone(),
            nonce: reservation.nonce,
            outcome,
            tx_hash: hash("tx"),
            block_number: 100,
            block_hash: hash("block"),
            round: 0,
        }
    }

    /// Member `i` accuses member `accused`, about no transaction.
    pub fn accusation(
        &self,
        i: usize,
        accused: usize,
        kind: AccusationKind,
        time_ms: u64,
    ) -> SignedStatement {
        let body = AccusationBody {
            accused: self.node_id(accused),
            kind,
            tx_id: None,
            subject_digest: *blake3::hash(b"offending bytes").as_bytes(),
            time_ms,
        };
        self.say(i, &body)
    }

    /// A start of member `i`'s node.
    pub fn boot(&self, i: usize, generation: u64, time_ms: u64) -> SignedStatement {
        let body = BootBody {
            generation,
            time_ms,
        };
        self.say(i, &body)
    }

    /// An operator's act in the name of member `i`.
    pub fn act(
        &self,
        i: usize,
        kind: OperatorActKind,
        subject: &str,
        pardoned: Vec<[u8; 32]>,
        time_ms: u64,
    ) -> SignedStatement {
        let body = OperatorActBody {
            kind,
            subject: subject.into(),
            pardoned,
            time_ms,
        };
        self.say(i, &body)
    }

    /// What members 0 to t − 1 say: what most proofs need.
    pub fn of_threshold(
        &self,
        mut say: impl FnMut(&Self, usize) -> SignedStatement,
    ) -> Vec<SignedStatement> {
        (0..self.t()).map(|i| say(self, i)).collect()
    }
}

fn document(
    n: usize,
    t: usize,
    options: &Options,
    epoch: u64,
    predecessor: Vec<u8>,
) -> (Vec<Keys>, Vec<u8>) {
    let width = n.to_string().len();
    let keys: Vec<Keys> = (1..=n)
        .map(|i| Keys::new(&options.name, &format!("node{i:0width$}")))
        .collect();
    let document = wire::RulesDocument {
        cluster_name: options.name.clone(),
        epoch,
        predecessor,
        members: keys.iter().map(|k| k.record(&options.name)).collect(),
        threshold: u32::try_from(t).expect("a small t"),
        dissent: options.dissent.into(),
        silence: options.silence.into(),
        vote_timeout_ms: options.vote_timeout_ms,
        settle_window_ms: options.settle_window_ms,
        clock_skew_ms: options.clock_skew_ms,
        chain: Some(options.chain.clone()),
    };
    (keys, document.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use quorate_consensus::statement::{Vote, open};

    use super::*;

    #[test]
    fn statements_open_under_the_clusters_rules() {
        let cluster = Cluster::new(12, 9);
        let ids: Vec<_> = cluster
            .rules()
            .members()
            .map(|m| m.node_id.clone())
            .collect();
        assert_eq!(ids[1], cluster.node_id(1));
        assert_eq!(cluster.index(&ids[11]), Some(11));
        let signed = cluster.vote(11, &tx("a"), number(1), NOW);
        let vote: Vote = open(&signed, cluster.rules(), &FakeVerifier).unwrap();
        assert_eq!(vote.node_id, ids[11]);
        let next = cluster.successor(13, 9, Options::default());
        assert!(open::<VoteBody>(&signed, next.rules(), &FakeVerifier).is_err());
    }
}
