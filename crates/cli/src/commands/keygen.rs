//! `quorate keygen`: makes a signing key.

use std::path::PathBuf;

use clap::Args;
use quorate_crypto::key;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate keygen -o vote.key
  quorate keygen -o node.key --json

`quorate certs request` makes both keys of a trustee, its certificate request and its member
record in one go; this command is for keys that live elsewhere, such as on a client that signs
its votes itself.";

/// Make an Ed25519 signing key: PKCS#8 PEM, readable by its owner only
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeygenArgs {
    /// Where to write it; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: KeygenArgs, out: Out) -> Outcome {
    let public = key::keygen(&args.output).map_err(Failure::failed)?;
    let (key, peer_id) = (hex::encode(&public.bytes), public.peer_id());
    out.json_pretty(&json!({
        "file": args.output,
        "scheme": "ED25519",
        "public_key": key,
        "peer_id": peer_id.to_string(),
    }));
    out.line(format!(
        "private key  {} (mode 0600: never copy it off this machine)",
        args.output.display()
    ));
    out.line(format!("public key   {key}"));
    out.line(format!("peer id      {peer_id}"));
    Ok(())
}
