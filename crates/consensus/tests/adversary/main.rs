//! What an adversary hands to somebody who checks offline: proofs, rules documents
//! and statements that are nearly right. None of it may pass.

mod bits;
mod boards;
mod canonical;
mod certificates;
mod chains;
mod kit;
mod opening;
mod other_proofs;
mod rules;
