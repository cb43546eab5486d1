//! What the fuzzer begins with: one good example of everything.

use prost::Message;
use quorate_consensus::proof;
use quorate_consensus::wire::{
    self, AbortReason, AccusationKind, BallotState, ChainOutcome, ExchangeRequest, Frame,
    OperatorActKind, SignedStatement, frame, misbehaviour,
};
use quorate_consensus::{Choice, Value};
use quorate_testkit::ops;
use quorate_testkit::{Cluster, NOW, data, number, tx};

use crate::cluster;

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All seeds.
pub fn seeds() -> Vec<Seed> {
    let material = Material::new();
    let mut seeds = Vec::new();
    material.decoders(&mut seeds);
    material.statements(&mut seeds);
    material.rules(&mut seeds);
    material.proofs(&mut seeds);
    material.frames(&mut seeds);
    seeds
}

/// Statements of everybody about one transaction.
struct Material {
    cluster: Cluster,
    reservation: wire::Reservation,
    votes: Vec<SignedStatement>,
    other_vote: SignedStatement,
    decisions: Vec<SignedStatement>,
    aborts: Vec<SignedStatement>,
    observations: Vec<SignedStatement>,
    accusations: Vec<SignedStatement>,
    acts: Vec<SignedStatement>,
    boot: SignedStatement,
}

impl Material {
    fn new() -> Self {
        let cluster = cluster();
        let (tx_id, value): (_, Value) = (tx("tx"), number(1));
        let target = cluster.rules().chain();
        let reservation = wire::Reservation {
            account: target.account.clone(),
            nonce: target.first_nonce,
            payload: cluster.rules().payload(&tx_id, &value),
        };
        Self {
            votes: cluster.of_threshold(|c, i| c.vote(i, &tx_id, value.clone(), NOW)),
            other_vote: cluster.vote(0, &tx_id, number(2), NOW),
            decisions: cluster
                .of_threshold(|c, i| c.decision(i, &tx_id, &value, Some(&reservation))),
            aborts: cluster.of_threshold(|c, i| c.abort(i, &tx_id, AbortReason::Timeout)),
            observations: cluster.of_threshold(|c, i| {
                c.observation(i, &tx_id, &reservation, ChainOutcome::Confirmed)
            }),
            accusations: cluster
                .of_threshold(|c, i| c.accusation(i, 3, AccusationKind::Malformed, NOW)),
            acts: cluster
                .of_threshold(|c, i| c.act(i, OperatorActKind::GiveUp, "tx", Vec::new(), NOW)),
            boot: cluster.boot(1, 1, NOW),
            reservation,
            cluster,
        }
    }

    fn double_vote(&self) -> wire::Misbehaviour {
        wire::Misbehaviour {
            kind: Some(misbehaviour::Kind::DoubleVote(wire::DoubleVote {
                first: self.votes.first().cloned(),
                second: Some(self.other_vote.clone()),
            })),
        }
    }

    fn minority_vote(&self) -> wire::Misbehaviour {
        wire::Misbehaviour {
            kind: Some(misbehaviour::Kind::MinorityVote(wire::MinorityVote {
                dissent: Some(self.cluster.vote(3, &tx("tx"), data(b"other"), NOW)),
                majority: self.votes.clone(),
            })),
        }
    }

    fn chain(&self) -> wire::RulesChain {
        proof::genesis_chain(self.cluster.rules())
    }

    fn decided(&self) -> wire::DecisionProof {
        wire::DecisionProof {
            votes: self.votes.clone(),
            decisions: self.decisions.clone(),
        }
    }

    fn all_proofs(&self) -> [(&'static str, wire::Proof); 5] {
        [
            (
                "certificate",
                proof::certificate(self.chain(), self.decided()),
            ),
            (
                "abort",
                proof::abort_proof(self.chain(), self.aborts.clone()),
            ),
            ("double", proof::evidence(self.chain(), self.double_vote())),
            (
                "minority",
                proof::evidence(self.chain(), self.minority_vote()),
            ),
            (
                "accusation",
                proof::accusation_proof(self.chain(), self.accusations.clone()),
            ),
        ]
    }

    fn operations(&self) -> Vec<(&'static str, wire::BoardOp)> {
        let tx_id = tx("tx");
        let id = self.cluster.node_id(3);
        vec![
            ("vote", ops::record_vote(self.other_vote.clone())),
            (
                "threshold",
                ops::advance(&tx_id, BallotState::ThresholdReached),
            ),
            ("reserve", ops::reserve(&tx_id, self.reservation.clone())),
            ("certify", ops::certify(&tx_id, self.decisions.clone())),
            ("conclude", ops::conclude(&tx_id, self.observations.clone())),
            ("abort", ops::prove_abort(&tx_id, self.aborts.clone())),
            (
                "ban",
                ops::ban_for(&self.cluster.node_id(0), self.double_vote()),
            ),
            (
                "ban-accused",
                ops::ban_accused(&id, self.accusations.clone()),
            ),
            ("ban-silent", ops::ban_silent(&id)),
            ("unban", ops::unban(&id, self.acts.clone())),
            ("give-up", ops::give_up(&tx_id, self.acts.clone())),
            ("boot", ops::boot(self.boot.clone())),
            ("lease", ops::lease(&tx_id, &id, 1000)),
            ("collect", ops::collect(&tx_id)),
        ]
    }

    fn batch(&self) -> wire::Batch {
        let traced = |vote: &SignedStatement| wire::TracedVote {
            vote: Some(vote.clone()),
            traceparent: String::new(),
        };
        wire::Batch {
            votes: self.votes.iter().map(traced).collect(),
            decisions: self.decisions.clone(),
            aborts: self.aborts.clone(),
            observations: self.observations.clone(),
            accusations: self.accusations.clone(),
            evidence: vec![self.double_vote(), self.minority_vote()],
            operator_acts: self.acts.clone(),
        }
    }

    fn decoders(&self, seeds: &mut Vec<Seed>) {
        let mut add = |which: u8, name: &str, bytes: Vec<u8>| {
            let bytes = [vec![which], bytes].concat();
            seeds.push(("decoders", name.to_owned(), bytes));
        };
        let message = frame_bytes(frame::Body::Batch(self.batch()));
        add(0, "frame", message);
        let submit = wire::SubmitRequest {
            tx_id: "tx".to_owned(),
            vote: Some(wire::submit_request::Vote::Number(1)),
            wait: 1,
        };
        add(1, "submit", submit.encode_to_vec());
        let entry = wire::BoardEntry {
            revision: 1,
            time_ms: NOW,
            op: Some(ops::record_vote(self.other_vote.clone())),
            events: Vec::new(),
        };
        add(6, "entry", entry.encode_to_vec());
        for (name, proof) in self.all_proofs() {
            add(7, &format!("proof-{name}"), proof.encode_to_vec());
        }
        add(8, "chain", self.chain().encode_to_vec());
        add(9, "rules", self.cluster.rules().document().to_vec());
        add(11, "signed", self.boot.encode_to_vec());
        for (name, op) in self.operations() {
            add(12, &format!("op-{name}"), op.encode_to_vec());
        }
    }

    fn statements(&self, seeds: &mut Vec<Seed>) {
        let tx_id = tx("tx");
        let abstention = self.cluster.vote(1, &tx_id, Choice::Abstention, NOW);
        let bytes = self.cluster.vote(1, &tx_id, data(&[0; 1024]), NOW);
        for (which, name, signed) in [
            (0, "vote", &self.other_vote),
            (0, "abstention", &abstention),
            (0, "bytes", &bytes),
            (1, "decision", &self.decisions[0]),
            (2, "abort", &self.aborts[0]),
            (3, "observation", &self.observations[0]),
            (4, "accusation", &self.accusations[0]),
            (5, "boot", &self.boot),
            (7, "act", &self.acts[0]),
        ] {
            let bytes = [vec![which], signed.statement.clone()].concat();
            seeds.push(("statements", name.to_owned(), bytes));
        }
    }

    fn rules(&self, seeds: &mut Vec<Seed>) {
        let genesis = self.cluster.rules().document();
        let bytes = [&[0], genesis].concat();
        seeds.push(("rules", "genesis".to_owned(), bytes));
        // A second epoch that the first has decided.
        let next = self
            .cluster
            .successor(4, 3, quorate_testkit::Options::default());
        let tx_id = tx("rules:2:1");
        let value = proof::rules_value(next.rules().digest());
        let cluster = &self.cluster;
        let justification = wire::DecisionProof {
            votes: cluster.of_threshold(|c, i| c.vote(i, &tx_id, value.clone(), NOW)),
            decisions: cluster.of_threshold(|c, i| c.decision(i, &tx_id, &value, None)),
        };
        let mut chain = self.chain();
        let one = chain.encode_to_vec();
        chain.links.push(wire::RulesLink {
            document: next.rules().document().to_vec(),
            justification: Some(justification),
        });
        for (name, chain) in [("chain", one), ("epochs", chain.encode_to_vec())] {
            seeds.push(("rules", name.to_owned(), [vec![1], chain].concat()));
        }
    }

    fn proofs(&self, seeds: &mut Vec<Seed>) {
        for (name, proof) in self.all_proofs() {
            seeds.push(("proofs", name.to_owned(), proof.encode_to_vec()));
        }
    }

    fn frames(&self, seeds: &mut Vec<Seed>) {
        let step = |kind: u8, bytes: &[u8]| {
            let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            [&[kind], &len.to_le_bytes()[..], bytes].concat()
        };
        let wait = |ms: u16| [&[3], &ms.to_le_bytes()[..]].concat();
        let batch = |batch: wire::Batch| frame_bytes(frame::Body::Batch(batch));
        let whole = self.batch();
        let votes = batch(wire::Batch {
            votes: whole.votes.clone(),
            ..wire::Batch::default()
        });
        let decisions = batch(wire::Batch {
            decisions: whole.decisions.clone(),
            observations: whole.observations.clone(),
            ..wire::Batch::default()
        });
        let ping = frame_bytes(frame::Body::Ping(wire::Ping { token: 7 }));
        let goodbye = frame_bytes(frame::Body::Goodbye(wire::Goodbye::default()));
        let hello = frame_bytes(frame::Body::Hello(wire::Hello {
            hello: Some(self.boot.clone()),
        }));
        let mut add = |name: &str, steps: &[Vec<u8>]| {
            seeds.push(("frames", name.to_owned(), steps.concat()));
        };
        add(
            "decided",
            &[step(1, &votes), wait(200), step(1, &decisions), wait(500)],
        );
        add("whole", &[step(1, &batch(whole)), wait(50)]);
        add("own-vote", &[vec![5, 1, 0], step(1, &votes), vec![5, 2, 0]]);
        add(
            "talk",
            &[
                step(0, &ping),
                step(4, &ping),
                step(4, &hello),
                step(0, &goodbye),
            ],
        );
        for (name, op) in self.operations() {
            add(
                &format!("op-{name}"),
                &[step(2, &op.encode_to_vec()), wait(20)],
            );
        }
        let together: Vec<_> = self
            .operations()
            .iter()
            .map(|(_, op)| step(2, &op.encode_to_vec()))
            .collect();
        let votes = self.votes.iter().map(|vote| {
            let op = ops::record_vote(vote.clone());
            step(2, &op.encode_to_vec())
        });
        let votes: Vec<_> = votes.collect();
        add("board", &[votes, together].concat());
    }
}

fn frame_bytes(body: frame::Body) -> Vec<u8> {
    let frame = Some(Frame { body: Some(body) });
    ExchangeRequest { frame }.encode_to_vec()
}
