//! Everybody puts and fetches at random, far more blocks than the arenas hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;

use crate::content::bytes_of;
use crate::job::Job;

/// Blocks that all ranks draw from: some 2 MiB each, three times what the arenas of two ranks hold.
const UNIVERSE: u64 = 800;

pub(crate) fn everybody_puts_and_fetches_under_eviction(job: &Job) {
    let until = Instant::now() + Duration::from_secs(job.seconds);
    let (mut state, mut hits, mut puts) = (u64::from(job.rank()) + 88_172_645_463_325_252, 0_u64, 0_u64);
    let mut misses = BTreeMap::new();
    while Instant::now() < until {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = 0xabc_0000_0000 | state % UNIVERSE;
        match job.fetch(number) {
            Ok(bytes) => {
                assert!(bytes == bytes_of(number), "wrong bytes for {number:x} on rank {}", job.rank());
                hits += 1;
            }
            Err(why) => {
                *misses.entry(why.name()).or_insert(0_u64) += 1;
                let put = job.put(number);
                assert!(matches!(put, Outcome::Stored | Outcome::Exists | Outcome::Refused(_)), "{put:?}");
                puts += u64::from(put == Outcome::Stored);
            }
        }
    }
    println!("ranks: rank {}: {hits} hits with right bytes, {puts} puts, misses {misses:?}", job.rank());
    assert!(puts > 0);
    job.meet("random");
}
