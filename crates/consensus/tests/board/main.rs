//! The pure board from outside: every row of the table, every operation, and what
//! must hold for any sequence of them.

mod members;
mod operations;
mod properties;
mod rows;
mod support;
mod view;
