use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::tier::OnExisting;

fn fill(tier: &MemoryTier, name: &str, len: usize, byte: u8) -> Outcome {
    tier.store(
        &BlockId::named(name),
        &crate::memory::Piece::shared(Arc::from(vec![byte; len])).into(),
        PutMeta::default(),
    )
}

#[test]
fn the_least_recently_used_goes_first_and_leased_blocks_stay() {
    let tier = MemoryTier::new(300);
    for name in ["a", "b", "c"] {
        assert_eq!(fill(&tier, name, 100, 1), Outcome::Stored);
    }
    let lease = tier.lease(&BlockId::named("a")).unwrap();
    drop(tier.lease(&BlockId::named("b")).unwrap());
    assert_eq!(fill(&tier, "d", 100, 2), Outcome::Stored);
    let mut out = [Lookup::Pending; 3];
    tier.lookup(&["a", "b", "c"].map(BlockId::named), &mut out);
    assert!(out[0].is_hit() && out[1].is_hit() && !out[2].is_hit());
    assert_eq!(fill(&tier, "e", 250, 2), Outcome::Refused(Refusal::Full));
    assert_eq!((tier.stats().blocks, tier.stats().evictions), (3, 1), "a refused put costs no block");
    drop(lease);
    assert_eq!(fill(&tier, "e", 250, 2), Outcome::Stored);
    assert_eq!(tier.stats().used_bytes, 250);
}

#[test]
fn an_abandoned_transfer_holds_its_memory_for_the_grace_period() {
    let clock = Arc::new(ManualClock::default());
    let tier = MemoryTier::with_clock(100, Arc::clone(&clock) as Arc<dyn Clock>);
    let Reserve::Reserved(reservation) = tier.reserve(&BlockId::named("x"), 80, PutMeta::default()) else {
        panic!("there is room")
    };
    drop(reservation.start_transfer().unwrap());
    assert_eq!(tier.stats().quarantined_bytes, 80);
    assert_eq!(fill(&tier, "y", 50, 1), Outcome::Refused(Refusal::Throttled));
    clock.advance(QUARANTINE_GRACE + Duration::from_nanos(1));
    assert_eq!(fill(&tier, "y", 50, 1), Outcome::Stored);
}

#[test]
fn different_bytes_replace_only_where_asked() {
    let tier = MemoryTier::new(1000);
    let id = BlockId::named("n");
    let replace = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
    let list = |byte: u8| SgList::from(crate::memory::Piece::shared(Arc::from(vec![byte; 10])));
    assert_eq!(tier.store(&id, &list(1), replace), Outcome::Stored);
    assert_eq!(tier.store(&id, &list(1), replace), Outcome::Exists);
    assert_eq!(tier.store(&id, &list(2), PutMeta::default()), Outcome::Exists);
    let old = tier.lease(&id).unwrap();
    assert_eq!(tier.store(&id, &list(2), replace), Outcome::Stored);
    let mut out = [0; 10];
    assert!(old.read_at(0, &mut out) && out == [1; 10], "a lease keeps its bytes");
    assert!(tier.lease(&id).unwrap().read_at(0, &mut out) && out == [2; 10]);
}
