//! Reservations: only a sealed block can be seen, and space always comes back.

use super::rig::{KEEP, MIB, REPLACE, Rig, reading};
use super::{MakeAddressable, Verdict, rule};
use crate::batch::{Op, Outcome, Refusal};
use crate::reservation::{Reservation, Reserve, Sealed};
use crate::testing::bytes::{content, id};
use crate::tier::{Addressable, Lookup};

fn reserve(rig: &Rig<dyn Addressable>, key: u64, len: u64) -> Result<Reservation, String> {
    match rig.tier.reserve(&id(key), len, KEEP) {
        Reserve::Reserved(reservation) => {
            rule!(reservation.len() as u64 == len, "{len} bytes reserved, {} given", reservation.len());
            Ok(reservation)
        }
        other => Err(format!("{len} bytes with room for them must be Reserved, was {other:?}")),
    }
}

fn stored(sealed: Sealed) -> Verdict {
    rule!(matches!(sealed, Sealed::Stored(_)), "a filled reservation must be Stored, was {sealed:?}");
    Ok(())
}

pub(super) fn seal(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    for (key, len) in [(0, 1), (1, 4097), (2, 65_536), (3, (1 << 20) + 13)] {
        let bytes = content(key, 1, len);
        let mut by_hand = reserve(&rig, key, len as u64)?;
        let (head, tail) = bytes.split_at(len / 2);
        rule!(by_hand.write_at(len / 2, tail) && by_hand.write_at(0, head), "a reservation takes its bytes");
        rule!(!by_hand.write_at(len, &[1]), "a reservation was written beyond its end");
        stored(by_hand.seal())?;
        rig.expect(&id(key), &bytes, "filled by hand")?;
        let mut gathered = reserve(&rig, key + 10, len as u64)?;
        rule!(!gathered.gather(&reading(&content(0, 0, len + 1))), "a list of another length was taken");
        rule!(gathered.gather(&reading(&bytes)), "a list of the right length was not taken");
        stored(gathered.seal())?;
        rig.expect(&id(key + 10), &bytes, "filled from a list")?;
        let mut corrected = reserve(&rig, key + 20, len as u64)?;
        rule!(corrected.gather(&reading(&content(9, 9, len))), "a list of the right length was not taken");
        rule!(corrected.write_at(0, &bytes), "a reservation takes its bytes");
        stored(corrected.seal())?;
        rig.expect(&id(key + 20), &bytes, "filled twice")?;
    }
    for (len, why) in
        [(0, Refusal::Empty), (rig.capacity_bytes() + 1, Refusal::TooLarge), (u64::MAX, Refusal::TooLarge)]
    {
        let answer = rig.tier.reserve(&id(99), len, KEEP);
        rule!(
            matches!(answer, Reserve::Refused(given) if given == why),
            "{len} bytes were {answer:?}, not {why:?}"
        );
    }
    Ok(())
}

pub(super) fn pending(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    for round in 0..20 {
        let mut first = reserve(&rig, 0, 9000)?;
        rule!(rig.lookup(&id(0)) == Lookup::Pending, "a reserved block must be Pending");
        rule!(rig.tier.lease(&id(0)).is_err(), "a block that is not sealed was leased");
        let (outcome, got) = rig.get(&id(0), 9000)?;
        rule!(matches!(outcome, Outcome::Miss(_)), "a block that is not sealed was fetched: {outcome:?}");
        rule!(got == vec![0xA5; 9000], "a fetch that missed wrote to its destination");
        for meta in [KEEP, REPLACE] {
            let second = rig.tier.reserve(&id(0), 9000, meta);
            rule!(
                matches!(second, Reserve::Refused(Refusal::Pending)),
                "a second reservation was {second:?}"
            );
            let outcome = rig.put(&id(0), &content(0, 7, 9000), meta)?;
            rule!(outcome == Outcome::Refused(Refusal::Pending), "a put while reserved was {outcome:?}");
        }
        if round % 2 == 0 {
            drop(first);
            rule!(matches!(rig.lookup(&id(0)), Lookup::Miss(_)), "a dropped reservation must be a miss");
            continue;
        }
        rule!(first.write_at(0, &content(0, round, 9000)), "a reservation takes its bytes");
        stored(first.seal())?;
        rig.expect(&id(0), &content(0, round, 9000), "sealed")?;
        rule!(rig.one(Op::Delete { id: id(0) })? == Outcome::Deleted, "delete of a sealed block");
    }
    rig.is_empty("after reservations, seals and deletes")
}

pub(super) fn dropped(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let quarter = rig.capacity_bytes() / 4;
    for round in 0..200 {
        let one = reserve(&rig, round, quarter)?;
        let two = reserve(&rig, 1000 + round, 1 + round * 997)?;
        rig.within_capacity("with two reservations")?;
        rule!(rig.stats().used_bytes >= quarter, "reserved bytes are in use");
        drop(one);
        drop(two);
        rig.is_empty("after dropping reservations")?;
    }
    rule!(rig.stats().puts == 0, "reservations that were dropped are counted as puts");
    Ok(())
}

pub(super) fn bounded(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    for round in 0..10 {
        let mut held = Vec::new();
        let refused = loop {
            match rig.tier.reserve(&id(held.len() as u64), rig.capacity_bytes() / 8, KEEP) {
                Reserve::Reserved(reservation) => held.push(reservation),
                other => break other,
            }
            rule!(held.len() <= 8, "nine eighths of the capacity were reserved (I4)");
            rig.within_capacity("with reservations")?;
        };
        let full = matches!(refused, Reserve::Refused(Refusal::Full | Refusal::Throttled));
        rule!(full, "a reservation beyond the capacity was {refused:?}");
        rule!(
            held.len() >= 4,
            "round {round}: only {} eighths of the capacity could be reserved",
            held.len()
        );
        held.clear();
        rig.is_empty("after dropping all reservations")?;
    }
    Ok(())
}

pub(super) fn exists(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let old = content(0, 1, 9000);
    rig.stored(&id(0), &old, KEEP)?;
    let answer = rig.tier.reserve(&id(0), 100, KEEP);
    rule!(
        matches!(answer, Reserve::Exists(meta) if meta.len == 9000),
        "reserve of a stored block was {answer:?}"
    );
    let Reserve::Reserved(mut new) = rig.tier.reserve(&id(0), 5000, REPLACE) else {
        return Err("reserve with Replace must be Reserved".into());
    };
    rig.expect(&id(0), &old, "the old block until the new one is sealed")?;
    rule!(new.write_at(0, &content(0, 2, 5000)), "a reservation takes its bytes");
    stored(new.seal())?;
    rig.expect(&id(0), &content(0, 2, 5000), "after Replace in place (I2)")?;
    let Reserve::Reserved(mut same) = rig.tier.reserve(&id(0), 5000, REPLACE) else {
        return Err("reserve with Replace must be Reserved".into());
    };
    rule!(same.write_at(0, &content(0, 2, 5000)), "a reservation takes its bytes");
    let sealed = same.seal();
    rule!(matches!(sealed, Sealed::Exists(_)), "Replace by equal bytes must be Exists, was {sealed:?}");
    rig.expect(&id(0), &content(0, 2, 5000), "after Replace by equal bytes").map(drop)
}

pub(super) fn transfer(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    for (key, len) in [(0, 5000), (1, 100_000)] {
        let bytes = content(key, 1, len);
        let flight = reserve(&rig, key, len as u64)?.start_transfer().ok_or("no transfer started")?;
        rule!(rig.lookup(&id(key)) == Lookup::Pending, "a block in flight must be Pending");
        let memory = flight.memory().ok_or("a transfer without memory")?;
        rule!(memory.write_at(0, &bytes), "the memory of a transfer takes its bytes");
        let landed = flight.complete().ok_or("a transfer that cannot complete")?;
        stored(landed.seal())?;
        rig.expect(&id(key), &bytes, "after a transfer")?;
    }
    drop(reserve(&rig, 2, 5000)?.start_transfer().and_then(crate::reservation::InFlight::complete));
    rule!(rig.stats().quarantined_bytes == 0, "a completed transfer is in quarantine");
    rule!(
        matches!(rig.lookup(&id(2)), Lookup::Miss(_)),
        "a completed transfer that was dropped must be a miss"
    );
    Ok(())
}

pub(super) fn abandoned(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    let len = usize::try_from(rig.capacity_bytes() / 64).unwrap_or(1);
    let flight = reserve(&rig, 0, len as u64)?.start_transfer().ok_or("no transfer started")?;
    let late = flight.memory().ok_or("a transfer without memory")?;
    drop(flight);
    let kept = rig.stats().quarantined_bytes;
    rule!(kept >= len as u64, "{len} bytes of an abandoned transfer, {kept} in quarantine");
    rule!(matches!(rig.lookup(&id(0)), Lookup::Miss(_)), "an abandoned transfer must be a miss");
    rig.stored(&id(0), &content(0, 1, len), KEEP)?;
    let keys = rig.fill(1000, len as u64, 3 * rig.capacity_bytes())?;
    rig.within_capacity("with bytes in quarantine")?;
    // The hardware that nobody waited for writes at last: no block may be where it writes.
    rule!(late.write_at(0, &vec![0xEE; len]), "quarantined memory takes late bytes");
    let mut hits = 0;
    for key in std::iter::once(0).chain(keys) {
        let version = u64::from(key == 0);
        hits += u64::from(rig.is_there(
            &id(key),
            &content(key, version, len),
            "after a late write to quarantine (I1)",
        )?);
    }
    rule!(hits > 0, "nothing can be stored beside bytes in quarantine");
    rule!(rig.stats().corrupt == 0, "quarantined memory was reused and damaged a block");
    Ok(())
}
