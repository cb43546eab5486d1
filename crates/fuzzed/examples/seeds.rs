//! Writes the seeds of the fuzzer's corpus anew: `cargo run -p quorate-fuzzed --example
//! seeds`. What a fuzzer added beside them stays.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, name, bytes) in quorate_fuzzed::seeds() {
        let dir = corpus.join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}
