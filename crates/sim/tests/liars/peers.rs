//! Lies to peers: votes, names, signatures, bytes, evidence, accusations.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::detector::{contradict, convict};
use quorate_consensus::statement::{
    self, AbortBody, AccusationBody, ObservationBody, StatementError, VoteBody, open,
};
use quorate_consensus::wire::{
    self, BallotState, ChainOutcome, ViolationType, frame, misbehaviour::Kind,
};
use quorate_consensus::{Choice, TxId};
use quorate_sim::liars::{Cue, LiarKind, Lie};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, ops, tx};

use super::kit::{Actor, all_dice, batches, proposed, said, votes};

/// What the pure board says to what a liar asks of it.
fn refused(actor: &Actor, lies: &[Lie]) -> usize {
    let mut count = 0;
    for (op, now_ms) in proposed(lies) {
        let answer = actor.board.clone().apply(op, now_ms, &FakeVerifier);
        assert!(answer.is_err(), "{op:?}: {answer:?}");
        count += 1;
    }
    count
}

#[test]
fn an_equivocator_tells_each_half_another_value() {
    let mut actor = Actor::new(LiarKind::Equivocator);
    let lies = actor.asked(&tx("a"), number(1));
    assert_eq!(said(&lies).count(), 4);
    let rules = actor.cluster.rules();
    let votes: Vec<statement::Vote> = votes(&lies)
        .iter()
        .map(|vote| open(vote, rules, &FakeVerifier).unwrap())
        .collect();
    assert!(contradict(&votes[0].body, &votes[1].body, rules));
    assert_eq!(votes[0].body, votes[2].body);
    let proof = wire::Misbehaviour {
        kind: Some(Kind::DoubleVote(wire::DoubleVote {
            first: Some(votes[0].signed.clone()),
            second: Some(votes[1].signed.clone()),
        })),
    };
    let conviction = convict(&proof, rules, &FakeVerifier).unwrap();
    assert_eq!(conviction.node_id, actor.me);
    assert_eq!(conviction.kind, ViolationType::DoubleVoting);
}

#[test]
fn a_minority_voter_dissents_once_at_once_or_later() {
    let mut late = 0;
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::Minority).dice(dice);
        let mut lies = actor.asked(&tx("a"), number(1));
        if let [Lie::Wake { in_ms }] = lies[..] {
            late += 1;
            actor.now_ms += in_ms - 1;
            assert_eq!(actor.cue(Cue::Wake), []);
            actor.now_ms += 1;
            lies = actor.cue(Cue::Wake);
        }
        assert_eq!(actor.cue(Cue::Wake), []);
        let votes: BTreeSet<_> = votes(&lies).into_iter().map(|v| v.statement).collect();
        assert_eq!((said(&lies).count(), votes.len()), (4, 1));
        let (_, body) = statement::parse::<VoteBody>(votes.first().unwrap()).unwrap();
        assert_eq!(body.choice, Choice::from(number(2)));
        assert_eq!(body.time_ms, actor.now_ms);
    }
    assert!((100..300).contains(&late), "{late}");
}

#[test]
fn a_forgers_vote_does_not_verify() {
    let mut signatures = BTreeSet::new();
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::Forger).dice(dice);
        let lies = actor.asked(&tx("a"), number(1));
        let rules = actor.cluster.rules();
        for vote in votes(&lies) {
            let error = open::<VoteBody>(&vote, rules, &FakeVerifier).unwrap_err();
            assert_eq!(error, StatementError::BadSignature(actor.me.clone()));
            assert!(error.accuses_sender());
            signatures.insert(vote.signature);
        }
        assert_eq!((said(&lies).count(), refused(&actor, &lies)), (4, 1));
    }
    assert_eq!(signatures.len(), 5, "each way to forge");
}

#[test]
fn an_impersonator_speaks_in_all_names_but_its_own() {
    let mut kinds = BTreeSet::new();
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::Impersonator).dice(dice);
        let lies = actor.asked(&tx("a"), number(666));
        let rules = actor.cluster.rules();
        let batch = batches(&lies).next().unwrap();
        let mut errors = Vec::new();
        for traced in &batch.votes {
            let vote = traced.vote.as_ref().unwrap();
            errors.push(open::<VoteBody>(vote, rules, &FakeVerifier).unwrap_err());
        }
        for abort in &batch.aborts {
            errors.push(open::<AbortBody>(abort, rules, &FakeVerifier).unwrap_err());
        }
        for accusation in &batch.accusations {
            errors.push(open::<AccusationBody>(accusation, rules, &FakeVerifier).unwrap_err());
        }
        assert!(errors.len() >= 3);
        for error in errors {
            let StatementError::BadSignature(name) = error else {
                panic!("{error}");
            };
            assert_ne!(name, actor.me);
        }
        assert!(refused(&actor, &lies) > 0);
        kinds.insert((
            batch.votes.len(),
            batch.aborts.len(),
            batch.accusations.len(),
        ));
    }
    assert_eq!(kinds, [(4, 0, 0), (0, 4, 0), (0, 0, 3)].into());
}

#[test]
fn a_replayer_repeats_each_statement_at_once_and_the_old_ones_later() {
    let mut actor = Actor::new(LiarKind::Replayer);
    let cluster = actor.cluster.clone();
    let reservation = wire::Reservation::default();
    let heard = wire::Batch {
        votes: vec![wire::TracedVote {
            vote: Some(cluster.vote(0, &tx("a"), number(1), NOW)),
            traceparent: "somebody's".into(),
        }],
        decisions: vec![cluster.decision(0, &tx("a"), &number(1), None)],
        aborts: vec![cluster.abort(1, &tx("b"), wire::AbortReason::Split)],
        observations: vec![cluster.observation_in_round(
            0,
            &tx("a"),
            &reservation,
            ChainOutcome::Undone,
            3,
        )],
        accusations: vec![cluster.accusation(0, 1, wire::AccusationKind::Malformed, NOW)],
        operator_acts: vec![wire::SignedStatement {
            statement: b"an act".to_vec(),
            signature: Vec::new(),
        }],
        evidence: vec![wire::Misbehaviour::default()],
    };
    let mut plain = heard.clone();
    plain.votes[0].traceparent.clear();
    let body = frame::Body::Batch(heard.clone());
    let lies = actor.hears(0, &body);
    let told: BTreeSet<_> = said(&lies).map(|(to, _)| to.clone()).collect();
    assert_eq!(told, (0..4).map(|i| cluster.node_id(i)).collect());
    assert!(batches(&lies).all(|batch| *batch == plain));
    assert_eq!(actor.hears(1, &body), [], "once is enough at once");

    let vote = cluster.vote(2, &tx("c"), number(1), NOW);
    actor.reads(&ops::record_vote(vote.clone()), NOW);
    let lies = actor.cue(Cue::Wake);
    assert!(batches(&lies).all(|batch| *batch == plain));
    assert_eq!(proposed(&lies).next(), Some((&ops::record_vote(vote), NOW)));
    assert!(matches!(lies.last(), Some(Lie::Wake { .. })));
    let mut wakes = 1;
    while let Some(Lie::Wake { .. }) = actor.cue(Cue::Wake).last() {
        wakes += 1;
        assert!(wakes < 100);
    }
}

#[test]
fn a_malformed_sender_breaks_the_protocol_each_time() {
    let mut reasons = BTreeSet::new();
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::Malformed).dice(dice);
        let lies = actor.asked(&tx("a"), number(1));
        assert_eq!(lies.len(), 4);
        for lie in &lies {
            if let Lie::Garble { bytes, .. } = lie {
                let frame = <wire::ExchangeRequest as prost::Message>::decode(&bytes[..]);
                assert!(frame.is_err());
                reasons.insert("NO_FRAME");
            }
        }
        let rules = actor.cluster.rules();
        for batch in batches(&lies) {
            let of_votes = batch.votes.iter().map(|traced| {
                let vote = traced.vote.clone().unwrap_or_default();
                open::<VoteBody>(&vote, rules, &FakeVerifier).unwrap_err()
            });
            let of_decisions = batch.decisions.iter().map(|decision| {
                open::<statement::DecisionBody>(decision, rules, &FakeVerifier).unwrap_err()
            });
            for error in of_votes.chain(of_decisions) {
                assert!(error.accuses_sender());
                assert!(!matches!(error, StatementError::BadSignature(_)), "{error}");
                reasons.insert(error.reason());
            }
        }
    }
    assert!(reasons.len() >= 5, "{reasons:?}");
}

#[test]
fn nobody_knows_the_rules_of_a_wrong_rules_signer() {
    let mut actor = Actor::new(LiarKind::WrongRules);
    let lies = actor.asked(&tx("a"), number(1));
    let rules = actor.cluster.rules().clone();
    for vote in votes(&lies) {
        let error = open::<VoteBody>(&vote, &rules, &FakeVerifier).unwrap_err();
        assert!(
            matches!(error, StatementError::WrongRules { .. }),
            "{error}"
        );
        assert!(!error.accuses_sender());
    }
    assert_eq!((said(&lies).count(), refused(&actor, &lies)), (4, 1));
    let lies = actor.decide(&tx("b"), 1);
    let decisions: Vec<_> = batches(&lies).flat_map(|b| &b.decisions).collect();
    assert_eq!(decisions.len(), 4);
    let error = open::<statement::DecisionBody>(decisions[0], &rules, &FakeVerifier).unwrap_err();
    assert!(
        matches!(error, StatementError::WrongRules { .. }),
        "{error}"
    );
}

#[test]
fn a_flooder_votes_a_hundred_times_at_a_time_and_ends() {
    let mut actor = Actor::new(LiarKind::Flooder);
    let mut seen: BTreeMap<TxId, _> = BTreeMap::new();
    for round in 0..10 {
        let lies = actor.asked(&tx(&format!("tx-{round}")), number(1));
        for batch in batches(&lies) {
            assert!(batch.votes.len() <= 100);
        }
        for vote in votes(&lies) {
            let vote: statement::Vote = open(&vote, actor.cluster.rules(), &FakeVerifier).unwrap();
            assert_eq!(vote.node_id, actor.me);
            let first = seen.insert(vote.body.tx_id, vote.body.choice.clone());
            assert!(first.is_none_or(|first| first == vote.body.choice));
        }
    }
    assert_eq!(seen.len(), 400);
    let peer = &actor.cluster.node_id(0);
    let lies = actor.cue(Cue::Met { peer });
    let is_ping = |body: &frame::Body| matches!(body, frame::Body::Ping(_));
    assert!(said(&lies).any(|(_, body)| is_ping(body)));
    assert!(said(&lies).any(|(_, body)| matches!(body, frame::Body::Resync(_))));
    for _ in 0..100 {
        actor.cue(Cue::Met {
            peer: &actor.cluster.node_id(0),
        });
    }
    assert_eq!(
        actor.cue(Cue::Met {
            peer: &actor.cluster.node_id(0)
        }),
        []
    );
}

#[test]
fn a_false_witness_convicts_nobody() {
    let mut nothing = BTreeSet::new();
    let (mut forged, mut early) = (0, 0);
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::FalseWitness).dice(dice);
        let cluster = actor.cluster.clone();
        let mut lies = actor.asked(&tx("a"), number(1));
        for (i, id) in [(0, "b"), (0, "a"), (1, "a"), (2, "a")] {
            let vote = cluster.vote(i, &tx(id), number(1), NOW);
            lies.extend(actor.hears(i, &quorate_sim::liars::votes([vote])));
        }
        let dissent = cluster.vote(3, &tx("a"), number(2), NOW);
        lies.extend(actor.reads(&ops::record_vote(dissent), NOW));
        let rules = cluster.rules();
        let mut count = 0;
        for evidence in batches(&lies).flat_map(|batch| &batch.evidence) {
            count += 1;
            match convict(evidence, rules, &FakeVerifier) {
                // That one dissents, and the board does not show the others' votes yet.
                Ok(conviction) => {
                    assert_eq!(conviction.kind, ViolationType::MinorityVote);
                    assert_eq!(conviction.node_id, cluster.node_id(3));
                    early += 1;
                }
                Err(quorate_consensus::detector::DetectorError::Statement(e)) => {
                    assert!(matches!(e, StatementError::BadSignature(_)), "{e}");
                    forged += 1;
                }
                Err(error) => {
                    nothing.insert(error.to_string());
                }
            }
        }
        assert!(count >= 12);
        assert!(refused(&actor, &lies) >= 3);
    }
    assert!(nothing.len() >= 5, "{nothing:#?}");
    assert!(forged > 0);
    assert!(early > 0);
}

#[test]
fn a_false_witness_brings_two_choices_too_early_or_too_far_apart() {
    let lifetime_ms = Cluster::new(5, 3).rules().vote_lifetime_ms();
    for (apart_ms, proves) in [(lifetime_ms, true), (lifetime_ms + 1, false)] {
        let mut actor = Actor::new(LiarKind::FalseWitness);
        let cluster = actor.cluster.clone();
        let first = cluster.vote(0, &tx("a"), number(1), NOW);
        let second = cluster.vote(0, &tx("a"), number(2), NOW + apart_ms);
        let heard = quorate_sim::liars::votes([first.clone(), second.clone()]);
        let pair = Kind::DoubleVote(wire::DoubleVote {
            first: Some(first.clone()),
            second: Some(second),
        });
        let brings = |lies: &[Lie]| {
            let evidence = batches(lies).flat_map(|batch| &batch.evidence);
            let convicts =
                |evidence| convict(evidence, cluster.rules(), &FakeVerifier).is_ok() == proves;
            let pairs = evidence.filter(|evidence| evidence.kind.as_ref() == Some(&pair));
            pairs.filter(|evidence| convicts(evidence)).count()
        };
        // The board shows none of them yet; then only one.
        let lies = actor.hears(0, &heard);
        assert_eq!(brings(&lies), 4, "{apart_ms} ms apart");
        let lies = actor.reads(&ops::record_vote(first), NOW);
        assert_eq!(brings(&lies), 4, "{apart_ms} ms apart");
        assert!(refused(&actor, &lies) > 0);
    }
}

#[test]
fn an_accusers_word_is_one_word() {
    let mut actor = Actor::new(LiarKind::Accuser);
    let rules = actor.cluster.rules().clone();
    let mut lies = actor.cue(Cue::Start);
    for i in 0..12 {
        lies.extend(actor.asked(&tx(&format!("tx-{i}")), number(1)));
    }
    let mut accused = BTreeSet::new();
    for accusation in batches(&lies).flat_map(|batch| &batch.accusations) {
        let opened: statement::Accusation = open(accusation, &rules, &FakeVerifier).unwrap();
        assert_eq!(opened.node_id, actor.me);
        assert_ne!(opened.body.accused, actor.me);
        accused.insert((opened.body.accused, opened.body.kind));
    }
    assert_eq!(accused.len(), 12, "everybody, of everything");
    // In company below t: another one says the same, and still nobody is banned.
    let mut company = Actor::of(LiarKind::Accuser, actor.cluster.clone(), 3);
    lies.extend(company.cue(Cue::Start));
    let (mut taken, mut bans) = (0, 0);
    for (op, now_ms) in proposed(&lies) {
        let ban = matches!(op.op, Some(wire::board_op::Op::Ban(_)));
        match actor.board.apply(op, now_ms, &FakeVerifier) {
            Ok(_) => taken += usize::from(!ban),
            Err(_) => assert!(ban, "{op:?}"),
        }
        bans += usize::from(ban);
    }
    assert!(taken >= 13 && bans >= 13, "{taken} {bans}");
    for i in 0..5 {
        let member = actor.board.member(&actor.cluster.node_id(i)).unwrap();
        assert!(member.ban.is_none());
        assert_eq!(member.reputation, 1_000);
    }
    let first = actor.board.member(&actor.cluster.node_id(0)).unwrap();
    assert_eq!(
        first.accusations.len(),
        2,
        "both began with the same victim"
    );
}

#[test]
fn a_squatter_votes_first_and_stays_with_it() {
    let options = Options::default().times(1_000, 0, 100);
    let mut said_by: BTreeMap<TxId, Choice> = BTreeMap::new();
    for dice in all_dice().take(20) {
        let mut actor = Actor::of(LiarKind::Squatter, Cluster::with(5, 3, options.clone()), 4);
        actor.dice = dice;
        let mut lies = actor.cue(Cue::Start);
        let peer = &actor.cluster.node_id(0);
        let met = actor.cue(Cue::Met { peer });
        assert_eq!(votes(&met).len(), 32);
        lies.extend(met);
        assert_eq!(actor.asked(&tx("tx-3"), number(77)), []);
        let mut turns = 1;
        while let Some(Lie::Wake { in_ms }) = lies.iter().rfind(|l| matches!(l, Lie::Wake { .. })) {
            actor.now_ms += in_ms;
            turns += 1;
            assert!(turns < 10);
            let again = actor.cue(Cue::Wake);
            for vote in votes(&again) {
                let vote: statement::Vote =
                    open(&vote, actor.cluster.rules(), &FakeVerifier).unwrap();
                let first = said_by
                    .entry(vote.body.tx_id)
                    .or_insert(vote.body.choice.clone());
                assert_eq!(*first, vote.body.choice);
            }
            lies = again;
        }
    }
}

#[test]
fn a_self_made_ruler_stands_under_a_document_that_nobody_decided() {
    let mut actor = Actor::new(LiarKind::SelfMade);
    let rules = actor.cluster.rules().clone();
    let lies = actor.asked(&tx("a"), number(1));
    // A good document in itself: the epoch after, with t = 1.
    let mut document = <wire::RulesDocument as prost::Message>::decode(rules.document()).unwrap();
    (document.epoch, document.threshold) = (2, 1);
    document.predecessor = rules.digest().0.to_vec();
    let document = prost::Message::encode_to_vec(&document);
    let own = rules.successor(&document, &FakeVerifier).unwrap();
    assert_eq!(own.threshold(), 1);
    let batch = batches(&lies).next().unwrap();
    let vote = batch.votes[0].vote.as_ref().unwrap();
    open::<VoteBody>(vote, &own, &FakeVerifier).unwrap();
    let decision = &batch.decisions[0];
    open::<statement::DecisionBody>(decision, &own, &FakeVerifier).unwrap();
    for error in [
        open::<VoteBody>(vote, &rules, &FakeVerifier).unwrap_err(),
        open::<statement::DecisionBody>(decision, &rules, &FakeVerifier).unwrap_err(),
    ] {
        assert!(
            matches!(error, StatementError::WrongRules { .. }),
            "{error}"
        );
    }
    // Its certificate under both documents, without a decision for the second.
    let certificate = wire::Certificate {
        rules: Some(wire::RulesChain {
            links: vec![
                wire::RulesLink {
                    document: rules.document().to_vec(),
                    justification: None,
                },
                wire::RulesLink {
                    document,
                    justification: None,
                },
            ],
        }),
        proof: Some(wire::DecisionProof {
            votes: vec![vote.clone()],
            decisions: vec![decision.clone()],
        }),
    };
    let proof = wire::Proof {
        kind: Some(wire::proof::Kind::Certificate(certificate)),
    };
    let bytes = prost::Message::encode_to_vec(&proof);
    let id = rules.cluster_id();
    assert!(quorate_consensus::proof::verify(&bytes, &id, None, &FakeVerifier).is_err());
    // The board takes its one vote for a change of rules, and nothing else.
    let mut taken = Vec::new();
    for (op, now_ms) in proposed(&lies) {
        if actor.board.apply(op, now_ms, &FakeVerifier).is_ok() {
            taken.push(op.clone());
        }
    }
    assert_eq!(taken.len(), 1);
    let ballot = actor.board.ballot(&TxId::rules(2, 1)).unwrap();
    assert_eq!(
        (ballot.state, ballot.is_started()),
        (BallotState::Collecting, false)
    );
}

#[test]
fn a_false_observer_sees_everything_in_every_round() {
    let mut actor = Actor::new(LiarKind::FalseObserver);
    let lies = actor.decide(&tx("a"), 1);
    assert_eq!(said(&lies).count(), 4);
    let rules = actor.cluster.rules().clone();
    let mut seen = BTreeSet::new();
    for observation in &batches(&lies).next().unwrap().observations {
        let opened: statement::Observation = open(observation, &rules, &FakeVerifier).unwrap();
        assert_eq!(opened.node_id, actor.me);
        assert_eq!(opened.body.nonce, 7);
        seen.insert((opened.body.outcome as i32, opened.body.round));
    }
    assert_eq!(seen.len(), 5 * 2);
    assert_eq!(refused(&actor, &lies), 5);
    // Two of them agree, which is one too few.
    let mut other = Actor::of(LiarKind::FalseObserver, actor.cluster.clone(), 3);
    let others = other.decide(&tx("a"), 1);
    let bodies = |lies: &[Lie]| -> BTreeSet<ObservationBody> {
        let all = batches(lies).flat_map(|batch| batch.observations.clone());
        all.map(|signed| statement::parse(&signed.statement).unwrap().1)
            .collect()
    };
    assert_eq!(bodies(&lies), bodies(&others));
}
