//! `quorate keygen`: makes a signing key.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use quorate_chain::ChainKey;
use quorate_crypto::key;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate keygen -o vote.key
  quorate keygen -o node.key --json
  quorate keygen --kind chain -o chain.key       what [chain] key_path wants, for the ledger

`quorate certs request` makes both keys of a trustee, its certificate request and its member
record in one go; this command is for keys that live elsewhere, such as on a client that signs
its votes itself.";

/// Make a key, in a file that only its owner may read
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeygenArgs {
    /// Where to write it; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// What it is for
    #[arg(long, value_enum, default_value_t = Kind::Signing)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A vote key or a node key: Ed25519, PKCS#8 PEM
    Signing,
    /// The key of the account on the embedded ledger; all nodes that submit share it
    Chain,
}

pub(crate) fn run(args: KeygenArgs, out: Out) -> Outcome {
    let kept = format!(
        "private key  {} (mode 0600: whoever has it can use it)",
        args.output.display()
    );
    if args.kind == Kind::Chain {
        ChainKey::generate()
            .and_then(|key| key.write_new(&args.output))
            .map_err(Failure::failed)?;
        out.json_pretty(&json!({ "file": args.output, "kind": "chain" }));
        out.line(kept);
        return Ok(());
    }
    let public = key::keygen(&args.output).map_err(Failure::failed)?;
    let (key, peer_id) = (hex::encode(&public.bytes), public.peer_id());
    out.json_pretty(&json!({
        "file": args.output,
        "kind": "signing",
        "scheme": "ED25519",
        "public_key": key,
        "peer_id": peer_id.to_string(),
    }));
    out.line(kept);
    out.line(format!("public key   {key}"));
    out.line(format!("peer id      {peer_id}"));
    Ok(())
}
