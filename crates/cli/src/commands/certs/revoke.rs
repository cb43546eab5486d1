//! `quorate certs revoke` and `quorate certs crl`: a CA takes back what it certified.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use quorate_consensus::NodeId;
use quorate_tls::pki::{self, CRL_DAYS, CrlFacts, PkiError, Revoke, Validity};
use quorate_tls::{Role, Serial};
use serde_json::{Value, json};

use super::{Issuer, whose};
use crate::failure::{Failure, Outcome};
use crate::output::{Out, ago, clock, clock_ms};

/// Revoke certificates: put them on their CA's list, signed anew
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate certs revoke certs/node5.crt                   at the cluster CA: certs/ca.crl
  quorate certs revoke certs/app.crt                     at the trustee: certs/node1-clients-ca.crl
  quorate certs revoke --serial 4f2a… --node-id node1    the certificate is not at hand

Give the list to every node that trusts the CA, as [mtls] crl_path: it ends the connections of
whoever is on it within a second of the file's change.")]
pub(super) struct RevokeArgs {
    /// A certificate, of a node, a client or an operator; all by one CA
    #[arg(value_name = "FILE", required_unless_present = "serial")]
    files: Vec<PathBuf>,

    /// The serial number of a certificate that is not at hand, as `certs show` prints it
    #[arg(long, value_name = "HEX", value_parser = parse_serial)]
    serial: Vec<Serial>,

    /// With --serial: it was made by this trustee's own CA, not by the cluster CA
    #[arg(long, value_name = "ID", requires = "serial", conflicts_with = "files")]
    node_id: Option<NodeId>,

    /// Where the CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,

    /// The list [default: <dir>/ca.crl, or <dir>/<node-id>-clients-ca.crl]
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,

    /// Days until the list must be renewed: past them all of the CA's certificates are
    /// refused
    #[arg(long, default_value_t = CRL_DAYS, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

/// Show a revocation list, or renew it before its time is over
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate certs crl                                      what certs/ca.crl says
  quorate certs crl --node-id node1                      what the trustee's own CA has revoked
  quorate certs crl --renew                              at the CA: sign it anew, for 90 days
  quorate certs crl --renew --node-id node1 --days 30")]
pub(super) struct CrlArgs {
    /// The trustee's own CA, not the cluster CA
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,

    /// Where the CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,

    /// The list [default: <dir>/ca.crl, or <dir>/<node-id>-clients-ca.crl]
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,

    /// Sign the list anew, under the next number; makes an empty one if there is none
    #[arg(long)]
    renew: bool,

    /// With --renew: days until it must be renewed again
    #[arg(long, default_value_t = CRL_DAYS, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

fn parse_serial(text: &str) -> Result<Serial, String> {
    Serial::from_hex(text).ok_or_else(|| format!("{text:?} is not hexadecimal"))
}

pub(super) fn revoke(args: RevokeArgs, out: Out) -> Outcome {
    let mut issuer = match &args.node_id {
        Some(node_id) => Issuer::of(Role::Client, node_id, &args.dir),
        None => Issuer::cluster(&args.dir),
    };
    let mut serials = args.serial;
    for (i, file) in args.files.iter().enumerate() {
        let (role, node_id) = whose(file)?;
        let this = Issuer::of(role, &node_id, &args.dir);
        if (i > 0 || !serials.is_empty()) && this != issuer {
            let text = "the certificates are by several CAs";
            return Err(
                Failure::usage(text).hint("revoke those of each CA by a command of its own")
            );
        }
        issuer = this;
        serials.push(pki::serial_issued_by(file, &issuer.cert).map_err(failed)?);
    }
    let crl = args.crl.unwrap_or_else(|| issuer.crl.clone());
    let facts = pki::revoke(&Revoke {
        ca_cert: issuer.cert,
        ca_key: issuer.key,
        serials: serials.clone(),
        crl: crl.clone(),
        validity: Validity::days(SystemTime::now(), args.days),
    })
    .map_err(failed)?;
    let hex: Vec<_> = serials.iter().map(ToString::to_string).collect();
    out.json_pretty(&json!({ "crl": crl, "revoked": hex, "list": list_json(&facts) }));
    for serial in &hex {
        out.line(format!("revoked   {serial}"));
    }
    print_list(out, &facts);
    out.line(format!(
        "Next: give {} to every node that trusts this CA, as its [mtls] crl_path (lists of several \
         CAs one after the other in one file)",
        crl.display()
    ));
    Ok(())
}

pub(super) fn crl(args: CrlArgs, out: Out) -> Outcome {
    let issuer = match &args.node_id {
        Some(node_id) => Issuer::of(Role::Client, node_id, &args.dir),
        None => Issuer::cluster(&args.dir),
    };
    let crl = args.crl.unwrap_or_else(|| issuer.crl.clone());
    let lists = if args.renew {
        vec![
            pki::revoke(&Revoke {
                ca_cert: issuer.cert,
                ca_key: issuer.key,
                serials: Vec::new(),
                crl: crl.clone(),
                validity: Validity::days(SystemTime::now(), args.days),
            })
            .map_err(failed)?,
        ]
    } else {
        pki::show_crls(&crl).map_err(|error| {
            failed(error).hint("`quorate certs crl --renew` makes an empty list, `quorate certs revoke` one with somebody on it")
        })?
    };
    out.json_pretty(&json!({
        "crl": crl,
        "lists": lists.iter().map(list_json).collect::<Vec<_>>(),
    }));
    for list in &lists {
        print_list(out, list);
    }
    if args.renew {
        out.line(format!("written   {}", crl.display()));
    }
    Ok(())
}

fn failed(error: PkiError) -> Failure {
    Failure::failed(error)
}

fn print_list(out: Out, list: &CrlFacts) {
    let now = clock_ms();
    out.line(format!("issuer    {}", list.issuer));
    out.line(format!("number    {}", list.number));
    out.line(format!("made      {}", clock(list.this_update_ms)));
    match list.next_update_ms {
        Some(next) => out.line(format!("until     {} ({})", clock(next), ago(next, now))),
        None => out.line("until     it does not say"),
    }
    if list.revoked.is_empty() {
        out.line("revoked   nothing");
    }
    for (serial, since) in &list.revoked {
        out.line(format!("revoked   {serial}  since {}", clock(*since)));
    }
}

fn list_json(list: &CrlFacts) -> Value {
    json!({
        "issuer": list.issuer,
        "number": list.number,
        "this_update_ms": list.this_update_ms,
        "next_update_ms": list.next_update_ms,
        "revoked": list.revoked.iter().map(|(serial, since)| json!({
            "serial": serial.to_string(), "since_ms": since,
        })).collect::<Vec<_>>(),
    })
}
