//! `quorate certs renew`: another certificate for who has one already.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use quorate_consensus::NodeId;
use quorate_tls::Role;
use quorate_tls::pki::{self, LEAF_DAYS, NodeFiles, Renew, RequestAgain, Validity};
use serde_json::json;

use super::{facts_json, print_files};
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{Out, clock};

/// Renew a certificate, with the key that it has or a new one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate certs renew certs/node1.crt                    at the cluster CA: the same key
  quorate certs renew certs/app.crt --new-key            at the trustee: a new key, too
  quorate certs renew node1.crt --new-key --dir .        at the trustee, away from the cluster CA: a
                                                         new key and a request, for `certs sign`

A running node takes the new files within a second; no stream is dropped.")]
pub(super) struct RenewArgs {
    /// The certificate, of a node, a client or an operator; it may have expired
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the CA is that made it [default: where the certificate is]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Make a new key, too
    #[arg(long)]
    new_key: bool,

    /// Where the certificate goes [default: the certificate that is renewed]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Days that it is valid
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

pub(super) fn renew(args: RenewArgs, out: Out) -> Outcome {
    let (role, node_id) = super::whose(&args.file)?;
    let beside = args.file.parent().unwrap_or(Path::new("")).to_owned();
    let dir = args.dir.clone().unwrap_or(beside);
    let issuer = super::Issuer::of(role, &node_id, &dir);
    let output = args.output.clone().unwrap_or_else(|| args.file.clone());
    if !issuer.key.exists() {
        if role == Role::Node && args.new_key {
            return ask_again(&args, &dir, &node_id, out);
        }
        let at = match role {
            Role::Node => "where the cluster CA is, or with --new-key make a request to it",
            Role::Client | Role::Operator => "where the trustee's own CA is",
        };
        let text = format!("the CA's key {} is not here", issuer.key.display());
        return Err(
            Failure::usage(text).hint(format!("run this {at}: --dir DIR names its directory"))
        );
    }
    let key = output.with_extension("key");
    let facts = pki::renew(&Renew {
        cert: args.file.clone(),
        ca_cert: issuer.cert,
        ca_key: issuer.key,
        crl: Some(issuer.crl).filter(|crl| crl.exists()),
        new_key: args.new_key.then(|| key.clone()),
        out: output.clone(),
        validity: Validity::days(SystemTime::now(), args.days),
    })
    .map_err(Failure::failed)?;
    out.json_pretty(&json!({
        "cert": output,
        "key": args.new_key.then_some(&key),
        "csr": null,
        "facts": facts_json(&facts),
    }));
    let mut made = vec![("certificate", output.as_path())];
    if args.new_key {
        made.push(("its new key (secret)", &key));
    }
    print_files(out, &made);
    out.line(format!(
        "valid until            {}",
        clock(facts.not_after_ms)
    ));
    out.line("Next: put it where it is used; a running node takes it within a second");
    Ok(())
}

/// A new key and a request, for the cluster CA somewhere else.
fn ask_again(args: &RenewArgs, dir: &Path, node_id: &NodeId, out: Out) -> Outcome {
    let next = |end: &str| dir.join(format!("{node_id}-next.{end}"));
    let (key, csr, cert) = (next("key"), next("csr"), next("crt"));
    let sans = pki::request_again(&RequestAgain {
        cert: args.file.clone(),
        key: key.clone(),
        csr: csr.clone(),
    })
    .map_err(Failure::failed)?;
    out.json_pretty(&json!({ "cert": null, "key": key, "csr": csr, "sans": sans }));
    print_files(out, &[("new key (secret)", &key), ("request", &csr)]);
    let files = NodeFiles::in_dir(dir, node_id);
    out.line(format!(
        "names in the request: {}\nNext: send {} to the cluster CA, which runs\n  quorate certs \
         sign --node-id {node_id} --csr {}-next.csr -o {node_id}-next.crt\nand, when {} is here, \
         put both in their places:\n  mv {} {} && mv {} {}",
        sans.join(", "),
        csr.display(),
        node_id,
        cert.display(),
        key.display(),
        files::absolute(&files.key).display(),
        cert.display(),
        files::absolute(&files.cert).display(),
    ));
    Ok(())
}
