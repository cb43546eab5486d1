//! Chance from a seed: the same numbers on every machine. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood: *Fast Splittable Pseudorandom Number Generators*,
/// 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Mixes more chance in.
    pub(crate) fn stir(&mut self, more: u64) {
        self.0 = self.next().wrapping_add(more);
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 when there is none.
    fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        // The remainder is off by one in 2^64 / end: too little to matter here.
        usize::try_from(self.next() % end.max(1)).unwrap_or(0)
    }

    /// So many of the items, each equally likely, in any order.
    pub(crate) fn pick<T>(&mut self, mut items: Vec<T>, count: usize) -> Vec<T> {
        let count = count.min(items.len());
        for i in 0..count {
            let other = i + self.below(items.len() - i);
            items.swap(i, other);
        }
        items.truncate(count);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_same_from_one_seed_and_picks_evenly() {
        let mut a = Rng::new(7);
        let mut b = Rng::new(7);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            let picked = a.pick((0..10).collect(), 3);
            assert_eq!(picked, b.pick((0..10).collect(), 3));
            assert_eq!(picked.len(), 3);
            for i in picked {
                counts[i] += 1;
            }
        }
        assert!(
            counts.iter().all(|n| (2_700..3_300).contains(n)),
            "{counts:?}"
        );
        b.stir(1);
        let numbers = |rng: &mut Rng| rng.pick((0..1_000).collect(), 10);
        assert_ne!(numbers(&mut a), numbers(&mut b));
        assert!(a.pick(Vec::<u8>::new(), 3).is_empty());
    }
}
