//! Each liar really says its lie, deterministically and only so often; and what it says
//! is worth what its page says.

mod kit;
mod peers;
mod stores;
mod whole;
