//! What a put says, and delete.

use std::sync::Arc;

use super::rig::{KEEP, MIB, REPLACE, Rig, reading};
use super::{MakeTier, Verdict, rule};
use crate::batch::{Op, Outcome, Refusal};
use crate::memory::{Piece, SgList};
use crate::testing::bytes::{content, id};
use crate::tier::{Lookup, MissReason};

pub(super) fn empty(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    for meta in [KEEP, REPLACE] {
        let outcome = rig.one(Op::Store { id: id(0), from: SgList::new(), meta })?;
        rule!(outcome == Outcome::Refused(Refusal::Empty), "an empty block was {outcome:?}");
    }
    rule!(rig.stats().refused >= 2, "refused puts must be counted");
    rule!(!rig.lookup(&id(0)).is_hit(), "an empty block is a hit");
    rig.is_empty("after an empty block")
}

pub(super) fn too_large(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    rig.stored(&id(1), &content(1, 1, 5000), KEEP)?;
    let page = Piece::shared(vec![7; 16 << 20].into());
    let beyond = rig.tier.capability().max_block_bytes.max(rig.capacity_bytes()) + 1;
    let mut from = SgList::new();
    // The same piece again and again: a list of any length that needs no memory of that length.
    while (from.len() as u64) < beyond {
        from.push(page.clone());
    }
    let outcome = rig.one(Op::Store { id: id(0), from, meta: KEEP })?;
    rule!(outcome == Outcome::Refused(Refusal::TooLarge), "{beyond} bytes or more were {outcome:?}");
    rule!(rig.stats().refused >= 1, "refused puts must be counted");
    rule!(rig.stats().evictions == 0, "a block that can never fit evicted another");
    rig.expect(&id(1), &content(1, 1, 5000), "after a block that was too large")?;
    rule!(!rig.lookup(&id(0)).is_hit(), "a block that was refused is a hit");
    rig.stored(&id(0), &content(0, 1, 5000), KEEP)
}

pub(super) fn first_seal_wins(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    for (key, len) in [(0, 1), (1, 5000), (2, 1 << 20)] {
        let first = content(key, 1, len);
        rig.stored(&id(key), &first, KEEP)?;
        let before = rig.stats();
        for other in [content(key, 2, len), content(key, 3, len + 1), Arc::clone(&first)] {
            let outcome = rig.put(&id(key), &other, KEEP)?;
            rule!(outcome == Outcome::Exists, "a second put must answer Exists, was {outcome:?}");
            rig.expect(&id(key), &first, "after a second put with Keep")?;
        }
        let after = rig.stats();
        rule!(after.exists == before.exists + 3, "each Exists must be counted");
        rule!(after.bytes_in == before.bytes_in, "a put that answers Exists must copy nothing");
        rule!(after.used_bytes == before.used_bytes, "a put that answers Exists must hold no space");
        rule!(after.blocks == before.blocks, "a put that answers Exists must count no block");
    }
    Ok(())
}

pub(super) fn replace(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    for (key, len) in [(1, 64), (2, 5000), (3, 1 << 20)] {
        rig.stored(&id(key), &content(key, 1, len), REPLACE)?;
        let before = rig.stats();
        let outcome = rig.put(&id(key), &content(key, 1, len), REPLACE)?;
        rule!(outcome == Outcome::Exists, "Replace by equal bytes must answer Exists, was {outcome:?}");
        rule!(rig.stats().used_bytes == before.used_bytes, "Replace by equal bytes must hold no space");
        for version in 2..6 {
            rig.stored(&id(key), &content(key, version, len), REPLACE)?;
            rig.expect(&id(key), &content(key, version, len), "after Replace (I2)")?;
        }
        let after = rig.stats();
        rule!(after.used_bytes == before.used_bytes, "a replaced block must give its space back (I5)");
        rule!(after.blocks == before.blocks, "a replaced block must not be counted twice");
    }
    Ok(())
}

pub(super) fn replace_length(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    for (version, len) in (1..).zip([100, 70_000, 4096, 1 << 20, 1, 65_537]) {
        rig.stored(&id(0), &content(0, version, len), REPLACE)?;
        rig.expect(&id(0), &content(0, version, len), "after Replace by another length (I2)")?;
    }
    let outcome = rig.delete(&id(0))?;
    rule!(outcome == Outcome::Deleted, "delete of a stored block was {outcome:?}");
    rig.is_empty("after Replace by other lengths and delete")
}

pub(super) fn delete(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    let absent = Outcome::Miss(MissReason::Absent);
    rule!(rig.delete(&id(0))? == absent, "delete of what is not stored must be Miss(Absent)");
    for version in 1..5 {
        let bytes = content(0, version, 9000);
        rig.stored(&id(0), &bytes, KEEP)?;
        let outcome = rig.delete(&id(0))?;
        rule!(outcome == Outcome::Deleted, "delete of a stored block was {outcome:?}");
        let seen = rig.lookup(&id(0));
        rule!(seen == Lookup::Miss(MissReason::Absent), "lookup after delete was {seen:?} (I2)");
        let (outcome, got) = rig.get(&id(0), 9000)?;
        rule!(outcome == absent, "fetch after delete was {outcome:?} (I2)");
        rule!(got == vec![0xA5; 9000], "a fetch that missed wrote to its destination");
        rule!(rig.delete(&id(0))? == absent, "a second delete must be Miss(Absent)");
    }
    let outcomes = rig.run(vec![
        Op::Store { id: id(1), from: reading(&content(1, 1, 300)), meta: KEEP },
        Op::Delete { id: id(2) },
    ])?;
    rule!(outcomes == [Outcome::Stored, absent], "store and delete of another id were {outcomes:?}");
    rig.expect(&id(1), &content(1, 1, 300), "after delete of another id").map(drop)
}
