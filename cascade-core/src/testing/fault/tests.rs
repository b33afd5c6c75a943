use super::*;
use crate::batch::{Batch, Op, Outcome};
use crate::memory::{HostBuffer, Piece};
use crate::memory_tier::MemoryTier;
use crate::testing::bytes::{content, id, root};
use crate::tier::PutMeta;
use std::time::Instant;

fn store(key: u64) -> Op {
    Op::Store { id: id(key), from: Piece::shared(content(key, 1, 5000)).into(), meta: PutMeta::default() }
}

fn fetch(key: u64, buffer: &HostBuffer) -> Op {
    Op::Fetch { id: id(key), into: buffer.piece().into() }
}

fn run(tier: &dyn Tier, ops: Vec<Op>) -> Vec<Outcome> {
    tier.submit(Batch::new(ops)).wait(Instant::now() + Duration::from_secs(20)).expect("no hang")
}

fn over_memory(layer: &FaultLayer) -> Arc<dyn Tier> {
    layer.wrap(Arc::new(MemoryTier::new(1 << 20)))
}

#[test]
fn the_chosen_operations_fail_and_the_others_do_not() {
    let layer = FaultLayer::new(1)
        .nth(1, Fault::Refuse(Refusal::Throttled))
        .nth(3, Fault::Miss(MissReason::Unavailable));
    let tier = over_memory(&layer);
    let outcomes = run(&*tier, vec![store(0), store(1), store(2), Op::Delete { id: id(0) }, store(0)]);
    let expected = [
        Outcome::Stored,
        Outcome::Refused(Refusal::Throttled),
        Outcome::Stored,
        Outcome::Miss(MissReason::Unavailable),
        Outcome::Exists,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(layer.injected(), 2);
}

#[test]
fn a_flipped_bit_is_seen_by_whoever_verifies_and_by_nobody_else() {
    let layer = FaultLayer::new(7).nth(1, Fault::FlipBit);
    let tier = over_memory(&layer);
    run(&*tier, vec![store(0)]);
    for damaged in [true, false] {
        let mut buffer = HostBuffer::zeroed(6000);
        let outcomes = run(&*tier, vec![fetch(0, &buffer)]);
        let Some(Outcome::Fetched(meta)) = outcomes.first().copied() else { panic!("{outcomes:?}") };
        let bytes = &buffer.bytes_mut().expect("nobody holds a piece")[..5000];
        assert_eq!(root(&id(0), bytes) != meta.digest, damaged);
        let flipped: u32 = bytes.iter().zip(&*content(0, 1, 5000)).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, u32::from(damaged));
    }
}

#[test]
fn a_delay_holds_the_ticket_and_not_the_caller() {
    let delay = Duration::from_millis(80);
    let tier = over_memory(&FaultLayer::new(1).nth(0, Fault::Delay(delay)));
    let begun = Instant::now();
    let ticket = tier.submit(Batch::new(vec![store(0)]));
    assert!(!ticket.poll());
    assert_eq!(ticket.wait(begun + Duration::from_secs(20)), Some(vec![Outcome::Stored]));
    assert!(begun.elapsed() >= delay);
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let trace = |seed| {
        let tier = over_memory(&FaultLayer::new(seed).rate(300, Fault::Refuse(Refusal::Full)));
        run(&*tier, (0..100).map(store).collect())
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
    let refused = trace(5).iter().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
    assert!((15..=45).contains(&refused), "{refused} of 100 at a rate of 30 %");
}
