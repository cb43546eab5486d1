//! `quorate certs`: the cluster CA, a trustee's keys and request, certificates for
//! nodes, clients and operators, and what becomes of them.

mod renew;
mod revoke;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use quorate_consensus::NodeId;
use quorate_tls::Role;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{
    self, AUTHORITY_DAYS, CertFacts, InitCa, Issue, LEAF_DAYS, NodeFiles, Request, SignRequest,
    Validity, Verify,
};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{Out, ago, clock, clock_ms};

const EXAMPLES: &str = "\
Examples, in the order in which a cluster comes to be:
  quorate certs init --cluster bridge                    once: the cluster CA, certifies nodes
  quorate certs request --cluster bridge --node-id node1       each trustee, on its own machine
  quorate certs sign --node-id node1                     at the cluster CA
  quorate rules init --cluster bridge -t 4 --members certs/ -o genesis.rules
  quorate certs issue --node-id node1 --name app         each trustee: a client of its node
  quorate certs show certs/node1.crt
  quorate certs verify certs/node1.crt --ca certs/ca.crt
and later:
  quorate certs renew certs/node1.crt
  quorate certs revoke certs/node5.crt
  quorate certs crl --renew

Certificates are for connections only: votes and decisions are signed by the keys in the rules.";

/// Make, show and verify certificates
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    Init(InitArgs),
    Request(RequestArgs),
    Sign(SignArgs),
    Issue(IssueArgs),
    Renew(renew::RenewArgs),
    Revoke(revoke::RevokeArgs),
    Crl(revoke::CrlArgs),
    Show(ShowArgs),
    Verify(VerifyArgs),
}

/// Make the cluster CA, which certifies nodes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate certs init --cluster bridge --dir certs")]
struct InitArgs {
    /// The cluster's name: a-z 0-9 -, 1 to 63 characters
    #[arg(long, value_name = "NAME")]
    cluster: String,

    /// Where ca.crt and ca.key go
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,

    /// Days that it is valid
    #[arg(long, default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

/// Make a trustee's keys, its certificate request, its member record and its own CA
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate certs request --cluster bridge --node-id node1 --san node1.example.org")]
struct RequestArgs {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: String,

    /// The trustee's id: a-z 0-9 _ -, 1 to 63 characters
    #[arg(long, value_name = "ID")]
    node_id: NodeId,

    /// Another host name or address of its node; localhost, 127.0.0.1, ::1 and the id
    /// are in it already
    #[arg(long, value_name = "HOST|IP")]
    san: Vec<String>,

    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

/// Certify a trustee's node, at the cluster CA
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  quorate certs sign --node-id node1 --csr node1.csr --dir certs"
)]
struct SignArgs {
    /// The trustee that the request must be for
    #[arg(long, value_name = "ID")]
    node_id: NodeId,

    /// The request [default: <dir>/<node-id>.csr]
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,

    /// A host name or address that the request may ask for
    #[arg(long, value_name = "HOST|IP")]
    san: Vec<String>,

    /// Where the cluster CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,

    /// Where the certificate goes [default: <dir>/<node-id>.crt]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Days that it is valid
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

/// Make a key and a certificate for a client or an operator, by the trustee's own CA
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate certs issue --node-id node1 --name app
  quorate certs issue --node-id node1 --name alice --role operator --output-dir alice/")]
struct IssueArgs {
    /// The trustee whose node it talks to
    #[arg(long, value_name = "ID")]
    node_id: NodeId,

    /// Its name: A-Z a-z 0-9 . _ -, 1 to 63 characters
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What it may do
    #[arg(long, value_enum, default_value_t = RoleArg::Client)]
    role: RoleArg,

    /// Where the trustee's own CA is
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,

    /// Where <name>.crt and <name>.key go [default: <dir>]
    #[arg(short, long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Days that it is valid
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Hands in votes and asks
    Client,
    /// Runs the node
    Operator,
}

/// Show what a certificate says; nothing of it is verified
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate certs show certs/node1.crt")]
struct ShowArgs {
    /// The certificate
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Verify a certificate as a node would
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate certs verify certs/node1.crt --ca certs/ca.crt
  quorate certs verify certs/app.crt --ca certs/node1-clients-ca.crt")]
struct VerifyArgs {
    /// The certificate
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The CA: the cluster's for a node, the trustee's own for a client or operator
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,

    /// A revocation list of that CA
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
}

pub(crate) fn run(args: CertsArgs, out: Out) -> Outcome {
    match args.command {
        CertsCommand::Init(args) => init(args, out),
        CertsCommand::Request(args) => request(args, out),
        CertsCommand::Sign(args) => sign(args, out),
        CertsCommand::Issue(args) => issue(args, out),
        CertsCommand::Renew(args) => renew::renew(args, out),
        CertsCommand::Revoke(args) => revoke::revoke(args, out),
        CertsCommand::Crl(args) => revoke::crl(args, out),
        CertsCommand::Show(args) => {
            let facts = pki::show(&files::read(&args.file)?).map_err(|e| {
                Failure::usage(format!("{}: {e}", args.file.display()))
                    .hint("give a certificate in PEM, as `quorate certs` writes it")
            })?;
            print_facts(out, &facts);
            Ok(())
        }
        CertsCommand::Verify(args) => verify(&args, out),
    }
}

fn init(args: InitArgs, out: Out) -> Outcome {
    let cert = pki::init_cluster_ca(&InitCa {
        dir: args.dir.clone(),
        cluster_name: args.cluster.clone(),
        validity: Validity::days(SystemTime::now(), args.days),
    })
    .map_err(Failure::failed)?;
    let key = pki::cluster_ca_key(&args.dir);
    out.json_pretty(&json!({ "cert": cert, "key": key }));
    print_files(out, &[("cluster CA", &cert), ("its key", &key)]);
    out.line(format!(
        "Next: give {} to every trustee; each runs\n  quorate certs request --cluster {} --node-id \
         <its id>",
        cert.display(),
        args.cluster
    ));
    Ok(())
}

fn request(args: RequestArgs, out: Out) -> Outcome {
    let made = pki::request(&Request {
        dir: args.dir.clone(),
        cluster_name: args.cluster.clone(),
        node_id: args.node_id.clone(),
        sans: args.san,
        authority_validity: Validity::authority(),
    })
    .map_err(Failure::failed)?;
    let files = made.files;
    out.json_pretty(&json!({
        "node_id": args.node_id.to_string(), "sans": made.sans,
        "csr": files.csr, "member": files.member, "vote_key": files.vote_key,
        "node_key": files.node_key, "tls_key": files.key,
        "clients_ca_cert": files.clients_ca_cert, "clients_ca_key": files.clients_ca_key,
    }));
    print_files(
        out,
        &[
            ("vote key (secret)", &files.vote_key),
            ("node key (secret)", &files.node_key),
            ("TLS key (secret)", &files.key),
            ("own CA", &files.clients_ca_cert),
            ("own CA's key (secret)", &files.clients_ca_key),
            ("request", &files.csr),
            ("member record", &files.member),
        ],
    );
    out.line(format!(
        "names in the request: {}\nNext: send {} to the cluster CA, which runs\n  quorate certs \
         sign --node-id {}\nand {} to whoever makes the rules with\n  quorate rules init --cluster \
         {} …",
        made.sans.join(", "),
        files.csr.display(),
        args.node_id,
        files.member.display(),
        args.cluster
    ));
    Ok(())
}

fn sign(args: SignArgs, out: Out) -> Outcome {
    let files = NodeFiles::in_dir(&args.dir, &args.node_id);
    let output = args.output.unwrap_or(files.cert);
    pki::sign_request(&SignRequest {
        ca_dir: args.dir,
        csr: args.csr.unwrap_or(files.csr),
        node_id: args.node_id.clone(),
        sans: args.san,
        out: output.clone(),
        validity: Validity::days(SystemTime::now(), args.days),
    })
    .map_err(Failure::failed)?;
    out.json_pretty(&json!({ "node_id": args.node_id.to_string(), "cert": output }));
    print_files(out, &[("node certificate", &output)]);
    out.line(format!(
        "Next: send it back to {}, whose configuration names it as [mtls] node_cert_path",
        args.node_id
    ));
    Ok(())
}

fn issue(args: IssueArgs, out: Out) -> Outcome {
    let issued = pki::issue(&Issue {
        trustee_dir: args.dir.clone(),
        node_id: args.node_id.clone(),
        role: match args.role {
            RoleArg::Client => PersonRole::Client,
            RoleArg::Operator => PersonRole::Operator,
        },
        name: args.name,
        out_dir: args.output_dir.unwrap_or(args.dir),
        validity: Validity::days(SystemTime::now(), args.days),
    })
    .map_err(Failure::failed)?;
    out.json_pretty(&json!({
        "node_id": args.node_id.to_string(), "cert": issued.cert, "key": issued.key,
    }));
    print_files(
        out,
        &[
            ("certificate", &issued.cert),
            ("its key (secret)", &issued.key),
        ],
    );
    out.line(format!(
        "Next: quorate list --endpoint <host:port of {}> --cacert <cluster ca.crt> --cert {} --key {}",
        args.node_id,
        issued.cert.display(),
        issued.key.display()
    ));
    Ok(())
}

fn verify(args: &VerifyArgs, out: Out) -> Outcome {
    let facts = pki::verify(&Verify {
        cert: args.file.clone(),
        ca: args.ca.clone(),
        crl: args.crl.clone(),
        now: SystemTime::now(),
    })
    .map_err(|e| Failure::failed(format!("{} does not verify: {e}", args.file.display())))?;
    out.line("verified: a node would accept it");
    print_facts(out, &facts);
    Ok(())
}

/// Role and trustee of a certificate in a file.
fn whose(file: &Path) -> Outcome<(Role, NodeId)> {
    let named = pki::show(&files::read(file)?).and_then(|facts| facts.identity);
    let identity = named.map_err(|e| {
        Failure::usage(format!("{}: {e}", file.display()))
            .hint("give the certificate of a node, a client or an operator")
    })?;
    Ok((identity.role, identity.node_id))
}

/// The files of a CA.
#[derive(Debug, PartialEq, Eq)]
struct Issuer {
    cert: PathBuf,
    key: PathBuf,
    crl: PathBuf,
}

impl Issuer {
    fn cluster(dir: &Path) -> Self {
        Self {
            cert: pki::cluster_ca_cert(dir),
            key: pki::cluster_ca_key(dir),
            crl: pki::cluster_crl(dir),
        }
    }

    /// The CA of whoever has this role at this trustee.
    fn of(role: Role, node_id: &NodeId, dir: &Path) -> Self {
        if role == Role::Node {
            return Self::cluster(dir);
        }
        let files = NodeFiles::in_dir(dir, node_id);
        Self {
            cert: files.clients_ca_cert,
            key: files.clients_ca_key,
            crl: files.clients_ca_crl,
        }
    }
}

fn print_files(out: Out, files: &[(&str, &Path)]) {
    for (what, file) in files {
        out.line(format!("{what:<22} {}", file.display()));
    }
}

fn print_facts(out: Out, facts: &CertFacts) {
    out.json_pretty(&facts_json(facts));
    let now = clock_ms();
    let identity = match &facts.identity {
        Ok(identity) => identity.to_string(),
        Err(_) if facts.is_ca => format!("a CA: {}", facts.uris.join(", ")),
        Err(error) => error.to_string(),
    };
    let uses = match (facts.server_auth, facts.client_auth) {
        (true, true) => "server and client",
        (true, false) => "server",
        (false, true) => "client",
        (false, false) => "neither server nor client",
    };
    let ips = facts.ips.iter().map(ToString::to_string);
    let names: Vec<_> = facts.dns.iter().cloned().chain(ips).collect();
    out.line(format!("identity  {identity}"));
    out.line(format!("subject   {}", facts.subject));
    out.line(format!("issuer    {}", facts.issuer));
    out.line(format!("serial    {}", facts.serial));
    out.line(format!("from      {}", clock(facts.not_before_ms)));
    out.line(format!(
        "until     {} ({})",
        clock(facts.not_after_ms),
        ago(facts.not_after_ms, now)
    ));
    if !names.is_empty() {
        out.line(format!("names     {}", names.join(", ")));
    }
    out.line(format!(
        "use       {}",
        if facts.is_ca {
            "certifies others"
        } else {
            uses
        }
    ));
    out.line(format!("digest    {}", hex::encode(facts.digest)));
}

fn facts_json(facts: &CertFacts) -> Value {
    let identity = facts.identity.as_ref().ok();
    json!({
        "identity": identity.map(ToString::to_string),
        "role": identity.map(|identity| identity.role.as_str()),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial.to_string(),
        "not_before_ms": facts.not_before_ms,
        "not_after_ms": facts.not_after_ms,
        "uris": facts.uris,
        "dns": facts.dns,
        "ips": facts.ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "is_ca": facts.is_ca,
        "server_auth": facts.server_auth,
        "client_auth": facts.client_auth,
        "digest": hex::encode(facts.digest),
    })
}
