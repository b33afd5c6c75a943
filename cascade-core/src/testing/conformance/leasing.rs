//! Leases: a pinned block keeps its place and its bytes.

use super::rig::{KEEP, MIB, REPLACE, Rig, check_meta};
use super::{MakeAddressable, Verdict, rule};
use crate::batch::{Outcome, Refusal};
use crate::lease::Lease;
use crate::memory::HostBuffer;
use crate::testing::bytes::{content, id};
use crate::tier::{Addressable, MissReason};

fn lease(rig: &Rig<dyn Addressable>, key: u64) -> Result<Lease, String> {
    rig.tier.lease(&id(key)).map_err(|reason| format!("a stored block must be leased (I3), was {reason:?}"))
}

fn shows(lease: &Lease, expected: &[u8], when: &str) -> Verdict {
    rule!(lease.is_valid(), "{when}: the lease no longer stands");
    rule!(lease.len() == expected.len(), "{when}: the leased block has another length");
    let mut got = vec![0; expected.len()];
    rule!(lease.read_at(0, &mut got), "{when}: the leased block cannot be read");
    rule!(got == expected, "{when}: a leased block changed its bytes (I1)");
    Ok(())
}

pub(super) fn reads(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(16 * MIB));
    for (key, len) in [(0, 1), (1, 4097), (2, 65_536), (3, (2 << 20) + 7)] {
        let bytes = content(key, 1, len);
        rig.stored(&id(key), &bytes, KEEP)?;
        let lease = lease(&rig, key)?;
        shows(&lease, &bytes, "a lease")?;
        check_meta(&id(key), &bytes, &lease.meta())?;
        let mut one = [0];
        rule!(lease.read_at(len - 1, &mut one) && one[0] == bytes[len - 1], "the last byte of a lease");
        rule!(!lease.read_at(len, &mut one), "a lease was read beyond its end");
        rule!(!lease.read_at(usize::MAX, &mut one), "a lease was read beyond its end");
        let short = HostBuffer::zeroed(len - 1);
        rule!(
            lease.scatter(&short.piece().into()).is_none(),
            "a lease was copied to a list that is too short"
        );
    }
    let missed = rig.tier.lease(&id(99)).err();
    rule!(missed == Some(MissReason::Absent), "a lease of what is not stored was {missed:?}");
    Ok(())
}

/// Leases version 1 of key 0, lets `loses` take it away, and presses on the tier; the lease must not notice.
fn outlives(rig: &Rig<dyn Addressable>, loses: impl Fn() -> Verdict) -> Verdict {
    let len = usize::try_from(rig.capacity_bytes() / 16).unwrap_or(1);
    let bytes = content(0, 1, len);
    rig.stored(&id(0), &bytes, KEEP)?;
    let first = lease(rig, 0)?;
    let second = lease(rig, 0)?;
    loses()?;
    shows(&first, &bytes, "the block was taken away")?;
    rig.fill(1000, len as u64, 4 * rig.capacity_bytes())?;
    shows(&first, &bytes, "after pressure")?;
    drop(first);
    rig.fill(2000, len as u64 / 2, 2 * rig.capacity_bytes())?;
    shows(&second, &bytes, "after one of two leases was released, and pressure")?;
    rig.within_capacity("with a leased block that was forgotten")
}

pub(super) fn over_delete(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    outlives(&rig, || {
        let outcome = rig.delete(&id(0))?;
        rule!(outcome == Outcome::Deleted, "delete of a leased block was {outcome:?}");
        rule!(!rig.lookup(&id(0)).is_hit(), "a deleted block is a hit while it is leased (I2)");
        rule!(rig.tier.lease(&id(0)).is_err(), "a deleted block was leased again (I2)");
        rule!(rig.stats().used_bytes > 0, "the bytes of a leased block are in use");
        Ok(())
    })
}

pub(super) fn over_replace(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    outlives(&rig, || {
        let len = usize::try_from(rig.capacity_bytes() / 16).unwrap_or(1);
        let new = content(0, 2, len);
        rig.stored(&id(0), &new, REPLACE)?;
        rig.expect(&id(0), &new, "after Replace of a leased block (I2)")?;
        shows(&lease(&rig, 0)?, &new, "a new lease after Replace")
    })
}

pub(super) fn pinned_full(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    let capacity = rig.capacity_bytes();
    let len = usize::try_from(capacity / 8).unwrap_or(1);
    let mut leases = Vec::new();
    let refused = loop {
        let key = leases.len() as u64;
        match rig.put(&id(key), &content(key, 1, len), KEEP)? {
            Outcome::Stored => leases.push(lease(&rig, key)?),
            other => break other,
        }
        rule!(leases.len() <= 8, "more bytes are leased than the capacity (I4)");
        rig.within_capacity("with everything leased")?;
    };
    let full = [Outcome::Refused(Refusal::Full), Outcome::Refused(Refusal::Throttled)];
    rule!(full.contains(&refused), "a put with everything leased was {refused:?}");
    rule!(!leases.is_empty(), "an eighth of the capacity did not fit into an empty tier");
    rule!(rig.stats().evictions == 0, "a leased block was evicted");
    for (key, lease) in (0..).zip(&leases) {
        shows(lease, &content(key, 1, len), "with everything leased")?;
        rig.expect(&id(key), &content(key, 1, len), "with everything leased")?;
    }
    leases.clear();
    rig.stored(&id(100), &content(100, 1, len), KEEP)
}

pub(super) fn released(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(4 * MIB));
    for round in 1..20 {
        rig.stored(&id(0), &content(0, round, 100_000), KEEP)?;
        let kept = [lease(&rig, 0)?, lease(&rig, 0)?];
        rig.delete(&id(0))?;
        rule!(rig.stats().used_bytes >= 100_000, "the bytes of a leased block are in use");
        drop(kept);
        rig.is_empty("after delete and release")?;
    }
    Ok(())
}

pub(super) fn batch(make: MakeAddressable<'_>) -> Verdict {
    let rig = Rig::new(make(8 * MIB));
    for key in 0..50 {
        rig.stored(&id(2 * key), &content(2 * key, 1, 3000), KEEP)?;
    }
    let ids: Vec<_> = (0..100).map(id).collect();
    let leases = rig.tier.lease_batch(&ids);
    rule!(leases.len() == 100, "{} answers for 100 ids", leases.len());
    for (key, leased) in (0..).zip(&leases) {
        match leased {
            Ok(lease) if key % 2 == 0 => shows(lease, &content(key, 1, 3000), "a batch of leases")?,
            Err(MissReason::Absent) if key % 2 == 1 => {}
            other => return Err(format!("lease {key} of a batch is another's: {other:?}")),
        }
    }
    rule!(rig.tier.lease_batch(&[]).is_empty(), "no ids, and leases");
    Ok(())
}
