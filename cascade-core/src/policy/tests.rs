use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A tier of `slots` blocks under a policy, as a tier would drive it.
struct Tier<P> {
    policy: P,
    slots: usize,
    slot_of: HashMap<u64, u32>,
    standings: HashMap<u64, Standing>,
    now: Tick,
    next: u32,
}

impl<P: EvictionPolicy> Tier<P> {
    fn new(policy: P, slots: usize) -> Self {
        Self { policy, slots, slot_of: HashMap::new(), standings: HashMap::new(), now: 0, next: 0 }
    }

    /// Serves a chain; gives the blocks that hit, and `false` when one could not be put.
    fn serve(&mut self, chain: &[u64], standing: Standing) -> (usize, bool) {
        self.now += 1;
        self.policy.request(chain, self.now);
        let (mut hits, mut is_prefix) = (0, true);
        for (position, key) in chain.iter().enumerate() {
            let block = Block { slot: u32::MAX, key: *key, position, standing };
            if let Some(slot) = self.slot_of.get(key) {
                hits += usize::from(is_prefix);
                self.policy.used(&Block { slot: *slot, ..block }, self.now);
                self.standings.insert(*key, standing);
                continue;
            }
            is_prefix = false;
            let slot = if (self.next as usize) < self.slots {
                self.next += 1;
                self.next - 1
            } else {
                match self.policy.evict(&block, self.now) {
                    Verdict::Evict(slot) => slot,
                    Verdict::Refuse | Verdict::Pinned => return (hits, false),
                }
            };
            assert!((slot as usize) < self.slots, "a slot that the tier does not have");
            let old = self.slot_of.iter().find(|(_, held)| **held == slot).map(|(key, _)| *key);
            if let Some(old) = old {
                assert_ne!(self.standings[&old], Standing::HardPinned, "a hard pin went");
                self.slot_of.remove(&old);
            } else {
                assert_eq!(slot + 1, self.next, "a slot that is free was given as evicted");
            }
            self.slot_of.insert(*key, slot);
            self.standings.insert(*key, standing);
            self.policy.inserted(&Block { slot, ..block }, self.now);
        }
        (hits, true)
    }
}

fn learned(slots: usize) -> Sampled<Learned> {
    Sampled::new(Learned::new(4096), slots, Shares::default(), 7)
}

fn all(slots: usize) -> Vec<Box<dyn EvictionPolicy>> {
    vec![
        Box::new(learned(slots)),
        Box::new(learned(slots).admitting(Admission::Worthier)),
        Box::new(Sampled::new(Recency::default(), slots, Shares::default(), 7)),
        Box::new(Sampled::new(FrequencyByAge::new(512), slots, Shares::default(), 7)),
        Box::new(lists::Lru::default()),
        Box::new(lists::Lfu::default()),
        Box::new(lists::Sieve::default()),
        Box::new(lists::S3Fifo::new(slots)),
        Box::new(lists::TinyLfu::new(slots)),
    ]
}

impl EvictionPolicy for Box<dyn EvictionPolicy> {
    fn request(&mut self, chain: &[u64], now: Tick) {
        self.as_mut().request(chain, now);
    }

    fn used(&mut self, block: &Block, now: Tick) {
        self.as_mut().used(block, now);
    }

    fn inserted(&mut self, block: &Block, now: Tick) {
        self.as_mut().inserted(block, now);
    }

    fn evict(&mut self, incoming: &Block, now: Tick) -> Verdict {
        self.as_mut().evict(incoming, now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_policy_gives_slots_that_hold_something(
        slots in 1_usize..40,
        chains in prop::collection::vec((0_u64..12, 1_u64..30), 1..120),
    ) {
        for policy in all(slots) {
            let mut tier = Tier::new(policy, slots);
            for (root, len) in &chains {
                let chain: Vec<u64> = (0..*len).map(|depth| root * 100 + depth).collect();
                tier.serve(&chain, Standing::Ordinary);
                prop_assert!(tier.slot_of.len() <= slots);
            }
        }
    }

    #[test]
    fn a_hard_pin_never_goes(
        slots in 2_usize..200,
        pinned in 1_usize..100,
        chains in prop::collection::vec((1_u64..40, 1_u64..20), 1..100),
    ) {
        let pinned = pinned.min(slots);
        let mut tier = Tier::new(learned(slots), slots);
        let pins: Vec<u64> = (1..=pinned as u64).collect();
        tier.serve(&pins, Standing::HardPinned);
        for (root, len) in &chains {
            let chain: Vec<u64> = (0..*len).map(|depth| root * 1000 + depth).collect();
            let (_, is_put) = tier.serve(&chain, Standing::Ordinary);
            prop_assert!(is_put || pinned == slots, "there was room beside the pins");
        }
        prop_assert_eq!(tier.serve(&pins, Standing::HardPinned).0, pinned);
    }

    #[test]
    fn a_heat_keeps_what_it_is_given(now: u32, uses in 0_u32..16, depth in 0_usize..2000, known in 0_usize..9) {
        let heat = Heat::new(now, uses, Kind::of(depth, depth + 1, known, 0), depth);
        prop_assert!(heat.bits() < 1 << Heat::BITS);
        prop_assert_eq!(Heat::from_bits(heat.bits()), heat);
        prop_assert_eq!((heat.age(now.wrapping_add(77)), heat.uses()), (77, uses));
        prop_assert!(heat.kind().is_tail);
        prop_assert!(Heat::new(now, uses, heat.kind(), depth + 1).depth() >= heat.depth());
    }

    #[test]
    fn worth_is_finite_whatever_was_seen(ends in prop::collection::vec((any::<u32>(), 0_u32..70_000, any::<bool>()), 0..300)) {
        let mut survival = Survival::default();
        for (bits, age, is_use) in ends {
            survival.end(Heat::from_bits(bits), age, is_use);
        }
        survival.fade(0.5);
        let table = survival.worth();
        for uses in 0..16 {
            for age in [0, 1, 2, 63, 64, 1000, 30_000, 65_535] {
                let worth = table.worth(Heat::new(0, uses, Kind::default(), 0), age);
                prop_assert!(worth.is_finite() && worth > 0.0, "{worth} of {uses} uses at {age}");
            }
        }
    }
}

#[test]
fn who_has_seen_nothing_behaves_as_lru() {
    let table = WorthTable::default();
    let worth = |uses, age| table.worth(Heat::new(0, uses, Kind::default(), 0), age);
    for age in 0..65_534 {
        assert!(worth(0, age) >= worth(0, age + 1), "older and worth more at {age}");
        assert_eq!(worth(0, age), worth(3, age), "classes differ by nothing that was seen");
    }
}

#[test]
fn the_deepest_of_a_chain_goes_first() {
    let chain: Vec<u64> = (0..16).collect();
    let mut tier = Tier::new(learned(16), 16);
    tier.serve(&chain, Standing::Ordinary);
    for new in 0..8 {
        tier.serve(&[1000 + new], Standing::Ordinary);
    }
    let left = (0..16).take_while(|key| tier.slot_of.contains_key(key)).count();
    let held = (0..16).filter(|key| tier.slot_of.contains_key(key)).count();
    assert_eq!((left, held), (8, 8), "what is left of the chain is its beginning");
}

/// Requests in which chains of kind A come back after 30 others, and those of kind B never.
fn of_two_kinds(tier: &mut Tier<Sampled<Learned>>, requests: u64) -> usize {
    let mut hits = 0;
    for number in 0..requests {
        let conversation: Vec<u64> =
            (0..4).map(|depth| (number % 30 + number / 90 * 30) * 100 + depth).collect();
        let scan: Vec<u64> = (0..8).map(|depth| 1 << 40 | number << 8 | depth).collect();
        hits += tier.serve(&conversation, Standing::Ordinary).0;
        tier.serve(&scan, Standing::Ordinary);
    }
    hits
}

#[test]
fn what_is_used_again_is_kept_from_what_is_not() {
    // 30 conversations of 4 blocks, and 8 blocks of a scan after each request: LRU would need 30 * 12 blocks.
    let mut tier = Tier::new(learned(180), 180);
    let (first, second) = (of_two_kinds(&mut tier, 900), of_two_kinds(&mut tier, 1800));
    let mut lru = Tier::new(lists::Lru::default(), 180);
    let mut of_lru = 0;
    for number in 0..900_u64 {
        let conversation: Vec<u64> =
            (0..4).map(|depth| (number % 30 + number / 90 * 30) * 100 + depth).collect();
        of_lru += lru.serve(&conversation, Standing::Ordinary).0;
        lru.serve(&(0..8).map(|depth| 1 << 40 | number << 8 | depth).collect::<Vec<_>>(), Standing::Ordinary);
    }
    assert_eq!(of_lru, 0);
    assert!(first > 400, "{first} of 2,400 possible hits");
    assert!(second > first, "{second} in the second stretch");
}

#[test]
fn prefix_blocks_outlive_others_within_their_share() {
    let mut tier = Tier::new(learned(200), 200);
    let prefix = |number: u64| 10_000 + number;
    for number in 0..100 {
        tier.serve(&[prefix(number)], Standing::Prefix);
    }
    for number in 0..2000 {
        tier.serve(&[number], Standing::Ordinary);
    }
    let held = |tier: &Tier<_>, range: std::ops::Range<u64>| {
        range.filter(|number| tier.slot_of.contains_key(&prefix(*number))).count()
    };
    assert_eq!(held(&tier, 0..100), 100, "a half of the tier is within the share");
    for number in 100..400 {
        tier.serve(&[prefix(number)], Standing::Prefix);
    }
    for number in 2000..4000 {
        tier.serve(&[number], Standing::Ordinary);
    }
    assert!((120..=161).contains(&held(&tier, 0..400)), "protection ends at four fifths");
}

#[test]
fn soft_pins_go_last_and_rather_than_nothing() {
    let mut tier = Tier::new(learned(64), 64);
    tier.serve(&(0..16).collect::<Vec<_>>(), Standing::SoftPinned);
    for number in 100..500 {
        tier.serve(&[number], Standing::Ordinary);
    }
    assert!((0..16).all(|key| tier.slot_of.contains_key(&key)));
    tier.serve(&(1000..1048).collect::<Vec<_>>(), Standing::HardPinned);
    let (_, is_put) = tier.serve(&[9999], Standing::Ordinary);
    assert!(is_put, "a soft pin goes rather than that a put fails");
}

#[test]
fn the_worthier_are_let_in_alone() {
    assert!(Admission::All.admits(0.0, 1.0));
    assert!(Admission::Worthier.admits(1.0, 1.0) && !Admission::Worthier.admits(0.5, 1.0));
}

#[test]
fn ghosts_forget_the_oldest_first_and_say_so() {
    let mut ghosts = Ghosts::new(64);
    let mut displaced = 0;
    for key in 1..=1000_u64 {
        let heat = Heat::new(key as u32, 0, Kind::default(), 0);
        displaced += usize::from(ghosts.put(key, heat, key as u32).is_some());
        assert_eq!(ghosts.get(key), Some(heat));
    }
    assert_eq!(ghosts.len() + displaced, 1000);
    assert!(ghosts.len() <= 64 && (990..=1000).all(|key| ghosts.get(key).is_some()));
}
