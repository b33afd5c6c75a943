//! Which rank keeps what is known of a block, and in which bucket: a pure function of the id, the same on every rank.

use cascade_core::id::BlockId;

/// Any odd numbers without a pattern would do; these are digits of the golden ratio and of pi.
const KEYS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
];

/// Where the directory entry of a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketAt {
    /// The rank that keeps it.
    pub rank: u32,
    /// Number of the bucket there.
    pub bucket: u64,
}

/// The directory's shape, which every rank of a job has to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    ranks: u32,
    buckets: u64,
}

impl Route {
    /// A directory over `ranks` ranks with `buckets` buckets on each; both at least 1, what is less counts as 1.
    #[must_use]
    pub fn new(ranks: u32, buckets: u64) -> Self {
        Self { ranks: ranks.max(1), buckets: buckets.max(1) }
    }

    /// Ranks.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Buckets of each rank.
    #[must_use]
    pub fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Where the entry of `id` stands. Rank and bucket come from unrelated bits, so the ids of one rank fill all its buckets.
    #[must_use]
    pub fn of(&self, id: &BlockId) -> BucketAt {
        let hash = mix(id);
        let again = folded(hash ^ KEYS[3], KEYS[4]);
        BucketAt { rank: scaled(hash, u64::from(self.ranks)) as u32, bucket: scaled(again, self.buckets) }
    }
}

/// Every bit of the id decides: ids may be small numbers, or differ in one byte.
fn mix(id: &BlockId) -> u64 {
    let mut hash = KEYS[0];
    for (word, key) in id.words().into_iter().zip(KEYS) {
        hash = folded(hash ^ word.wrapping_add(key), KEYS[4] | 1);
        hash ^= hash >> 29;
    }
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Both halves of a product, folded together.
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// A number below `count`, each equally often: the upper half of the product, without a division.
fn scaled(hash: u64, count: u64) -> u64 {
    (u128::from(hash) * u128::from(count) >> 64) as u64
}

/// How evenly ids spread over ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// Ids of the rank that has the most, over the mean.
    pub max_over_mean: f64,
    /// What that is expected to be where every id falls on each rank with the same chance: `1 + sqrt(2 ln ranks / mean)`, the
    /// bound that chance itself keeps to in most draws.
    pub by_chance: f64,
}

/// Spreads `ids` over `ranks` ranks by [`Route`]. Costs no memory but a counter for each rank.
#[must_use]
pub fn balance(ranks: u32, ids: impl Iterator<Item = BlockId>) -> Balance {
    let route = Route::new(ranks, 1);
    let mut loads = vec![0_u64; route.ranks() as usize];
    for id in ids {
        loads[route.of(&id).rank as usize] += 1;
    }
    let mean = loads.iter().sum::<u64>() as f64 / loads.len() as f64;
    let most = loads.iter().copied().max().unwrap_or(0) as f64;
    let by_chance = 1.0 + (2.0 * f64::from(route.ranks()).ln() / mean.max(1.0)).sqrt();
    Balance { max_over_mean: if mean > 0.0 { most / mean } else { 1.0 }, by_chance }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> BlockId {
        BlockId::from_words([number, 0, 0, 0])
    }

    #[test]
    fn every_place_is_within_the_directory() {
        for (ranks, buckets) in [(0, 0), (1, 1), (3, 7), (4096, 1 << 20), (u32::MAX, u64::MAX)] {
            let route = Route::new(ranks, buckets);
            for number in 0..1000 {
                let at = route.of(&numbered(number * number));
                assert!(at.rank < route.ranks() && at.bucket < route.buckets(), "{at:?} of {route:?}");
            }
        }
    }

    #[test]
    fn loads_are_as_even_as_chance_makes_them() {
        for ranks in [4, 16, 64, 1024, 4096] {
            let each = 2_000_000 / u64::from(ranks);
            for (ids, what) in [
                (balance(ranks, (0..each * u64::from(ranks)).map(numbered)), "small numbers"),
                (balance(ranks, (0..each * u64::from(ranks)).map(|n| numbered(n << 40))), "high bits"),
                (
                    balance(ranks, (0..each * u64::from(ranks)).map(|n| BlockId::from_words([7, 7, n, 7]))),
                    "third word",
                ),
            ] {
                println!(
                    "{ranks} ranks, {each} ids each, {what}: {:.4}, by chance {:.4}",
                    ids.max_over_mean, ids.by_chance
                );
                // Half more of a deviation than chance shows in most draws: a hash that clusters is far beyond.
                assert!(
                    ids.max_over_mean - 1.0 < 1.5 * (ids.by_chance - 1.0),
                    "{ranks} ranks, {what}: {ids:?}"
                );
            }
        }
    }

    #[test]
    fn the_ids_of_one_rank_fill_all_its_buckets() {
        let route = Route::new(64, 1000);
        let mut loads = vec![0_u32; 1000];
        let mine = (0..2_000_000).map(numbered).map(|id| route.of(&id)).filter(|at| at.rank == 5);
        mine.for_each(|at| loads[at.bucket as usize] += 1);
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(*least > 5 && *most < 70, "about 31 each, {least} to {most}");
    }
}
