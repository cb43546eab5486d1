//! How files get to disk and back: whole or not at all, and secrets for their owner
//! only, from the first moment on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of a file that holds a secret.
pub const SECRET: u32 = 0o600;

/// Mode of a file that everybody may read (less what the umask takes away).
pub const PUBLIC: u32 = 0o644;

/// The most bytes a key, certificate, record or document file may have.
pub const MAX_LEN: u64 = 1024 * 1024;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "create", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that must not be written over is there already.
    #[error("{} exists already: remove it first if it is really not needed any more", .0.display())]
    Exists(PathBuf),
    /// A secret that others than its owner can reach.
    #[error(
        "{} holds a secret but is open to others (mode {mode:04o}): run `chmod 600 {}`",
        path.display(),
        quoted(path)
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More than [`MAX_LEN`] bytes.
    #[error("{} is larger than 1 MiB, so it is not the file that is wanted here", .0.display())]
    TooLarge(PathBuf),
}

impl FileError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::AlreadyExists => Self::Exists(path),
                _ => Self::Io {
                    action,
                    path,
                    source,
                },
            }
        }
    }
}

/// Reads a file whole.
///
/// # Errors
/// [`FileError`] when it cannot be read or is larger than [`MAX_LEN`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::io("read", path))?;
    let mut bytes = Vec::new();
    take(file, &mut bytes, path)?;
    Ok(bytes)
}

/// Reads a file that holds a secret, and refuses when its group or others may read,
/// write or execute it. The bytes are wiped from memory when dropped.
///
/// # Errors
/// [`FileError::Exposed`], whose text holds the command that mends it; otherwise as
/// [`read`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let io = || FileError::io("read", path);
    let file = File::open(path).map_err(io())?;
    // Asked of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(io())?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(FileError::Exposed { path, mode });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = metadata.len().min(MAX_LEN) as usize + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    take(file, &mut bytes, path)?;
    Ok(bytes)
}

fn take(file: File, bytes: &mut Vec<u8>, path: &Path) -> Result<(), FileError> {
    file.take(MAX_LEN + 1)
        .read_to_end(bytes)
        .map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(())
}

/// Writes a file that must not exist yet, with this mode from its first moment, and
/// makes it durable. A file that could not be written whole is removed again.
///
/// # Errors
/// [`FileError::Exists`], or [`FileError::Io`].
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let file = create_exclusively(path, mode).map_err(FileError::io("create", path))?;
    fill(file, bytes)
        .and_then(|()| sync_parent(path))
        .map_err(|error| {
            // The first error is the one to tell.
            let _ = fs::remove_file(path);
            FileError::io("write", path)(error)
        })
}

/// Puts `bytes` in the place of whatever is at `path`: a reader, even one after a
/// crash, sees the old file or the new one, never a part. The file has this mode from
/// its first moment.
///
/// # Errors
/// [`FileError::Io`]; then the old file is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let write = || FileError::io("write", path);
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix)
        .map_err(io::Error::other)
        .map_err(write())?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", u64::from_le_bytes(suffix)));
    let temporary = path.with_file_name(name);

    let file = create_exclusively(&temporary, mode).map_err(FileError::io("create", &temporary))?;
    fill(file, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| {
            let _ = fs::remove_file(&temporary);
            write()(error)
        })?;
    sync_parent(path).map_err(write())
}

/// Makes a directory, and those above it, for its owner only. One that is there
/// already is left as it is.
///
/// # Errors
/// [`FileError::Io`].
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let create = || FileError::io("create", path);
    fs::create_dir_all(path).map_err(create())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(create())
}

fn create_exclusively(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new name is durable only when its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
