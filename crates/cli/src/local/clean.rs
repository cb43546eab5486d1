//! Starting anew: what an earlier local cluster left is deleted, and nothing else.

use std::fs;
use std::path::Path;

use super::build::check_not_running;
use super::layout::Layout;
use crate::failure::{Failure, Outcome};

/// What `quorate dev` makes in a cluster's directory beside the directories of nodes.
const OWN: [&str; 9] = [
    "ca",
    "shared",
    "etcd",
    "chain.key",
    "genesis.rules",
    "seed",
    "ready.json",
    "control.sock",
    "lock",
];

/// Deletes a cluster's files, if there are any. What lies beside them stays.
///
/// # Errors
/// When the cluster runs, the directory is not one of a cluster, or a file cannot be
/// deleted.
pub(crate) fn clean(dir: &Path) -> Outcome {
    let cannot = |path: &Path, e: std::io::Error| {
        Failure::failed(format!("cannot delete {}: {e}", path.display()))
    };
    let entries = || -> std::io::Result<Vec<_>> {
        let entries = fs::read_dir(dir)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    match entries() {
        Ok(entries) if entries.is_empty() => return Ok(()),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot(dir, e)),
    }
    let layout = Layout::new(dir.to_owned());
    // An earlier start may have been cut short before the genesis.
    if !layout.genesis().exists() && !layout.lock().exists() {
        return Err(Failure::usage(format!(
            "{} is not the directory of a local cluster: nothing was deleted",
            dir.display()
        ))
        .hint("name the one that `quorate dev` made, or an empty one, with --data-dir"));
    }
    check_not_running(dir)?;
    // Now with the lock, which that has made if it was not there.
    let entries = entries().map_err(|e| cannot(dir, e))?;
    for path in entries.iter().filter(|path| is_own(path)) {
        let deleted = match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        deleted.map_err(|e| cannot(path, e))?;
    }
    Ok(())
}

fn is_own(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let number = name.strip_prefix("node").unwrap_or_default();
    let is_node = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    OWN.contains(&name) || (is_node && path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clusters_own_files_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for node in ["node1", "node02", "nodes", "shared"] {
            fs::create_dir(path(node)).unwrap();
        }
        for file in ["genesis.rules", "notes.txt", "node3", "control.sock"] {
            fs::write(path(file), "x").unwrap();
        }
        clean(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["node3", "nodes", "notes.txt"]);
    }

    #[test]
    fn another_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ca")).unwrap();
        let refused = clean(dir.path()).unwrap_err();
        assert!(refused.message().contains("nothing was deleted"));
        assert!(dir.path().join("ca").exists());
        clean(&dir.path().join("not-there")).unwrap();
    }
}
