//! Whose end the janitor is told of by the kernel, and who must be asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::raw;
use crate::lock::Holder;
use crate::process::{self, ForkGuard};
use crate::recover;
use crate::session::Core;

/// Owners watched through a descriptor; further ones are asked in turn.
const WATCHED: usize = 64;
/// Watched owners are also asked themselves once in so many rounds: a handle can be closed while its process lives.
const ROUNDS: u64 = 8;
/// Longest pause between two attempts at an owner of which something has to wait.
const LONGEST: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(40);

/// The owners that this process has an eye on.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Vec<(Holder, ForkGuard)>,
    stubborn: HashMap<Holder, (Instant, Duration)>,
    round: u64,
}

impl Watch {
    /// The descriptors that become readable when an owner's process ends.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &ForkGuard> {
        self.watched.iter().map(|(_, descriptor)| descriptor)
    }

    /// Whether the kernel would have said that `holder` ended, and did not; `ended` says which of the descriptors are readable.
    /// Now and then `false` all the same: a handle can be closed while its process lives.
    pub(super) fn sees_alive(&self, holder: Holder, ended: &[bool]) -> bool {
        !self.round.is_multiple_of(ROUNDS)
            && !ended.contains(&true)
            && self.watched.iter().any(|(watched, _)| *watched == holder)
    }

    /// Watches `holder` and nobody else.
    pub(super) fn only(&mut self, core: &Core, holder: Holder) {
        self.round += 1;
        self.watched.retain(|(watched, _)| *watched == holder);
        if self.watched.is_empty() {
            self.add(core, holder);
        }
    }

    fn add(&mut self, core: &Core, holder: Holder) {
        let Some(row) = core.map().owners().get(holder.row as usize) else { return };
        let owner = row.process();
        let me = process::current();
        // Our own process ends with us, and a pid of another namespace names somebody else here.
        if owner.pid == me.pid || !process::is_visible(owner) {
            return;
        }
        if let Some(descriptor) = raw::pidfd(owner.pid)
            && !process::is_gone(owner)
            && row.is_current(holder)
        {
            self.watched.push((holder, ForkGuard::new(descriptor)));
        }
    }

    /// Recovers every owner that died; `ended` says which of the descriptors are readable.
    pub(super) fn recover(&mut self, core: &Core, ended: &[bool]) {
        self.round += 1;
        let now = Instant::now();
        let mut ended = ended.iter();
        let mut suspects = Vec::new();
        self.watched.retain(|(holder, _)| {
            let has_ended = ended.next().is_some_and(|ended| *ended);
            if has_ended {
                suspects.push(*holder);
            }
            !has_ended && core.map().owners()[holder.row as usize].is_current(*holder)
        });
        let ask_all = self.round.is_multiple_of(ROUNDS);
        let rows: Vec<Holder> = recover::live_rows(core).filter(|holder| *holder != core.holder()).collect();
        self.stubborn.retain(|holder, _| rows.contains(holder));
        for holder in rows {
            let is_watched = self.watched.iter().any(|(watched, _)| *watched == holder);
            let may_ask = self.stubborn.get(&holder).is_none_or(|(next, _)| *next <= now);
            if (ask_all || !is_watched) && may_ask && !suspects.contains(&holder) {
                suspects.push(holder);
            }
        }
        let dead: Vec<Holder> = suspects.iter().copied().filter(|holder| core.is_dead(*holder)).collect();
        recover::owners(core, &dead);
        for holder in suspects {
            self.settle(core, holder, dead.contains(&holder), now);
        }
    }

    fn settle(&mut self, core: &Core, holder: Holder, was_dead: bool, now: Instant) {
        if !core.map().owners()[holder.row as usize].is_current(holder) {
            self.stubborn.remove(&holder);
        } else if was_dead {
            // Something of it has to wait: a device that may still write, or a stopped process that holds a region.
            let pause = self.stubborn.get(&holder).map_or(SHORTEST, |(_, pause)| (*pause * 2).min(LONGEST));
            self.stubborn.insert(holder, (now + pause, pause));
        } else if self.watched.len() < WATCHED && !self.watched.iter().any(|(watched, _)| *watched == holder)
        {
            self.add(core, holder);
        }
    }
}
