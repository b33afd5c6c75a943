//! Prefix blocks stay while they fit under their bound, whatever the lengths of blocks, and however much else is put.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Class, Lookup, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Lengths of a few tokens' bytes and of a long prompt's, whole pages and not.
const LENGTHS: [u64; 9] = [1, 4 * KIB, 20_000, 64 * KIB, 100_001, 300_000, MIB, 4 * MIB + 4097, 9 * MIB];

/// The longest of them that is of the kind of small blocks, by its place.
const SMALL: usize = 3;

/// A life of an arena.
#[derive(Clone, Debug)]
struct Life {
    capacity_mib: u64,
    region_mib: u64,
    /// Which of [`LENGTHS`] prefix blocks and the others have, drawn in turn.
    prefix_lengths: Vec<usize>,
    other_lengths: Vec<usize>,
    /// Prefix blocks' share of the arena, what of others is put in all, both in percent of it, and which percentage of that is put
    /// before the first prefix block.
    puts: (u64, u64, u64),
    seed: u64,
}

fn lives() -> impl Strategy<Value = Life> {
    let lengths = || proptest::collection::vec(0..LENGTHS.len(), 1..6);
    let arena = prop_oneof![Just((32, 2)), Just((64, 4)), Just((96, 4)), Just((128, 8))];
    let shares = (10_u64..=30, 200_u64..=1000, 10_u64..=60);
    (arena, lengths(), lengths(), shares, any::<u64>()).prop_map(
        |((capacity_mib, region_mib), prefix_lengths, mut other_lengths, shares, seed)| {
            // Where all there is of a kind are prefix blocks, more room for it is a region of the other kind, and each of those may
            // have prefix blocks, too: then the fewest of them go.
            other_lengths
                .extend(prefix_lengths.iter().map(|at| if *at <= SMALL { SMALL } else { SMALL + 2 }));
            let (prefix_percent, churn_percent, before_percent) = shares;
            let puts = (prefix_percent, churn_percent, before_percent);
            Life { capacity_mib, region_mib, prefix_lengths, other_lengths, puts, seed }
        },
    )
}

/// What a block takes of the data area.
fn taken(len: u64) -> u64 {
    len.next_multiple_of(if len <= 64 * KIB { 4 * KIB } else { 64 * KIB })
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn length(&mut self, of: &[usize], longest: u64) -> u64 {
        let at = of[self.below(of.len() as u64) as usize];
        LENGTHS[at].min(longest)
    }
}

fn open(life: &Life) -> (tempfile::TempDir, Arena) {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(life.capacity_mib * MIB);
    // The index has room for all: what leaves for want of a slot is another matter.
    let slots = Some(life.capacity_mib * MIB / (2 * KIB));
    let arena =
        Arena::open(&ArenaConfig { region_bytes: Some(life.region_mib * MIB), slots, ..config }).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    (folder, arena)
}

fn put(arena: &Arena, name: &str, len: u64, class: Class) -> Outcome {
    let from = Piece::shared(Arc::from(vec![len as u8; len as usize])).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta { class, ..PutMeta::default() } };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn lost(arena: &Arena, names: &[(String, u64)]) -> Vec<String> {
    let ids: Vec<BlockId> = names.iter().map(|(name, _)| BlockId::named(name)).collect();
    let mut out = vec![Lookup::Pending; ids.len()];
    arena.lookup(&ids, &mut out);
    let gone = names.iter().zip(&out).filter(|(_, found)| !found.is_hit());
    gone.map(|((name, len), _)| format!("{name} of {len} bytes")).collect()
}

/// Puts others until `bytes` of them were put; at least some must find room.
fn churn(arena: &Arena, life: &Life, random: &mut Random, bytes: u64, what: &str) {
    let (mut done, mut stored, mut tried) = (0, 0, 0_u64);
    // The smallest blocks alone would take forever.
    while done < bytes && tried < 40_000 {
        let len = random.length(&life.other_lengths, life.capacity_mib * MIB / 8);
        stored += u64::from(put(arena, &format!("{what} {tried}"), len, Class::Ordinary) == Outcome::Stored);
        (done, tried) = (done + taken(len), tried + 1);
    }
    assert!(stored * 10 >= tried * 9, "{stored} of {tried} others were stored");
}

/// The prefix blocks that a life lost.
fn live(life: &Life) -> Vec<String> {
    let (_folder, arena) = open(life);
    let capacity = life.capacity_mib * MIB;
    let mut random = Random(life.seed | 1);
    let (prefix_percent, churn_percent, before_percent) = life.puts;
    let churned = capacity * churn_percent / 100;
    churn(&arena, life, &mut random, churned * before_percent / 100, "before");
    let mut prefix: Vec<(String, u64)> = Vec::new();
    let mut bytes = 0;
    loop {
        let len = random.length(&life.prefix_lengths, capacity / 16);
        bytes += taken(len);
        if bytes > capacity * prefix_percent / 100 || prefix.len() > 3000 {
            break;
        }
        let name = format!("prefix {}", prefix.len());
        assert_eq!(put(&arena, &name, len, Class::Prefix), Outcome::Stored);
        prefix.push((name, len));
        // Others come in between.
        if random.below(2) == 0 {
            let len = random.length(&life.other_lengths, capacity / 8);
            put(&arena, &format!("between {}", prefix.len()), len, Class::Ordinary);
        }
    }
    churn(&arena, life, &mut random, churned * (100 - before_percent) / 100, "after");
    lost(&arena, &prefix)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        max_shrink_iters: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn prefix_blocks_stay_while_they_fit(life in lives()) {
        let lost = live(&life);
        prop_assert!(lost.is_empty(), "lost {lost:?}");
    }
}

/// Long blocks push out windows of many short ones, of which not each is looked at.
#[test]
fn short_prefix_blocks_stay_beside_long_others() {
    let life = Life {
        capacity_mib: 128,
        region_mib: 8,
        prefix_lengths: vec![3, 4, 5],
        other_lengths: vec![4, 5, 8],
        puts: (20, 600, 20),
        seed: 7,
    };
    assert_eq!(live(&life), Vec::<String>::new());
}
