//! Bans and pardons, accusations, starts.

use quorate_consensus::detector::{convict, misbehaviour_in, proof_digest};
use quorate_consensus::wire::{
    AccusationKind, BallotState, BanProof, DoubleVote, MinorityVote, Misbehaviour, OperatorActKind,
    SignedStatement, ViolationType, ban_proof, misbehaviour,
};
use quorate_consensus::{Choice, NodeId};
use quorate_testkit::{FakeVerifier, Options, number, ops, tx};

use crate::support::{World, kinds};
use ViolationType::{DoubleVoting, InvalidSignature, MinorityVote as Minority};

fn double(first: SignedStatement, second: SignedStatement) -> Misbehaviour {
    Misbehaviour {
        kind: Some(misbehaviour::Kind::DoubleVote(DoubleVote {
            first: Some(first),
            second: Some(second),
        })),
    }
}

fn minority(dissent: SignedStatement, majority: Vec<SignedStatement>) -> Misbehaviour {
    Misbehaviour {
        kind: Some(misbehaviour::Kind::MinorityVote(MinorityVote {
            dissent: Some(dissent),
            majority,
        })),
    }
}

fn accuse_all(w: &World, accused: usize, by: &[usize], time: u64) -> Vec<SignedStatement> {
    by.iter()
        .map(|i| {
            w.cluster
                .accusation(*i, accused, AccusationKind::InvalidSignature, time)
        })
        .collect()
}

fn pardons(w: &World, node_id: &NodeId, by: &[usize]) -> Vec<SignedStatement> {
    let ban = w.board.member(node_id).unwrap().ban.as_ref();
    let digest = ban.map_or([0; 32], |ban| proof_digest(&ban.proof));
    by.iter()
        .map(|i| {
            let kind = OperatorActKind::Unban;
            w.cluster
                .act(*i, kind, node_id.as_str(), vec![digest], w.now)
        })
        .collect()
}

#[test]
fn a_double_vote_bans_after_the_ballots_move() {
    let mut w = World::five();
    w.votes(0..2, number(1));
    let second = w.cluster.vote(0, &w.tx, number(2), w.now);
    let first = w.ballot().votes[&w.id(0)].vote.signed.clone();
    let ban = ops::ban_for(&w.id(0), double(first, second.clone()));
    assert_eq!(
        w.refused(&ban),
        "ADVANCE_FIRST",
        "the second vote is not recorded"
    );
    w.ok(&ops::record_vote(second));
    assert_eq!(w.refused(&ban), "ADVANCE_FIRST", "the abort comes first");
    w.moves(2, BallotState::AbortedByzantine);
    assert_eq!(kinds(&w.ok(&ban)), ["reputation", "banned"]);
    let member = w.board.member(&w.id(0)).unwrap();
    assert_eq!((member.reputation, member.violations), (0, 1));
    assert_eq!(member.ban.as_ref().unwrap().kind, DoubleVoting);
}

#[test]
fn evidence_about_a_ballot_that_the_board_never_saw() {
    let mut w = World::five();
    let vote = |value| w.cluster.vote(0, &tx("unseen"), number(value), w.now);
    let evidence = double(vote(1), vote(2));
    let other = ops::ban_for(&w.id(1), evidence.clone());
    assert_eq!(w.refused(&other), "UNPROVEN");
    let ban = ops::ban_for(&w.id(0), evidence);
    assert_eq!(kinds(&w.ok(&ban)), ["violation", "reputation", "banned"]);
    assert_eq!(w.board.member(&w.id(0)).unwrap().violations, 1);
}

#[test]
fn a_minority_vote_bans_only_where_two_majorities_cannot_be() {
    for (n, t, outcome) in [(5, 3, Ok(())), (6, 3, Err("UNPROVEN"))] {
        let mut w = World::new(n, t, Options::default());
        w.vote(n - 1, number(2));
        w.votes(0..t, number(1));
        w.moves(3, BallotState::AbortedByzantine);
        assert_eq!(w.violations(), [(w.id(n - 1), Minority)]);
        let ban = w.ban_op(n - 1, Minority);
        match outcome {
            Ok(()) => {
                w.ok(&ban);
            }
            Err(reason) => assert_eq!(w.refused(&ban), reason),
        }
    }
}

#[test]
fn a_minority_voter_is_not_banned_before_its_vote_counted() {
    let mut w = World::new(5, 3, Options::default());
    let tx = w.tx.clone();
    let dissent = w.cluster.vote(4, &tx, number(2), w.now);
    let majority = w
        .cluster
        .of_threshold(|c, i| c.vote(i, &tx, number(1), w.now));
    w.ok(&ops::record_vote(dissent.clone()));
    let ban = ops::ban_for(&w.id(4), minority(dissent, majority.clone()));
    assert_eq!(w.refused(&ban), "ADVANCE_FIRST");
    for vote in majority {
        w.ok(&ops::record_vote(vote));
    }
    assert_eq!(w.refused(&ban), "ADVANCE_FIRST");
    w.moves(3, BallotState::AbortedByzantine);
    w.ok(&ban);
}

#[test]
fn statements_that_prove_nothing() {
    let w = World::new(5, 3, Options::default());
    let c = &w.cluster;
    let vote = |i, name: &str, choice: Choice| c.vote(i, &tx(name), choice, w.now);
    let v = |i, value| vote(i, "a", number(value).into());
    let late = c.vote(0, &tx("a"), number(2), w.now + 360_001);
    let tail = |i| vec![v(0, 1), v(1, 1), i];
    for wrong in [
        Misbehaviour::default(),
        double(v(0, 1), v(0, 1)),
        double(v(0, 1), v(1, 2)),
        double(v(0, 1), vote(0, "b", number(2).into())),
        double(v(0, 1), late),
        double(v(0, 1), c.decision(0, &tx("a"), &number(2), None)),
        minority(vote(4, "a", Choice::Abstention), tail(v(2, 1))),
        minority(v(4, 1), tail(v(2, 1))),
        minority(v(4, 2), tail(v(2, 3))),
        minority(v(4, 2), tail(v(2, 2))),
        minority(v(4, 2), tail(v(1, 1))),
        minority(v(4, 2), tail(vote(2, "b", number(1).into()))),
        minority(v(4, 2), tail(vote(2, "a", Choice::Abstention))),
        minority(v(4, 2), tail(v(4, 1))),
        minority(v(4, 2), vec![v(0, 1), v(1, 1)]),
        minority(v(4, 2), vec![v(0, 1), v(1, 1), v(2, 1), v(3, 1)]),
    ] {
        assert!(
            convict(&wrong, c.rules(), &FakeVerifier).is_err(),
            "{wrong:?}"
        );
    }
    let good = minority(v(4, 2), tail(v(2, 1)));
    let conviction = convict(&good, c.rules(), &FakeVerifier).unwrap();
    assert_eq!((conviction.node_id, conviction.kind), (w.id(4), Minority));
}

#[test]
fn t_accusations_ban() {
    let mut w = World::new(5, 3, Options::default());
    let now = w.now;
    let own = w.cluster.accusation(4, 4, AccusationKind::Malformed, now);
    assert_eq!(w.refused(&ops::accuse(own.clone())), "MALFORMED_OPERATION");
    let three = accuse_all(&w, 4, &[0, 1, 2], now);
    for accusation in &three {
        assert_eq!(kinds(&w.ok(&ops::accuse(accusation.clone()))), ["accused"]);
    }
    // The first of a kind counts, another kind is noted beside it.
    let later = w
        .cluster
        .accusation(0, 4, AccusationKind::InvalidSignature, now + 1);
    w.unchanged(&ops::accuse(later));
    let other = w.cluster.accusation(0, 4, AccusationKind::Malformed, now);
    w.ok(&ops::accuse(other));
    assert_eq!(w.board.member(&w.id(4)).unwrap().accusations.len(), 3);

    let id = w.id(4);
    for wrong in [
        accuse_all(&w, 4, &[0, 1], now),
        accuse_all(&w, 4, &[0, 1, 2, 3], now),
        accuse_all(&w, 4, &[0, 2, 1], now),
        accuse_all(&w, 3, &[0, 1, 2], now),
        vec![three[0].clone(), three[1].clone(), own],
    ] {
        assert_eq!(w.refused(&ops::ban_accused(&id, wrong)), "UNPROVEN");
    }
    let events = w.ok(&ops::ban_accused(&id, three));
    assert_eq!(kinds(&events), ["violation", "reputation", "banned"]);
    let ban = w.board.member(&id).unwrap().ban.clone().unwrap();
    assert_eq!((ban.kind, ban.since_ms), (InvalidSignature, now));
    // The banned accuse nobody.
    let revenge = w.cluster.accusation(4, 0, AccusationKind::Malformed, now);
    assert_eq!(w.refused(&ops::accuse(revenge)), "BANNED");
    let with_banned = accuse_all(&w, 0, &[1, 2, 4], now);
    assert_eq!(
        w.refused(&ops::ban_accused(&w.id(0), with_banned)),
        "UNPROVEN"
    );
}

#[test]
fn a_pardon_holds_however_the_evidence_is_put() {
    let mut w = World::new(5, 3, Options::default());
    w.vote(0, number(1));
    w.vote(0, number(2));
    w.moves(2, BallotState::AbortedByzantine);
    let ban = w.ban_op(0, DoubleVoting);
    w.ok(&ban);
    let id = w.id(0);
    let proof = w.board.member(&id).unwrap().ban.clone().unwrap().proof;
    assert!(!w.board.is_pardoned(&proof));
    let two = pardons(&w, &id, &[1, 2]);
    assert_eq!(w.refused(&ops::unban(&id, two)), "UNPROVEN");
    let wrong: Vec<_> = (1..4)
        .map(|i| {
            w.cluster
                .act(i, OperatorActKind::Unban, id.as_str(), vec![[9; 32]], w.now)
        })
        .collect();
    assert_eq!(w.refused(&ops::unban(&id, wrong)), "UNPROVEN");
    let other = pardons(&w, &w.id(1), &[1, 2, 3]);
    assert_eq!(w.refused(&ops::unban(&id, other)), "UNPROVEN");

    // The banned member's own act counts, lest a cluster lock itself out.
    let acts = pardons(&w, &id, &[0, 1, 2]);
    assert_eq!(
        kinds(&w.ok(&ops::unban(&id, acts))),
        ["unbanned", "reputation"]
    );
    assert_eq!(w.board.member(&id).unwrap().reputation, 500);
    assert!(w.board.is_pardoned(&proof));
    assert_eq!(w.refused(&ban), "UNPROVEN");
    let first = w.ballot().votes[&id].vote.signed.clone();
    let second = w.ballot().second_votes[&id].signed.clone();
    let swapped = ops::ban_for(&id, double(second, first));
    assert_eq!(w.refused(&swapped), "UNPROVEN");
    // Another lie still bans.
    let vote = |value| w.cluster.vote(0, &tx("b"), number(value), w.now);
    let again = ops::ban_for(&id, double(vote(1), vote(2)));
    w.ok(&again);
}

#[test]
fn pardoned_accusations_are_forgotten() {
    let mut w = World::new(5, 3, Options::default());
    let id = w.id(4);
    let old = accuse_all(&w, 4, &[0, 1, 2], w.now);
    w.ok(&ops::accuse(old[0].clone()));
    let also = w.cluster.accusation(3, 4, AccusationKind::Malformed, w.now);
    w.ok(&ops::accuse(also.clone()));
    w.ok(&ops::ban_accused(&id, old.clone()));
    let acts = pardons(&w, &id, &[0, 1, 2, 3]);
    w.ok(&ops::unban(&id, acts));
    assert!(w.board.member(&id).unwrap().accusations.is_empty());
    w.unchanged(&ops::accuse(old[0].clone()));
    w.unchanged(&ops::accuse(also));
    let fresh = accuse_all(&w, 4, &[1, 2], w.now + 1);
    let mixed = [vec![old[0].clone()], fresh.clone()].concat();
    assert_eq!(w.refused(&ops::ban_accused(&id, mixed)), "UNPROVEN");
    let all_new = [accuse_all(&w, 4, &[0], w.now + 1), fresh].concat();
    w.ok(&ops::ban_accused(&id, all_new));
}

#[test]
fn silence_is_pardoned_once_for_once() {
    let mut w = World::new(5, 4, Options::default().ban_silence());
    let id = w.id(4);
    let mut round = 0;
    let mut be_silent = |w: &mut World, least: u32| {
        while w.board.member(&id).unwrap().reputation >= least {
            round += 1;
            assert!(round < 40, "silence costs nothing");
            w.tx = tx(&format!("t{round}"));
            w.submit(number(1));
            w.now = w.now.max(w.ballot().deadline_ms().unwrap());
            let call = ops::mark_silent(&w.tx);
            w.ok(&call);
        }
    };
    be_silent(&mut w, 300);
    w.ok(&ops::ban_silent(&id));
    let acts = pardons(&w, &id, &[0, 1, 2, 3]);
    w.ok(&ops::unban(&id, acts.clone()));
    assert_eq!(w.refused(&ops::ban_silent(&id)), "UNPROVEN");
    be_silent(&mut w, 300);
    w.ok(&ops::ban_silent(&id));
    assert_eq!(
        w.refused(&ops::unban(&id, acts)),
        "UNPROVEN",
        "acts for the ban before"
    );
    let acts = pardons(&w, &id, &[0, 1, 2, 3]);
    w.ok(&ops::unban(&id, acts));
}

#[test]
fn bans_name_members_and_proofs() {
    let mut w = World::five();
    let stranger = NodeId::new("stranger").unwrap();
    assert_eq!(w.refused(&ops::ban_silent(&stranger)), "UNKNOWN_MEMBER");
    assert_eq!(w.refused(&ops::unban(&stranger, vec![])), "UNKNOWN_MEMBER");
    w.unchanged(&ops::unban(&w.id(0), vec![]));
    let mut op = ops::ban_silent(&w.id(0));
    if let Some(quorate_consensus::wire::board_op::Op::Ban(ban)) = &mut op.op {
        ban.proof = Some(BanProof { kind: None });
    }
    assert_eq!(w.refused(&op), "MALFORMED_OPERATION");
    let empty = ops::ban(
        &w.id(0),
        ban_proof::Kind::Misbehaviour(Misbehaviour::default()),
    );
    assert_eq!(w.refused(&empty), "EVIDENCE_PROVES_NOTHING");
}

#[test]
fn boot_generations_grow() {
    let mut w = World::five();
    let boot = |w: &World, generation| ops::boot(w.cluster.boot(0, generation, w.now));
    let first = boot(&w, 1);
    assert_eq!(kinds(&w.ok(&first)), ["booted"]);
    w.ok(&boot(&w, 3));
    assert_eq!(w.refused(&first), "STALE_GENERATION");
    w.now += 1;
    assert_eq!(
        w.refused(&boot(&w, 3)),
        "STALE_GENERATION",
        "another machine"
    );
    assert_eq!(w.board.member(&w.id(0)).unwrap().generation, 3);
    let zero = boot(&w, 0);
    assert_eq!(w.refused(&zero), "STATEMENT_FIELD_INVALID");
}

#[test]
fn all_misbehaviour_of_a_ballot_at_once() {
    let mut w = World::new(5, 3, Options::default().outvote());
    w.votes(0..3, number(1));
    w.vote(3, number(2));
    w.vote(4, number(1));
    w.vote(4, number(2));
    let found = misbehaviour_in(w.ballot());
    let who: Vec<_> = found
        .iter()
        .map(|(id, kind, _)| (id.clone(), *kind))
        .collect();
    // Trustee 5 signed both: it lied, and its second vote is dissent too.
    assert_eq!(
        who,
        [
            (w.id(3), Minority),
            (w.id(4), DoubleVoting),
            (w.id(4), Minority)
        ]
    );
    assert_eq!(w.violations(), who);
    for (node_id, kind, misbehaviour) in found {
        let conviction = convict(&misbehaviour, w.cluster.rules(), &FakeVerifier).unwrap();
        assert_eq!((conviction.node_id, conviction.kind), (node_id, kind));
    }
}
