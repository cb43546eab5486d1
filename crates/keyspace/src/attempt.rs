//! One operation on its way to the store: when it is sent again, and what is answered
//! to whoever asked for it.

use crate::batch::{Ask, Verdict};
use crate::reader::Reply;

/// What becomes of an [`Attempt`] now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This is the answer.
    Answer(Reply),
    /// Nobody can say: the store did not tell what became of an earlier sending, and
    /// what the board refuses now it may take by the time that sending arrives.
    Unknown,
    /// Read the board to the end, say so with [`Attempt::was_read`], and plan it again.
    Read,
    /// Plan it again, under the same name.
    Again,
}

/// An operation that was asked for and is not answered yet. However often it is sent,
/// it bears one name, so that what is read back under that name is its answer, whichever
/// sending brought it about.
#[derive(Clone, Debug)]
pub struct Attempt {
    ask: Ask,
    /// The board was read to the end after this was asked: what it says is the answer.
    fresh: bool,
    /// It was sent, and nobody knows whether it took effect.
    doubtful: bool,
}

impl Attempt {
    /// One that was not sent yet.
    pub fn new(ask: Ask) -> Self {
        Self {
            ask,
            fresh: false,
            doubtful: false,
        }
    }

    /// What was asked for.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The plan says that it needs no sending; `head` is the board's revision.
    pub fn settled(&self, verdict: Verdict, head: u64) -> Next {
        if !self.fresh {
            return Next::Read;
        }
        if self.doubtful && !verdict.is_certain(&self.ask.op) {
            return Next::Unknown;
        }
        Next::Answer(match verdict {
            Verdict::Unchanged => Reply::Unchanged(head),
            Verdict::Refused(refusal) => Reply::Refused(refusal),
        })
    }

    /// The board was read to the end since [`Attempt::settled`] asked for it.
    pub fn was_read(&mut self) {
        self.fresh = true;
    }

    /// The store carried the transaction out, and everything up to it was read.
    /// `held` says whether the guards held, `heard` what was read back under its name.
    pub fn carried_out(&mut self, held: bool, heard: Option<Reply>) -> Next {
        if let Some(reply) = heard {
            return Next::Answer(reply);
        }
        // A guard did not hold: what it depends on has changed. Or it was written and is
        // not there: then the board says why.
        self.fresh = held;
        Next::Again
    }

    /// The store did not say what became of the transaction; `heard` as above.
    pub fn unheard(&mut self, heard: Option<Reply>) -> Next {
        if let Some(reply) = heard {
            return Next::Answer(reply);
        }
        self.doubtful = true;
        self.fresh = false;
        Next::Again
    }
}
