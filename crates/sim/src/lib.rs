//! A deterministic simulator that hunts: real engines, a pure board, a model chain, and
//! one seed that decides everything that goes wrong.

pub mod golden;
pub mod hunt;
pub mod invariants;
pub mod liars;
pub mod plan;
pub mod story;
pub mod world;
