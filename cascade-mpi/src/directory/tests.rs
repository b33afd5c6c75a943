use std::collections::BTreeMap;

use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::route::{BucketAt, Route};

const AT: BucketAt = BucketAt { rank: 3, bucket: 17 };

fn meta(digest: u64) -> BlockMeta {
    BlockMeta { len: 65536, digest, class: Class::Ordinary, tenant: 0 }
}

fn owner(rank: u32, generation: u64) -> Owner {
    Owner { rank, slot: rank * 10, generation, incarnation: 7, offset: 4096 * u64::from(rank) }
}

fn id(number: u64) -> BlockId {
    BlockId::from_words([number, 1, 2, 3])
}

fn any_owner() -> impl Strategy<Value = Owner> {
    (0..1_u32 << 24, any::<u32>(), 0..1_u64 << 40, any::<u32>(), 0..1_u64 << 40).prop_map(
        |(rank, slot, generation, incarnation, units)| Owner {
            rank,
            slot,
            generation,
            incarnation,
            offset: units * 4096,
        },
    )
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let meta = (1..1_u64 << 40, any::<u64>(), any::<bool>(), any::<u16>());
    (any::<[u8; 32]>(), meta, vec(any_owner(), 1..=OWNERS)).prop_map(
        |(id, (len, digest, prefix, tenant), owners)| {
            let class = if prefix { Class::Prefix } else { Class::Ordinary };
            Entry { id: BlockId::from_bytes(id), meta: BlockMeta { len, digest, class, tenant }, owners }
        },
    )
}

proptest! {
    #[test]
    fn a_bucket_is_read_as_it_was_written(entries in vec(any_entry(), 0..=ENTRIES), changes: u64) {
        let bucket = Bucket { changes, entries };
        prop_assert_eq!(Bucket::parse(&bucket.encode(AT), AT), Ok(bucket));
    }

    #[test]
    fn one_changed_byte_is_noticed(entries in vec(any_entry(), 1..=ENTRIES), at in 0..BUCKET_BYTES, flip in 1..=255_u8) {
        let mut bytes = Bucket { changes: 1, entries }.encode(AT);
        bytes[at] ^= flip;
        prop_assert_eq!(Bucket::parse(&bytes, AT), Err(Damage::Torn));
    }

    #[test]
    fn halves_of_two_versions_are_noticed(old in vec(any_entry(), 1..=ENTRIES), new in vec(any_entry(), 1..=ENTRIES), words in 1..63_usize) {
        let (old, new) = (Bucket { changes: 4, entries: old }, Bucket { changes: 5, entries: new });
        let mut bytes = old.encode(AT);
        bytes[..words * 8].copy_from_slice(&new.encode(AT)[..words * 8]);
        let read = Bucket::parse(&bytes, AT);
        // Both may agree in what lies behind: then it is the newer one, whole.
        prop_assert!(read == Err(Damage::Torn) || read == Ok(new));
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes in vec(any::<u8>(), BUCKET_BYTES)) {
        let _ = Bucket::parse(&bytes.try_into().unwrap(), AT);
    }

    /// What a rank with a bug, or an enemy, may write: every digest is right.
    #[test]
    fn any_owner_under_a_right_digest_can_be_parsed(words in vec(any::<u64>(), 3), entry in any_entry()) {
        let mut bytes = Bucket { changes: 1, entries: vec![Entry { owners: vec![owner(1, 1)], ..entry }] }.encode(AT);
        for (place, word) in bytes[32 + 48..].chunks_exact_mut(8).zip(&words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let sum = cascade_core::digest::crc64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        let is_possible = words[2] < 1 << 40;
        prop_assert_eq!(Bucket::parse(&bytes, AT).is_ok(), is_possible);
    }

    /// Against a map that forgets nothing: what the table names was published last and not retracted since.
    #[test]
    fn a_table_names_only_what_was_published(steps in vec((0..12_u64, 0..5_u32, 0..3_u64, any::<bool>()), 0..200)) {
        let table = Table::new(AT.rank, 2);
        let mut model = BTreeMap::new();
        for (number, rank, generation, publish) in steps {
            let (bucket, owner) = (number % 2, owner(rank, generation));
            if publish {
                table.publish(bucket, &id(number), &meta(9), owner);
                model.insert((number, rank), owner);
            } else {
                table.retract(bucket, &id(number), &owner);
                if model.get(&(number, rank)) == Some(&owner) {
                    model.remove(&(number, rank));
                }
            }
            for number in 0..12 {
                let Some(entry) = table.find(number % 2, &id(number)) else { continue };
                prop_assert!((1..=OWNERS).contains(&entry.owners.len()));
                for owner in entry.owners {
                    prop_assert_eq!(model.get(&(number, owner.rank)), Some(&owner));
                }
            }
        }
        prop_assert_eq!(table.stats().damaged, 0);
    }
}

#[test]
fn the_bytes_of_a_bucket_stay_what_they_are() {
    let owners = vec![owner(1, 5), owner(2, 1 << 39)];
    let entry = Entry { id: BlockId::named("golden"), meta: meta(0x0123_4567_89ab_cdef), owners };
    let bytes = Bucket { changes: 3, entries: vec![entry] }.encode(AT);
    assert_eq!(cascade_core::digest::crc64(&bytes), 1_940_847_083_628_906_163);
}

#[test]
fn another_bucket_and_another_version_are_refused() {
    let bytes = Bucket { changes: 1, entries: Vec::new() }.encode(AT);
    let elsewhere = BucketAt { bucket: 18, ..AT };
    assert_eq!(Bucket::parse(&bytes, elsewhere), Err(Damage::Misdirected));
    let sign = |mut bytes: [u8; BUCKET_BYTES]| {
        let sum = cascade_core::digest::crc64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let mut newer = bytes;
    newer[28] = 2;
    assert_eq!(Bucket::parse(&sign(newer), AT), Err(Damage::Foreign));
    let mut crowded = bytes;
    crowded[30] = 5;
    assert_eq!(Bucket::parse(&sign(crowded), AT), Err(Damage::Impossible));
    let mut nobody = bytes;
    nobody[30] = 1;
    assert_eq!(
        Bucket::parse(&sign(nobody), AT),
        Err(Damage::Impossible),
        "a block of no bytes that nobody has"
    );
}

#[test]
fn memory_that_nobody_wrote_is_an_empty_bucket() {
    assert_eq!(Bucket::parse(&[0; BUCKET_BYTES], AT), Ok(Bucket::default()));
    assert_eq!(Table::new(0, 4).find(9, &id(1)), None, "beyond the end there is nothing");
}

#[test]
fn other_bytes_replace_and_a_fourth_owner_takes_the_place_of_the_first() {
    let table = Table::new(0, 1);
    for rank in 1..=4 {
        table.publish(0, &id(1), &meta(9), owner(rank, 1));
    }
    let ranks =
        |table: &Table| table.find(0, &id(1)).unwrap().owners.iter().map(|o| o.rank).collect::<Vec<_>>();
    assert_eq!(ranks(&table), [2, 3, 4]);
    table.publish(0, &id(1), &meta(9), owner(2, 8));
    assert_eq!(ranks(&table), [3, 4, 2], "one entry for each rank");
    table.publish(0, &id(1), &meta(10), owner(5, 1));
    assert_eq!(ranks(&table), [5], "the older bytes are nowhere any more");
    table.retract(0, &id(1), &owner(5, 0));
    assert_eq!(ranks(&table), [5], "another generation is another block");
    table.retract(0, &id(1), &owner(5, 1));
    assert_eq!(table.find(0, &id(1)), None);
}

/// At one block for two places, which is what the tier sizes its directory for at least.
#[test]
fn overflow_is_rare_and_costs_the_entry_alone() {
    let blocks = 20_000_u64;
    let route = Route::new(1, blocks / 2);
    let table = Table::new(0, usize::try_from(blocks / 2).unwrap());
    for number in 0..blocks {
        table.publish(route.of(&id(number)).bucket, &id(number), &meta(number), owner(1, 1));
    }
    let found =
        (0..blocks).filter(|n| table.find(route.of(&id(*n)).bucket, &id(*n)).is_some()).count() as u64;
    assert_eq!(found, blocks - table.stats().overflowed);
    assert!(found * 100 > blocks * 95, "{found} of {blocks}");
}
