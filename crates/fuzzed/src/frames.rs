//! Whole engines under bytes from a peer and from the store. The world is the one that
//! the engine's own tests drive: it fails when a guard is overwritten, when a decision
//! and an abort are signed for one transaction, or when a request is answered twice.

use prost::Message;
use quorate_consensus::wire::{BoardOp, ExchangeRequest};
use quorate_testkit::number;

use crate::resign;

#[allow(dead_code, clippy::all, reason = "it belongs to the engine's tests")]
#[path = "../../engine/tests/world/mod.rs"]
mod world;

use world::World;

/// The most steps of one script.
const MOST: usize = 24;

/// The input is a script: kind, length (two bytes, little-endian), bytes; and again.
///
/// | kind mod 6 | the bytes are |
/// |---|---|
/// | 0 | a message on a member's stream |
/// | 1 | the same, its signatures put right |
/// | 2 | an operation of the board by another writer, its signatures put right |
/// | 3 | nothing: so many milliseconds pass |
/// | 4 | a message on a stream that nobody has greeted on |
/// | 5 | nothing: this node's client votes |
pub fn frames(mut bytes: &[u8]) {
    let cluster = crate::cluster();
    let mut world = World::silent(cluster);
    world.start(0);
    world.until(|world| world.engine(0).is_in_service());
    let mut member = world.tap_as_member(0, 1);
    let mut stranger = world.tap(0, 2);
    for _ in 0..MOST {
        let &[kind, low, high, ref rest @ ..] = bytes else {
            break;
        };
        let len = u16::from_le_bytes([low, high]);
        let (step, rest) = rest.split_at(usize::from(len).min(rest.len()));
        bytes = rest;
        match kind % 6 {
            kind @ (0 | 1 | 4) => {
                let Ok(request) = ExchangeRequest::decode(step) else {
                    continue;
                };
                let Some(mut body) = request.frame.and_then(|frame| frame.body) else {
                    continue;
                };
                if kind == 1 {
                    resign::frame(&world.cluster, &mut body);
                }
                let stream = if kind == 4 { stranger } else { member };
                world.say(0, stream, body);
                world.run(3);
                // A stream that was closed is opened again, as a liar would.
                if world.goodbye(member).is_some() {
                    member = world.tap_as_member(0, 1);
                }
                if world.goodbye(stranger).is_some() {
                    stranger = world.tap(0, 2);
                }
            }
            2 => {
                let Ok(mut op) = BoardOp::decode(step) else {
                    continue;
                };
                resign::operation(&world.cluster, &mut op);
                // Most are refused, as the board's table says.
                let _ = world.write(&op);
                world.run(3);
            }
            3 => world.run(u64::from(len)),
            _ => {
                let tx = quorate_testkit::tx("tx");
                let choice = number(u64::from(len % 3));
                world.submit(0, &tx, choice, quorate_engine::Wait::Recorded);
                world.run(3);
            }
        }
    }
    world.run(1_000);
}
