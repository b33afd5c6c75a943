//! Leaf first: a block whose chain is broken before it can never hit, so what leaves the arena leaves from the ends of chains.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_store::{Put, Store, StoreConfig};

const BLOCK: usize = 32 << 10;
/// Blocks of one request, on average.
const LENGTH: u64 = 60;
const CHAINS: u64 = 120;
const REQUESTS: u64 = 900;

struct Requests {
    store: Store,
    random: u64,
    bytes: Vec<u8>,
    asked: u64,
    hit: u64,
}

impl Requests {
    fn new(place: &tempfile::TempDir, eviction: &str) -> Self {
        let builder = StoreConfig::builder().without_environment().shm_path(place.path().join(eviction));
        let builder = builder.shm_capacity("64MiB").unwrap().set("eviction", eviction).unwrap();
        let store = Store::open(&builder.resolve().unwrap()).unwrap();
        Self { store, random: 7, bytes: vec![1; BLOCK], asked: 0, hit: 0 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn chain(number: u64) -> Vec<BlockId> {
        // Of lengths that differ, so that chains end everywhere.
        let length = LENGTH / 2 + number * 7 % LENGTH;
        (0..length).map(|depth| BlockId::content(&(number << 32 | depth).to_le_bytes())).collect()
    }

    /// What an engine does: looks up the chain, loads what hits, computes the rest, and puts it.
    fn request(&mut self, number: u64) {
        let ids = Self::chain(number);
        let hit = self.store.longest_prefix(&ids);
        let leases = self.store.lease_batch(&ids[..hit]);
        assert!(leases.iter().all(Result::is_ok));
        drop(leases);
        let blocks: Vec<(BlockId, &[u8])> = ids[hit..].iter().map(|id| (*id, &self.bytes[..])).collect();
        let outcomes = self.store.put_batch(&blocks, Put::default());
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored | Outcome::Exists)));
        (self.asked, self.hit) = (self.asked + ids.len() as u64, self.hit + hit as u64);
    }

    /// Blocks that are there, and those of them that can never hit.
    fn orphans(&self) -> (usize, usize) {
        let (mut there, mut reachable) = (0, 0);
        for number in 0..CHAINS {
            let ids = Self::chain(number);
            there += self.store.lookup(&ids).iter().filter(|answer| answer.is_hit()).count();
            reachable += self.store.longest_prefix(&ids);
        }
        (there, there - reachable)
    }

    /// Half of the requests are for the same ten chains. Gives the mean share of blocks that cannot hit, in percent, seen every hundred.
    fn run(&mut self) -> f64 {
        let (mut sum, mut looks) = (0.0, 0.0);
        for at in 0..REQUESTS {
            let number = if self.below(2) == 0 { self.below(10) } else { self.below(CHAINS) };
            self.request(number);
            if at % 100 == 99 {
                let (there, orphans) = self.orphans();
                (sum, looks) = (sum + 100.0 * orphans as f64 / there as f64, looks + 1.0);
            }
        }
        sum / looks
    }
}

#[test]
fn what_leaves_the_arena_leaves_from_the_ends_of_chains() {
    let place = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    for eviction in ["learned", "lru"] {
        let mut requests = Requests::new(&place, eviction);
        let share = requests.run();
        let stats = requests.store.stats().arena();
        println!(
            "{eviction}: {share:.1} % of the blocks that are there cannot hit; {} of {} blocks asked for were hits; {} evictions",
            requests.hit, requests.asked, stats.evictions
        );
        assert!(stats.evictions > 10_000, "more is put than there is room for");
        // Where depth decides nothing it is 55 %.
        assert!(share < 48.0, "{eviction}: {share:.1} % of the blocks that are there cannot hit");
    }
}
