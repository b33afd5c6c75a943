//! Capacity, eviction and what is counted.

use super::rig::{KEEP, KIB, MIB, PREFIX, REPLACE, Rig};
use super::{MakeTier, Verdict, rule};
use crate::batch::Outcome;
use crate::metrics::TierStats;
use crate::testing::bytes::{content, id};
use crate::tier::Tier;

/// Counters never go back, and what is in use never exceeds what there is.
fn grew(before: &TierStats, after: &TierStats, when: &str) -> Verdict {
    let gauges = ["capacity_bytes", "used_bytes", "blocks", "quarantined_bytes", "waiting_blocks"];
    for ((name, old), (_, new)) in before.fields().into_iter().zip(after.fields()) {
        rule!(gauges.contains(&name) || new >= old, "{when}: counter {name} went back from {old} to {new}");
    }
    rule!(after.used_bytes <= after.capacity_bytes, "{when}: more bytes in use than the capacity (I4)");
    Ok(())
}

pub(super) fn statistics(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let capacity = rig.stats().capacity_bytes;
    rule!(capacity == rig.capacity_bytes(), "statistics and capability differ on the capacity");
    let mut last = rig.stats();
    let mut step = |what: &str, delta: [u64; 7]| -> Verdict {
        let now = rig.stats();
        grew(&last, &now, what)?;
        let count = |s: &TierStats| [s.puts, s.exists, s.refused, s.hits, s.misses, s.bytes_in, s.bytes_out];
        let names = ["puts", "exists", "refused", "hits", "misses", "bytes_in", "bytes_out"];
        for (((old, new), more), name) in count(&last).into_iter().zip(count(&now)).zip(delta).zip(names) {
            rule!(new == old + more, "{what}: {name} must grow by {more}, went from {old} to {new}");
        }
        last = now;
        Ok(())
    };
    for (key, len) in [(0, 5000), (1, 70_000)] {
        let len_bytes = len as u64;
        rig.stored(&id(key), &content(key, 1, len), KEEP)?;
        step("a put", [1, 0, 0, 0, 0, len_bytes, 0])?;
        rig.put(&id(key), &content(key, 1, len), KEEP)?;
        step("a put of what exists", [0, 1, 0, 0, 0, 0, 0])?;
        rig.expect(&id(key), &content(key, 1, len), "a fetch")?;
        step("a fetch", [0, 0, 0, 1, 0, 0, len_bytes])?;
        rig.get(&id(key + 50), 100)?;
        step("a fetch that misses", [0, 0, 0, 0, 1, 0, 0])?;
        rig.put(&id(key + 50), &content(0, 0, 0), KEEP)?;
        step("an empty put", [0, 0, 1, 0, 0, 0, 0])?;
        rig.stored(&id(key), &content(key, 2, len), REPLACE)?;
        step("a put that replaces", [1, 0, 0, 0, 0, len_bytes, 0])?;
    }
    let now = rig.stats();
    rule!(now.blocks == 2, "two blocks are stored, {} counted", now.blocks);
    rule!(now.used_bytes >= 75_000, "75,000 bytes are stored, {} in use", now.used_bytes);
    rule!(
        now.evictions == 0 && now.corrupt == 0,
        "nothing was evicted or corrupt, and it is counted: {now:?}"
    );
    Ok(())
}

/// Puts `lens` round and round until ten times the capacity went in, then accounts for every block.
fn account<T: Tier + ?Sized>(rig: &Rig<T>, lens: &[usize]) -> Verdict {
    let capacity = rig.capacity_bytes();
    let mut put: Vec<usize> = Vec::new();
    let mut bytes = 0;
    let mut last = rig.stats();
    for len in lens.iter().cycle() {
        if bytes >= 10 * capacity {
            break;
        }
        let key = put.len() as u64;
        let outcome = rig.put(&id(key), &content(key, 1, *len), KEEP)?;
        rule!(outcome == Outcome::Stored, "put {key} of {len} bytes with nothing leased was {outcome:?}");
        put.push(*len);
        bytes += *len as u64;
        let now = rig.stats();
        grew(&last, &now, "under pressure")?;
        last = now;
    }
    let (mut hits, mut hit_bytes) = (0, 0);
    for (key, len) in (0..).zip(&put) {
        if rig.is_there(&id(key), &content(key, 1, *len), "under pressure")? {
            hits += 1;
            hit_bytes += *len as u64;
        }
    }
    let (asked, evictions) = (put.len() as u64, rig.stats().evictions);
    rule!(
        hits + evictions >= asked,
        "{asked} blocks were acknowledged, {hits} are hits and {evictions} counted evictions: {} are lost (I3)",
        asked - hits - evictions
    );
    rule!(hit_bytes <= capacity, "{hit_bytes} bytes are served from a capacity of {capacity} (I4)");
    rule!(hits > 0, "nothing of what was put is left");
    rule!(rig.stats().blocks == hits, "{hits} blocks are hits, {} counted", rig.stats().blocks);
    Ok(())
}

pub(super) fn pressure(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let len = usize::try_from(rig.capacity_bytes() / 16).unwrap_or(1);
    account(&rig, &[len])
}

pub(super) fn mixed_pressure(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let large = usize::try_from(rig.capacity_bytes() / 10).unwrap_or(1);
    account(&rig, &[5000, 70_000, 30_000, large, 200_000, 65_536, 4096, large / 3])
}

pub(super) fn small_pressure(make: MakeTier<'_>) -> Verdict {
    account(&Rig::new(make(MIB)), &[4096, 100, 2000])
}

pub(super) fn classes(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    let len = rig.capacity_bytes() / 64;
    let bytes = |key| content(key, 1, usize::try_from(len).unwrap_or(1));
    // An eighth of the capacity of each class, put by turns.
    for key in 0..16 {
        rig.stored(&id(key), &bytes(key), if key % 2 == 0 { PREFIX } else { KEEP })?;
    }
    rig.fill(1000, len, rig.capacity_bytes() * 3)?;
    let mut left = [0, 0];
    for key in 0..16 {
        left[(key % 2) as usize] += u32::from(rig.is_there(&id(key), &bytes(key), "classes")?);
    }
    let [prefix, ordinary] = left;
    rule!(prefix == 8, "{prefix} of 8 prefix blocks outlived ordinary ones of three times the capacity");
    rule!(ordinary < 8, "three times the capacity evicted none of 8 older ordinary blocks");
    Ok(())
}

pub(super) fn emptied(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    for round in 0..3 {
        let mut keys = rig.fill(10_000 * round, 10_000, 2 * MIB)?;
        keys.end += rig.fill(keys.end, 100_000, 2 * MIB)?.count() as u64;
        rig.within_capacity("filled")?;
        rule!(rig.stats().used_bytes >= 4 * KIB * KIB, "less in use than the bytes that were put");
        for key in keys {
            let outcome = rig.delete(&id(key))?;
            rule!(outcome == Outcome::Deleted, "delete of a stored block was {outcome:?}");
        }
        rig.is_empty("after deleting all")?;
    }
    Ok(())
}
