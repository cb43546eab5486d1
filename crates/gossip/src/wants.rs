//! Ids that were announced and have not come.

use std::collections::{BTreeMap, BTreeSet};

use crate::params::{MessageId, Params};

/// How many announcers of one message are remembered.
const ANNOUNCERS: usize = 32;

/// How often one announcer is asked for the same message: once more, as the request or
/// the answer may have been lost.
const ASKED_MOST: usize = 2;

/// A message that is wanted.
#[derive(Clone, Debug)]
struct Want<P> {
    /// Who announced it, in that order, and how often each was asked.
    announcers: Vec<(P, usize)>,
    /// Counted against this peer's quota: who announced it first.
    quota: P,
    asked: Option<P>,
    times: usize,
    due_ms: u64,
}

/// What is done for a want that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask<P> {
    pub(crate) id: MessageId,
    /// Who was asked before and has not delivered.
    pub(crate) broken_by: Option<P>,
    /// Whom to ask now.
    pub(crate) of: Option<P>,
}

/// All wants. Each peer has a quota, so all of them are bounded by peers times quota.
#[derive(Clone, Debug)]
pub(crate) struct Wants<P> {
    wants: BTreeMap<MessageId, Want<P>>,
    due: BTreeSet<(u64, MessageId)>,
    of_peer: BTreeMap<P, usize>,
}

impl<P: Clone + Ord> Wants<P> {
    pub(crate) fn new() -> Self {
        Self {
            wants: BTreeMap::new(),
            due: BTreeSet::new(),
            of_peer: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.wants.len()
    }

    /// A peer says that it has a message which this node has not. The least of those
    /// that were not asked makes room for a better one: whoever announces first must not
    /// be all that is asked.
    pub(crate) fn announced(
        &mut self,
        params: &Params,
        now_ms: u64,
        id: MessageId,
        from: &P,
        score: impl Fn(&P) -> i32,
    ) {
        if let Some(want) = self.wants.get_mut(&id) {
            if want.announcers.iter().any(|(peer, _)| peer == from) {
                return;
            }
            if want.announcers.len() >= ANNOUNCERS {
                let unasked = want.announcers.iter().enumerate();
                let unasked = unasked.filter(|(_, (_, asked))| *asked == 0);
                let least = unasked.min_by_key(|(_, (peer, _))| score(peer));
                match least.map(|(at, (peer, _))| (at, score(peer))) {
                    Some((at, least)) if least < score(from) => {
                        want.announcers.remove(at);
                    }
                    _ => return,
                }
            }
            want.announcers.push((from.clone(), 0));
            return;
        }
        let count = self.of_peer.entry(from.clone()).or_default();
        if *count >= params.wanted_of_peer {
            return;
        }
        *count += 1;
        let due_ms = now_ms + params.pull_wait_ms;
        self.due.insert((due_ms, id));
        let want = Want {
            announcers: vec![(from.clone(), 0)],
            quota: from.clone(),
            asked: None,
            times: 0,
            due_ms,
        };
        self.wants.insert(id, want);
    }

    /// A message came: gives who announced it.
    pub(crate) fn came(&mut self, id: &MessageId) -> Vec<P> {
        let announcers = self
            .remove(id)
            .map_or_else(Vec::new, |want| want.announcers);
        announcers.into_iter().map(|(peer, _)| peer).collect()
    }

    fn remove(&mut self, id: &MessageId) -> Option<Want<P>> {
        let want = self.wants.remove(id)?;
        self.due.remove(&(want.due_ms, *id));
        if let Some(count) = self.of_peer.get_mut(&want.quota) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&want.quota);
            }
        }
        Some(want)
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next want that is due, and what is done for it. `score` is of a peer that
    /// may be asked; none for one that may not.
    pub(crate) fn due(
        &mut self,
        params: &Params,
        now_ms: u64,
        score: impl Fn(&P) -> Option<i32>,
    ) -> Option<Ask<P>> {
        let (at, id) = self.due.first().copied().filter(|(at, _)| *at <= now_ms)?;
        self.due.remove(&(at, id));
        let want = self.wants.get_mut(&id)?;
        let broken_by = want.asked.take();
        // Those not asked yet first, the best of them before the others. Among equals the
        // id's bytes choose: liars that announced before everybody else would otherwise
        // be asked one after the other, and for every message the same one first.
        let turn = |at: usize| id.0[at % id.0.len()];
        let able = want.announcers.iter().enumerate();
        let able = able.filter(|(_, (_, asked))| *asked < ASKED_MOST);
        let able = able.filter_map(|(at, (peer, asked))| {
            Some((*asked, std::cmp::Reverse(score(peer)?), turn(at), at))
        });
        let of = match able.min() {
            Some((_, _, _, at)) if want.times < params.pulls_most => {
                let (peer, asked) = &mut want.announcers[at];
                *asked += 1;
                let peer = peer.clone();
                want.times += 1;
                want.asked = Some(peer.clone());
                want.due_ms = now_ms + params.pull_retry_ms;
                self.due.insert((want.due_ms, id));
                Some(peer)
            }
            _ => {
                self.remove(&id);
                None
            }
        };
        Some(Ask { id, broken_by, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId([1; 32]);

    #[test]
    fn one_announcer_after_the_other_is_asked_and_then_it_is_given_up() {
        let params = Params::default();
        let mut wants = Wants::new();
        for peer in [1, 2, 3] {
            wants.announced(&params, 0, ID, &peer, |_| 0);
        }
        let score = |peer: &u8| (*peer != 3).then_some(i32::from(*peer));
        assert_eq!(wants.due(&params, params.pull_wait_ms - 1, score), None);
        let mut asked = Vec::new();
        while let Some(at) = wants.next_due() {
            let ask = wants.due(&params, at, score).unwrap();
            asked.push((at, ask.broken_by, ask.of));
            assert_eq!(wants.due(&params, at, score), None);
        }
        assert_eq!(
            asked,
            [
                (50, None, Some(2)),
                (550, Some(2), Some(1)),
                // Those that were asked are asked again while there is nobody else.
                (1_050, Some(1), Some(2)),
                (1_550, Some(2), Some(1)),
                (2_050, Some(1), None),
            ]
        );
        assert_eq!((wants.len(), wants.of_peer.len()), (0, 0));
    }

    #[test]
    fn who_announces_first_does_not_keep_better_ones_out() {
        let params = Params::default();
        let mut wants = Wants::new();
        let score = |peer: &u8| if *peer == 99 { 1 } else { 0 };
        for liar in 0..50 {
            wants.announced(&params, 0, ID, &liar, score);
        }
        wants.announced(&params, 10, ID, &99, score);
        let ask = wants.due(&params, 50, |peer| Some(score(peer))).unwrap();
        assert_eq!(ask.of, Some(99));
        assert_eq!(wants.came(&ID).len(), ANNOUNCERS);
    }

    #[test]
    fn a_peer_fills_its_own_quota() {
        let params = Params {
            wanted_of_peer: 10,
            ..Params::default()
        };
        let mut wants = Wants::new();
        for n in 0..100 {
            wants.announced(&params, 0, MessageId([n; 32]), &1, |_| 0);
        }
        wants.announced(&params, 0, MessageId([200; 32]), &2, |_| 0);
        assert_eq!(wants.len(), 11);
        assert_eq!(wants.came(&MessageId([200; 32])), [2]);
        assert_eq!(wants.came(&MessageId([0; 32])), [1]);
        wants.announced(&params, 0, MessageId([99; 32]), &1, |_| 0);
        assert_eq!(wants.len(), 10);
    }
}
