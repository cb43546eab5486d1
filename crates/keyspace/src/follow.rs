//! How a reader goes on: whether the store is still the one that was read, and up to
//! where it must be read.

use crate::kv::{Guard, KeyValue, Step};
#[cfg(doc)]
use crate::names;
use crate::reader::{Reader, Taken, What};

/// What a store says that a key was at a past revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// It cannot say: that was compacted away, or the store has not come so far.
    Gone,
    /// This; none when there was no such key.
    Was(Option<KeyValue>),
}

/// How whoever comes to a store again goes on; see [`Mark::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With what changed after [`Reader::revision`].
    Watch,
    /// With all keys, and [`Reader::take_all`].
    ReadAll,
    /// Not at all: it is an older copy, in which others have written on.
    OlderCopy,
}

/// Up to where everything that was ever answered must be read; see
/// [`Mark::read_up_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpTo {
    /// Up to this revision of the store.
    Revision(u64),
    /// Somebody deleted [`names::HEAD`]: write it, and read up to that.
    HeadWritten,
    /// The store is an older copy than was read: come to it anew.
    OlderCopy,
}

/// Where a reader stood at a moment. It is taken before the store is asked, for the
/// reader may read on while that is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    revision: u64,
    head: Option<KeyValue>,
    board_is_empty: bool,
}

impl Reader {
    /// Where this reader stands.
    pub fn mark(&self) -> Mark {
        Mark {
            revision: self.revision(),
            head: self.head().cloned(),
            board_is_empty: self.board_is_empty(),
        }
    }
}

impl Mark {
    /// The store's revision up to which everything was read.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How to go on after an interruption, and when changes were compacted away: then
    /// silence would mean nothing. `then` is what the store says that [`names::HEAD`]
    /// was at [`Mark::revision`].
    pub fn resume(&self, then: &Past) -> Resume {
        match then {
            // What there is now tells whether this is the same store.
            Past::Gone => Resume::ReadAll,
            Past::Was(then) if *then == self.head => Resume::Watch,
            Past::Was(_) => Resume::OlderCopy,
        }
    }

    /// Up to where to read, so that all is read that was answered to anybody before
    /// the store was asked. It is at `revision` now, and [`names::HEAD`] is `head`.
    pub fn read_up_to(&self, head: Option<&KeyValue>, revision: u64) -> UpTo {
        let written = head.map_or(0, |kv| kv.mod_revision);
        // Whatever was written up to the mark was read.
        let other_past = head.is_some() && written <= self.revision && head != self.head.as_ref();
        if revision < self.revision || other_past {
            return UpTo::OlderCopy;
        }
        match written {
            // Deleted by somebody: what was written before cannot be told from it.
            0 if !self.board_is_empty => UpTo::HeadWritten,
            written => UpTo::Revision(written),
        }
    }
}

impl Taken {
    /// The store is an older copy than was read, and was not taken in.
    pub fn is_rolled_back(&self) -> bool {
        let rolled_back = |what: &What| matches!(what, What::RolledBack { .. });
        self.findings
            .iter()
            .any(|finding| rolled_back(&finding.what))
    }

    /// What was read was not the whole log: this reader must put nothing right, and
    /// a new one has to start.
    pub fn is_incomplete(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.what == What::Incomplete)
    }
    /// Perhaps what was read is not all that there was: somebody has deleted a record
    /// while nobody could see that, and what came after it makes no sense now. Whoever
    /// knows the record is putting it back at this moment, so it is better to read once
    /// more than to take this in. Until then [`Taken::written_back`] alone is right.
    pub fn is_doubtful(&self) -> bool {
        let known = |what: &What| matches!(what, What::Vanished | What::Overwritten);
        self.findings.iter().any(|finding| !known(&finding.what))
    }

    /// Of the steps that put things right those that write what was there before, and
    /// take nothing away.
    pub fn written_back(self) -> Vec<Step> {
        let absent = |guard: &Guard| matches!(guard, Guard::Absent(_));
        let mut steps = self.mending;
        steps.retain(|step| step.guards.iter().all(absent));
        steps
    }
}
