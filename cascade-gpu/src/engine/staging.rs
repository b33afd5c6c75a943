//! Host memory that is not registered: through a pinned buffer, in units that the threads for large copies share.
//!
//! One thread does all of a unit: on the way in it fills the unit's place in the buffer and hands it to the device; on the way out
//! it waits for the device and empties the place. Calls of the driver are made by whoever comes by. Waking threads takes longer than the device needs for some MiB, so they are
//! woken once for a transfer, and the device has work as long as one of them is ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use cascade_core::copy;
use cascade_core::digest::CHUNK_BYTES;
use cascade_core::memory::{SgList, Space};
use parking_lot::Mutex;

use super::cursor::{Cursor, cut};
use super::issue::Issue;
use super::ways::Path;
use crate::device::{Event, Fault, Pinned};

/// Longest unit: what one thread copies in the time that the device takes for some of them.
const MOST_UNIT: usize = 1 << 20;
/// Shortest unit, unless the buffer is too short for it: below, calls of the driver take longer than copies.
const LEAST_UNIT: usize = 256 << 10;
/// A transfer has so many units, if they are not shorter or longer than that.
const UNITS: usize = 16;
/// Digests are computed of so many units together: a launch for each would hold up the copies.
const DIGESTED_UNITS: usize = 4;
/// Looks at a unit before the thread lets others have its CPU.
const LOOKS: usize = 256;
/// Turns between two looks.
const PAUSE: usize = 16;

/// The buffer of one direction.
#[derive(Debug)]
pub(super) struct Staging {
    buffer: Arc<Pinned>,
}

/// Copies the whole transfer and returns when host memory is no longer touched.
pub(super) fn run(issue: &mut Issue, dst: &SgList, src: &SgList) -> Result<(), Fault> {
    let inward = issue.path == Path::In;
    let (device, host) = if inward { (dst, src) } else { (src, dst) };
    if device.pieces().iter().any(|piece| piece.space() == Space::Host) {
        return Err(Fault::NotRegistered);
    }
    let engine = Arc::clone(&issue.transfer.engine);
    let mut guard = engine.staging[usize::from(!inward)].lock();
    let staging = match guard.as_mut() {
        Some(staging) => staging,
        None => {
            let buffer = Pinned::new(&engine.device, engine.options.staging_bytes).map(Arc::new)?;
            guard.insert(Staging { buffer })
        }
    };
    let result = Flow::new(issue, &staging.buffer, device, host).and_then(Flow::run);
    if result.is_err() {
        // What is queued may still use the buffer, which the next transfer would fill.
        let end = issue.mark();
        drop(end.and_then(|end| wait(issue, end)));
    }
    result
}

/// Bytes of a unit, and how many the buffer has room for.
fn units(len: usize, buffer: usize) -> (usize, usize) {
    let wanted = (len / UNITS).clamp(LEAST_UNIT, MOST_UNIT).min(buffer / 2);
    let unit = if wanted < CHUNK_BYTES { wanted.max(1) } else { wanted / CHUNK_BYTES * CHUNK_BYTES };
    (unit, (buffer / unit).max(1))
}

/// A transfer on its way through the buffer.
struct Flow<'a> {
    buffer: &'a Arc<Pinned>,
    inward: bool,
    unit: usize,
    slots: usize,
    /// Host memory and device memory of each unit.
    host: Vec<SgList>,
    device: Vec<SgList>,
    /// Units that the device is through with.
    copied: Vec<AtomicBool>,
    /// Units that the CPU is through with: filled, or emptied.
    done: Vec<AtomicBool>,
    /// The next unit to queue.
    next: AtomicUsize,
    failed: AtomicBool,
    feed: Mutex<Feed<'a>>,
}

/// What one thread at a time does: calls of the driver.
struct Feed<'a> {
    issue: &'a mut Issue,
    /// Units in the order in which the device has them, with what says that it is through.
    queued: Vec<(usize, Event)>,
    /// The first of them that it was not seen to be through with.
    oldest: usize,
    /// Inwards: all below are digested.
    digested_to: usize,
    fault: Option<Fault>,
}

impl<'a> Flow<'a> {
    fn new(
        issue: &'a mut Issue,
        buffer: &'a Arc<Pinned>,
        device: &SgList,
        host: &SgList,
    ) -> Result<Self, Fault> {
        let (unit, slots) = units(issue.len, buffer.len());
        let (host, device) = (cut(host, issue.len, unit), cut(device, issue.len, unit));
        let count = issue.len.div_ceil(unit);
        if host.len() != count || device.len() != count || buffer.len() < unit {
            return Err(Fault::NotRegistered);
        }
        let flags = || (0..count).map(|_| AtomicBool::new(false)).collect();
        let feed = Feed { issue, queued: Vec::with_capacity(count), oldest: 0, digested_to: 0, fault: None };
        let inward = feed.issue.path == Path::In;
        let (copied, done, failed, next) = (flags(), flags(), AtomicBool::new(false), AtomicUsize::new(0));
        let feed = Mutex::new(feed);
        Ok(Self { buffer, inward, unit, slots, host, device, copied, done, next, failed, feed })
    }

    fn run(self) -> Result<(), Fault> {
        let (count, bytes, inward) = (self.host.len(), self.unit * self.host.len(), self.inward);
        copy::share(bytes, count, &|unit| if inward { self.bring(unit) } else { self.take(unit) });
        if inward {
            // The buffer is the next transfer's when this returns.
            (count.saturating_sub(self.slots)..count).all(|unit| self.is_through(unit));
        }
        let mut feed = self.feed.into_inner();
        if let Some(fault) = feed.fault.take() {
            return Err(fault);
        }
        if feed.digested_to < count && inward { feed.issue.arrived(0, feed.issue.len) } else { Ok(()) }
    }

    /// Where a unit lies in the buffer.
    fn place(&self, unit: usize) -> usize {
        unit % self.slots * self.unit
    }

    /// A unit of host memory to the device.
    fn bring(&self, unit: usize) {
        if unit >= self.slots && !self.is_through(unit - self.slots) {
            return;
        }
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        if !self.buffer.fill(self.place(unit), &self.host[unit]) {
            return self.fail(&mut self.feed.lock(), Fault::NotRegistered);
        }
        self.is_done(unit);
    }

    /// A unit of device memory to the host.
    fn take(&self, unit: usize) {
        if !self.is_through(unit) {
            return;
        }
        if !self.buffer.drain(self.place(unit), &self.host[unit]) {
            return self.fail(&mut self.feed.lock(), Fault::NotRegistered);
        }
        self.is_done(unit);
    }

    /// The CPU is through with a unit. Whoever has the feed queues for all: nobody waits for it, since waking takes longer than
    /// the calls.
    fn is_done(&self, unit: usize) {
        self.done[unit].store(true, Ordering::Release);
        loop {
            // Either this thread gets the feed, or who has it sees the unit when it has given the feed back.
            fence(Ordering::SeqCst);
            if !self.can_go_on() {
                return;
            }
            let Some(mut feed) = self.feed.try_lock() else { return };
            self.feed_on(&mut feed);
        }
    }

    /// Whether the next unit can be queued: it is filled, or has a place.
    fn can_go_on(&self) -> bool {
        let next = self.next.load(Ordering::Acquire);
        let waits_for = if self.inward { Some(next) } else { next.checked_sub(self.slots) };
        next < self.host.len()
            && !self.failed.load(Ordering::Relaxed)
            && waits_for.is_none_or(|unit| self.done[unit].load(Ordering::Acquire))
    }

    /// Waits until the device is through with a unit; `false` when something failed.
    fn is_through(&self, unit: usize) -> bool {
        let mut looks = 0;
        while !self.copied[unit].load(Ordering::Acquire) {
            if self.failed.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(mut feed) = self.feed.try_lock() {
                self.feed_on(&mut feed);
                self.look(&mut feed);
            }
            looks += 1;
            if looks < LOOKS {
                (0..PAUSE).for_each(|_| std::hint::spin_loop());
            } else {
                std::thread::yield_now();
            }
        }
        true
    }

    /// Queues what can go on.
    fn feed_on(&self, feed: &mut Feed<'_>) {
        while self.can_go_on() {
            let unit = self.next.load(Ordering::Relaxed);
            let queued = self.queue(feed, unit);
            self.next.store(unit + 1, Ordering::Release);
            if let Err(fault) = queued.and_then(|()| self.digest(feed, unit + 1)) {
                self.fail(feed, fault);
            }
            // Units that are there already come first: others wait for them.
            if feed.queued.len() > feed.oldest + 1 {
                self.look(feed);
            }
        }
    }

    /// Looks what the device is through with.
    fn look(&self, feed: &mut Feed<'_>) {
        while let Some((unit, event)) = feed.queued.get(feed.oldest).copied() {
            match feed.issue.transfer.engine.device.is_done(event) {
                Ok(true) => {
                    self.copied[unit].store(true, Ordering::Release);
                    feed.oldest += 1;
                }
                Ok(false) => return,
                Err(fault) => return self.fail(feed, fault),
            }
        }
    }

    /// Queues the device's copy of a unit.
    fn queue(&self, feed: &mut Feed<'_>, unit: usize) -> Result<(), Fault> {
        let device = &self.device[unit];
        let len = device.len();
        let staged = self.buffer.piece(self.place(unit), len).ok_or(Fault::OutOfMemory)?;
        let issue = &mut *feed.issue;
        if self.inward {
            queue_copy(issue, device, &staged.into(), len)?;
        } else {
            queue_copy(issue, &staged.into(), device, len)?;
        }
        let end = issue.mark()?;
        feed.queued.push((unit, end));
        Ok(())
    }

    /// Inwards: the digests of the units below `to`, which are queued, where they can follow the units.
    fn digest(&self, feed: &mut Feed<'_>, to: usize) -> Result<(), Fault> {
        let (from, all) = (feed.digested_to, self.host.len());
        let follows = self.inward && (all == 1 || self.unit.is_multiple_of(feed.issue.step()));
        if !follows || (to < from + DIGESTED_UNITS && to < all) {
            return Ok(());
        }
        feed.digested_to = to;
        feed.issue.arrived(from * self.unit, (to * self.unit).min(feed.issue.len))
    }

    fn fail(&self, feed: &mut Feed<'_>, fault: Fault) {
        feed.fault.get_or_insert(fault);
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// Queues the copy of one unit; the run table of those before is still in use, so this one's follows it.
fn queue_copy(issue: &mut Issue, dst: &SgList, src: &SgList, len: usize) -> Result<(), Fault> {
    let engine = Arc::clone(&issue.transfer.engine);
    let ranges = issue.ranges();
    let bounds = issue.bounds(&ranges, &engine);
    let pieces = dst.pieces().len().max(src.pieces().len());
    let way = engine.ways.read().choose(issue.path, pieces, len / pieces.max(1)).by_runs(pieces);
    issue.copy_part(&mut Cursor::new(dst, src, bounds), len, way)
}

pub(super) fn wait(issue: &Issue, event: Event) -> Result<(), Fault> {
    while !issue.transfer.engine.device.is_done(event)? {
        std::thread::yield_now();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_the_buffer_and_the_transfer() {
        assert_eq!(units(512 << 20, 32 << 20), (1 << 20, 32));
        assert_eq!(units(8 << 20, 32 << 20), (512 << 10, 64));
        assert_eq!(units(100, 32 << 20), (256 << 10, 128));
        assert_eq!(units(8 << 20, 192 << 10), (64 << 10, 3));
        assert_eq!(units(8 << 20, 1000), (500, 2));
        assert_eq!(units(8 << 20, 1), (1, 1));
    }
}
