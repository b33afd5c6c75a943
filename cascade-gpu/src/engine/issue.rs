//! Queuing a transfer: in parts, so that the digests of what has arrived are computed while the rest is copied.

use std::sync::Arc;

use cascade_core::block::chunks;
use cascade_core::digest::CHUNK_BYTES;
use cascade_core::memory::{SgList, Space};

use super::cursor::{Bounds, Cursor};
use super::lane::Lane;
use super::pages::Pages;
use super::transfer::Transfer;
use super::walk::{VECTOR, Walk};
use super::ways::{Path, Way};
use super::{CopyEngine, Digested};
use crate::device::{Event, Fault, MoveJob, Ranges, Run, Stream, issue};

/// Runs of a kernel are cut to this many bytes: enough for a warp to keep busy, short enough to share the work.
const KERNEL_RUN_BYTES: usize = 16 << 10;
/// Where one run is digested as it arrives, an eighth of it is left for the next part, and of that again, so that few calls
/// are made and little is left to digest at the end. Not below this.
pub(super) const LEAST_PART_BYTES: usize = 1 << 20;
/// What the kernel copies at the end of one run: it is slower than the copy engine, and its digests need no launch more.
const TAIL_BYTES: usize = 256 << 10;
/// Pages arrive by a kernel, which a digest of much at once would hold up (H200: 43 GB/s, 46 with even parts): so many parts.
const PAGE_PARTS: usize = 16;
/// And none shorter.
const LEAST_PAGE_PART_BYTES: usize = 2 << 20;
const PART_SHARE: usize = 8;
/// Bytes of short runs that are handed over first; four times as many with each further lot. The device begins while the
/// host still cuts the rest.
const FIRST_LOT_BYTES: usize = 2 << 20;
const LOT_GROWTH: usize = 4;
/// So many pages are handed over together, however long: looking at them takes less than another launch.
const FEW_PAGES: usize = 1024;
/// Up to this many bytes, digests and copy share a stream: a second one costs more than it gains.
const ONE_STREAM_BYTES: usize = 256 << 10;

/// A transfer that is being queued.
#[derive(Debug)]
pub(super) struct Issue {
    pub(super) transfer: Transfer,
    pub(super) len: usize,
    pub(super) path: Path,
    pub(super) digested: Digested,
    pages: Option<Pages>,
    ranges: Ranges,
    runs_in_table: usize,
    /// Bytes of the next lot of short runs.
    lot_bytes: usize,
}

impl Issue {
    pub(super) fn new(
        engine: &Arc<CopyEngine>,
        dst: SgList,
        src: SgList,
        len: usize,
        digested: Digested,
        after: Option<Stream>,
    ) -> Result<Self, Fault> {
        let is_host = |list: &SgList| list.pieces().iter().any(|piece| piece.space() == Space::Host);
        let path = match (is_host(&src), is_host(&dst)) {
            (true, _) => Path::In,
            (false, true) => Path::Out,
            (false, false) => Path::Within,
        };
        let mut lane = engine.take_lane()?;
        // The longest list of runs: one for each piece of either side, and for each cut.
        let pieces = dst.pieces().len() + src.pieces().len();
        let runs = pieces
            + len / KERNEL_RUN_BYTES
            + 4 * (len / FIRST_LOT_BYTES)
            + engine.registry.ranges().count()
            + 64;
        lane.fit(runs, pieces, chunks(len as u64))?;
        let mut events = Vec::new();
        if let Some(stream) = after {
            let before = engine.device.record(stream)?;
            events.push(before);
            engine.device.wait_for(lane.copies, before)?;
            engine.device.wait_for(lane.digests, before)?;
        }
        let transfer = Transfer {
            engine: Arc::clone(engine),
            lane: Some(lane),
            relay: None,
            lists: (dst, src),
            owners: Vec::new(),
            events,
            ends: Vec::new(),
            digested: None,
            is_closed: false,
        };
        let ranges = engine.registry.ranges();
        Ok(Self {
            transfer,
            len,
            path,
            digested,
            pages: None,
            ranges,
            runs_in_table: 0,
            lot_bytes: FIRST_LOT_BYTES,
        })
    }

    pub(super) fn run(mut self) -> Result<Transfer, Fault> {
        let result = self.queue();
        // Whatever was queued has an end that the transfer waits for, also when the rest failed.
        self.close()?;
        // While the device copies: giving up a reference for each of many pages takes time.
        let lists = std::mem::take(&mut self.transfer.lists);
        self.transfer.owners = lists.0.into_owners();
        self.transfer.owners.append(&mut lists.1.into_owners());
        result.map(|()| self.transfer)
    }

    /// The digests of the source, without a copy.
    pub(super) fn run_digest(mut self) -> Result<Transfer, Fault> {
        let source = self.transfer.lists.1.clone();
        self.find_pages(&source);
        let result = self.digest_part(0, self.len);
        self.close()?;
        result.map(|()| self.transfer)
    }

    fn queue(&mut self) -> Result<(), Fault> {
        let lists = std::mem::take(&mut self.transfer.lists);
        let result = self.queue_lists(&lists.0, &lists.1);
        self.transfer.lists = lists;
        result
    }

    fn queue_lists(&mut self, dst: &SgList, src: &SgList) -> Result<(), Fault> {
        let engine = Arc::clone(&self.transfer.engine);
        let ranges = self.ranges.clone();
        let bounds = || Bounds { ranges: &ranges, device: engine.device.as_ref() };
        let pieces = dst.pieces().len().max(src.pieces().len());
        let way = self.way(pieces);
        if let Way::Relay { ctas } = way
            && super::relay::run(self, dst, src, ctas)?
        {
            return Ok(());
        }
        if let Way::Move { ctas } | Way::Relay { ctas } = way
            && self.move_all(dst, src, &bounds(), ctas)?
        {
            return Ok(());
        }
        match self.digested {
            Digested::Nothing => {}
            Digested::Destination => self.find_pages(dst),
            Digested::Source => self.find_pages(src),
        }
        if !bounds().cover(dst) || !bounds().cover(src) {
            if self.digested == Digested::Source {
                self.digest_part(0, self.len)?;
            }
            return super::staging::run(self, dst, src);
        }
        let mut cursor = Cursor::new(dst, src, bounds());
        let mut from = 0;
        while from < self.len {
            let to = from + self.next_part(from, way);
            if let Way::Tail { ctas } = way
                && to == self.len
                && self.move_tail(dst, src, from, ctas)?
            {
                break;
            }
            self.copy_part(&mut cursor, to - from, way.by_runs(pieces))?;
            self.arrived(from, to)?;
            from = to;
        }
        // Behind the copy, which the device has begun by now.
        if self.digested == Digested::Source { self.digest_part(0, self.len) } else { Ok(()) }
    }

    /// What the digest kernel walks of `list`, if it can.
    fn find_pages(&mut self, list: &SgList) {
        let Some(lane) = &mut self.transfer.lane else { return };
        self.pages = Pages::of(list, self.len)
            .filter(|pages| pages.addresses.len() == 1 || lane.pages.write_words(0, &pages.addresses));
        self.transfer.digested = self.pages.is_some().then_some(self.len);
    }

    /// Queues everything by the kernel that copies by pages, in lots; `false` when it cannot walk the lists, and nothing is under
    /// way then.
    fn move_all(
        &mut self,
        dst: &SgList,
        src: &SgList,
        bounds: &Bounds<'_>,
        ctas: u32,
    ) -> Result<bool, Fault> {
        let engine = Arc::clone(&self.transfer.engine);
        let second = dst.pieces().len();
        let reaches_host = engine.device.info().kernels_reach_host || self.path == Path::Within;
        let walks = Walk::new(dst, self.len, 0, bounds).zip(Walk::new(src, self.len, second, bounds));
        let Some((mut to, mut from)) = walks.filter(|_| reaches_host && self.len.is_multiple_of(VECTOR))
        else {
            return Ok(false);
        };
        let total = chunks(self.len as u64);
        let is_short = second.max(src.pieces().len()) <= FEW_PAGES;
        let (mut chunk, mut lot) = (0, FIRST_LOT_BYTES / CHUNK_BYTES);
        while chunk < total {
            let end = if is_short { total } else { (chunk + lot).min(total) };
            let upto = (end * CHUNK_BYTES).min(self.len);
            let Some(lane) = &mut self.transfer.lane else { return Err(Fault::OutOfMemory) };
            for walk in [&mut to, &mut from] {
                let mut words = Vec::new();
                let Some(at) = walk.take(upto, bounds, &mut words) else {
                    // The same again by another way: what is queued must not come after it.
                    let end = self.mark()?;
                    super::staging::wait(self, end)?;
                    return Ok(false);
                };
                if !lane.pages.write_words(at, &words) {
                    return Err(Fault::OutOfMemory);
                }
            }
            let table = lane.pages.address();
            let job = MoveJob {
                dst: to.side(table),
                src: from.side(table),
                len: self.len as u64,
                chunk: chunk as u64,
                chunks: (end - chunk) as u64,
                out: if self.digested == Digested::Nothing { 0 } else { lane.out.address() },
                ctas,
            };
            issue::move_pages(engine.device.as_ref(), lane.copies, &job)?;
            (chunk, lot) = (end, lot.saturating_mul(LOT_GROWTH));
        }
        self.transfer.digested = (self.digested != Digested::Nothing).then_some(self.len);
        Ok(true)
    }

    /// Queues what is left from byte `from` on by the kernel that digests what it copies; `false`, and nothing is queued, when it is
    /// not the last part of one run whose digests follow.
    fn move_tail(&mut self, dst: &SgList, src: &SgList, from: usize, ctas: u32) -> Result<bool, Fault> {
        let engine = Arc::clone(&self.transfer.engine);
        let bounds = Bounds { ranges: &self.ranges, device: engine.device.as_ref() };
        let is_digested = self.digested == Digested::Destination && self.pages.is_some();
        let fits = from > 0
            && from.is_multiple_of(CHUNK_BYTES)
            && is_digested
            && engine.device.info().kernels_reach_host
            && self.len.is_multiple_of(VECTOR);
        let walk = |list| Walk::new(list, self.len, 0, &bounds).filter(Walk::is_one);
        let (Some(to), Some(source)) = (walk(dst).filter(|_| fits), walk(src)) else { return Ok(false) };
        let Some(lane) = &self.transfer.lane else { return Err(Fault::OutOfMemory) };
        let (first, total) = (from / CHUNK_BYTES, chunks(self.len as u64));
        let job = MoveJob {
            dst: to.side(0),
            src: source.side(0),
            len: self.len as u64,
            chunk: first as u64,
            chunks: (total - first) as u64,
            out: lane.out.address(),
            ctas,
        };
        issue::move_pages(engine.device.as_ref(), lane.copies, &job)?;
        Ok(true)
    }

    /// Queues the next `bytes` bytes of the lists.
    pub(super) fn copy_part(&mut self, cursor: &mut Cursor<'_>, bytes: usize, way: Way) -> Result<(), Fault> {
        let longest = if matches!(way, Way::Kernel { .. }) { KERNEL_RUN_BYTES } else { usize::MAX };
        let mut runs = Vec::new();
        let mut left = bytes;
        while left > 0 {
            // Short runs are handed over in lots; a long one is a lot by itself.
            let lot = if longest == usize::MAX { left } else { left.min(self.lot_bytes) };
            self.lot_bytes = self.lot_bytes.saturating_mul(LOT_GROWTH);
            runs.clear();
            if !cursor.take(lot, longest, &mut runs) {
                return Err(Fault::NotRegistered);
            }
            self.copy_runs(&runs, way)?;
            left -= lot;
        }
        Ok(())
    }

    fn copy_runs(&mut self, runs: &[Run], way: Way) -> Result<(), Fault> {
        let at = self.runs_in_table;
        let Some(lane) = &mut self.transfer.lane else { return Ok(()) };
        let mut table = 0;
        if matches!(way, Way::Kernel { .. }) {
            if !lane.table.write_runs(at, runs) {
                return Err(Fault::OutOfMemory);
            }
            table = lane.table.address() + (at * size_of::<Run>()) as u64;
            self.runs_in_table += runs.len();
        }
        issue::copy(self.transfer.engine.device.as_ref(), lane.copies, runs, table, way)
    }

    /// The bytes `from..to` of the destination are queued: their digests follow them.
    pub(super) fn arrived(&mut self, from: usize, to: usize) -> Result<(), Fault> {
        if self.digested != Digested::Destination || self.pages.is_none() {
            return Ok(());
        }
        let Some(lane) = &self.transfer.lane else { return Ok(()) };
        let side = self.side(lane);
        if side != lane.copies {
            let device = &self.transfer.engine.device;
            let event = device.record(lane.copies)?;
            self.transfer.events.push(event);
            device.wait_for(side, event)?;
        }
        self.digest_part(from, to)
    }

    fn digest_part(&mut self, from: usize, to: usize) -> Result<(), Fault> {
        let (Some(pages), Some(lane)) = (&self.pages, &self.transfer.lane) else { return Ok(()) };
        let engine = &self.transfer.engine;
        let (device, ctas) = (engine.device.as_ref(), engine.digest_ctas());
        let job = pages.job(from, to, lane.pages.address(), lane.out.address(), ctas);
        match pages.fast(&job) {
            Some(job) => issue::move_pages(device, self.side(lane), &job),
            None => issue::digest(device, self.side(lane), &job),
        }
    }

    /// The stream of the digests.
    fn side(&self, lane: &Lane) -> Stream {
        if self.len <= ONE_STREAM_BYTES { lane.copies } else { lane.digests }
    }

    /// Events behind everything that is queued.
    fn close(&mut self) -> Result<(), Fault> {
        let Some(lane) = &self.transfer.lane else { return Ok(()) };
        let device = &self.transfer.engine.device;
        let mut streams = vec![lane.copies];
        let is_digesting = self.pages.is_some() && self.side(lane) != lane.copies;
        if is_digesting || self.transfer.relay.is_some() {
            streams.push(lane.digests);
        }
        for stream in streams {
            let end: Event = device.record(stream).inspect_err(|fault| self.transfer.engine.note(fault))?;
            self.transfer.events.push(end);
            self.transfer.ends.push(end);
        }
        self.transfer.is_closed = true;
        Ok(())
    }

    pub(super) fn way(&self, pieces: usize) -> Way {
        let ways = self.transfer.engine.ways.read();
        ways.choose(self.path, pieces, self.len / pieces.max(1))
    }

    /// Bytes of the part that begins at `from`: all that is left, unless digests follow the copy.
    fn next_part(&self, from: usize, way: Way) -> usize {
        let least = if matches!(way, Way::Tail { .. }) { TAIL_BYTES } else { LEAST_PART_BYTES };
        let left = self.len - from;
        let follow = self.pages.as_ref().filter(|_| self.digested == Digested::Destination);
        let Some(pages) = follow.filter(|_| left > least) else { return left };
        let step = pages.step();
        let part = if pages.addresses.len() > 1 {
            LEAST_PAGE_PART_BYTES.max(self.len / PAGE_PARTS).next_multiple_of(step)
        } else {
            (left - least.max(left / PART_SHARE)) / step * step
        };
        if part == 0 { left } else { part.min(left) }
    }

    /// Digests of a part can follow it when it begins at a multiple of this.
    pub(super) fn step(&self) -> usize {
        let follow = self.pages.as_ref().filter(|_| self.digested == Digested::Destination);
        follow.map_or(1, Pages::step)
    }

    pub(super) fn bounds<'a>(&self, ranges: &'a Ranges, engine: &'a CopyEngine) -> Bounds<'a> {
        Bounds { ranges, device: engine.device.as_ref() }
    }

    pub(super) fn ranges(&self) -> Ranges {
        self.ranges.clone()
    }

    /// An event behind the copies that are queued.
    pub(super) fn mark(&mut self) -> Result<Event, Fault> {
        let Some(lane) = &self.transfer.lane else { return Err(Fault::OutOfMemory) };
        let event = self.transfer.engine.device.record(lane.copies)?;
        self.transfer.events.push(event);
        Ok(event)
    }

    /// Waits until nothing that was queued is left.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        self.transfer.finish()
    }
}
