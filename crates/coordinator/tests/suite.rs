//! The embedded backend keeps what every coordinator promises.

use std::sync::Arc;

use async_trait::async_trait;
use quorate_consensus::Rules;
use quorate_coordinator::suite::{Builder, Store, run_all};
use quorate_coordinator::{Coordinator, Embedded};
use quorate_testkit::FakeVerifier;
use tempfile::TempDir;

struct Files;

struct File {
    directory: TempDir,
    rules: Arc<Rules>,
}

#[async_trait]
impl Builder for Files {
    async fn store(&self, rules: Arc<Rules>) -> Box<dyn Store> {
        let directory = tempfile::tempdir().expect("a directory");
        Box::new(File { directory, rules })
    }
}

#[async_trait]
impl Store for File {
    async fn handle(&self) -> Arc<dyn Coordinator> {
        let path = self.directory.path().join("board.db");
        let opened = Embedded::open(path, Arc::clone(&self.rules), Arc::new(FakeVerifier));
        Arc::new(opened.expect("the board opens"))
    }

    async fn restart(&self) {
        // There is no server to stop; `tests/crash.rs` kills whole processes.
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    run_all(&Files).await;
}
