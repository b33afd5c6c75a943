//! Batches: order, duplicates, deadlines.

use std::time::{Duration, Instant};

use super::rig::{KEEP, MIB, Rig, dirty, holds, reading};
use super::{MakeTier, Verdict, rule};
use crate::batch::{Batch, Op, Outcome, Refusal};
use crate::memory::SgList;
use crate::testing::bytes::{content, id};
use crate::tier::{Lookup, MissReason};

pub(super) fn order(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(32 * MIB));
    for key in (0..60).step_by(3) {
        rig.stored(&id(key), &content(key, 1, 2000 + 500 * (key as usize)), KEEP)?;
    }
    let buffers: Vec<_> = (0..60).map(|_| dirty(40_000).0).collect();
    let mut ops = Vec::new();
    for (key, buffer) in (0..).zip(&buffers) {
        ops.push(match key % 4 {
            0 | 1 => Op::Fetch { id: id(key), into: buffer.piece().into() },
            2 => Op::Store { id: id(1000 + key), from: reading(&content(1000 + key, 1, 3000)), meta: KEEP },
            _ => Op::Store { id: id(1000 + key), from: SgList::new(), meta: KEEP },
        });
    }
    let outcomes = rig.run(ops)?;
    for ((key, buffer), outcome) in (0u64..).zip(buffers).zip(outcomes) {
        let len = 2000 + 500 * (key as usize);
        let right = match (key % 4, key % 3) {
            (0 | 1, 0) => matches!(outcome, Outcome::Fetched(meta) if meta.len == len as u64),
            (0 | 1, _) => outcome == Outcome::Miss(MissReason::Absent),
            (2, _) => outcome == Outcome::Stored,
            _ => outcome == Outcome::Refused(Refusal::Empty),
        };
        rule!(right, "outcome {key} of a batch of 60 is another operation's: {outcome:?}");
        let got = holds(buffer)?;
        let hit = matches!(outcome, Outcome::Fetched(_));
        rule!(!hit || got[..len] == *content(key, 1, len), "fetch {key} of a batch gave other bytes (I1)");
        rule!(
            hit || got.iter().all(|byte| *byte == 0xA5),
            "operation {key} wrote to a destination without a hit"
        );
    }
    Ok(())
}

pub(super) fn duplicates(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    let bytes = content(0, 1, 70_000);
    let store = || Op::Store { id: id(0), from: reading(&bytes), meta: KEEP };
    let outcomes = rig.run((0..5).map(|_| store()).collect())?;
    let stored = outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count();
    let others = [Outcome::Stored, Outcome::Exists, Outcome::Refused(Refusal::Pending)];
    rule!(stored == 1, "one id five times in a batch must be stored once, was {outcomes:?}");
    rule!(outcomes.iter().all(|outcome| others.contains(outcome)), "one id five times: {outcomes:?}");
    rig.expect(&id(0), &bytes, "after one id five times")?;
    let buffers: Vec<_> = (0..5).map(|_| dirty(70_000).0).collect();
    let fetches = buffers.iter().map(|buffer| Op::Fetch { id: id(0), into: buffer.piece().into() });
    let outcomes = rig.run(fetches.collect())?;
    rule!(
        outcomes.iter().all(|o| matches!(o, Outcome::Fetched(_))),
        "one block fetched five times: {outcomes:?}"
    );
    for buffer in buffers {
        rule!(*holds(buffer)? == *bytes, "one block fetched five times gave other bytes (I1)");
    }
    let outcomes = rig.run((0..3).map(|_| Op::Delete { id: id(0) }).collect())?;
    let deleted = outcomes.iter().filter(|outcome| **outcome == Outcome::Deleted).count();
    rule!(deleted == 1, "one block deleted three times in a batch: {outcomes:?}");
    rule!(!rig.lookup(&id(0)).is_hit(), "a deleted block is a hit (I2)");
    rig.is_empty("after deleting one id three times")
}

pub(super) fn late(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    let bytes = content(0, 1, 5000);
    rig.stored(&id(0), &bytes, KEEP)?;
    let (buffer, before) = dirty(5000);
    let ops = vec![
        Op::Fetch { id: id(0), into: buffer.piece().into() },
        Op::Store { id: id(1), from: reading(&bytes), meta: KEEP },
        Op::Delete { id: id(0) },
    ];
    let deadline = Instant::now().checked_sub(Duration::from_millis(1)).unwrap_or_else(Instant::now);
    let outcomes = rig.run_batch(Batch { ops, deadline: Some(deadline) })?;
    let expected = [
        Outcome::Miss(MissReason::Deadline),
        Outcome::Refused(Refusal::Deadline),
        Outcome::Miss(MissReason::Deadline),
    ];
    rule!(outcomes == expected, "a deadline in the past must give up everything, was {outcomes:?}");
    rule!(holds(buffer)? == before, "a fetch after its deadline wrote to its destination");
    rule!(!rig.lookup(&id(1)).is_hit(), "a put after its deadline is a hit");
    rig.expect(&id(0), &bytes, "after a delete that came too late")?;
    let ops = vec![Op::Store { id: id(2), from: reading(&bytes), meta: KEEP }];
    let deadline = Some(Instant::now() + Duration::from_secs(60));
    let outcomes = rig.run_batch(Batch { ops, deadline })?;
    rule!(outcomes == [Outcome::Stored], "a put long before its deadline was {outcomes:?}");
    Ok(())
}

pub(super) fn nothing(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    rig.tier.lookup(&[], &mut []);
    rule!(rig.tier.submit(Batch::default()).poll(), "an empty batch must be complete at once");
    rule!(rig.run(Vec::new())?.is_empty(), "an empty batch has outcomes");
    let ids: Vec<_> = (0..500).map(id).collect();
    let mut out = vec![Lookup::Pending; ids.len()];
    rig.tier.lookup(&ids, &mut out);
    let all_absent = out.iter().all(|seen| *seen == Lookup::Miss(MissReason::Absent));
    rule!(all_absent, "an empty tier must answer Miss(Absent) to every lookup");
    rig.is_empty("a new tier")
}

pub(super) fn flush(make: MakeTier<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    let deadline = || Instant::now() + Duration::from_secs(20);
    rig.tier.flush(deadline()).map_err(|error| format!("flush of an empty tier: {error}"))?;
    rig.stored(&id(0), &content(0, 1, 100_000), KEEP)?;
    rig.tier.flush(deadline()).map_err(|error| format!("flush: {error}"))?;
    rig.expect(&id(0), &content(0, 1, 100_000), "after flush").map(drop)
}
