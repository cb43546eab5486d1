//! What is different where the board lies in keys. It is drawn by dice of its own, so
//! that a seed whose board is a log has the schedule that it always had.

use fastrand::Rng;

use super::Family;
use crate::plan::{Act, BoardKind, Forgery, Plan, Step};

/// What can be written into keys.
const LIES: &[Forgery] = &[
    Forgery::Vote,
    Forgery::Move,
    Forgery::Ban,
    Forgery::Reservation,
    Forgery::Certificate,
    Forgery::Deletion,
    Forgery::Deletion,
    Forgery::Hole,
    Forgery::Count,
    Forgery::State,
    Forgery::Member,
    Forgery::Rules,
    Forgery::Nonce,
    Forgery::Unban,
    Forgery::Overwrite,
    Forgery::Past,
    Forgery::Head,
    Forgery::Everything,
];

fn dice(seed: u64) -> Rng {
    Rng::with_seed(seed ^ 0x006b_6579_7370_6163)
}

/// What the board of a seed lies in: in keys for a third of them.
pub(super) fn board(seed: u64) -> BoardKind {
    match dice(seed).u32(0..3) {
        0 => BoardKind::Keys,
        _ => BoardKind::Log,
    }
}

/// Gives a plan whose board lies in keys what else goes wrong there.
pub(super) fn choose(plan: &mut Plan, family: Family) {
    plan.board = board(plan.seed);
    if plan.board == BoardKind::Log {
        return;
    }
    let mut rng = dice(!plan.seed);
    let last = plan.calm_ms.saturating_sub(500).max(1);
    // After a day's sleep nothing happens that anything here could disturb.
    let span_ms = last.min(8_000);
    for _ in 0..rng.usize(0..4) {
        let at_ms = rng.u64(0..span_ms);
        let act = Act::Compact;
        plan.steps.push(Step { at_ms, act });
    }
    if family == Family::LyingStore {
        let lies = |act: &Act| {
            matches!(
                act,
                Act::Forge { .. } | Act::RollBack { .. } | Act::Fork { .. }
            )
        };
        plan.steps.retain(|step| !lies(&step.act));
        for _ in 0..rng.usize(1..8) {
            let at_ms = rng.u64(span_ms / 8..span_ms);
            let what = LIES[rng.usize(0..LIES.len())];
            let act = Act::Forge { what };
            plan.steps.push(Step { at_ms, act });
        }
        if rng.u32(0..4) == 0 {
            let at_ms = rng.u64(span_ms / 4..span_ms);
            let entries = rng.u32(1..20);
            let act = Act::RollBack { entries };
            plan.steps.push(Step { at_ms, act });
        }
    }
    plan.steps.sort_by_key(|step| step.at_ms);
}
