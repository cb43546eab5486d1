//! How statements reach many trustees over few links: the mesh of one node, as a pure
//! state machine. No clock, no randomness, no socket: times and seeds are arguments.
//!
//! Up to [`FULL_MESH`] nodes everybody tells everybody, and nothing of this is needed.
//! Above it a node pushes what is new to the peers in its *mesh*, about
//! [`Params::degree`] of its peers, and they push it on. What a push did not reach is
//! found by *announcements*, the ids of what is new, said to a few others; whoever
//! lacks one *requests* it, from another announcer if the first does not deliver.
//!
//! The model is GossipSub. Version 1.0 of its specification gives mesh, heartbeat and
//! announcements ("Mesh maintenance", "Gossip emission", "Message cache"); version 1.1
//! the backoff ("Prune backoff"), the scores ("Peer scoring": P2 first deliveries, P3
//! mesh deliveries, P7 broken promises and grafts within the backoff) and the bounds
//! ("Spam protection measures"). That an announced message is waited for a moment, as
//! its push may be under way, and is then asked for at one announcer after the other,
//! is Plumtree's (Leitão, Pereira, Rodrigues: *Epidemic Broadcast Trees*, 2007, section
//! 3.3). What is otherwise here than there, and why, is in `docs/mesh.md`.
//!
//! | module | what is in it |
//! |---|---|
//! | [`mesh`](Mesh) | the machine: what it hears, what it says |
//! | `cache` | messages that may be asked for; ids that were seen |
//! | `wants` | ids that were announced and have not come |
//! | `peers` | what each peer is to this node: in the mesh or not, score, quotas |
//!
//! Nothing is verified here: a message is handed in once it was found good. Its id and
//! its author come from outside too.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

mod cache;
mod mesh;
mod params;
mod peers;
mod rng;
mod wants;

pub use mesh::{Counts, Load, Mesh, Output};
pub use params::{FULL_MESH, MessageId, Params};
pub use peers::{SCORE_FLOOR, SCORE_LEAST, SCORE_MOST};
