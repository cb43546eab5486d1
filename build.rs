//! Compiles `proto/` for the two crates that hold generated code, without a
//! system `protoc`: `quorate-wire` gets the plain messages, which the pure crates
//! may use, and `quorate-proto` the gRPC services over those same messages.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?)
        .join("../..")
        .canonicalize()?;
    let include = root.join("proto");
    let mut files: Vec<PathBuf> = fs::read_dir(include.join("quorate/v1"))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed={}", include.display());
    println!("cargo:rerun-if-changed={}", root.join("build.rs").display());

    let descriptors = protox::compile(&files, [&include])?;
    let builder = tonic_prost_build::configure();
    if env::var("CARGO_PKG_NAME")? == "quorate-wire" {
        builder
            .build_client(false)
            .build_server(false)
            .compile_fds(descriptors)?;
    } else {
        let out = PathBuf::from(env::var("OUT_DIR")?).join("quorate.binpb");
        fs::write(out, descriptors.encode_to_vec())?;
        builder
            .extern_path(".quorate.v1", "::quorate_wire::v1")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
