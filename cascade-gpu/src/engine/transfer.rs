//! A transfer under way, and its end.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::block::chunks;
use cascade_core::memory::SgList;

use super::CopyEngine;
use super::lane::Lane;
use super::relay::Relay;
use crate::device::{Event, Fault, Stream};

/// A transfer is waited for without sleeping for so long: as long as the device takes for some MiB.
const SPIN: Duration = Duration::from_millis(2);
/// Turns between two looks meanwhile: every look takes a lock of the driver, which the calls of other threads need.
const TURNS: usize = 8;
/// Then it is looked at so often.
const NAP: Duration = Duration::from_micros(50);

/// A copy that the device has queued. It keeps the memory of its lists; dropping it waits for its end.
#[derive(Debug)]
pub struct Transfer {
    pub(super) engine: Arc<CopyEngine>,
    pub(super) lane: Option<Lane>,
    /// The buffer on the device that pages go through.
    pub(super) relay: Option<Relay>,
    pub(super) lists: (SgList, SgList),
    /// What keeps the memory of the lists, once they were read.
    pub(super) owners: Vec<Arc<dyn Any + Send + Sync>>,
    /// Events to destroy; the last ones of both streams are the end.
    pub(super) events: Vec<Event>,
    pub(super) ends: Vec<Event>,
    /// Whether the ends are behind everything that was queued.
    pub(super) is_closed: bool,
    /// Bytes that were digested; `None`: no digests.
    pub(super) digested: Option<usize>,
}

impl Transfer {
    /// Whether it is over.
    ///
    /// # Errors
    /// The device's failure; what arrived is unknown then.
    pub fn is_done(&self) -> Result<bool, Fault> {
        for event in &self.ends {
            let done = self.engine.device.is_done(*event).inspect_err(|fault| self.engine.note(fault))?;
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets later work of `stream`, a stream of the caller's, wait for the end of this transfer on the device.
    ///
    /// # Errors
    /// The device's failure.
    pub fn let_wait(&self, stream: Stream) -> Result<(), Fault> {
        self.ends.iter().try_for_each(|event| self.engine.device.wait_for(stream, *event))
    }

    /// Waits for the end; the digests that were asked for, where the device could compute them.
    ///
    /// # Errors
    /// The device's failure; what arrived is unknown then.
    pub fn wait(self) -> Result<Option<Vec<u64>>, Fault> {
        self.settle()?;
        let digests = self.digested.zip(self.lane.as_ref());
        Ok(digests.map(|(len, lane)| lane.out.digests(chunks(len as u64))))
    }

    /// Waits for the lane's streams: for a transfer that could not be ended by events.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let Some(lane) = &self.lane else { return Ok(()) };
        let device = &self.engine.device;
        let finish = |stream| device.finish(stream).inspect_err(|fault| self.engine.note(fault));
        // Both, also when the first fails.
        let (copies, digests) = (finish(lane.copies), finish(lane.digests));
        copies.and(digests)
    }

    fn settle(&self) -> Result<(), Fault> {
        let start = Instant::now();
        let mut ends = self.ends.iter().copied();
        let mut next = ends.next();
        while let Some(end) = next {
            if self.engine.device.is_done(end).inspect_err(|fault| self.engine.note(fault))? {
                next = ends.next();
            } else if start.elapsed() < SPIN {
                (0..TURNS).for_each(|_| std::hint::spin_loop());
            } else {
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // The lists belong to the caller again after this: with a device that works, nothing touches them any more.
        let settled = if self.is_closed { self.settle() } else { self.finish() };
        for event in &self.events {
            self.engine.device.end_event(*event);
        }
        if let (Ok(()), Some(lane)) = (settled, self.lane.take()) {
            self.engine.give_back(lane);
            if let Some(relay) = self.relay.take() {
                self.engine.relays.give_back(relay);
            }
        }
    }
}
