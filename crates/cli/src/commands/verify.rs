//! `quorate verify`: checks a proof offline, knowing nothing but the cluster id.

use std::path::PathBuf;

use clap::Args;
use prost::Message;
use quorate_consensus::proof::{self, Fact, Verified};
use quorate_consensus::words::{abort_word, violation_word};
use quorate_consensus::{ClusterId, rules::digest_of};
use quorate_crypto::Ed25519Verifier;
use quorate_wire::v1::{Proof, RulesChain, proof::Kind};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{Out, Tone, message_json, short_hex};

const EXAMPLES: &str = "\
Examples:
  quorate verify tx_001.proof --cluster-id <64 hex digits>
  quorate verify lies/tx_002.evidence-1.proof --cluster-id <64 hex digits>
  quorate verify tx_001.proof --cluster-id <64 hex digits> --least-epoch 3

No node is asked and no file but this one is read. Take the cluster id from where you trust it
(`quorate rules show` on your own node, a contract, a letter), never from whoever sent the file.
Without --cluster-id the proof is only held against itself, and the exit code is 6.";

/// Check a certificate, an abort proof, evidence or an accusation proof, offline
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// The file: the bytes of one quorate.v1.Proof
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The cluster's id: 64 hexadecimal digits
    #[arg(long, value_name = "HEX", env = "QUORATE_CLUSTER_ID")]
    cluster_id: Option<ClusterId>,

    /// Refuse proofs under rules of an earlier epoch: keys that were rotated out could
    /// still sign for it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    least_epoch: Option<u64>,
}

pub(crate) fn run(args: VerifyArgs, out: Out) -> Outcome {
    let bytes = files::read(&args.file)?;
    let cluster_id = match args.cluster_id {
        Some(pinned) => pinned,
        None => claimed_cluster(&bytes)?,
    };
    let verified =
        proof::verify(&bytes, &cluster_id, args.least_epoch, &Ed25519Verifier).map_err(|e| {
            Failure::failed(format!("{} proves nothing: {e}", args.file.display())).hint(
                "compare the cluster id with the one you trust; if it is right, the file was \
                 changed or is incomplete",
            )
        })?;
    let pinned = args.cluster_id.is_some();
    print(out, &verified, pinned);
    if pinned {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Unpinned,
        format!(
            "NO CLUSTER ID WAS GIVEN: anybody could have made this file. It holds together only \
             as a proof of the cluster {cluster_id}"
        ),
    )
    .hint("give --cluster-id with the id of the cluster that you trust"))
}

/// The cluster that a proof says it is of: the digest of its own genesis.
fn claimed_cluster(bytes: &[u8]) -> Outcome<ClusterId> {
    let no_proof = |why: &str| Failure::failed(format!("these bytes are no proof: {why}"));
    let proof = Proof::decode(bytes).map_err(|e| no_proof(&e.to_string()))?;
    let rules = match proof.kind {
        Some(Kind::Certificate(proof)) => proof.rules,
        Some(Kind::Abort(proof)) => proof.rules,
        Some(Kind::Evidence(proof)) => proof.rules,
        Some(Kind::Accusation(proof)) => proof.rules,
        None => None,
    };
    let genesis = rules
        .as_ref()
        .and_then(|RulesChain { links }| links.first());
    let genesis = genesis.ok_or_else(|| no_proof("it holds no rules document"))?;
    Ok(ClusterId(digest_of(&genesis.document).0))
}

fn print(out: Out, verified: &Verified, pinned: bool) {
    let rules = &verified.rules;
    let (kind, sentence, fact) = tell(verified);
    out.json_pretty(&json!({
        "holds": true,
        "cluster_id_given": pinned,
        "cluster_id": rules.cluster_id().to_string(),
        "cluster_name": rules.cluster_name(),
        "epoch": rules.epoch(),
        "threshold": rules.threshold(),
        "total_nodes": rules.total(),
        "kind": kind,
        "fact": fact,
    }));
    let holds = match pinned {
        true => out.paint(Tone::Good, "holds"),
        false => out.paint(Tone::Warn, "holds against itself only"),
    };
    out.line(format!("{holds}: {sentence}"));
    out.line(format!(
        "  cluster {} ({}), rules of epoch {}, t = {} of N = {}",
        rules.cluster_name(),
        rules.cluster_id(),
        rules.epoch(),
        rules.threshold(),
        rules.total()
    ));
}

fn tell(verified: &Verified) -> (&'static str, String, Value) {
    let names = |nodes: &[quorate_consensus::NodeId]| -> Vec<String> {
        nodes.iter().map(ToString::to_string).collect()
    };
    match &verified.fact {
        Fact::Decided {
            tx_id,
            value,
            reservation,
            voters,
        } => {
            let place = match reservation {
                Some(place) => format!(
                    ", reserved as nonce {} of account {}",
                    place.nonce, place.account
                ),
                None => String::new(),
            };
            let voters = names(voters);
            let text = value_text(value);
            let sentence = format!(
                "{tx_id} was decided for {text}{place}, by the votes of {}",
                voters.join(", ")
            );
            let fact = json!({
                "tx_id": tx_id.to_string(),
                "value": message_json("Choice", &quorate_wire::v1::Choice::from(value)),
                "reservation": reservation.as_ref().map(|r| message_json("Reservation", r)),
                "voters": voters,
            });
            ("certificate", sentence, fact)
        }
        Fact::Dead { tx_id, reasons } => {
            let said: Vec<_> = reasons
                .iter()
                .map(|(node, reason)| {
                    let reason = abort_word(*reason);
                    json!({ "node_id": node.to_string(), "reason": reason })
                })
                .collect();
            let sentence = format!(
                "{tx_id} is dead: {} members will never sign a decision for it; trying again \
                 under a new tx_id is safe",
                said.len()
            );
            (
                "abort",
                sentence,
                json!({ "tx_id": tx_id.to_string(), "said_by": said }),
            )
        }
        Fact::Lied(conviction) => {
            let kind = violation_word(conviction.kind);
            let sentence = format!(
                "{} lied in {}: {kind}, proven by its own signatures",
                conviction.node_id, conviction.tx_id
            );
            let fact = json!({
                "node_id": conviction.node_id.to_string(),
                "tx_id": conviction.tx_id.to_string(),
                "violation": kind,
            });
            ("evidence", sentence, fact)
        }
        Fact::Accused { node_id, by } => {
            let by = names(by);
            let sentence = format!(
                "{node_id} is accused by {}: the cluster banned it by its own rules, which is \
                 not a proof that it lied",
                by.join(", ")
            );
            (
                "accusation",
                sentence,
                json!({ "node_id": node_id.to_string(), "by": by }),
            )
        }
    }
}

fn value_text(value: &quorate_consensus::Value) -> String {
    match value {
        quorate_consensus::Value::Number(number) => number.to_string(),
        quorate_consensus::Value::Data(data) => format!("0x{}", short_hex(data)),
    }
}
