//! `quorate certificate`: saves what proves how a ballot ended, and every lie in it.

use std::path::{Path, PathBuf};

use clap::Args;
use prost::Message;
use quorate_wire::v1::{GetCertificateResponse, Proof, proof::Kind};
use serde_json::json;

use super::TxArg;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::files::write_atomically;
use crate::output::{Out, message_json};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate certificate tx_001 -o tx_001.proof
  quorate certificate tx_002 --evidence-dir lies/      every proven lie in the ballot
  quorate certificate tx_001 --json                    the proof itself, readable

Each file holds the bytes of one quorate.v1.Proof and is checked offline:
  quorate verify tx_001.proof --cluster-id <64 hex digits>";

/// Save the certificate or abort proof of a transaction, and evidence of lies
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    tx: TxArg,

    /// Where to save the certificate or abort proof
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Where to save the evidence, one file per lie
    #[arg(long, value_name = "DIR")]
    evidence_dir: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: CertificateArgs, out: Out) -> Outcome {
    let tx_id = args.tx.tx_id();
    let answer = Client::connect(&args.remote.target()?)?
        .certificate(&tx_id)
        .await?;
    let mut files = Vec::new();
    if let Some(file) = &args.output {
        let what = save_proof(&tx_id, &answer, file)?;
        out.line(format!("{what} saved to {}", file.display()));
        files.push(file.clone());
    }
    if let Some(dir) = &args.evidence_dir {
        for file in save_evidence(&tx_id, &answer, dir)? {
            out.line(format!("evidence saved to {}", file.display()));
            files.push(file);
        }
    }
    let mut json = message_json("GetCertificateResponse", &answer);
    if let Some(map) = json.as_object_mut() {
        map.insert("files".into(), json!(files));
    }
    out.json_pretty(&json);
    if files.is_empty() {
        out.line(summary(&tx_id, &answer));
    } else {
        out.line(format!(
            "check it: quorate verify {} --cluster-id <id from `quorate rules show`>",
            files[0].display()
        ));
    }
    Ok(())
}

/// Saves the proof of how a ballot ended, and says what it is.
///
/// # Errors
/// When there is none yet, or the file cannot be written.
pub(crate) fn save_proof(
    tx_id: &str,
    answer: &GetCertificateResponse,
    file: &Path,
) -> Outcome<&'static str> {
    let proof = answer.proof.as_ref().ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("{tx_id} has no certificate and no abort proof yet"),
        )
        .hint(format!(
            "t members must sign one first: see `quorate status {tx_id}` and try again"
        ))
    })?;
    write_atomically(file, &proof.encode_to_vec())?;
    Ok(word(proof))
}

/// Saves each piece of evidence as a proof of its own.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn save_evidence(
    tx_id: &str,
    answer: &GetCertificateResponse,
    dir: &Path,
) -> Outcome<Vec<PathBuf>> {
    // A tx_id may hold characters that some file systems do not like.
    let stem = tx_id.replace(':', "_");
    let save = |(number, evidence): (usize, &quorate_wire::v1::Evidence)| {
        let file = dir.join(format!("{stem}.evidence-{}.proof", number + 1));
        let proof = Proof {
            kind: Some(Kind::Evidence(evidence.clone())),
        };
        write_atomically(&file, &proof.encode_to_vec())?;
        Ok(file)
    };
    answer.evidence.iter().enumerate().map(save).collect()
}

fn word(proof: &Proof) -> &'static str {
    match &proof.kind {
        Some(Kind::Certificate(_)) => "certificate",
        Some(Kind::Abort(_)) => "abort proof",
        Some(Kind::Evidence(_)) => "evidence",
        Some(Kind::Accusation(_)) => "accusation proof",
        None => "empty proof",
    }
}

fn summary(tx_id: &str, answer: &GetCertificateResponse) -> String {
    let proof = answer
        .proof
        .as_ref()
        .map_or("no certificate and no abort proof yet", word);
    format!(
        "{tx_id}: {proof}, {} pieces of evidence; save them with -o FILE and --evidence-dir DIR",
        answer.evidence.len()
    )
}
