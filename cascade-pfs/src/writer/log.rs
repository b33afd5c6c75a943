//! This writer's identity file and index log.

use std::io;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::config::Durability;
use crate::core::Core;
use crate::fs::{Access, File};
use crate::io as whole;
use crate::layout::{Identity, LogEvent, LogHeader, LogRecord};
use crate::names::Name;
use crate::process;

use super::Writer;

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) me: Identity,
    file: Arc<dyn File>,
    next: u64,
    /// Its name is durable.
    named: bool,
    /// Others see it only once it is synced.
    pushes: bool,
    /// A sync failed: no later one says anything of what was written before.
    poisoned: bool,
    /// Events that are not in the file yet: a write that failed is tried again with the next.
    waiting: Vec<LogEvent>,
}

/// Makes the files of a new writer.
///
/// # Errors
/// The system's; nothing is left behind then.
pub(crate) fn begin(core: &Core) -> io::Result<Log> {
    // An observer that repairs has no bound, and will have no segment.
    let capacity_bytes = Some(core.config.capacity_bytes).filter(|bytes| *bytes < u64::MAX).unwrap_or(0);
    let me = Identity { capacity_bytes, ..process::new_identity() };
    let names = [Name::Writer(me.writer), Name::Log(me.writer)];
    let made = make(core, &me, names);
    if made.is_err() {
        for name in names {
            let _ = core.fs.remove(&core.path(name));
        }
    }
    let (life, file) = made?;
    core.lives(&me, life);
    Ok(Log { me, file, next: 0, named: false, pushes: core.pushes(), poisoned: false, waiting: Vec::new() })
}

fn make(core: &Core, me: &Identity, names: [Name; 2]) -> io::Result<(Arc<dyn File>, Arc<dyn File>)> {
    let life = core.fs.open(&core.path(names[0]), Access::Create, false)?;
    // Where there are no locks, pid and time of change tell who lives. The lock comes before the content, so that nobody
    // reads of a writer that seems dead.
    let _ = life.lock();
    whole::write_all(life.as_ref(), &[Buffer::of(&me.to_page()).piece()], 0)?;
    let file = core.fs.open(&core.path(names[1]), Access::Create, false)?;
    let header = LogHeader { writer: me.writer }.to_page();
    whole::write_all(file.as_ref(), &[Buffer::of(&header).piece()], 0)?;
    if core.pushes() {
        life.sync()?;
        file.sync()?;
    }
    core.counters.creates.add(2);
    // Two files made, and a lock.
    core.counters.metadata.add(3);
    Ok((life, file))
}

impl Log {
    pub(crate) fn note(&mut self, event: LogEvent) {
        self.waiting.push(event);
    }

    /// Takes back the last event that was noted.
    pub(crate) fn unnote(&mut self) {
        self.waiting.pop();
    }

    /// Writes what waits. After an error it waits on, for the same place: a torn record is written over.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.waiting.len() * crate::layout::LOG_RECORD_BYTES);
        for (number, event) in (self.next..).zip(&self.waiting) {
            bytes.extend(LogRecord { number, event: *event }.to_bytes(self.me.writer));
        }
        whole::write_all(self.file.as_ref(), &[Buffer::of(&bytes).piece()], LogRecord::at(self.next))?;
        if self.pushes {
            // After an error the same bytes are written again, which is more than another sync.
            self.file.sync()?;
        }
        self.next += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Makes the log durable, its name too.
    pub(crate) fn sync(&mut self, core: &Core) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.sync().inspect_err(|_| self.poisoned = true)?;
        if !self.named {
            core.counters.metadata.add(1);
            core.fs.sync_dir(&core.config.dir)?;
            self.named = true;
        }
        Ok(())
    }
}

impl Writer {
    /// Goes on in a new log, as a new writer, when this one is long. Between two segments only: each is told of by one log.
    pub(super) fn turn_log(&mut self) {
        if LogRecord::at(self.log.next) < self.core.config.log_bytes {
            return;
        }
        self.finish_full();
        if self.log.write().is_err() {
            return;
        }
        // A flush asks for what the new log holds only.
        if self.core.config.durability != Durability::None && self.sync_log().is_err() {
            return;
        }
        let Ok(log) = begin(&self.core) else { return };
        let old = std::mem::replace(&mut self.log, log);
        let writer = old.me.writer;
        self.number = 0;
        self.past.push(old);
        self.bury(writer);
    }

    /// Makes the log durable. One that cannot be is given up, with the segment beside it: this process goes on as a new writer.
    pub(super) fn sync_log(&mut self) -> io::Result<()> {
        self.core.counters.syncs.add(1);
        let Err(error) = self.log.sync(&self.core) else { return Ok(()) };
        self.core.counters.poisoned.add(1);
        self.finish_segments();
        if let Ok(log) = begin(&self.core) {
            self.log = log;
            self.number = 0;
        }
        Err(error)
    }
}
