//! Messages that may be asked for, and ids that were seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::params::{MessageId, Params};

/// A message that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept<P, M> {
    pub(crate) message: M,
    author: P,
    bytes: usize,
    at_ms: u64,
    /// The rounds in which it was announced.
    round: usize,
    /// When the next one is; none after the last.
    due_ms: Option<u64>,
    /// Peers that have it, as far as this node knows; kept up to the last round.
    known_by: BTreeSet<P>,
}

/// An author's messages that are kept, in the order of their coming.
#[derive(Clone, Debug, Default)]
struct Share {
    order: VecDeque<(u64, MessageId)>,
    bytes: usize,
}

/// A message that is handed in.
pub(crate) struct New<P, M> {
    pub(crate) id: MessageId,
    pub(crate) author: P,
    pub(crate) message: M,
    pub(crate) bytes: usize,
    /// Peers that have it already.
    pub(crate) known_by: BTreeSet<P>,
}

/// What was heard lately: ids for a long time, messages for a shorter one.
#[derive(Clone, Debug)]
pub(crate) struct Cache<P, M> {
    kept: BTreeMap<MessageId, Kept<P, M>>,
    of_author: BTreeMap<P, Share>,
    bytes: usize,
    /// The latest of them.
    recent: VecDeque<MessageId>,
    /// What is to be announced, and when.
    due: BTreeSet<(u64, MessageId)>,
    seen: BTreeMap<MessageId, u64>,
    seen_order: VecDeque<(u64, MessageId)>,
}

impl<P: Clone + Ord, M: Clone> Cache<P, M> {
    pub(crate) fn new() -> Self {
        Self {
            kept: BTreeMap::new(),
            of_author: BTreeMap::new(),
            bytes: 0,
            recent: VecDeque::new(),
            due: BTreeSet::new(),
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn has_seen(&self, id: &MessageId) -> bool {
        self.seen.contains_key(id)
    }

    pub(crate) fn message(&self, id: &MessageId) -> Option<&M> {
        self.kept.get(id).map(|kept| &kept.message)
    }

    /// Remembers an id.
    pub(crate) fn see(&mut self, params: &Params, now_ms: u64, id: MessageId) {
        if self.seen.insert(id, now_ms).is_none() {
            self.seen_order.push_back((now_ms, id));
        }
        while self.seen_order.len() > params.seen_most {
            self.forget_oldest_seen();
        }
    }

    fn forget_oldest_seen(&mut self) {
        let Some((at, id)) = self.seen_order.pop_front() else {
            return;
        };
        // Seen again meanwhile: it takes its place at the end.
        match self.seen.get(&id) {
            Some(last) if *last > at => self.seen_order.push_back((*last, id)),
            _ => {
                self.seen.remove(&id);
            }
        }
    }

    /// Keeps a message, to be announced and asked for. An author whose share is full
    /// of what is still being announced gets no more of it: what was announced must be
    /// there when it is asked for, or this node would break its word for others'
    /// noise.
    pub(crate) fn keep(&mut self, params: &Params, now_ms: u64, share: usize, new: New<P, M>) {
        if self.kept.contains_key(&new.id) {
            return;
        }
        let busy_ms = params.rounds_ms[params.rounds_ms.len() - 1]
            + params.pull_retry_ms * params.pulls_most as u64;
        let share_bytes = params.cache_bytes_most * share / params.cache_most.max(1);
        loop {
            let own = self.of_author.entry(new.author.clone()).or_default();
            let fits = own.order.len() < share
                && (own.order.is_empty() || own.bytes + new.bytes <= share_bytes);
            if fits {
                break;
            }
            match own.order.front().copied() {
                Some((at, oldest)) if now_ms.saturating_sub(at) >= busy_ms => {
                    self.drop_kept(&oldest);
                }
                _ => return,
            }
        }
        let own = self.of_author.entry(new.author.clone()).or_default();
        own.order.push_back((now_ms, new.id));
        own.bytes += new.bytes;
        self.bytes += new.bytes;
        let due_ms = on_beat(params, now_ms + params.rounds_ms[0]);
        self.due.insert((due_ms, new.id));
        let kept = Kept {
            message: new.message,
            author: new.author,
            bytes: new.bytes,
            at_ms: now_ms,
            round: 0,
            due_ms: Some(due_ms),
            known_by: new.known_by,
        };
        self.kept.insert(new.id, kept);
        self.recent.push_back(new.id);
        if self.recent.len() > params.recent_in_frame {
            self.recent.pop_front();
        }
    }

    /// The latest messages that are kept, as far as they share in announcements of
    /// others.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &MessageId> {
        self.recent.iter().filter(|id| self.kept.contains_key(id))
    }

    fn drop_kept(&mut self, id: &MessageId) {
        let Some(kept) = self.kept.remove(id) else {
            return;
        };
        self.bytes -= kept.bytes;
        if let Some(due_ms) = kept.due_ms {
            self.due.remove(&(due_ms, *id));
        }
        if let Some(own) = self.of_author.get_mut(&kept.author) {
            own.bytes -= kept.bytes;
            // It is the oldest.
            if let Some(at) = own.order.iter().position(|(_, other)| other == id) {
                own.order.remove(at);
            }
            if own.order.is_empty() {
                self.of_author.remove(&kept.author);
            }
        }
    }

    /// A peer has shown that it has this one.
    pub(crate) fn known_by(&mut self, params: &Params, id: &MessageId, peer: &P) {
        if let Some(kept) = self.kept.get_mut(id)
            && kept.round < params.rounds_ms.len()
        {
            kept.known_by.insert(peer.clone());
        }
    }

    /// Whether a peer has shown that it has this one.
    pub(crate) fn is_known_by(&self, id: &MessageId, peer: &P) -> bool {
        self.kept
            .get(id)
            .is_some_and(|kept| kept.known_by.contains(peer))
    }

    /// When there is something to announce.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes out what is to be announced now.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<MessageId> {
        let mut ids = Vec::new();
        while let Some((at, id)) = self.due.first().copied() {
            if at > now_ms {
                break;
            }
            self.due.remove(&(at, id));
            ids.push(id);
        }
        ids
    }

    /// These were announced: their next round comes, or nobody needs to know any more
    /// who has them.
    pub(crate) fn announced(&mut self, params: &Params, ids: &[MessageId]) {
        for id in ids {
            let Some(kept) = self.kept.get_mut(id) else {
                continue;
            };
            kept.round += 1;
            kept.due_ms = params
                .rounds_ms
                .get(kept.round)
                .map(|after| on_beat(params, kept.at_ms + after));
            match kept.due_ms {
                Some(due_ms) => {
                    self.due.insert((due_ms, *id));
                }
                None => kept.known_by = BTreeSet::new(),
            }
        }
    }

    /// The latest messages, in no order.
    pub(crate) fn latest(&self, most: usize) -> Vec<MessageId> {
        let kept = self.kept.iter();
        let mut latest: Vec<_> = kept.map(|(id, kept)| (kept.at_ms, *id)).collect();
        latest.sort_unstable_by(|a, b| b.cmp(a));
        latest.truncate(most);
        latest.into_iter().map(|(_, id)| id).collect()
    }

    /// Forgets what is old.
    pub(crate) fn forget(&mut self, params: &Params, now_ms: u64) {
        while let Some((at, _)) = self.seen_order.front() {
            if now_ms.saturating_sub(*at) < params.seen_ms {
                break;
            }
            self.forget_oldest_seen();
        }
        let old = |(at, _): &(u64, MessageId)| now_ms.saturating_sub(*at) >= params.cache_ms;
        let mut gone = Vec::new();
        for own in self.of_author.values() {
            let oldest = own.order.iter().take_while(|entry| old(entry));
            gone.extend(oldest.map(|(_, id)| *id));
        }
        for id in gone {
            self.drop_kept(&id);
        }
    }
}

/// The next beat at or after a time: what is announced on one beat shares its frames.
fn on_beat(params: &Params, at_ms: u64) -> u64 {
    at_ms.div_ceil(params.tick_ms.max(1)) * params.tick_ms.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> MessageId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        MessageId(bytes)
    }

    fn new(author: u8, n: u64) -> New<u8, u64> {
        New {
            id: id(n),
            author,
            message: n,
            bytes: 100,
            known_by: BTreeSet::new(),
        }
    }

    #[test]
    fn an_author_fills_its_own_share_and_nobody_elses() {
        let params = Params::default();
        let mut cache = Cache::new();
        cache.keep(&params, 0, 4, new(1, 1_000));
        for n in 0..100 {
            cache.keep(&params, 0, 4, new(2, n));
        }
        assert_eq!(cache.len(), 5);
        assert!(cache.message(&id(1_000)).is_some());
        // What is being announced stays; what was announced makes room.
        assert!(cache.message(&id(0)).is_some() && cache.message(&id(4)).is_none());
        cache.keep(&params, 10_000, 4, new(2, 50));
        assert!(cache.message(&id(0)).is_none() && cache.message(&id(50)).is_some());
        assert_eq!((cache.len(), cache.bytes()), (5, 500));
        cache.forget(&params, 10_000 + params.cache_ms);
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        assert!(cache.due.is_empty() && cache.of_author.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let params = Params {
            cache_bytes_most: 65_536 * 50,
            ..Params::default()
        };
        let mut cache = Cache::new();
        for n in 0..100 {
            cache.keep(&params, 0, 10, new(1, n));
        }
        assert_eq!(cache.bytes(), 500);
    }

    #[test]
    fn ids_are_forgotten_in_time_and_number() {
        let params = Params {
            seen_most: 3,
            ..Params::default()
        };
        let mut cache: Cache<u8, ()> = Cache::new();
        cache.see(&params, 0, id(0));
        cache.see(&params, 1, id(0));
        for n in 1..4 {
            cache.see(&params, 2, id(n));
        }
        // The first was seen again, later than when it took its place.
        assert_eq!(cache.seen(), 3);
        cache.forget(&params, 2 + params.seen_ms);
        assert_eq!((cache.seen(), cache.seen_order.len()), (0, 0));
    }

    #[test]
    fn each_message_is_announced_once_in_each_round() {
        let params = Params::default();
        let mut cache = Cache::new();
        cache.keep(&params, 10, 4, new(1, 7));
        let mut at = Vec::new();
        while let Some(due) = cache.next_due() {
            let ids = cache.due(due);
            assert_eq!(ids, [id(7)]);
            cache.announced(&params, &ids);
            at.push(due);
        }
        assert_eq!(at, [400, 1_000, 3_400]);
    }
}
