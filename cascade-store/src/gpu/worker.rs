//! The thread that copies blocks of devices to the arena, and registers the arena with them as it grows.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cascade_core::batch::Completer;
use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_gpu::lease::DeviceLease;
use cascade_shm::Arena;

use super::Gpu;
use crate::raw;
use crate::tiers::Tiers;

/// Requests that are taken together.
const TOGETHER: usize = 64;
/// How often the arena is looked at while it grows.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// And when it is grown.
const REST: Duration = Duration::from_secs(1);

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum Sinking {
    /// A block was put; it is pinned until it is in the arena.
    Put(BlockId, Box<DeviceLease>),
    /// Everything that was put before is to be in the arena.
    All(Completer),
}

/// Works until the queue is closed and empty.
pub(crate) fn work(tiers: &Tiers, gpu: &Gpu, arena: &Arena) {
    let mut registering = Registering { arena, news: News::default() };
    let mut failed = None;
    loop {
        let patience = if registering.step(gpu) { LOOK_EVERY } else { REST };
        let Some(requests) = gpu.sink.take(TOGETHER, patience) else { return };
        for request in requests {
            match request {
                Sinking::Put(id, lease) => {
                    let len = lease.meta().len;
                    if let Err(why) = tiers.sink_leased(gpu, &id, &lease) {
                        failed = Some(why);
                    }
                    drop(lease);
                    gpu.waiting.fetch_sub(len, Ordering::Relaxed);
                }
                Sinking::All(completer) => {
                    let outcome: Option<Refusal> = failed.take();
                    completer.complete(0, outcome.map_or(Outcome::Stored, Outcome::Refused));
                }
            }
        }
    }
}

/// The arena's memory is registered with the devices, so that copies need no staging: what exists of it, and then what is added.
struct Registering<'a> {
    arena: &'a Arena,
    news: News,
}

/// How much of the arena was handed to the driver.
#[derive(Debug, Default)]
struct News {
    from: u64,
    is_refused: bool,
}

impl News {
    /// What is new of an arena with so many bytes. It is asked for ever: the limit of an arena falls where memory is short, and
    /// rises again.
    fn range(&mut self, ready_bytes: u64) -> Option<Range<u64>> {
        let range = self.from..ready_bytes;
        self.from = self.from.max(ready_bytes);
        (!self.is_refused && !range.is_empty()).then_some(range)
    }
}

impl Registering<'_> {
    /// Registers what is new; whether there may soon be more.
    fn step(&mut self, gpu: &Gpu) -> bool {
        let Some(engine) = gpu.engines().first() else { return false };
        let growth = self.arena.growth();
        if let Some(range) = self.news.range(growth.ready_bytes) {
            let Some(memory) = raw::data_of(self.arena, range.start, range.end) else { return false };
            // Once for all devices: the driver keeps registrations for every context, and other engines ask it.
            let is_taken = engine.registry().add_in_background(&memory, Arc::new(self.arena.clone()));
            self.news.is_refused = !is_taken;
        }
        !self.news.is_refused && growth.ready_bytes < growth.limit_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_that_grows_again_after_its_limit_was_reached_is_registered() {
        let mut news = News::default();
        // Ready up to a limit that was lowered, for a while; then the limit is lifted.
        let seen: Vec<_> =
            [64, 64, 64, 192, 192].map(|ready| news.range(ready)).into_iter().flatten().collect();
        assert_eq!(seen, [0..64, 64..192]);
        news.is_refused = true;
        assert_eq!(news.range(256), None);
    }
}
