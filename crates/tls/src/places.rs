//! Places for handshakes. There are so many in all and so many for one address, and
//! nobody waits for one: when they are taken, the handshake that has lasted longest of
//! the address with the most gives its place to the newcomer.
//!
//! An honest handshake takes milliseconds; one that was opened to hold a place is the
//! oldest very soon. So ten thousand silent connections push out each other, and a
//! client beside them comes through, even one that shares their address.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places of one listener. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Whose handshake each is, and what ends it.
    handshakes: HashMap<u64, (IpAddr, CancellationToken)>,
    /// Each address's handshakes; the smallest number is the oldest.
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    taken: Arc<Mutex<Taken>>,
    /// Cancelled when a newcomer takes the place.
    pub(crate) lost: CancellationToken,
}

impl Places {
    /// `most` places, at most `most_of_one` for one address; at least one each.
    pub(crate) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most: most.max(1),
            most_of_one: most_of_one.max(1),
            taken: Arc::default(),
        }
    }

    /// Takes a place for a handshake with this address.
    pub(crate) fn take(&self, from: IpAddr) -> Place {
        let from = group(from);
        let mut taken = lock(&self.taken);
        if taken.of(&from) >= self.most_of_one {
            taken.push_out(from);
        } else if taken.handshakes.len() >= self.most
            && let Some(crowd) = taken.largest()
        {
            taken.push_out(crowd);
        }
        let id = taken.next;
        taken.next += 1;
        let lost = CancellationToken::new();
        taken.handshakes.insert(id, (from, lost.clone()));
        taken.by_address.entry(from).or_default().insert(id);
        Place {
            id,
            taken: Arc::clone(&self.taken),
            lost,
        }
    }
}

impl Taken {
    fn of(&self, from: &IpAddr) -> usize {
        self.by_address.get(from).map_or(0, BTreeSet::len)
    }

    fn largest(&self) -> Option<IpAddr> {
        let oldest = |ids: &BTreeSet<u64>| std::cmp::Reverse(ids.first().copied());
        let crowd = self.by_address.iter();
        crowd
            .max_by_key(|(_, ids)| (ids.len(), oldest(ids)))
            .map(|(from, _)| *from)
    }

    /// Ends the oldest handshake of this address.
    fn push_out(&mut self, from: IpAddr) {
        let oldest = self.by_address.get(&from).and_then(BTreeSet::first);
        if let Some((_, lost)) = oldest.copied().and_then(|id| self.remove(id)) {
            lost.cancel();
        }
    }

    fn remove(&mut self, id: u64) -> Option<(IpAddr, CancellationToken)> {
        let removed = self.handshakes.remove(&id)?;
        if let Some(ids) = self.by_address.get_mut(&removed.0) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_address.remove(&removed.0);
            }
        }
        Some(removed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).remove(self.id);
    }
}

/// Each change leaves the two maps in agreement before anything can panic.
fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom an address counts with: of IPv6 the network of 64 bits, for one machine has all
/// of it.
pub(crate) fn group(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_of_the_largest_crowd_gives_way() {
        let places = Places::new(4, 3);
        let honest = places.take(ip("10.0.0.1"));
        let crowd: Vec<Place> = (0..3).map(|_| places.take(ip("10.0.0.2"))).collect();
        assert!(crowd.iter().all(|place| !place.lost.is_cancelled()));
        // All four are taken: the newcomer gets one of the crowd's, and the old honest
        // handshake stays.
        let newcomer = places.take(ip("10.0.0.3"));
        let lost: Vec<bool> = crowd.iter().map(|p| p.lost.is_cancelled()).collect();
        assert_eq!(lost, [true, false, false]);
        assert!(!honest.lost.is_cancelled() && !newcomer.lost.is_cancelled());
        assert_eq!(lock(&places.taken).handshakes.len(), 4);
    }

    #[test]
    fn an_address_has_a_share_and_a_place_comes_back() {
        let places = Places::new(10, 2);
        let first = places.take(ip("10.0.0.1"));
        let second = places.take(ip("::ffff:10.0.0.1"));
        drop(first);
        let third = places.take(ip("10.0.0.1"));
        assert!(!second.lost.is_cancelled(), "the first had left");
        let _fourth = places.take(ip("10.0.0.1"));
        assert!(second.lost.is_cancelled() && !third.lost.is_cancelled());
        drop((second, third, _fourth));
        let taken = lock(&places.taken);
        assert!(taken.handshakes.is_empty() && taken.by_address.is_empty());
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        assert_eq!(group(ip("2001:db8::1")), group(ip("2001:db8::ffff:1")));
        assert_ne!(group(ip("2001:db8::1")), group(ip("2001:db8:0:1::1")));
    }
}
