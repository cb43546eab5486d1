//! A cluster on this machine: its files, its nodes as tasks of this process or as
//! processes of their own, and what others need to know to talk to it. Shared by
//! `dev`, `demo` and `test-byzantine`.

mod build;
mod clean;
mod cluster;
mod etcd;
mod layout;
mod network;
mod process;
mod ready;

pub(crate) use build::{Plan, check_not_running};
pub(crate) use clean::clean;
pub(crate) use cluster::{Cluster, Mode};
pub(crate) use etcd::LocalEtcd;
pub(crate) use layout::{Layout, NodeLayout};
pub(crate) use network::hurt_from_line;
pub(crate) use ready::{Ready, ReadyNode};
