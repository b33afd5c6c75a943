//! Reading on in a log: parts of it are read and parsed by several threads while the part before is applied, in order.

use std::io::Result;
use std::sync::Arc;
use std::thread;

use super::Follower;
use crate::buffer::Buffer;
use crate::core::Core;
use crate::fs::File;
use crate::io;
use crate::layout::{LOG_RECORD_BYTES, LogEvent, LogRecord, PAGE_BYTES, WriterId};

/// Records of a part: 1 MiB.
const PART: u64 = (1 << 20) / LOG_RECORD_BYTES as u64;
/// Threads that parse.
const THREADS: u64 = 4;

/// What a part of a log holds.
#[derive(Debug, Default)]
struct Part {
    events: Vec<LogEvent>,
    /// Records that were whole, up to the first that was not.
    whole: u64,
    ended: bool,
}

/// Reads `count` records from number `first` on.
fn part(file: &dyn File, writer: WriterId, first: u64, count: u64) -> Result<Part> {
    let bytes = usize::try_from(count).unwrap_or(0) * LOG_RECORD_BYTES;
    let mut buffer = Buffer::new(bytes);
    let read = io::read_up_to(file, &[buffer.piece()], LogRecord::at(first))?;
    let records = buffer.bytes().get(..read).unwrap_or(&[]).chunks_exact(LOG_RECORD_BYTES);
    let mut part = Part { events: Vec::with_capacity(records.len()), ..Part::default() };
    for bytes in records {
        let Ok(record) = LogRecord::parse(bytes, writer, first + part.whole) else { break };
        part.whole += 1;
        if let Some(LogRecord { event, .. }) = record {
            part.events.push(event);
            if event == LogEvent::End {
                part.ended = true;
                break;
            }
        }
    }
    Ok(part)
}

/// Up to `threads` parts from record `first` on, of the `known` records: number of the first, and how many.
fn parts(first: u64, known: u64, threads: u64) -> Vec<(u64, u64)> {
    let starts = (0..threads).map(|number| first + number * PART);
    starts.filter(|first| *first < known).map(|first| (first, PART.min(known - first))).collect()
}

impl Follower {
    /// Hands over the events that are new, in order, up to the first record that is not whole.
    pub(super) fn read_on(
        &mut self,
        core: &Core,
        writer: WriterId,
        mut take: impl FnMut(Vec<LogEvent>),
    ) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        core.counters.metadata.add(1);
        let len = self.file.len_bytes()?;
        let known = len.saturating_sub(PAGE_BYTES as u64) / LOG_RECORD_BYTES as u64;
        let more = known.saturating_sub(self.next);
        if more <= PART {
            let count = more;
            let part = part(self.file.as_ref(), writer, self.next, count)?;
            self.apply(vec![(count, part)], &mut take);
            return Ok(());
        }
        core.catalog.write().reserve(usize::try_from(more).unwrap_or(0));
        self.read_far(writer, known, &mut take)
    }

    fn read_far(&mut self, writer: WriterId, known: u64, take: &mut impl FnMut(Vec<LogEvent>)) -> Result<()> {
        let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(THREADS);
        let (file, mut asked, mut waiting) = (Arc::clone(&self.file), self.next, Vec::new());
        loop {
            let round = parts(asked, known, threads);
            asked += threads * PART;
            let (parsed, goes_on) = thread::scope(|scope| {
                let begin = |(first, count): (u64, u64)| {
                    let file = file.as_ref();
                    let work = move || part(file, writer, first, count);
                    let thread = thread::Builder::new().name("cascade-pfs-scan".into());
                    (first, count, thread.spawn_scoped(scope, work).ok())
                };
                let workers: Vec<_> = round.into_iter().map(begin).collect();
                let goes_on = self.apply(std::mem::take(&mut waiting), take);
                let end = |(first, count, worker): (u64, u64, Option<thread::ScopedJoinHandle<'_, _>>)| {
                    // Without another thread this one does the work.
                    let parsed = worker.and_then(|worker| worker.join().ok());
                    let part = parsed.unwrap_or_else(|| part(file.as_ref(), writer, first, count))?;
                    Ok((count, part))
                };
                (workers.into_iter().map(end).collect::<Result<Vec<_>>>(), goes_on)
            });
            waiting = parsed?;
            if !goes_on || waiting.is_empty() {
                return Ok(());
            }
        }
    }

    /// Hands over parts that follow each other; `false` when the log ends in one of them.
    fn apply(&mut self, parts: Vec<(u64, Part)>, take: &mut impl FnMut(Vec<LogEvent>)) -> bool {
        for (count, part) in parts {
            self.next += part.whole;
            self.ended |= part.ended;
            if !part.events.is_empty() {
                take(part.events);
            }
            if self.ended || part.whole < count {
                return false;
            }
        }
        true
    }
}
