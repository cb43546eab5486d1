//! Whether files have changed since they were read.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::material::TlsPaths;

/// How files are told from what stood in their places before.
pub(crate) type Stamps = Vec<Option<Stamp>>;

/// One file: device, inode, length, and when it and its entry changed, in seconds and
/// nanoseconds.
pub(crate) type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Also follows links, so that files that are exchanged by turning a link are noticed.
pub(crate) fn stamps(paths: &TlsPaths) -> Stamps {
    let files = [Some(&paths.ca_cert), paths.clients_ca.as_ref()];
    let files = files.into_iter().chain([
        Some(&paths.node_cert),
        Some(&paths.node_key),
        paths.crl.as_ref(),
    ]);
    let stamp = |path: &PathBuf| {
        let of = std::fs::metadata(path).ok()?;
        let changed = (of.mtime(), of.mtime_nsec());
        let moved = (of.ctime(), of.ctime_nsec());
        Some((of.dev(), of.ino(), of.len(), changed, moved))
    };
    files.map(|path| path.and_then(stamp)).collect()
}
