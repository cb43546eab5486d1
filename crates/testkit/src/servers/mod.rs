//! Real servers for tests, thrown away afterwards. Each takes a free port, writes its
//! log to a file, and dies with the test process, however that ends. A machine
//! without the server fails the test and is told what to install: a test that was
//! skipped has shown nothing.

mod certificates;
mod collector;
pub mod etcd;
mod ground;
mod postgres;
mod proxy;

pub use certificates::{Certificates, Issued};
pub use collector::{Collector, Received};
pub use etcd::Etcd;
pub use postgres::{Database, Durability, Postgres};
pub use proxy::{Proxy, Way};
