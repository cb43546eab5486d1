//! From the first tick to being in service: read the board up to its head, compare
//! boot generations, put the next one on the board.
//!
//! | journal against board | what it means | what is done |
//! |---|---|---|
//! | head < seen | the store is older than what this node has seen | STORE_ROLLBACK, signs nothing, its boot neither |
//! | board's generation < acknowledged | the same | the same |
//! | an entry is another than was believed | the same, and others wrote on | the same |
//! | board's generation > journal's | journal lost or restored | quarantine: signs nothing for vote timeout + 4 × skew, then adopts |
//! | else | a plain restart | no wait |

use quorate_consensus::ballot::{Ballot, is_final};
use quorate_consensus::statement::BootBody;
use quorate_consensus::{Domain, TxId, wire};

use super::local::Journal;
use super::{Engine, Pending, Signing, Timer, WATCHED_AFTERWARDS};
use crate::api::{Alert, Effect, JournalEntry, Now, Record, Ticket};

/// How long an unanswered start-up question is waited for, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was asked yet.
    Fresh,
    /// The head of the log was asked for.
    AskedHead,
    /// Entries up to this revision are awaited.
    CatchingUp(u64),
    /// The boot generation is on its way to the board.
    Booting,
    /// Everything is as it should be.
    InService,
    /// The board is not the one that this node has seen: nothing is put on it.
    Halted,
}

impl Engine {
    /// Goes on with the start; called again until the node is in service.
    pub(super) fn start(&mut self, now: Now) {
        match self.phase {
            Phase::Fresh | Phase::AskedHead => {
                self.phase = Phase::AskedHead;
                let ticket = self.ask(now, Pending::FirstHead);
                self.out.push(Effect::ReadHead { ticket });
                self.wake_at(Timer::Start, now.mono_ms + RETRY_MS);
            }
            Phase::Booting => self.put_boot(now),
            Phase::CatchingUp(_) | Phase::InService | Phase::Halted => {}
        }
    }

    pub(super) fn head(&mut self, now: Now, ticket: Ticket, result: Result<u64, String>) {
        let Some(asked) = self.answered(ticket) else {
            return;
        };
        match (asked.what, result) {
            (Pending::FirstHead, Ok(head)) if self.phase == Phase::AskedHead => {
                if head < self.durable.seen {
                    let seen = self.durable.seen;
                    self.stop_for_rollback(format!(
                        "the board ends at revision {head}, but this node has seen revision {seen}"
                    ));
                }
                self.phase = Phase::CatchingUp(head);
                self.unset(Timer::Start);
                self.caught_up(now);
            }
            (Pending::SubmissionHead(tx_id), result) => {
                if let Ok(head) = result
                    && head < asked.revision
                {
                    self.store_is_older(now, head, asked.revision);
                }
                self.submission_head(now, ticket, &tx_id, result);
            }
            _ => {}
        }
    }

    /// Called after entries were believed: starts to boot once the head is reached.
    pub(super) fn caught_up(&mut self, now: Now) {
        let Phase::CatchingUp(head) = self.phase else {
            return;
        };
        if self.board.revision() < head {
            return;
        }
        let on_board = self
            .board
            .member(&self.config.node_id)
            .map_or(0, |member| member.generation);
        if on_board < self.durable.acknowledged {
            let acknowledged = self.durable.acknowledged;
            self.stop_for_rollback(format!(
                "the board knows boot generation {on_board} of this node, which started as {acknowledged} before"
            ));
        } else if on_board > self.durable.generation && self.signing == Signing::Open {
            self.quarantine(now);
        }
        if matches!(self.signing, Signing::Stopped(_)) {
            // What the journal knows of the right board must not be forgotten for
            // this one.
            self.phase = Phase::Halted;
            return;
        }
        self.generation = on_board.max(self.durable.generation).saturating_add(1);
        // The journal keeps its old generation while in quarantine: a node that
        // stops meanwhile starts the whole wait again.
        if !matches!(self.signing, Signing::Quarantined { .. }) {
            self.persist(Record::Generation {
                generation: self.generation,
                acknowledged: self.durable.acknowledged,
            });
        }
        self.phase = Phase::Booting;
        self.put_boot(now);
        self.welcome_members();
        self.wake_by(Timer::Members, now.mono_ms);
        let (finished, unfinished): (Vec<&Ballot>, Vec<&Ballot>) = self
            .board
            .ballots()
            .partition(|ballot| is_final(ballot.state) && ballot.is_proven() && ballot.roll_called);
        // The latest of those that were concluded are watched for a reorganisation.
        let mut watched: Vec<_> = finished
            .into_iter()
            .filter(|ballot| ballot.reservation.is_some())
            .collect();
        watched.sort_by_key(|ballot| ballot.revision);
        let from = watched.len().saturating_sub(WATCHED_AFTERWARDS);
        let news = watched[from..].iter().chain(&unfinished);
        let news: Vec<_> = news.map(|ballot| ballot.tx_id.clone()).collect();
        for tx_id in news {
            self.local(now, &tx_id);
            self.touch(&tx_id);
        }
    }

    fn put_boot(&mut self, now: Now) {
        if matches!(self.signing, Signing::Stopped(_)) {
            self.phase = Phase::Halted;
            return;
        }
        let body = BootBody {
            generation: self.generation,
            time_ms: now.wall_ms,
        };
        let rules = self.board.rules().clone();
        self.sign(now, Pending::SignBoot, &rules, &body);
        self.wake_at(
            Timer::Start,
            now.mono_ms + RETRY_MS.max(2 * self.stagger_ms()),
        );
    }

    pub(super) fn boot_signed(&mut self, now: Now, boot: wire::SignedStatement) {
        if self.phase == Phase::Booting && !matches!(self.signing, Signing::Stopped(_)) {
            self.boots.push(boot.statement.clone());
            let op = wire::BootOp { boot: Some(boot) };
            self.propose(now, Pending::ProposeBoot, wire::board_op::Op::Boot(op));
        }
    }

    /// Signs no votes and verdicts until two choices of this trustee can no longer
    /// prove a lie: a vote's lifetime, and twice the skew by which the times of
    /// votes signed elsewhere may be off, and one more.
    fn quarantine(&mut self, now: Now) {
        let rules = self.board.rules();
        let wait = rules.vote_lifetime_ms() + 2 * rules.clock_skew_ms() + 1;
        let (wall_ms, mono_ms) = (now.wall_ms + wait, now.mono_ms + wait);
        self.signing = Signing::Quarantined { wall_ms, mono_ms };
        self.alert(Alert::Quarantine { until_ms: wall_ms });
        self.wake_at(Timer::Quarantine, mono_ms);
    }

    /// The board shows a boot of this node. Two machines that run one trustee may
    /// have asked for the same generation; whose it is, the statement tells.
    pub(super) fn booted(&mut self, now: Now, generation: u64, statement: &[u8]) {
        let ours = self.boots.iter().any(|boot| boot == statement);
        if self.phase == Phase::Booting && ours {
            self.phase = Phase::InService;
            self.unset(Timer::Start);
            // What could not be done before it was in service is done now.
            self.touched.extend(self.locals.keys().cloned());
            self.durable.acknowledged = generation;
            if self.signing == Signing::Open {
                self.persist(Record::Generation {
                    generation,
                    acknowledged: generation,
                });
            }
        } else if self.phase == Phase::Booting && !ours && generation >= self.generation {
            // Another machine, or this one before a crash: its guard may hold more
            // than this one's. The next generation is this process's, and silences
            // the other.
            self.generation = generation.saturating_add(1);
            if self.signing == Signing::Open {
                self.quarantine(now);
            }
            self.put_boot(now);
        } else if self.phase == Phase::InService && !ours && generation >= self.generation {
            self.signing = Signing::Stopped(format!(
                "another process with this trustee's keys has started (boot generation {generation}): stop one of the two"
            ));
            self.alert(Alert::NewerSelf { generation });
        }
    }

    pub(super) fn end_quarantine(&mut self, now: Now) {
        let Signing::Quarantined { wall_ms, mono_ms } = self.signing else {
            return;
        };
        let wall = wall_ms.saturating_sub(now.wall_ms);
        let left_ms = wall.max(mono_ms.saturating_sub(now.mono_ms));
        if left_ms > 0 {
            // The wall clock may be put right before that.
            let nap = left_ms.min(super::LONGEST_NAP_MS);
            self.wake_at(Timer::Quarantine, now.mono_ms + nap);
            return;
        }
        self.signing = Signing::Open;
        self.persist(Record::Generation {
            generation: self.generation,
            acknowledged: self.durable.acknowledged,
        });
        let waiting: Vec<_> = self.locals.keys().cloned().collect();
        self.touched.extend(waiting);
    }

    /// The store ended at `head` after this node had believed it up to `believed`.
    pub(super) fn store_is_older(&mut self, now: Now, head: u64, believed: u64) {
        if matches!(self.signing, Signing::Stopped(_)) {
            return;
        }
        // So that the next start finds the same.
        self.persist_seen(now);
        self.stop_for_rollback(format!(
            "the board ends at revision {head}, but this node has believed revision {believed}"
        ));
    }

    /// The store shows another history than this node has believed before.
    pub(super) fn rewritten(&mut self, revision: u64) {
        if !matches!(self.signing, Signing::Stopped(_)) {
            self.stop_for_rollback(format!(
                "the board's entry {revision} is not the one that this node has believed"
            ));
        }
    }

    pub(super) fn stop_for_rollback(&mut self, detail: String) {
        self.signing = Signing::Stopped(format!("STORE_ROLLBACK: {detail}"));
        self.alert(Alert::StoreRollback { detail });
        // Nor is signed what was about to be, in the same breath.
        self.out.retain(|effect| {
            let signs = matches!(
                effect,
                Effect::Sign {
                    domain: Domain::Vote | Domain::Decision | Domain::Abort,
                    ..
                }
            );
            !signs
        });
    }

    /// Tells the driver whom not to speak with, as the board has it.
    fn welcome_members(&mut self) {
        let own = &self.config.node_id;
        let unwelcome: Vec<_> = self
            .board
            .rules()
            .members()
            .map(|member| member.node_id.clone())
            .filter(|node_id| {
                let accused_by_us = self
                    .board
                    .member(node_id)
                    .is_some_and(|state| state.accusations.contains_key(own));
                accused_by_us || self.board.is_banned(node_id)
            })
            .collect();
        for node_id in unwelcome {
            self.refuse(&node_id, wire::GoodbyeReason::Banned, "banned");
        }
    }

    /// The journal's answer about one transaction.
    pub(super) fn found(&mut self, now: Now, ticket: Ticket, entry: JournalEntry) {
        let Some(Pending::Lookup(tx_id)) = self.answered(ticket).map(|asked| asked.what) else {
            return;
        };
        let Some(local) = self.locals.get_mut(&tx_id) else {
            return;
        };
        if local.journal != Journal::Asked(ticket) {
            return;
        }
        local.journal = Journal::Known;
        let guarded = entry.guard.is_some();
        local.guard = entry.guard;
        local.verdict = entry.verdict;
        local.end_persisted = entry.ended.is_some();
        let parked = std::mem::take(&mut local.parked);
        for request in parked.keys() {
            self.requests.remove(request);
        }
        if let Some(state) = entry.ended
            && self.board.ballot(&tx_id).is_none()
        {
            // Finished and forgotten by the board: it never starts again.
            for (request, _) in parked {
                self.reject_closed(request, &tx_id, state);
            }
            self.drop_local(&tx_id);
            return;
        }
        self.doubt_the_guard(now, &tx_id, guarded);
        for (request, submit) in parked {
            self.submit(now, request, submit);
        }
        self.touch(&tx_id);
    }

    /// A vote of this trustee that is on the board and not in the guard was signed by
    /// somebody else, or by this node before its journal was put back to a backup: what
    /// else the guard lacks, nobody knows.
    fn doubt_the_guard(&mut self, now: Now, tx_id: &TxId, guarded: bool) {
        let Some(vote) = self.own_recorded(tx_id) else {
            return;
        };
        let age_ms = now.wall_ms.saturating_sub(vote.body.time_ms);
        let young = age_ms <= self.board.rules().vote_lifetime_ms();
        if !guarded && young && self.signing == Signing::Open {
            self.quarantine(now);
        }
    }
}
