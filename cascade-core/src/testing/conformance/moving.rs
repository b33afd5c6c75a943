//! Bytes in, bytes out.

use super::rig::{KEEP, KIB, MIB, PREFIX, Rig, check_meta, dirty, holds, reading};
use super::{MakeTier, Verdict, rule};
use crate::batch::{Op, Outcome};
use crate::memory::{HostBuffer, Piece, SgList};
use crate::testing::bytes::{content, id};
use crate::tier::{Class, Lookup, MissReason};

const SIZES: [usize; 14] = [
    1,
    2,
    63,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    65_537,
    131_072,
    (1 << 20) + 13,
    (2 << 20) - 1,
    (3 << 20) + 4096,
    5 << 20,
];

pub(super) fn round_trip(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(64 * MIB));
    for (key, len) in (0..).zip(SIZES) {
        rig.stored(&id(key), &content(key, 1, len), KEEP)?;
    }
    for (key, len) in (0..).zip(SIZES) {
        let Lookup::Hit(meta) = rig.lookup(&id(key)) else {
            return Err(format!("a block of {len} bytes was stored and is no hit (I3)"));
        };
        check_meta(&id(key), &content(key, 1, len), &meta)?;
        rig.expect(&id(key), &content(key, 1, len), "round trip")?;
    }
    rig.stored(&id(100), &content(100, 1, 5000), crate::tier::PutMeta { tenant: 7, ..PREFIX })?;
    let meta = rig.expect(&id(100), &content(100, 1, 5000), "class and tenant")?;
    rule!(meta.class == Class::Prefix && meta.tenant == 7, "class and tenant must come back, were {meta:?}");
    Ok(())
}

/// Cuts `whole` into pieces of odd lengths at odd addresses.
fn cut(whole: &Piece, lens: &[usize]) -> SgList {
    let mut list = SgList::new();
    let mut at = 0;
    for len in lens.iter().cycle() {
        let len = (*len).min(whole.len() - at);
        if len == 0 {
            return list;
        }
        if let Some(piece) = whole.part(at, len) {
            list.push(piece);
        }
        at += len;
    }
    list
}

pub(super) fn scattered(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    let cuts: [&[usize]; 5] = [&[1], &[7, 64, 129], &[4096], &[65_537, 3], &[100_000, 1, 31]];
    for (key, lens) in (0..).zip(cuts) {
        let len = if lens == [1] { 5000 } else { 300_001 };
        let bytes = content(key, 1, len);
        // One byte in front, so that nothing is aligned.
        let shifted: Vec<u8> = std::iter::once(0).chain(bytes.iter().copied()).collect();
        let source = Piece::shared(shifted.into()).part(1, len).ok_or("no part")?;
        let outcome = rig.one(Op::Store { id: id(key), from: cut(&source, lens), meta: KEEP })?;
        rule!(outcome == Outcome::Stored, "a list cut by {lens:?} must be Stored, was {outcome:?}");
        rig.expect(&id(key), &bytes, "put from a scattered list")?;
        let (buffer, mut expected) = dirty(len + 3);
        let inside = buffer.piece().part(3, len).ok_or("no part")?;
        let outcome = rig.one(Op::Fetch { id: id(key), into: cut(&inside, lens) })?;
        drop(inside);
        expected[3..].copy_from_slice(&bytes);
        rule!(matches!(outcome, Outcome::Fetched(_)), "fetch into pieces of {lens:?} was {outcome:?}");
        rule!(holds(buffer)? == expected, "fetch into pieces of {lens:?} gave other bytes (I1)");
    }
    Ok(())
}

pub(super) fn short_destination(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    for (key, len) in [(0, 2), (1, 4097), (2, 65_537), (3, 3 << 20)] {
        rig.stored(&id(key), &content(key, 1, len), KEEP)?;
        for short in [1, len / 2, len - 1] {
            let (outcome, got) = rig.get(&id(key), short)?;
            rule!(
                outcome == Outcome::Miss(MissReason::Destination),
                "{short} bytes for a block of {len} must be Miss(Destination), was {outcome:?}"
            );
            rule!(got == vec![0xA5; short], "{short} bytes for a block of {len}: something was written");
        }
        let outcome = rig.one(Op::Fetch { id: id(key), into: SgList::new() })?;
        rule!(outcome == Outcome::Miss(MissReason::Destination), "an empty list was {outcome:?}");
        rig.expect(&id(key), &content(key, 1, len), "after a destination that was too short")?;
    }
    Ok(())
}

pub(super) fn read_only_destination(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    let bytes = content(0, 1, 10_000);
    rig.stored(&id(0), &bytes, KEEP)?;
    let fixed: std::sync::Arc<[u8]> = vec![0xA5; 10_000].into();
    let outcome = rig.one(Op::Fetch { id: id(0), into: reading(&fixed) })?;
    rule!(outcome == Outcome::Miss(MissReason::Destination), "read-only memory was {outcome:?}");
    rule!(fixed.iter().all(|byte| *byte == 0xA5), "read-only memory was written");
    let buffer = HostBuffer::zeroed(9_000);
    let mut mixed = SgList::from(buffer.piece());
    mixed.push(Piece::shared(std::sync::Arc::clone(&fixed)));
    let outcome = rig.one(Op::Fetch { id: id(0), into: mixed })?;
    rule!(outcome == Outcome::Miss(MissReason::Destination), "a partly read-only list was {outcome:?}");
    rule!(holds(buffer)? == vec![0; 9_000], "something was written to a list that was refused");
    rig.expect(&id(0), &bytes, "after a destination that was refused").map(drop)
}

pub(super) fn longer_destination(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    for (key, len) in [(0, 1), (1, 4096), (2, 70_000), (3, usize::try_from(MIB + 3 * KIB).unwrap_or(1))] {
        let bytes = content(key, 1, len);
        rig.stored(&id(key), &bytes, KEEP)?;
        let (outcome, got) = rig.get(&id(key), len + 5000)?;
        rule!(matches!(outcome, Outcome::Fetched(_)), "a longer destination was {outcome:?}");
        rule!(got[..len] == *bytes, "a longer destination got other bytes (I1)");
        rule!(got[len..].iter().all(|byte| *byte == 0xA5), "bytes behind the block of {len} were written");
    }
    Ok(())
}
