//! The node's own copy of the log against the store's.

use quorate_consensus::ballot::{is_final, state_name};
use quorate_consensus::board::{Board, Outcome, subject};
use quorate_consensus::wire::{BoardOp, board_op::Op};
use quorate_engine::{ProposeError, Proposed};

use crate::clock::wall_ms;

use super::{Fate, Lost, ReconcileError, Stores};

/// Entries read at once.
const CHUNK: usize = 512;

/// The revision up to which the store, whose log ends at `head`, shows what is kept.
pub(super) async fn same(stores: &Stores, head: u64) -> Result<u64, ReconcileError> {
    let end = head.min(stores.kept.last());
    let mut same = 0;
    while same < end {
        let entries = stores.coordinator.entries(same, CHUNK).await?;
        if let Some(revision) = stores.kept.first_other(&entries)? {
            return Ok(revision - 1);
        }
        match entries.last() {
            Some(last) => same = last.revision,
            None => break,
        }
    }
    Ok(same.min(end))
}

/// Puts what is kept after `same` on the board again, with the times that it had. Where
/// others wrote on (`forked`), they come later by as much as the board has gone on, so
/// that what had to wait for something has waited as long; and the board may refuse. A
/// dry run does it to a board in memory. Gives what became of each entry, and the board
/// as it is then.
pub(super) async fn put_back(
    stores: &Stores,
    same: u64,
    forked: bool,
    dry_run: bool,
) -> Result<(Vec<Lost>, Board), ReconcileError> {
    let mut board = stores.empty_board();
    catch_up(stores, &mut board).await?;
    let found_ms = board.time_ms();
    // Farther ahead of the clock nobody would believe it yet.
    let latest = wall_ms() + stores.genesis.clock_skew_ms() / 2;
    let mut later_ms = None;
    let mut lost = Vec::new();
    let mut after = same;
    loop {
        let entries = stores.kept.read(after, CHUNK)?;
        let Some(last) = entries.last() else { break };
        after = last.revision;
        for entry in entries {
            let revision = entry.revision;
            let later_ms = *later_ms.get_or_insert(match forked {
                true => found_ms.saturating_sub(entry.time_ms),
                false => 0,
            });
            let time_ms = (entry.time_ms + later_ms).min(latest.max(entry.time_ms));
            let op = entry.op.unwrap_or_default();
            let what = describe(&op);
            let fate = match dry_run {
                true => imagine(stores, &mut board, &op, time_ms),
                false => propose(stores, op, time_ms, revision, forked).await?,
            };
            lost.push(Lost {
                revision,
                time_ms: entry.time_ms,
                what,
                fate,
            });
        }
    }
    if !dry_run {
        catch_up(stores, &mut board).await?;
    }
    Ok((lost, board))
}

fn imagine(stores: &Stores, board: &mut Board, op: &BoardOp, time_ms: u64) -> Fate {
    let time_ms = time_ms.max(board.time_ms());
    match board.apply(op, time_ms, stores.verifier.as_ref()) {
        Ok(Outcome::Applied(_)) => Fate::PutBack,
        Ok(Outcome::Unchanged) => Fate::Needless,
        Err(refusal) => Fate::Refused(refusal.to_string()),
    }
}

async fn propose(
    stores: &Stores,
    op: BoardOp,
    time_ms: u64,
    revision: u64,
    forked: bool,
) -> Result<Fate, ReconcileError> {
    let error = match stores.coordinator.propose(op, time_ms).await {
        Ok(Proposed::Applied(found)) if forked || found == revision => return Ok(Fate::PutBack),
        Ok(Proposed::Unchanged(_)) if forked => return Ok(Fate::Needless),
        Err(ProposeError::Refused(refusal)) if forked => {
            return Ok(Fate::Refused(refusal.to_string()));
        }
        Ok(Proposed::Applied(found) | Proposed::Unchanged(found)) => {
            return Err(ReconcileError::Meanwhile { revision, found });
        }
        Err(error) => error,
    };
    Err(ReconcileError::Refill { revision, error })
}

/// Repeats on a board what the store's log has beyond it.
async fn catch_up(stores: &Stores, board: &mut Board) -> Result<(), ReconcileError> {
    loop {
        let entries = stores.coordinator.entries(board.revision(), CHUNK).await?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            let revision = entry.revision;
            let repeated = board.replay(entry, stores.verifier.as_ref());
            repeated.map_err(|error| ReconcileError::Unjustified {
                revision,
                why: error.to_string(),
            })?;
        }
    }
}

/// What this node has believed and the board now says otherwise, so that signing by the
/// board could pay what was paid, or contradict what was proven.
pub(super) fn conflicts(stores: &Stores, board: &Board) -> Result<Vec<String>, ReconcileError> {
    let mut believed = stores.empty_board();
    loop {
        // Events are derived, not compared: the kept log has none.
        let entries = stores.kept.read(believed.revision(), CHUNK)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let op = entry.op.unwrap_or_default();
            let applied = believed.apply(&op, entry.time_ms, stores.verifier.as_ref());
            applied.map_err(|refusal| ReconcileError::Unjustified {
                revision: entry.revision,
                why: refusal.to_string(),
            })?;
        }
    }
    let mut conflicts = Vec::new();
    for was in believed.ballots() {
        let tx_id = &was.tx_id;
        let now = board.ballot(tx_id);
        if let Some(reserved) = &was.reservation
            && now.and_then(|ballot| ballot.reservation.as_ref()) != Some(reserved)
        {
            let nonce = reserved.nonce;
            let holder = match board.reserved_for(nonce) {
                Some(other) => format!("now it is {other}'s"),
                None => "now it is nobody's".to_owned(),
            };
            conflicts.push(format!("nonce {nonce} was reserved for {tx_id}; {holder}"));
        } else if is_final(was.state) && now.map(|ballot| ballot.state) != Some(was.state) {
            let says = now.map_or("unknown", |ballot| state_name(ballot.state));
            let was = state_name(was.state);
            conflicts.push(format!("{tx_id} was {was}; now it is {says}"));
        }
    }
    Ok(conflicts)
}

/// From now on this node believes the board as it is.
pub(super) async fn give_up(
    stores: &mut Stores,
    board: &Board,
    same: u64,
    now_ms: u64,
) -> Result<(), ReconcileError> {
    stores.kept.give_up_after(same, now_ms)?;
    loop {
        let entries = stores
            .coordinator
            .entries(stores.kept.last(), CHUNK)
            .await?;
        if entries.is_empty() {
            break;
        }
        stores.kept.append(&entries)?;
    }
    let own = stores.journal.owner()?;
    let generation = board.member(&own).map_or(0, |member| member.generation);
    stores.journal.accept(board.revision(), generation)?;
    Ok(())
}

/// An operation in a few words.
fn describe(op: &BoardOp) -> String {
    let name = match op.op.as_ref() {
        None => "nothing",
        Some(Op::RecordVote(_)) => "record a vote on",
        Some(Op::Advance(_)) => "move",
        Some(Op::Reserve(_)) => "reserve for",
        Some(Op::Certify(_)) => "certify",
        Some(Op::Conclude(_)) => "conclude",
        Some(Op::ProveAbort(_)) => "prove the abort of",
        Some(Op::Ban(_)) => "ban",
        Some(Op::Unban(_)) => "unban",
        Some(Op::GiveUp(_)) => "give up",
        Some(Op::Accuse(_)) => "accuse",
        Some(Op::MarkSilent(_)) => "mark the silent of",
        Some(Op::Expire(_)) => "expire",
        Some(Op::Boot(_)) => "start of a node",
        Some(Op::Lease(_)) => "lease",
        Some(Op::Release(_)) => "release",
        Some(Op::Collect(_)) => "collect",
    };
    let about = match op.op.as_ref() {
        Some(Op::Ban(ban)) => Some(ban.node_id.clone()),
        Some(Op::Unban(unban)) => Some(unban.node_id.clone()),
        _ => subject(op).map(|tx_id| tx_id.to_string()),
    };
    match about {
        Some(about) => format!("{name} {about}"),
        None => name.to_owned(),
    }
}
