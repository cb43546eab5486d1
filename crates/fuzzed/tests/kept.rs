//! Every target over all that was ever kept, and over each of it cut short: what the
//! fuzzer found once is found again without it.

use std::path::{Path, PathBuf};

use quorate_fuzzed::TARGETS;

fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let dir = dir.join(kind).join(target);
    let Ok(files) = std::fs::read_dir(&dir) else {
        return Vec::new();
    };
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    let mut inputs: Vec<_> = files.map(read).collect();
    inputs.sort();
    inputs
}

#[test]
fn what_was_kept_passes_whole_and_cut_short() {
    for (name, target) in TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "no corpus for {name}");
        for (path, bytes) in corpus.into_iter().chain(inputs("found", name)) {
            println!("{}", path.display());
            target(&bytes);
            for len in (0..bytes.len()).step_by(1 + bytes.len() / 16) {
                target(&bytes[..len]);
            }
        }
    }
}

#[test]
fn the_seeds_are_what_they_say() {
    for (target, name, bytes) in quorate_fuzzed::seeds() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let path = path.join(target).join(name);
        let kept = std::fs::read(&path).unwrap_or_default();
        assert!(
            kept == bytes,
            "{} is another one now: cargo run -p quorate-fuzzed --example seeds",
            path.display()
        );
    }
}
