//! The coordinator: a log that a pure board gives, or keys of which every reader makes a
//! log of its own. What the board is in truth is shown alike.

mod handle;
mod keys;

use std::sync::Arc;

use quorate_consensus::Rules;
use quorate_consensus::board::{Board, Outcome, Refusal};
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_testkit::FakeVerifier;

use crate::plan::BoardKind;

pub(super) use handle::{Handle, Say, State, Wants, proposed};
pub(super) use keys::News;
pub use keys::{Keys, Lie};

/// One board of the store, and the log that it shows.
#[derive(Clone)]
pub struct View {
    pub(super) board: Board,
    pub(super) log: Vec<BoardEntry>,
    /// The log holds what no board gave.
    pub(super) forged: bool,
}

impl View {
    /// The board.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The log as it is shown.
    pub fn log(&self) -> &[BoardEntry] {
        &self.log
    }

    /// The revision of the last entry; 0 before the first. As long as the store is
    /// honest there are as many entries.
    pub fn head(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.revision)
    }

    /// The store has put into the log, or taken from it, what it must not.
    pub fn is_forged(&self) -> bool {
        self.forged
    }
}

/// The store.
pub struct Store {
    pub(super) views: Vec<View>,
    /// None when the board is a log.
    pub(super) keys: Option<Keys>,
}

impl Store {
    pub(super) fn new(kind: BoardKind, rules: Arc<Rules>) -> Self {
        let keys = match kind {
            BoardKind::Log => None,
            BoardKind::Keys => Some(Keys::new(rules.clone())),
        };
        let view = View {
            board: Board::new(rules),
            log: Vec::new(),
            forged: false,
        };
        Self {
            views: vec![view],
            keys,
        }
    }

    /// The keys, if the board lies in keys.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// The next news of what the keys have become.
    ///
    /// # Errors
    /// When a reader believes what the pure board does not.
    pub(super) fn read_keys(&mut self) -> Result<Option<News>, String> {
        match &mut self.keys {
            Some(keys) => keys.read_on(&mut self.views[0]),
            None => Ok(None),
        }
    }

    /// Puts an older copy of the keys in their place.
    pub(super) fn roll_keys_back(&mut self, entries: usize) {
        if let Some(keys) = &mut self.keys {
            keys.roll_back(&mut self.views[0], entries);
            self.views[0].forged = true;
        }
    }

    /// Its boards; an honest store has one.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// Carries an operation out. Gives the revision of its entry, if it made one.
    pub(super) fn apply(
        &mut self,
        view: usize,
        op: &BoardOp,
        now_ms: u64,
    ) -> Result<Option<u64>, Refusal> {
        let view = &mut self.views[view];
        match view.board.apply(op, now_ms, &FakeVerifier)? {
            Outcome::Applied(mut entry) => {
                // Behind a forged entry the log goes further than the board knows.
                entry.revision = view.head() + 1;
                let revision = entry.revision;
                view.log.push(entry);
                Ok(Some(revision))
            }
            Outcome::Unchanged => Ok(None),
        }
    }

    /// Puts a view back to an earlier snapshot: its last entries are lost.
    pub(super) fn roll_back(&mut self, view: usize, entries: usize) {
        let view = &mut self.views[view];
        let rules = view.board.rules().clone();
        view.log.truncate(view.log.len().saturating_sub(entries));
        let mut board = Board::new(rules);
        for entry in &view.log {
            if let Some(op) = &entry.op {
                // What was forged has no effect on the board.
                let _ = board.apply(op, entry.time_ms, &FakeVerifier);
            }
        }
        view.board = board;
    }
}
