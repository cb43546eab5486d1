//! As much of `protoc` as `prost-build` calls: reads proto files with protox and writes
//! their `FileDescriptorSet`.
//!
//! It takes `-I DIR`, `-o FILE`, `--include_imports`, `--include_source_info` and
//! `--version`, and refuses all else: a flag that it passed over would give other code
//! than the flag's caller wanted.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    includes: Vec<PathBuf>,
    files: Vec<PathBuf>,
    out: Option<PathBuf>,
    imports: bool,
    source_info: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--version") {
        // prost-build asks nobody for this; people and other crates do.
        println!("libprotoc 32.0 (protox)");
        return ExitCode::SUCCESS;
    }
    match parse(arguments).and_then(|asked| compile(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tools/protoc: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let mut value = |flag: &str| {
            arguments
                .next()
                .map(PathBuf::from)
                .ok_or_else(|| format!("{flag} lacks its value"))
        };
        match text.as_ref() {
            "--include_imports" => asked.imports = true,
            "--include_source_info" => asked.source_info = true,
            "-I" => asked.includes.push(value("-I")?),
            "-o" => asked.out = Some(value("-o")?),
            flag if flag.starts_with("-I") => asked.includes.push(flag[2..].into()),
            flag if flag.starts_with('-') => {
                return Err(format!(
                    "{flag} is not known here: set PROTOC to a real protoc, or add it to tools/protoc"
                ));
            }
            _ => asked.files.push(argument.into()),
        }
    }
    Ok(asked)
}

fn compile(asked: &Asked) -> Result<(), String> {
    let out = asked.out.as_ref().ok_or("-o FILE is missing")?;
    // Debug, because protox's errors show the line of the proto file only there.
    let failed = |error: protox::Error| format!("{error:?}");
    let mut compiler = protox::Compiler::new(&asked.includes).map_err(failed)?;
    compiler
        .include_imports(asked.imports)
        .include_source_info(asked.source_info);
    for file in &asked.files {
        compiler.open_file(file).map_err(failed)?;
    }
    fs::write(out, compiler.encode_file_descriptor_set())
        .map_err(|error| format!("{}: {error}", out.display()))
}
