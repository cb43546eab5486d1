//! Files that the user named, with errors that say what to do.

use std::path::{Path, PathBuf};

use quorate_crypto::file;

use crate::failure::{Failure, Outcome};

/// Puts a readable file in place, whole or not at all, and makes the directories on
/// the way.
///
/// # Errors
/// When the directory or the file cannot be written.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Outcome {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent)
            .map_err(|e| Failure::failed(format!("cannot create {}: {e}", parent.display())))?;
    }
    file::write_atomic(path, bytes, file::PUBLIC).map_err(Failure::failed)
}

/// Reads a file whole.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> Outcome<Vec<u8>> {
    file::read(path).map_err(Failure::usage)
}

/// The path from the root on, for files that are read from another directory later.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
