//! A readable story of one schedule: who did what at which simulated time, in plain
//! words, one line for each thing that a reader should see.
//!
//! Left out is what repeats itself and what is only plumbing: frames, look-ups, first
//! starts. A liar's lies are told once each, and only so many of them.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::wire::board_event::Event as Happened;
use quorate_consensus::wire::{BoardEntry, BoardEvent, GoodbyeReason};
use quorate_consensus::words::{accusation_word, violation_word};
use quorate_consensus::{Choice, NodeId};
use quorate_engine::{
    AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, Effect, Event, Reject, SendOutcome, StreamId,
};

use crate::invariants::Happening;
use crate::liars::Lie;
use crate::plan::text::Member;
use crate::plan::{Act, Disk, Handed};
use crate::world::World;
use crate::world::chain::{self, Mined};

mod faults;
mod words;

/// So many different lies of one liar are told.
const MOST_LIES: usize = 8;

/// So many ballots that nobody in the plan asks for are told.
const MOST_UNASKED: usize = 2;

/// The lines so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// In order of time.
    pub lines: Vec<String>,
    /// What the lines are made of.
    parts: Vec<Line>,
    /// The peer at the other end of each stream.
    peers: BTreeMap<StreamId, NodeId>,
    /// Lies told, by machine and words.
    lies: BTreeMap<(usize, String), Told>,
    /// Clients that were told to ask again, and why.
    put_off: BTreeSet<(usize, &'static str)>,
    /// Members that a machine refuses.
    refused: BTreeSet<(usize, NodeId)>,
    /// Streams that a machine closed, and why.
    closed: BTreeSet<(usize, NodeId, String)>,
    /// What ends when: milliseconds from the start.
    ends: BTreeMap<(u64, usize), String>,
    /// The last moment when all were shut down together.
    slept_ms: Option<u64>,
    calm: bool,
    /// Ballots that nobody in the plan asks for and that are told, and whether there
    /// are more.
    unasked: BTreeSet<String>,
    many_unasked: bool,
}

/// A line: several members that say the same at the same time share one.
#[derive(Clone, Debug)]
struct Line {
    at_ms: u64,
    who: Who,
    said: String,
}

/// Who does what a line says.
#[derive(Clone, Debug, PartialEq)]
enum Who {
    /// These members, by index.
    Members(Vec<usize>),
    /// The second machine of a twin.
    Second(usize),
    /// The board, the chain, the plan.
    Other(String),
}

/// A lie that was told.
#[derive(Clone, Debug)]
struct Told {
    at_ms: u64,
    line: usize,
    to: Vec<String>,
}

impl Story {
    /// The plan does something.
    pub(crate) fn act(&mut self, world: &World, act: &Act) {
        self.catch_up(world);
        match act {
            Act::Vote {
                node,
                tx,
                choice,
                handed,
            } => {
                let mut said =
                    format!("is asked by a client for {} on {tx}", words::choice(choice));
                if let Handed::Signed(off_ms) = handed {
                    said += ", signed elsewhere";
                    said += &match off_ms {
                        0 => String::new(),
                        ahead @ 1.. => format!(" {ahead} ms in the future"),
                        back => format!(" {} ms ago", back.unsigned_abs()),
                    };
                }
                self.does(world, *node, &said);
            }
            Act::Sleep { for_ms } => {
                self.slept_ms = Some(world.now_ms());
                let said = format!("all nodes are shut down for {} s", seconds(*for_ms));
                self.line(world, "all", &said);
            }
            act => self.fault(world, act),
        }
    }

    /// Something happened.
    pub(crate) fn tell(&mut self, world: &World, what: &Happening<'_>) {
        self.catch_up(world);
        match what {
            Happening::Entry { view, entry } => self.entry(world, *view, entry),
            Happening::Event { place, event } => self.event(world, *place, event),
            Happening::Effect { place, effect } => self.effect(world, *place, effect),
            Happening::Lied { place, lie } => self.lie(world, *place, lie),
            Happening::Answered { client, result } => {
                let asker = &world.clients()[*client];
                let said = match result {
                    Ok(answer) => {
                        let (choice, tx) = (words::choice(&asker.choice), asker.tx);
                        let again = if answer.repeated { " already" } else { "" };
                        format!("{choice} on {tx} is recorded{again}")
                    }
                    Err(Reject::Unavailable { reason, why, .. }) => {
                        if !self.put_off.insert((*client, reason)) {
                            return;
                        }
                        format!("not now, ask again: {why}")
                    }
                    Err(reject) => format!("no: {reject}"),
                };
                let node = asker.node;
                self.does(world, node, &format!("answers its client: {said}"));
            }
            Happening::Found { place, finding } => {
                self.does(world, *place, &format!("finds {finding}"));
            }
            Happening::Told { .. } | Happening::Recorded { .. } => {}
            Happening::Mined(mined) => {
                let outcome = if mined.succeeded {
                    ""
                } else {
                    ", and reverts it"
                };
                let what = transaction(world, mined);
                let block = mined.block;
                let said = format!("block {block} takes {what}{outcome}");
                self.line(world, "chain", &said);
            }
            Happening::Undone(mined) => {
                let what = transaction(world, mined);
                let said = format!("block {} is dropped, and with it {what}", mined.block);
                self.line(world, "chain", &said);
            }
            Happening::Died { place, disk } => {
                if self.slept_ms != Some(world.now_ms()) {
                    let said = match disk {
                        Disk::Kept => "crashes",
                        Disk::Unsynced => "crashes, and loses what was not yet durable",
                        Disk::Lost => "crashes, and loses its disk",
                        Disk::Restored => "crashes, and gets last week's backup for a disk",
                    };
                    self.does(world, *place, said);
                }
            }
            Happening::Started { place } => {
                if world.now_ms() > 0 {
                    self.does(world, *place, "starts again");
                }
            }
        }
    }

    // ---- the board

    fn entry(&mut self, world: &World, view: usize, entry: &BoardEntry) {
        let who = match view {
            0 => "board".to_owned(),
            view => format!("board/{}", view + 1),
        };
        for event in &entry.events {
            if self.is_too_much(world, event) {
                continue;
            }
            if let Some(said) = told(event) {
                self.line(world, &who, &said);
            }
        }
    }

    /// Ballots that nobody in the plan asks for are made by liars, hundreds at a time:
    /// the first few are told.
    fn is_too_much(&mut self, world: &World, event: &BoardEvent) -> bool {
        let tx = &event.tx_id;
        if tx.is_empty() || self.unasked.contains(tx) {
            return false;
        }
        let asked = world.plan().steps.iter().any(|step| match step.act {
            Act::Vote { tx: asked, .. } => asked.id().as_str() == tx,
            _ => false,
        });
        if asked {
            return false;
        }
        if self.unasked.len() < MOST_UNASKED {
            self.unasked.insert(tx.clone());
            return false;
        }
        if !std::mem::replace(&mut self.many_unasked, true) {
            self.line(world, "board", "opens more ballots that nobody asked for");
        }
        true
    }

    // ---- engines

    fn event(&mut self, world: &World, place: usize, event: &Event) {
        let said = match event {
            Event::StreamUp { stream, peer, .. } => {
                self.peers.insert(*stream, peer.clone());
                return;
            }
            Event::Chain {
                answer: ChainAnswer::Sent(sent),
                ..
            } => match sent {
                SendOutcome::Accepted => return,
                SendOutcome::NonceTooLow => "hears from the chain: the nonce is used".into(),
                SendOutcome::Underpriced => "hears from the chain: the fee is too low".into(),
                SendOutcome::Unknown(_) => "hears nothing from the chain".into(),
            },
            Event::Audit {
                answer: AuditAnswer::Conflict(why),
                ..
            } => format!("hears from the audit store: {why}"),
            _ => return,
        };
        self.does(world, place, &said);
    }

    fn effect(&mut self, world: &World, place: usize, effect: &Effect) {
        let said = match effect {
            Effect::Sign {
                domain, statement, ..
            } => match words::signs(*domain, statement) {
                Some(said) => said,
                None => return,
            },
            Effect::Audit { ask, .. } => match ask {
                AuditAsk::Pending { tx_id, .. } => format!("writes the PENDING row of {tx_id}"),
                AuditAsk::Variant { tx_id, attempt, .. } => {
                    format!("stores the signed bytes of {tx_id}{}", again(*attempt))
                }
                AuditAsk::Variants { .. } | AuditAsk::Attempted { .. } => return,
            },
            Effect::Chain {
                ask: ChainAsk::Send { raw },
                ..
            } => match chain::read(raw) {
                Some((nonce, attempt, _)) => format!("sends nonce {nonce}{}", again(attempt)),
                None => "sends to the chain what is no transaction".into(),
            },
            Effect::Close { stream, goodbye } => {
                let Some(peer) = self.peers.get(stream) else {
                    return;
                };
                if goodbye.reason() == GoodbyeReason::Banned || goodbye.detail == "goodbye" {
                    // It refuses the other, or the other went.
                    return;
                }
                let why = (place, peer.clone(), goodbye.detail.clone());
                if !self.closed.insert(why) {
                    return;
                }
                format!("closes its stream to {peer}: {}", goodbye.detail)
            }
            Effect::Admit { node_id, welcome } => {
                let known = (place, node_id.clone());
                match welcome {
                    true if self.refused.remove(&known) => format!("welcomes {node_id} again"),
                    false if self.refused.insert(known) => format!("refuses {node_id}"),
                    _ => return,
                }
            }
            Effect::Alert(alert) => format!("alerts: {}", words::alert(alert)),
            _ => return,
        };
        self.does(world, place, &said);
    }

    // ---- liars

    fn lie(&mut self, world: &World, place: usize, lie: &Lie) {
        let (said, to) = match lie {
            Lie::Say { to, body } => (words::body(world, place, body), Some(to)),
            Lie::Garble { to, bytes } => {
                let said = format!("{} bytes that are no frame", bytes.len());
                (Some(said), Some(to))
            }
            Lie::Propose { op, now_ms } => {
                let mut said = words::op(world, place, op);
                let off_ms = now_ms.cast_signed() - world.wall(place).cast_signed();
                if off_ms != 0 {
                    said += &format!(", stamped {off_ms:+} ms");
                }
                (Some(said), None)
            }
            Lie::Transact { nonce, payload } => {
                let what = reserved(world, *nonce, payload);
                let what = what.unwrap_or_else(|| "a payload of its own".into());
                let said = format!("sends {what} with nonce {nonce} to the chain");
                (Some(said), None)
            }
            Lie::Wake { .. } => return,
        };
        let Some(said) = said else { return };
        let now = world.now_ms();
        let key = (place, said);
        if let Some(told) = self.lies.get_mut(&key) {
            if let (true, Some(to)) = (told.at_ms == now, to) {
                let to = to.to_string();
                if !told.to.contains(&to) {
                    told.to.push(to);
                }
                let to = told.to.join(", ");
                let line = told.line;
                self.parts[line].said = lies(&key.1, &to);
                self.render(world, line);
            }
            return;
        }
        let number = self.lies.keys().filter(|(liar, _)| *liar == place).count();
        let to: Vec<String> = to.map(ToString::to_string).into_iter().collect();
        let line = match number {
            MOST_LIES => "goes on lying".into(),
            more if more > MOST_LIES => return,
            _ => lies(&key.1, &to.join(", ")),
        };
        self.does(world, place, &line);
        let told = Told {
            at_ms: now,
            line: self.lines.len() - 1,
            to,
        };
        // When the telling is over, later recipients change no line.
        if number == MOST_LIES {
            self.lies.insert((place, String::new()), told);
        } else {
            self.lies.insert(key, told);
        }
    }

    // ---- lines

    /// Tells what ended since something was told.
    fn catch_up(&mut self, world: &World) {
        let now = world.now_ms();
        let end = if world.is_calm() && !self.calm {
            world.plan().calm_ms.min(now)
        } else {
            now
        };
        while let Some(first) = self.ends.first_entry() {
            let at = first.key().0;
            if at > end {
                break;
            }
            let said = first.remove();
            self.push(world, at, Who::Other("end".into()), &said);
        }
        if world.is_calm() && !self.calm {
            self.calm = true;
            if !self.ends.is_empty() {
                let who = Who::Other("end".into());
                self.push(world, end, who, "all faults are over");
            }
            self.ends.clear();
        }
    }

    /// The board, the chain or the plan does this.
    fn line(&mut self, world: &World, who: &str, said: &str) {
        self.push(world, world.now_ms(), Who::Other(who.into()), said);
    }

    /// A machine does this.
    fn does(&mut self, world: &World, place: usize, said: &str) {
        let now = world.now_ms();
        let member = world.places()[place].member();
        if place != member {
            self.push(world, now, Who::Second(member), said);
            return;
        }
        let lines = self.parts.iter_mut().enumerate().rev();
        let mut now_said = lines.take_while(|(_, line)| line.at_ms == now);
        let same = now_said.find_map(|(number, line)| match &mut line.who {
            Who::Members(members) if line.said == said => Some((number, members)),
            _ => None,
        });
        match same {
            Some((number, members)) => {
                members.push(member);
                self.render(world, number);
            }
            None => self.push(world, now, Who::Members(vec![member]), said),
        }
    }

    fn push(&mut self, world: &World, at_ms: u64, who: Who, said: &str) {
        let said = said.into();
        self.parts.push(Line { at_ms, who, said });
        self.lines.push(String::new());
        self.render(world, self.lines.len() - 1);
    }

    fn render(&mut self, world: &World, number: usize) {
        let Line { at_ms, who, said } = &self.parts[number];
        let who = match who {
            Who::Members(members) => names(members, world.cluster().n()),
            Who::Second(member) => format!("{}'", world.cluster().node_id(*member)),
            Who::Other(who) => who.clone(),
        };
        self.lines[number] = format!("{:>8} s  {who:<7}  {said}", seconds(*at_ms));
    }
}

/// Members in short: `node1-3,5`.
fn names(members: &[usize], nodes: usize) -> String {
    let members: BTreeSet<usize> = members.iter().copied().collect();
    let id = |index: usize| Member { index, nodes }.to_string();
    let number = |index: usize| id(index).trim_start_matches("node").to_owned();
    let mut text = String::new();
    let mut rest = members.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        text += &match text.is_empty() {
            true => id(first),
            false => format!(",{}", number(first)),
        };
        text += &match last - first {
            0 => String::new(),
            1 => format!(",{}", number(last)),
            _ => format!("-{}", number(last)),
        };
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn lies(said: &str, to: &str) -> String {
    match to {
        "" => format!("lies: {said}"),
        to => format!("lies: {said}, to {to}"),
    }
}

fn again(attempt: u32) -> String {
    match attempt {
        0 => String::new(),
        attempt => format!(", attempt {attempt}"),
    }
}

/// The transaction for which this is reserved.
fn reserved(world: &World, nonce: u64, payload: &[u8]) -> Option<String> {
    let views = world.store().views().iter();
    let mut ballots = views.flat_map(|view| view.board().ballots());
    let found = ballots.find(|ballot| {
        let reservation = ballot.reservation.as_ref();
        reservation.is_some_and(|r| r.nonce == nonce && r.payload == payload)
    });
    found.map(|ballot| ballot.tx_id.to_string())
}

/// What a transaction of the account is.
fn transaction(world: &World, mined: &Mined) -> String {
    let nonce = mined.nonce;
    if let Some(tx) = reserved(world, nonce, &mined.payload) {
        return format!("{tx} (nonce {nonce})");
    }
    let board = world.store().views()[0].board();
    let cancelled = board.ballots().find(|ballot| {
        let reservation = ballot.reservation.as_ref();
        ballot.given_up && reservation.is_some_and(|r| r.nonce == nonce)
    });
    match cancelled {
        Some(ballot) if mined.payload.is_empty() => {
            format!("the cancellation of {} (nonce {nonce})", ballot.tx_id)
        }
        _ => format!("a stranger's transaction (nonce {nonce})"),
    }
}

/// An event of the board in words, if a reader should see it.
fn told(event: &BoardEvent) -> Option<String> {
    let tx = &event.tx_id;
    Some(match event.event.as_ref()? {
        Happened::VoteRecorded(recorded) => {
            let choice = recorded.choice.as_ref().map(Choice::try_from);
            let choice = choice.and_then(Result::ok);
            let choice = choice.map_or("nothing".into(), |choice| words::choice(&choice));
            let late = if recorded.late { ", late" } else { "" };
            format!("records {choice} of {} on {tx}{late}", recorded.node_id)
        }
        Happened::StateChanged(change) => {
            let (from, to) = (words::state(change.from()), words::state(change.to()));
            let (row, reason) = (change.row, &change.reason);
            format!("{tx}: {from} -> {to} (row {row}: {reason})")
        }
        Happened::Reserved(reserved) => {
            let nonce = reserved.reservation.as_ref().map_or(0, |r| r.nonce);
            let anew = if reserved.anew { " anew" } else { "" };
            format!("reserves nonce {nonce} for {tx}{anew}")
        }
        Happened::Certified(certified) => {
            let decisions = certified.proof.as_ref().map(|proof| &proof.decisions);
            let by = words::signers(decisions.into_iter().flatten());
            format!("certifies {tx}: decisions of {by}")
        }
        // The ballot's move says it.
        Happened::Concluded(_) => return None,
        Happened::AbortProven(proven) => {
            let by = words::signers(&proven.aborts);
            format!("{tx} is proven dead by {by}")
        }
        Happened::ViolationFound(found) => {
            let kind = violation_word(found.r#type());
            match tx.as_str() {
                "" => format!("notes {kind} of {}", found.node_id),
                tx => format!("notes {kind} of {} on {tx}", found.node_id),
            }
        }
        Happened::Banned(banned) => {
            let kind = violation_word(banned.r#type());
            format!("bans {} for {kind}", banned.node_id)
        }
        Happened::Unbanned(unbanned) => format!("lifts the ban of {}", unbanned.node_id),
        Happened::GivenUp(_) => format!("{tx} is given up"),
        Happened::Accused(accused) => {
            let kind = accusation_word(accused.kind());
            format!("{} accuses {} of {kind}", accused.by, accused.node_id)
        }
        Happened::ReputationChanged(changed) => {
            let (whole, rest) = (changed.thousandths / 1000, changed.thousandths % 1000);
            format!("{} has reputation {whole}.{rest:03}", changed.node_id)
        }
        Happened::Expired(_) => format!("{tx} expires: it never started"),
        Happened::Booted(booted) => match booted.generation {
            1 => return None,
            generation => format!("{} runs in generation {generation}", booted.node_id),
        },
        Happened::LeaseChanged(lease) => match lease.node_id.as_str() {
            "" => format!("the lease of {tx} is given back"),
            holder => {
                let for_ms = lease.until_ms.saturating_sub(event.time_ms);
                let for_s = seconds(for_ms);
                format!("{holder} has the lease of {tx} for {for_s} s")
            }
        },
        Happened::Collected(collected) => {
            let state = words::state(collected.state());
            format!("forgets {tx} but for its end: {state}")
        }
    })
}
