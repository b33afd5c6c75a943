//! The file of the next segment, made while the open one is written.
//!
//! Setting room aside asks the disk for maps of what is free, and those reads queue behind every write under way: done between
//! two segments it kept the disk idle for tens of milliseconds. The file has no name until its segment is begun, so whoever
//! dies leaves nothing behind, and others see no file that holds nothing.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::core::Core;
use crate::fs::File;
use crate::names::{Name, SegmentId};

use super::Writer;

/// A file with its room set aside, or why there is none.
type Made = std::io::Result<Arc<dyn File>>;

fn prepare(core: &Core, limit: u64) -> Made {
    core.counters.metadata.add(3);
    // On a disk that is nearly full, room that is set aside, even for a moment, fails the writes of others.
    let free = core.fs.probe(&core.config.dir)?.free_bytes;
    if free < limit.saturating_mul(2) {
        return Err(ErrorKind::StorageFull.into());
    }
    core.fs.prepare(&core.config.dir, core.is_direct(), limit)
}

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What is being made, or was; its length.
    made: Option<(Receiver<Made>, u64)>,
    /// Number of the last segment that one was asked for: once each.
    asked_for: u64,
}

impl Writer {
    /// Has the next file made once the open segment is half full. It takes the room that is kept free for what survives a segment
    /// that goes, and only where nothing has to go for it. Best effort: without it the file is made when it is needed.
    pub(super) fn look_ahead(&mut self) {
        let Some(open) = self.open.as_ref().filter(|open| open.is_half_full()) else { return };
        let limit = open.limit;
        // Files that are to be striped are told so when they are made.
        if self.core.stripes().is_some() {
            return;
        }
        let (_, used, _) = self.core.catalog.read().owned();
        if self.ahead.asked_for == self.number || used.saturating_add(limit) > self.core.config.capacity_bytes
        {
            return;
        }
        let (send, receive) = channel();
        self.ahead = Ahead { made: Some((receive, limit)), asked_for: self.number };
        let core = Arc::clone(&self.core);
        self.core.engine.run_write(move || {
            let _ = send.send(prepare(&core, limit));
            core.queue.wake();
        });
    }

    /// The file that was made for a segment of `limit` bytes, under its name; `None` where there is none, or it is of another
    /// length. One that is being made is waited for: another would not be there sooner.
    pub(super) fn take_ahead(&mut self, id: SegmentId, limit: u64) -> Option<Arc<dyn File>> {
        let (made, len) = self.ahead.made.take()?;
        if len != limit {
            return None;
        }
        let file = loop {
            match made.try_recv() {
                Ok(made) => break made.ok()?,
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.wait_for_some(),
            }
        };
        self.core.counters.metadata.add(1);
        file.give_name(&self.core.path(Name::Segment(id))).ok()?;
        self.core.counters.creates.add(1);
        Some(file)
    }
}
