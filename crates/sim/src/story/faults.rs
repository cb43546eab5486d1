//! Faults in words: what begins, and what ends when.

use super::{Story, seconds};
use crate::plan::{Act, Forgery};
use crate::world::World;

impl Story {
    /// Tells a fault, and remembers its end.
    pub(super) fn fault(&mut self, world: &World, act: &Act) {
        let id = |member: usize| world.cluster().node_id(member);
        let ids = |side: &[usize]| match side {
            [] => "nobody".to_owned(),
            side => {
                let ids: Vec<_> = side.iter().map(|member| id(*member).to_string()).collect();
                ids.join(", ")
            }
        };
        let (begins, end) = match act {
            // Told where they happen; or known from the start.
            Act::Vote { .. } | Act::Sleep { .. } | Act::Crash { .. } | Act::Revert { .. } => return,
            Act::Backup { node } => (format!("{}'s disk is backed up", id(*node)), None),
            Act::Partition { side, for_ms } => {
                let side = ids(side);
                (
                    format!("nothing passes between {side} and the others"),
                    Some((*for_ms, format!("{side} and the others are joined again"))),
                )
            }
            Act::Bridge {
                bridge,
                side,
                for_ms,
            } => {
                let (bridge, side) = (id(*bridge), ids(side));
                (
                    format!("nothing passes between {side} and the others but by {bridge}"),
                    Some((*for_ms, format!("{side} and the others are joined again"))),
                )
            }
            Act::OneWay { from, to, for_ms } => {
                let (from, to) = (id(*from), id(*to));
                (
                    format!("{to} does not hear {from}"),
                    Some((*for_ms, format!("{to} may hear {from} again"))),
                )
            }
            Act::Break { a, b } => {
                let (a, b) = (id(*a), id(*b));
                (format!("the streams of {a} and {b} break"), None)
            }
            Act::Full { node, for_ms } => {
                let node = id(*node);
                (
                    format!("the queues of {node} are full"),
                    Some((*for_ms, format!("the queues of {node} have room again"))),
                )
            }
            Act::Slow {
                node,
                by_ms,
                for_ms,
            } => {
                let (node, by) = (id(*node), seconds(*by_ms));
                (
                    format!("{node} is {by} s slower"),
                    Some((*for_ms, format!("{node} is as fast as before"))),
                )
            }
            Act::Clock {
                node,
                by_ms,
                for_ms,
            } => {
                let node = id(*node);
                let by = seconds(by_ms.unsigned_abs());
                let way = if *by_ms < 0 { "back" } else { "ahead" };
                (
                    format!("the clock of {node} jumps {way} by {by} s"),
                    Some((*for_ms, format!("the clock of {node} is put right"))),
                )
            }
            Act::StoreAway { node, for_ms } => {
                let whom = whom(world, *node);
                (
                    format!("the store answers {whom} no more"),
                    Some((*for_ms, format!("the store answers {whom} again"))),
                )
            }
            Act::RepliesLost { for_ms } => (
                "all replies of the store are lost".into(),
                Some((*for_ms, "the store's replies arrive again".into())),
            ),
            Act::WatchLate { node, for_ms } => {
                let node = id(*node);
                (
                    format!("{node} hears no news of the store"),
                    Some((*for_ms, format!("{node} hears news of the store again"))),
                )
            }
            Act::ReRead { node } => {
                let node = id(*node);
                (format!("{node} must read the whole log again"), None)
            }
            Act::AuditAway { for_ms } => (
                "the audit store is away".into(),
                Some((*for_ms, "the audit store is back".into())),
            ),
            Act::ChainAway { node, for_ms } => {
                let whom = whom(world, *node);
                (
                    format!("the chain answers {whom} no more"),
                    Some((*for_ms, format!("the chain answers {whom} again"))),
                )
            }
            Act::KeysAway { node, for_ms } => {
                let node = id(*node);
                (
                    format!("the keys of {node} do not sign"),
                    Some((*for_ms, format!("the keys of {node} sign again"))),
                )
            }
            Act::Reorganise { depth, drop } => {
                let rest = match drop {
                    true => "; what was in them is lost",
                    false => "; what was in them waits again",
                };
                let blocks = match depth {
                    1 => "its last block".into(),
                    depth => format!("its last {depth} blocks"),
                };
                (format!("the chain drops {blocks}{rest}"), None)
            }
            Act::DropWaiting => ("the chain forgets all that waits".into(), None),
            Act::Fee { attempt } => {
                let said = match attempt {
                    0 => "the chain takes the first fee again".into(),
                    attempt => {
                        format!("the chain takes nothing below the fee of attempt {attempt}")
                    }
                };
                (said, None)
            }
            Act::Stranger => ("a stranger uses the account's next nonce".into(), None),
            Act::GiveUp { tx } => {
                let t = world.cluster().t();
                (format!("{t} operators give {tx} up"), None)
            }
            Act::Impostor { liar, name, to } => {
                let (liar, name, to) = (id(*liar), id(*name), id(*to));
                (
                    format!("{liar} calls {to} with a certificate in the name of {name}"),
                    None,
                )
            }
            Act::Unban { node } => {
                let t = world.cluster().t();
                (format!("{t} operators lift the ban of {}", id(*node)), None)
            }
            Act::Collect { tx } => (format!("{tx} is to be collected"), None),
            Act::Compact => ("the store forgets its past".into(), None),
            Act::Forge { what } => {
                let said = match world.store().keys() {
                    Some(_) => format!("somebody writes into the store: {}", written(*what)),
                    None => format!("the store shows {}", forged(*what)),
                };
                (said, None)
            }
            Act::RollBack { entries } => {
                let said = format!("the store is put back by {entries} entries");
                (said, None)
            }
            Act::Fork { side } => {
                let said = format!("the store keeps a second board, for {}", ids(side));
                (said, None)
            }
        };
        if let Some((for_ms, said)) = end {
            let number = self.lines.len();
            self.ends.insert((world.now_ms() + for_ms, number), said);
        }
        self.line(world, "plan", &begins);
    }
}

fn whom(world: &World, node: Option<usize>) -> String {
    match node {
        Some(node) => world.cluster().node_id(node).to_string(),
        None => "everybody".into(),
    }
}

fn forged(what: Forgery) -> &'static str {
    match what {
        Forgery::Deletion => "a log without its last entry",
        Forgery::Events => "its last entry with other events",
        Forgery::Hole => "a log without its last entry but one",
        what => written(what),
    }
}

fn written(what: Forgery) -> &'static str {
    match what {
        Forgery::Vote => "a vote with a made-up signature",
        Forgery::Move => "a move that the votes do not give",
        Forgery::Ban => "a ban without proof",
        Forgery::Reservation => "a reservation with another payload",
        Forgery::Certificate => "a certificate without decisions",
        Forgery::Deletion => "a record is deleted",
        Forgery::Events => "nothing",
        Forgery::Hole => "the last record but one is deleted",
        Forgery::Count => "a raised counter of votes",
        Forgery::State => "a status that is set back or deleted",
        Forgery::Member => "another boot generation",
        Forgery::Rules => "other rules",
        Forgery::Nonce => "another nonce",
        Forgery::Unban => "a ban is deleted",
        Forgery::Overwrite => "another vote over a trustee's own",
        Forgery::Past => "a record that claims a place in the past",
        Forgery::Head => "the key that every transaction writes is deleted",
        Forgery::Everything => "every key is deleted",
    }
}
