//! One process of several on one directory.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Lookup, PutMeta, Tier};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::{PfsConfig, PfsTier};

use super::{Done, Job, Role};
use crate::files::system::failed;

const CAPACITY_BYTES: u64 = 8 << 30;
/// Operations in one batch.
const BATCH: usize = 16;
/// How often blocks are looked for.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// How long blocks are looked for after the last was stored.
const PATIENCE: Duration = Duration::from_secs(10);
/// No operation here takes longer.
const WAIT: Duration = Duration::from_secs(120);

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn id(writer: usize, block: usize) -> BlockId {
    BlockId::named(&format!("shared-{writer}-{block}"))
}

/// What a block holds: every byte tells whose it is, and which.
fn byte(writer: usize, block: usize) -> u8 {
    (writer * 31 + block * 7 + 1) as u8
}

/// Does one job read from `orders`, and tells of it on `answers`: `ready`, and after the start what was done.
///
/// # Errors
/// `System` when the orders cannot be read, and what opening the tier gives.
pub fn work(mut orders: impl BufRead, mut answers: impl Write) -> Result<()> {
    let lost =
        |error: std::io::Error| failed("the orders of the starting process are lost").with_source(error);
    let mut line = String::new();
    orders.read_line(&mut line).map_err(lost)?;
    let job: Job = serde_json::from_str(&line).map_err(|error| lost(error.into()))?;
    let tier = PfsTier::open(PfsConfig::new(&job.folder, CAPACITY_BYTES))?;
    let mut member = Member::new(&job, tier);
    writeln!(answers, "ready").and_then(|()| answers.flush()).map_err(lost)?;
    line.clear();
    orders.read_line(&mut line).map_err(lost)?;
    let start: u64 = line.trim().parse().map_err(|_| failed(format!("{line:?} is no time to start at")))?;
    std::thread::sleep(Duration::from_nanos(start.saturating_sub(now_ns())));
    match job.role {
        Role::Pace => member.pace(),
        Role::See => member.see(),
        Role::Write => member.write(),
        Role::Read => member.read(),
    }
    let text = serde_json::to_string(&member.done).map_err(|error| lost(error.into()))?;
    writeln!(answers, "{text}").and_then(|()| answers.flush()).map_err(lost)
}

struct Member<'a> {
    job: &'a Job,
    tier: PfsTier,
    buffers: Vec<Buffer>,
    done: Done,
}

impl<'a> Member<'a> {
    fn new(job: &'a Job, tier: PfsTier) -> Self {
        let mut buffers: Vec<Buffer> = (0..BATCH).map(|_| Buffer::new(job.block)).collect();
        buffers.iter_mut().filter_map(Buffer::bytes_mut).for_each(|bytes| bytes.fill(1));
        Self { job, tier, buffers, done: Done::default() }
    }

    /// Stores blocks from `first` on, as many as `BATCH` and the job allow; how many were stored.
    fn store(&mut self, first: usize, most: usize) -> usize {
        let (number, count) = (self.job.number, most.min(self.job.blocks - first));
        let mut ops = Vec::new();
        for (block, buffer) in (first..first + count).zip(&mut self.buffers) {
            buffer.bytes_mut().into_iter().for_each(|bytes| bytes.fill(byte(number, block)));
            let (from, meta): (Piece, _) = (buffer.piece(), PutMeta::default());
            ops.push(Op::Store { id: id(number, block), from: from.into(), meta });
        }
        let outcomes = self.tier.submit(Batch::new(ops)).wait(Instant::now() + WAIT).unwrap_or_default();
        let stored = outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count();
        self.done.wrong += (count - stored) as u64;
        self.done.bytes += (stored * self.job.block) as u64;
        stored
    }

    fn pace(&mut self) {
        let start = Instant::now();
        let every = Duration::from_millis(self.job.milliseconds) / self.job.blocks.max(1) as u32;
        for block in 0..self.job.blocks {
            std::thread::sleep((start + every * block as u32).saturating_duration_since(Instant::now()));
            if self.store(block, 1) == 1 {
                self.done.times.push((self.job.number, block, now_ns()));
            }
        }
        // Whoever looks for the last block must find this writer as it was: alive.
        std::thread::sleep(Duration::from_millis(500));
    }

    fn see(&mut self) {
        let (writers, blocks) = (self.job.writers, self.job.blocks);
        let end = Instant::now() + Duration::from_millis(self.job.milliseconds) + PATIENCE;
        let mut next = vec![0; writers];
        while next.iter().any(|next| *next < blocks) && Instant::now() < end {
            for (writer, next) in next.iter_mut().enumerate() {
                // Blocks of one writer come in order; several may have come at once.
                while *next < blocks && self.is_there(writer, *next) {
                    self.done.times.push((writer, *next, now_ns()));
                    *next += 1;
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let seen: Vec<(usize, usize)> =
            self.done.times.iter().map(|(writer, block, _)| (*writer, *block)).collect();
        for batch in seen.chunks(BATCH) {
            self.fetch(batch, true);
        }
        // Bytes are those of who stores.
        self.done.bytes = 0;
    }

    fn is_there(&self, writer: usize, block: usize) -> bool {
        let mut answer = [Lookup::Pending];
        self.tier.lookup(&[id(writer, block)], &mut answer);
        answer[0].is_hit()
    }

    /// Fetches blocks; with `check`, compares every byte too.
    fn fetch(&mut self, blocks: &[(usize, usize)], check: bool) {
        let op = |((writer, block), buffer): (&(usize, usize), &Buffer)| Op::Fetch {
            id: id(*writer, *block),
            into: buffer.piece().into(),
        };
        let ops: Vec<Op> = blocks.iter().zip(&self.buffers).map(op).collect();
        let outcomes = self.tier.submit(Batch::new(ops)).wait(Instant::now() + WAIT).unwrap_or_default();
        for (index, (writer, block)) in blocks.iter().enumerate() {
            let is_hit = matches!(outcomes.get(index), Some(Outcome::Fetched(_)));
            let bytes = self.buffers[index].bytes_mut().filter(|_| is_hit);
            let is_right =
                bytes.is_some_and(|bytes| !check || bytes.iter().all(|one| *one == byte(*writer, *block)));
            self.done.wrong += u64::from(!is_right);
            self.done.bytes += if is_hit { self.job.block as u64 } else { 0 };
        }
    }

    fn write(&mut self) {
        self.done.span.0 = now_ns();
        let mut block = 0;
        while block < self.job.blocks {
            self.store(block, BATCH);
            block += BATCH;
        }
        self.done.span.1 = now_ns();
    }

    fn read(&mut self) {
        let end = Instant::now() + Duration::from_millis(self.job.milliseconds);
        self.done.span.0 = now_ns();
        // Readers begin at different blocks of the writer that was there before.
        let (writer, count) = (self.job.writers, self.job.blocks);
        let mut next = self.job.number * 17;
        while Instant::now() < end {
            let blocks: Vec<_> = (next..next + BATCH).map(|block| (writer, block % count)).collect();
            self.fetch(&blocks, next < BATCH);
            next += BATCH;
        }
        self.done.span.1 = now_ns();
    }
}
