//! What an entry of the board's log changes in the tables. Pure, and the same for
//! every backend: a backend only carries changes out.

use std::collections::BTreeSet;

use prost::Message;
use quorate_consensus::statement::{AbortBody, VoteBody, parse};
use quorate_consensus::wire::ban_proof::Kind as BanKind;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{
    self, AbortProof, AccusationKind, BallotState, BanProof, BoardEntry, BoardEvent, Certificate,
    ChainOutcome, Proof, Reservation, SignedStatement, ViolationType, proof,
};
use quorate_consensus::{Choice, NodeId, PeerId, TxId, Value};

use crate::evidence;
use crate::lineage::Lineage;
use crate::mark;
use crate::page::Page;
use crate::rows::{ProofKind, SubmissionState};
use crate::store::AuditError;

/// One change to the tables, at a time given beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// `vote_history` gets a row; a vote that is there stays, unless its ballot
    /// expired. `node_reputation` counts it.
    Vote {
        tx_id: TxId,
        node_id: NodeId,
        key: Option<Key>,
        choice: Choice,
        late: bool,
        vote: SignedStatement,
    },
    /// The votes of the ballot so far are of a ballot that expired.
    Expired { tx_id: TxId },
    /// `decisions` gets its row: t votes for the value.
    Threshold { tx_id: TxId, value: Value },
    /// The row in `decisions` goes: votes were struck.
    BelowThreshold { tx_id: TxId },
    /// `blockchain_submissions` gets its row, or the row another reservation.
    Reserved {
        tx_id: TxId,
        value: Value,
        reservation: Reservation,
    },
    /// The row in `decisions` gets the certificate, or the abort proof: bytes of a
    /// `quorate.v1.Proof`.
    Certified { tx_id: TxId, proof: Vec<u8> },
    /// The row in `blockchain_submissions` gets what t members saw on the chain.
    Seen {
        tx_id: TxId,
        tx_hash: Vec<u8>,
        block_number: u64,
    },
    /// The submission came to an end, for good as far as anybody knows.
    Ended { tx_id: TxId, state: SubmissionState },
    /// The end of a submission was undone by the chain.
    Undone { tx_id: TxId },
    /// The ballot was aborted: its one row in `blockchain_submissions`, and its row in
    /// `decisions`.
    Aborted {
        tx_id: TxId,
        state: SubmissionState,
        value: Option<Value>,
    },
    /// `byzantine_violations` gets a row, unless it has the same proven one.
    Violation {
        peer_id: Option<PeerId>,
        node_id: NodeId,
        tx_id: Option<TxId>,
        kind: ViolationType,
        proof_kind: ProofKind,
        evidence: serde_json::Value,
    },
    /// `bans` gets a row, and `node_reputation` says so.
    Banned {
        peer_id: Option<PeerId>,
        node_id: NodeId,
        kind: ViolationType,
        proof_kind: ProofKind,
        proof: BanProof,
    },
    /// The ban is lifted.
    Unbanned { node_id: NodeId },
    /// `accusations` gets a row.
    Accused {
        accused: NodeId,
        by: NodeId,
        kind: AccusationKind,
        tx_id: Option<TxId>,
        accusation: SignedStatement,
    },
    /// `node_reputation` gets a score, in thousandths.
    Reputation { node_id: NodeId, thousandths: u32 },
    /// The board heard of a member.
    Heard { node_id: NodeId },
}

impl Change {
    /// The transaction that it is about, if about one.
    fn tx_id(&self) -> Option<&TxId> {
        match self {
            Self::Vote { tx_id, .. }
            | Self::Expired { tx_id }
            | Self::Threshold { tx_id, .. }
            | Self::BelowThreshold { tx_id }
            | Self::Reserved { tx_id, .. }
            | Self::Certified { tx_id, .. }
            | Self::Seen { tx_id, .. }
            | Self::Ended { tx_id, .. }
            | Self::Undone { tx_id }
            | Self::Aborted { tx_id, .. } => Some(tx_id),
            Self::Violation { tx_id, .. } | Self::Accused { tx_id, .. } => tx_id.as_ref(),
            Self::Banned { .. }
            | Self::Unbanned { .. }
            | Self::Reputation { .. }
            | Self::Heard { .. } => None,
        }
    }
}

/// A vote key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) peer_id: PeerId,
    pub(crate) public_key: Vec<u8>,
}

/// Checks that the entries follow `from` without a gap, and gives the last revision.
fn last_revision(from: u64, entries: &[BoardEntry]) -> Result<u64, AuditError> {
    let mut revision = from;
    for entry in entries {
        if revision.checked_add(1) != Some(entry.revision) {
            let found = entry.revision;
            return Err(AuditError::Gap { revision, found });
        }
        revision = entry.revision;
    }
    Ok(revision)
}

/// What a batch of entries changes.
pub(crate) struct Batch {
    entries: Vec<Carried>,
    /// The last revision.
    pub(crate) reached: u64,
}

/// What one entry changes, in order.
struct Carried {
    revision: u64,
    time_ms: u64,
    changes: Vec<Change>,
    link: [u8; 32],
}

/// A row of `projected_entries`.
pub(crate) struct Marked {
    pub(crate) revision: u64,
    pub(crate) digest: [u8; 32],
    /// The transactions that it is about, parted by spaces.
    pub(crate) tx_ids: String,
}

impl Batch {
    /// What entries after revision `from` change.
    ///
    /// # Errors
    /// [`AuditError::Gap`] unless they follow it without a gap;
    /// [`AuditError::Contradiction`] when one is not an entry that a board can make.
    pub(crate) fn new(
        from: u64,
        entries: &[BoardEntry],
        lineage: &Lineage,
    ) -> Result<Self, AuditError> {
        let reached = last_revision(from, entries)?;
        let entries = entries
            .iter()
            .map(|entry| {
                Ok(Carried {
                    revision: entry.revision,
                    time_ms: entry.time_ms,
                    changes: changes(entry, lineage)?,
                    link: mark::link(entry),
                })
            })
            .collect::<Result<_, AuditError>>()?;
        Ok(Self { entries, reached })
    }

    /// The digests over the log up to each of the entries, from the digest before the
    /// first one on; none when that is not known.
    pub(crate) fn marked(&self, before: Option<[u8; 32]>) -> Vec<Marked> {
        let Some(mut digest) = before else {
            return Vec::new();
        };
        let marked = self.entries.iter().map(|entry| {
            digest = mark::after(&digest, &entry.link);
            let tx_ids: BTreeSet<_> = entry.changes.iter().filter_map(Change::tx_id).collect();
            let tx_ids: Vec<_> = tx_ids.into_iter().map(TxId::as_str).collect();
            Marked {
                revision: entry.revision,
                digest,
                tx_ids: tx_ids.join(" "),
            }
        });
        marked.collect()
    }

    /// The transactions whose rows a page needs.
    pub(crate) fn tx_ids(&self) -> BTreeSet<TxId> {
        let all = self.entries.iter().flat_map(|entry| &entry.changes);
        all.filter_map(Change::tx_id).cloned().collect()
    }

    /// Carries everything out on a page that has their rows.
    ///
    /// # Errors
    /// [`AuditError::Contradiction`]; the page is of no use then.
    pub(crate) fn carry_out(self, page: &mut Page) -> Result<(), AuditError> {
        for entry in self.entries {
            let revision = entry.revision;
            for change in entry.changes {
                page.carry_out(change, entry.time_ms).map_err(|wrong| {
                    AuditError::Contradiction(format!("revision {revision}: {wrong}"))
                })?;
            }
        }
        Ok(())
    }
}

/// What an entry changes, in order.
///
/// # Errors
/// [`AuditError::Contradiction`] when it is not an entry that a board can make.
fn changes(entry: &BoardEntry, lineage: &Lineage) -> Result<Vec<Change>, AuditError> {
    let mut changes = Vec::new();
    for event in &entry.events {
        of_event(event, entry, lineage, &mut changes).map_err(|what| {
            let revision = entry.revision;
            AuditError::Contradiction(format!("an event of revision {revision} {what}"))
        })?;
    }
    Ok(changes)
}

/// What is wrong with an event.
type Wrong = &'static str;

fn of_event(
    event: &BoardEvent,
    entry: &BoardEntry,
    lineage: &Lineage,
    out: &mut Vec<Change>,
) -> Result<(), Wrong> {
    let tx_id = || TxId::new(&event.tx_id).map_err(|_| "names no transaction");
    let some_tx = || match event.tx_id.as_str() {
        "" => Ok(None),
        _ => tx_id().map(Some),
    };
    match event.event.as_ref().ok_or("is empty")? {
        Event::VoteRecorded(recorded) => {
            let node_id = node(&recorded.node_id)?;
            let vote = recorded.vote.clone().ok_or("lacks its vote")?;
            let choice = recorded.choice.as_ref().ok_or("lacks its choice")?;
            out.push(Change::Vote {
                tx_id: tx_id()?,
                key: key_of(&vote, &node_id, lineage),
                node_id,
                choice: Choice::try_from(choice).map_err(|_| "has a bad choice")?,
                late: recorded.late,
                vote,
            });
        }
        Event::StateChanged(changed) => {
            let value = changed.value.as_ref().map(value_of).transpose()?;
            moved(tx_id()?, changed.from(), changed.to(), value, out)?;
        }
        Event::Reserved(reserved) => out.push(Change::Reserved {
            tx_id: tx_id()?,
            value: value_of(reserved.value.as_ref().ok_or("lacks its value")?)?,
            reservation: reserved
                .reservation
                .clone()
                .ok_or("lacks its reservation")?,
        }),
        Event::Certified(certified) => {
            let proof = certified.proof.clone().ok_or("lacks its proof")?;
            let digest = proof
                .votes
                .first()
                .and_then(|vote| parse::<VoteBody>(&vote.statement).ok())
                .map(|(header, _)| header.rules_digest);
            let certificate = Certificate {
                rules: Some(lineage.chain_to(digest)),
                proof: Some(proof),
            };
            let kind = Some(proof::Kind::Certificate(certificate));
            out.push(Change::Certified {
                tx_id: tx_id()?,
                proof: Proof { kind }.encode_to_vec(),
            });
        }
        Event::AbortProven(proven) => {
            let digest = proven
                .aborts
                .first()
                .and_then(|abort| parse::<AbortBody>(&abort.statement).ok())
                .map(|(header, _)| header.rules_digest);
            let proof = AbortProof {
                rules: Some(lineage.chain_to(digest)),
                aborts: proven.aborts.clone(),
            };
            let kind = Some(proof::Kind::Abort(proof));
            out.push(Change::Certified {
                tx_id: tx_id()?,
                proof: Proof { kind }.encode_to_vec(),
            });
        }
        // What else an observation can say shows in the move that goes with it.
        Event::Concluded(concluded) => match concluded.outcome() {
            ChainOutcome::Confirmed | ChainOutcome::Reverted | ChainOutcome::Cancelled => {
                out.push(Change::Seen {
                    tx_id: tx_id()?,
                    tx_hash: concluded.tx_hash.clone(),
                    block_number: concluded.block_number,
                });
            }
            ChainOutcome::Unspecified | ChainOutcome::Undone | ChainOutcome::NonceTaken => {}
        },
        Event::ViolationFound(found) => {
            let node_id = node(&found.node_id)?;
            let (proof_kind, evidence) = match &found.misbehaviour {
                Some(it) => (ProofKind::Proven, evidence::proven(it, lineage)),
                None if is_counted(found.r#type()) => {
                    (ProofKind::Counted, evidence::counted(found.r#type()))
                }
                // The accusations are in the ban that they make.
                None => {
                    let accusations = accusations_in(entry, &found.node_id);
                    let evidence = evidence::accused(accusations, lineage);
                    (ProofKind::Accused, evidence)
                }
            };
            out.push(Change::Violation {
                peer_id: lineage.latest(&node_id).map(|member| member.peer_id),
                node_id,
                tx_id: some_tx()?,
                kind: found.r#type(),
                proof_kind,
                evidence,
            });
        }
        Event::Banned(banned) => {
            let node_id = node(&banned.node_id)?;
            let peer_id = lineage.latest(&node_id).map(|member| member.peer_id);
            let proof = banned.proof.as_ref().ok_or("lacks its proof")?;
            let proof_kind = match proof.kind.as_ref().ok_or("lacks its proof")? {
                BanKind::Misbehaviour(it) => {
                    // As a rule the violation was found before.
                    out.push(Change::Violation {
                        peer_id,
                        node_id: node_id.clone(),
                        tx_id: evidence::tx_of(it),
                        kind: banned.r#type(),
                        proof_kind: ProofKind::Proven,
                        evidence: evidence::proven(it, lineage),
                    });
                    ProofKind::Proven
                }
                BanKind::Accusations(_) => ProofKind::Accused,
                BanKind::Silence(_) => ProofKind::Counted,
            };
            out.push(Change::Banned {
                peer_id,
                node_id,
                kind: banned.r#type(),
                proof_kind,
                proof: proof.clone(),
            });
        }
        Event::Unbanned(unbanned) => out.push(Change::Unbanned {
            node_id: node(&unbanned.node_id)?,
        }),
        Event::Accused(accused) => out.push(Change::Accused {
            accused: node(&accused.node_id)?,
            by: node(&accused.by)?,
            kind: accused.kind(),
            tx_id: some_tx()?,
            accusation: accused.accusation.clone().ok_or("lacks its accusation")?,
        }),
        Event::ReputationChanged(changed) => out.push(Change::Reputation {
            node_id: node(&changed.node_id)?,
            thousandths: changed.thousandths,
        }),
        Event::Expired(_) => out.push(Change::Expired { tx_id: tx_id()? }),
        Event::Booted(booted) => out.push(Change::Heard {
            node_id: node(&booted.node_id)?,
        }),
        // Leases are advice; giving up shows in how the submission ends; what the board
        // forgets, the audit keeps.
        Event::GivenUp(_) | Event::LeaseChanged(_) | Event::Collected(_) => {}
    }
    Ok(())
}

fn moved(
    tx_id: TxId,
    from: BallotState,
    to: BallotState,
    value: Option<Value>,
    out: &mut Vec<Change>,
) -> Result<(), Wrong> {
    match to {
        BallotState::Unspecified => return Err("moves a ballot nowhere"),
        BallotState::Collecting if from == BallotState::ThresholdReached => {
            out.push(Change::BelowThreshold { tx_id });
        }
        BallotState::Collecting => {}
        BallotState::ThresholdReached => {
            let value = value.ok_or("lacks its value")?;
            out.push(Change::Threshold { tx_id, value });
        }
        // Out of THRESHOLD_REACHED the reservation says it all.
        BallotState::Submitted => match from {
            BallotState::Confirmed | BallotState::Failed => out.push(Change::Undone { tx_id }),
            _ => {}
        },
        BallotState::Confirmed => out.push(Change::Ended {
            tx_id,
            state: SubmissionState::Confirmed,
        }),
        BallotState::Failed => out.push(Change::Ended {
            tx_id,
            state: SubmissionState::Failed,
        }),
        BallotState::AbortedByzantine => out.push(Change::Aborted {
            tx_id,
            state: SubmissionState::AbortedByzantine,
            value,
        }),
        BallotState::AbortedSplit => out.push(Change::Aborted {
            tx_id,
            state: SubmissionState::AbortedSplit,
            value,
        }),
        BallotState::AbortedTimeout => out.push(Change::Aborted {
            tx_id,
            state: SubmissionState::AbortedTimeout,
            value,
        }),
    }
    Ok(())
}

fn is_counted(kind: ViolationType) -> bool {
    matches!(
        kind,
        ViolationType::SilentFailure | ViolationType::NonParticipation
    )
}

fn node(text: &str) -> Result<NodeId, Wrong> {
    NodeId::new(text).map_err(|_| "names no member")
}

fn value_of(choice: &wire::Choice) -> Result<Value, Wrong> {
    Value::try_from(choice).map_err(|_| "has a bad value")
}

/// The key that signed a vote. Rules that the store does not know are no reason to
/// stop: the vote itself is kept.
fn key_of(vote: &SignedStatement, node_id: &NodeId, lineage: &Lineage) -> Option<Key> {
    let (header, _) = parse::<VoteBody>(&vote.statement).ok()?;
    let member = lineage.member(&header.rules_digest, node_id)?;
    Some(Key {
        peer_id: member.peer_id,
        public_key: member.vote_key.bytes.to_vec(),
    })
}

/// The accusations by which an entry bans a member; none if it does not.
fn accusations_in<'a>(entry: &'a BoardEntry, node_id: &str) -> &'a [SignedStatement] {
    let mut events = entry.events.iter().filter_map(|event| event.event.as_ref());
    let found = events.find_map(|event| match event {
        Event::Banned(banned) if banned.node_id == node_id => {
            match banned.proof.as_ref()?.kind.as_ref()? {
                BanKind::Accusations(all) => Some(&*all.accusations),
                _ => None,
            }
        }
        _ => None,
    });
    found.unwrap_or_default()
}
