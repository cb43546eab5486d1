//! What is done to processes and their directories.

use std::path::Path;
use std::{fs, io};

/// Whether every thread of these processes is halted, or gone. A thread that is
/// writing halts only when it has written.
pub(super) fn all_halted(pids: &[u32]) -> bool {
    pids.iter().all(|pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name before may hold anything.
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
            state.is_empty() || state.starts_with(['T', 't', 'Z', 'X'])
        })
    })
}

/// Copies a directory with all below it.
pub(super) fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    // etcd refuses a data directory that others may read.
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}
