//! Lists the golden scripts, so that the library holds them all.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("golden");
    println!("cargo::rerun-if-changed=golden");
    println!("cargo::rerun-if-changed=build.rs");
    let mut paths = Vec::new();
    for file in fs::read_dir(&folder)? {
        paths.push(file?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    let mut list = String::from("&[\n");
    for path in paths {
        let name = path.file_stem().unwrap_or_default();
        list += &format!("    ({name:?}, include_str!({path:?})),\n");
    }
    list += "]\n";
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    fs::write(Path::new(&out).join("golden.rs"), list)
}
