//! One test or more for each row of the table, under both policies where they
//! differ.

use quorate_consensus::Choice;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{BallotState, ChainOutcome, DissentPolicy, ViolationType};
use quorate_testkit::{Options, number, ops, tx};

use crate::support::{World, kinds};
use BallotState::{
    AbortedByzantine, AbortedSplit, AbortedTimeout, Collecting, Confirmed, Failed, Submitted,
    ThresholdReached,
};
use ViolationType::{DoubleVoting, MinorityVote, NonParticipation, SilentFailure};

fn is_abort(w: &World) -> bool {
    w.cluster.rules().dissent() == DissentPolicy::Abort
}

#[test]
fn row_1_the_first_vote_opens() {
    let mut w = World::five();
    assert_eq!(kinds(&w.vote(0, number(1))), ["state", "vote"]);
    assert_eq!((w.state(), w.next()), (Collecting, None));
    assert_eq!(w.ballot().path[0].row, 1);
    assert_eq!(kinds(&w.vote(1, number(1))), ["vote"]);
    // The same choice again has no effect, whatever its time.
    w.now += 5;
    let again = w.vote_op(0, number(1));
    w.unchanged(&again);
    assert_eq!(w.board.member(&w.id(0)).unwrap().total_votes, 1);
}

#[test]
fn row_2_two_choices() {
    for mut w in World::both() {
        w.votes([0, 1], number(1));
        let events = w.vote(0, number(2));
        assert_eq!(kinds(&events), ["violation"]);
        assert_eq!(w.violations(), [(w.id(0), DoubleVoting)]);
        if is_abort(&w) {
            w.moves(2, AbortedByzantine);
        } else {
            assert_eq!((w.next(), w.ballot().counts()[&number(1)]), (None, 1));
        }
    }
}

#[test]
fn row_2_an_abstention_is_a_choice() {
    let mut w = World::five();
    w.vote(0, Choice::Abstention);
    w.vote(0, number(2));
    assert_eq!(w.violations(), [(w.id(0), DoubleVoting)]);
    w.moves(2, AbortedByzantine);
}

#[test]
fn row_2_after_the_threshold() {
    for mut w in World::both() {
        w.votes([0, 1, 2], number(1));
        w.moves(4, ThresholdReached);
        w.vote(0, number(2));
        if is_abort(&w) {
            w.moves(2, AbortedByzantine);
            continue;
        }
        // Struck, and judged anew: one more vote decides again, with another window.
        w.moves(2, Collecting);
        assert_eq!(
            (w.ballot().value.clone(), w.ballot().settled_ms()),
            (None, None)
        );
        w.now += 10_000;
        w.vote(3, number(1));
        w.moves(4, ThresholdReached);
        assert_eq!(w.ballot().settled_ms(), Some(w.now + 1_000));
        w.reserve();
        let voters: Vec<_> = w
            .ballot()
            .counted_votes()
            .map(|v| v.node_id.clone())
            .collect();
        assert_eq!(voters, [w.id(1), w.id(2), w.id(3)]);
    }
}

#[test]
fn row_2_whatever_the_ban() {
    let mut w = World::new(5, 3, Options::default());
    w.votes([0, 1], number(1));
    w.vote(0, number(2));
    let accusations = (1..4)
        .map(|i| {
            let kind = quorate_consensus::wire::AccusationKind::Malformed;
            w.cluster.accusation(i, 0, kind, w.now)
        })
        .collect();
    let ban = ops::ban_accused(&w.id(0), accusations);
    w.ok(&ban);
    w.moves(2, AbortedByzantine);
}

#[test]
fn row_3_dissent_and_threshold_at_once() {
    for mut w in World::both() {
        w.vote(4, number(2));
        w.votes([0, 1, 2], number(1));
        assert_eq!(w.violations(), [(w.id(4), MinorityVote)]);
        if is_abort(&w) {
            let events = w.moves(3, AbortedByzantine);
            let [Event::StateChanged(changed)] = &*events else {
                panic!("{events:?}");
            };
            assert!(changed.reason.contains("node5"), "{}", changed.reason);
        } else {
            w.moves(4, ThresholdReached);
        }
    }
}

#[test]
fn row_3_a_banned_trustee_dissents_no_longer() {
    let mut w = World::new(5, 3, Options::default());
    w.vote(4, number(2));
    let accusations = w.cluster.of_threshold(|c, i| {
        c.accusation(
            i,
            4,
            quorate_consensus::wire::AccusationKind::Operator,
            w.now,
        )
    });
    let ban = ops::ban_accused(&w.id(4), accusations);
    w.ok(&ban);
    w.votes([0, 1, 2], number(1));
    assert_eq!(w.violations(), []);
    w.moves(4, ThresholdReached);
}

#[test]
fn row_4_t_equal_votes() {
    for mut w in World::both() {
        w.vote(4, Choice::Abstention);
        w.votes([0, 1], number(1));
        assert_eq!(w.next(), None);
        w.vote(2, number(1));
        w.moves(4, ThresholdReached);
        assert_eq!(w.ballot().value, Some(number(1)));
        assert_eq!(w.ballot().deciding_votes().len(), 3);
    }
}

#[test]
fn row_5_no_value_can_win() {
    for mut w in World::both() {
        w.votes([0, 1], number(1));
        w.votes([2, 3], number(2));
        assert_eq!(w.next(), None);
        w.vote(4, number(3));
        w.moves(5, AbortedSplit);
        assert_eq!(w.violations(), []);
    }
}

#[test]
fn row_5_when_a_ban_closes_the_last_way() {
    let mut w = World::new(3, 2, Options::default());
    w.vote(0, number(1));
    w.vote(1, number(2));
    assert_eq!(w.next(), None);
    let accusations = (0..2)
        .map(|i| {
            let kind = quorate_consensus::wire::AccusationKind::InvalidSignature;
            w.cluster.accusation(i, 2, kind, w.now)
        })
        .collect();
    let ban = ops::ban_accused(&w.id(2), accusations);
    w.ok(&ban);
    w.moves(5, AbortedSplit);
}

#[test]
fn row_6_the_deadline_of_a_started_ballot() {
    let mut w = World::five();
    w.vote(0, number(1));
    assert_eq!(
        (w.ballot().deadline_ms(), w.ballot().is_started()),
        (None, false)
    );
    w.now += 1_000;
    w.vote(1, number(1));
    // N − t + 1 = 2 voted: the second smallest time counts.
    let deadline = w.now + 300_000;
    assert_eq!(w.ballot().deadline_ms(), Some(deadline));
    w.now = deadline - 1;
    assert_eq!(w.next(), None);
    assert_eq!(
        w.refused(&ops::advance(&w.tx.clone(), AbortedTimeout)),
        "ILLEGAL_MOVE"
    );
    w.now = deadline;
    w.moves(6, AbortedTimeout);
}

#[test]
fn row_6_comes_after_row_4() {
    let mut w = World::five();
    w.votes([0, 1], number(1));
    w.now += 300_000;
    w.votes([2, 3], number(1));
    assert_eq!(w.next(), Some((4, ThresholdReached)));
}

#[test]
fn row_7_what_never_started_is_removed() {
    let mut w = World::five();
    let (a, b) = (tx("a"), tx("b"));
    w.vote(0, number(1));
    w.tx = b.clone();
    w.votes([0, 1], number(1));
    assert_eq!(w.board.member(&w.id(0)).unwrap().unstarted, 1);
    w.now += 360_000 - 1;
    assert_eq!(w.refused(&ops::expire(&a)), "TOO_EARLY");
    w.now += 1;
    assert_eq!(w.refused(&ops::expire(&b)), "UNPROVEN");
    assert_eq!(kinds(&w.ok(&ops::expire(&a))), ["expired"]);
    assert!(w.board.ballot(&a).is_none() && w.board.collected(&a).is_none());
    assert_eq!(w.board.member(&w.id(0)).unwrap().unstarted, 0);
    // Its tx_id is free again.
    w.tx = a;
    w.vote(0, number(2));
}

#[test]
fn row_7_a_move_comes_first() {
    let mut w = World::five();
    w.vote(0, number(1));
    w.vote(0, number(2));
    w.now += 360_000;
    let expire = ops::expire(&w.tx);
    assert_eq!(w.refused(&expire), "ADVANCE_FIRST");
    w.moves(2, AbortedByzantine);
    assert_eq!(w.refused(&expire), "UNPROVEN");
    assert_eq!(w.board.member(&w.id(0)).unwrap().unstarted, 0);
}

#[test]
fn row_8_dissent_after_the_threshold() {
    for mut w in World::both() {
        w.votes([0, 1, 2], number(1));
        w.moves(4, ThresholdReached);
        w.vote(3, number(2));
        assert_eq!(w.violations(), [(w.id(3), MinorityVote)]);
        if is_abort(&w) {
            w.moves(8, AbortedByzantine);
        } else {
            assert_eq!(w.next(), None);
        }
    }
}

#[test]
fn row_9_agreement_and_abstention_after_the_threshold() {
    for mut w in World::both() {
        w.votes([0, 1, 2], number(1));
        w.moves(4, ThresholdReached);
        assert_eq!(kinds(&w.vote(3, number(1))), ["vote"]);
        assert_eq!(kinds(&w.vote(4, Choice::Abstention)), ["vote"]);
        assert_eq!((w.next(), w.violations()), (None, vec![]));
        assert!(w.ballot().votes.values().all(|v| !v.late));
    }
}

#[test]
fn row_10_a_reservation_is_the_point_of_no_return() {
    let mut w = World::five();
    w.votes(0..4, number(1));
    let tx = w.tx.clone();
    w.moves(4, ThresholdReached);
    let right = w.reservation();
    assert_eq!((right.nonce, &*right.account), (7, "treasury"));
    let op = ops::reserve(&tx, right.clone());
    assert_eq!(w.refused(&op), "TOO_EARLY");
    w.now += 1_000;
    for wrong in [
        quorate_consensus::wire::Reservation {
            nonce: 8,
            ..right.clone()
        },
        quorate_consensus::wire::Reservation {
            account: "x".into(),
            ..right.clone()
        },
        quorate_consensus::wire::Reservation {
            payload: vec![1],
            ..right.clone()
        },
    ] {
        assert_eq!(w.refused(&ops::reserve(&tx, wrong)), "WRONG_RESERVATION");
    }
    let events = w.ok(&op);
    assert_eq!(kinds(&events)[..2], ["reserved", "state"]);
    assert_eq!(
        (w.state(), w.ballot().path.last().unwrap().row),
        (Submitted, 10)
    );
    // Full already: a good vote adds nothing.
    assert_eq!(w.board.member(&w.id(0)).unwrap().reputation, 1_000);
    // The next one gets the next nonce.
    w.tx = quorate_testkit::tx("b");
    w.submit(number(5));
    assert_eq!(w.reservation().nonce, 8);
}

#[test]
fn row_10_waits_for_the_ballots_own_move() {
    let mut w = World::five();
    w.votes(0..4, number(1));
    w.moves(4, ThresholdReached);
    w.vote(4, number(2));
    w.settle();
    let op = ops::reserve(&w.tx, w.reservation());
    assert_eq!(w.refused(&op), "ADVANCE_FIRST");
}

#[test]
fn row_11_confirmed_needs_the_certificate() {
    let mut w = World::five();
    w.submit(number(1));
    let op = w.conclude_op(ChainOutcome::Confirmed);
    assert_eq!(w.refused(&op), "UNPROVEN");
    w.certify();
    assert_eq!(kinds(&w.ok(&op)), ["concluded", "state"]);
    assert_eq!(
        (w.state(), w.ballot().path.last().unwrap().row),
        (Confirmed, 11)
    );
    assert_eq!(w.ballot().value, Some(number(1)));
    let other = w.conclude_op(ChainOutcome::Reverted);
    assert_eq!(w.refused(&other), "ILLEGAL_MOVE");
}

#[test]
fn row_12_reverted_or_given_up_and_cancelled() {
    let mut w = World::five();
    w.submit(number(1));
    w.conclude(ChainOutcome::Reverted);
    assert_eq!(
        (w.state(), w.ballot().path.last().unwrap().row),
        (Failed, 12)
    );

    w.tx = tx("b");
    w.submit(number(1));
    let cancelled = w.conclude_op(ChainOutcome::Cancelled);
    let taken = w.conclude_op(ChainOutcome::NonceTaken);
    assert_eq!(w.refused(&cancelled), "UNPROVEN");
    assert_eq!(w.refused(&taken), "UNPROVEN");
    w.give_up();
    w.ok(&cancelled);
    assert_eq!(w.state(), Failed);
}

#[test]
fn row_12_a_nonce_lost_after_giving_up_ends_it_too() {
    let mut w = World::five();
    w.submit(number(1));
    w.give_up();
    let taken = w
        .cluster
        .of_threshold(|c, i| c.observation(i, &w.tx, &w.reservation(), ChainOutcome::NonceTaken));
    let anew = w.board.next_reservation(w.ballot()).unwrap();
    let op = ops::reserve_anew(&w.tx, anew, taken);
    assert_eq!(w.refused(&op), "UNPROVEN");
    w.conclude(ChainOutcome::NonceTaken);
    assert_eq!(w.state(), Failed);
}

#[test]
fn row_13_undone() {
    let mut w = World::five();
    w.submit(number(1));
    let undone = w.conclude_op(ChainOutcome::Undone);
    assert_eq!(w.refused(&undone), "ILLEGAL_MOVE");
    w.certify();
    let confirmed = w.conclude_op(ChainOutcome::Confirmed);
    w.ok(&confirmed);
    w.conclude(ChainOutcome::Undone);
    assert_eq!(
        (w.state(), w.ballot().path.last().unwrap().row),
        (Submitted, 13)
    );
    assert_eq!(
        w.reservation().nonce,
        7,
        "the same reservation, the same bytes"
    );
    assert_eq!(
        w.refused(&confirmed),
        "UNPROVEN",
        "seen before it was undone"
    );
    w.conclude(ChainOutcome::Reverted);
    assert_eq!(w.state(), Failed);
    w.conclude(ChainOutcome::Undone);
    assert_eq!(w.state(), Submitted);
}

#[test]
fn row_14_late_votes_change_nothing_and_still_convict() {
    for mut w in World::both() {
        w.submit(number(1));
        let counts = w.ballot().counts().into_values().sum::<usize>();
        let events = w.vote(3, number(2));
        assert_eq!(kinds(&events), ["vote", "violation"]);
        let Event::VoteRecorded(recorded) = &events[0] else {
            panic!("{events:?}");
        };
        assert!(recorded.late);
        // A second choice of one of the t strikes nothing any more.
        w.vote(0, number(2));
        assert_eq!(
            w.violations(),
            [(w.id(0), DoubleVoting), (w.id(3), MinorityVote)]
        );
        assert_eq!((w.state(), w.next()), (Submitted, None));
        assert_eq!(w.ballot().counts().into_values().sum::<usize>(), counts);
        assert_eq!(w.ballot().deciding_votes().len(), 3);
        let ban = w.ban_op(0, DoubleVoting);
        w.ok(&ban);
    }
}

#[test]
fn row_14_after_an_abort() {
    let mut w = World::new(5, 3, Options::default());
    w.votes([0, 1], number(1));
    w.votes([2, 3], number(2));
    w.vote(2, number(1));
    w.moves(2, AbortedByzantine);
    assert_eq!(kinds(&w.vote(4, number(2)))[..1], ["vote"]);
    assert!(w.ballot().votes[&w.id(4)].late);
    assert_eq!(w.state(), AbortedByzantine);
}

#[test]
fn row_15_the_roll_call() {
    let mut w = World::five();
    let call = ops::mark_silent(&w.tx);
    assert_eq!(w.refused(&call), "UNKNOWN_BALLOT");
    w.vote(0, number(1));
    assert_eq!(w.refused(&call), "UNPROVEN");
    w.votes(1..4, number(1));
    assert_eq!(w.refused(&call), "TOO_EARLY");
    w.moves(4, ThresholdReached);
    w.reserve();
    w.now = w.ballot().deadline_ms().unwrap();
    let events = w.ok(&call);
    assert_eq!(kinds(&events), ["violation", "reputation"]);
    assert_eq!(w.violations(), [(w.id(4), SilentFailure)]);
    let member = w.board.member(&w.id(4)).unwrap();
    assert_eq!(
        (member.reputation, member.absences, member.violations),
        (900, 1, 1)
    );
    assert!(w.ballot().silent.contains(&w.id(4)));
    w.unchanged(&call);
}

#[test]
fn row_15_an_outage_is_nobodys_fault() {
    let mut w = World::five();
    w.votes(0..2, number(1));
    w.now = w.ballot().deadline_ms().unwrap();
    let call = ops::mark_silent(&w.tx);
    assert_eq!(w.ok(&call), []);
    assert!(w.ballot().roll_called && w.ballot().silent.is_empty());
    assert_eq!(w.violations(), []);
}

#[test]
fn row_15_ten_absences_in_a_row() {
    let mut w = World::new(5, 4, Options::default().ban_silence());
    let absent = w.id(4);
    for i in 0..12 {
        w.tx = tx(&format!("t{i}"));
        w.submit(number(1));
        if i == 1 {
            // One vote, though late, starts the count again.
            w.vote(4, number(1));
        }
        w.now = w.now.max(w.ballot().deadline_ms().unwrap());
        let call = ops::mark_silent(&w.tx);
        w.ok(&call);
        let member = w.board.member(&absent).unwrap();
        let expected = match i {
            0 => 1,
            1 | 11 => 0,
            i => i - 1,
        };
        assert_eq!(member.absences, expected, "after ballot {i}");
        let fell = member.reputation < 300;
        let ban = ops::ban_silent(&absent);
        if fell {
            w.ok(&ban);
            break;
        }
        assert_eq!(w.refused(&ban), "UNPROVEN");
    }
    assert!(w.board.is_banned(&absent));
    assert_eq!(
        w.board.member(&absent).unwrap().ban.as_ref().unwrap().kind,
        SilentFailure
    );
}

#[test]
fn row_15_non_participation() {
    let mut w = World::five();
    for i in 0..10 {
        w.tx = tx(&format!("t{i}"));
        w.submit(number(1));
        w.now = w.now.max(w.ballot().deadline_ms().unwrap());
        let call = ops::mark_silent(&w.tx);
        w.ok(&call);
    }
    assert_eq!(
        w.violations(),
        [(w.id(4), SilentFailure), (w.id(4), NonParticipation)]
    );
    let member = w.board.member(&w.id(4)).unwrap();
    assert_eq!(
        (member.reputation, member.absences, member.violations),
        (0, 0, 11)
    );
    // Under the other policy nothing bans it.
    let ban = ops::ban_silent(&w.id(4));
    assert_eq!(w.refused(&ban), "UNPROVEN");
    // Good votes bring it back, ten thousandths each.
    w.tx = tx("again");
    w.votes(0..5, number(1));
    w.moves(4, ThresholdReached);
    assert!(kinds(&w.reserve()).contains(&"reputation"));
    assert_eq!(w.board.member(&w.id(4)).unwrap().reputation, 10);
}
