//! How long it takes to open the directory of a writer that is gone: to the handle, to the first hit and to the last.
//!
//! The directory is made up: an index log as that writer would have left it, and segments that have only their first page. So this
//! is the time to read logs and to fill the index, not that of reading any block.

use std::path::Path;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class, Lookup, Tier};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::{Access, Fs, RealFs};
use cascade_pfs::io::write_all;
use cascade_pfs::layout::{LogEvent, LogHeader, LogRecord, Record, SegmentHeader, WriterId};
use cascade_pfs::{PfsConfig, PfsTier};

use super::cli::Plan;
use super::cold;
use super::system::failed;
use crate::report::{Opening, Row};
use crate::run::{Progress, Results};
use crate::stats::Spread;

const WRITER: WriterId = WriterId([0x5A; 16]);
const BLOCK_BYTES: u64 = 1 << 20;
const BLOCKS_OF_SEGMENT: u64 = 250;
/// Blocks that are asked for, evenly over all of them.
const ASKED: u64 = 1000;
/// Repetitions at most: each makes its directory anew, because an opening adopts what it finds.
const MOST_REPS: usize = 5;
/// How long hits are waited for.
const PATIENCE_S: f64 = 120.0;

#[derive(Default)]
struct Times {
    open: Vec<f64>,
    first: Vec<f64>,
    last: Vec<f64>,
    rate: Vec<f64>,
    memory: Option<f64>,
}

/// Measures an opening for each number of blocks.
pub(super) fn measure(plan: &Plan, dir: &Path, results: &mut Results, progress: Progress<'_>) -> Result<()> {
    let folder = dir.join("open");
    for (step, blocks) in plan.indexed.iter().enumerate() {
        let (mut times, mut found, mut is_cold, mut bytes) = (Times::default(), true, plan.is_cold, 0);
        let reps = plan.reps.min(MOST_REPS);
        for rep in 0..reps {
            progress(step * reps + rep, plan.indexed.len() * reps, &format!("opening {blocks} blocks"));
            let gone = |error| failed(format!("cannot use {}", folder.display())).with_source(error);
            std::fs::create_dir(&folder).map_err(gone)?;
            bytes = make_up(&folder, *blocks).map_err(gone)?;
            if plan.is_cold {
                cold::drop_caches(&folder).map_err(gone)?;
            }
            is_cold &= cold::resident(&folder) == Some(0);
            found &= open(&folder, *blocks, bytes, &mut times)?;
            std::fs::remove_dir_all(&folder).map_err(gone)?;
        }
        results.rows.extend(row(*blocks, bytes, &times, found, is_cold));
    }
    Ok(())
}

fn row(blocks: u64, index_bytes: u64, times: &Times, found: bool, is_cold: bool) -> Option<Row> {
    let mut row = Row::new("pfs", "open", "logs", BLOCK_BYTES);
    (row.n, row.blocks, row.verified) = (times.open.len(), Some(blocks), Some(found));
    if is_cold { "cold" } else { "warm" }.clone_into(&mut row.state);
    row.index_bytes = times.memory;
    row.opening = Some(Opening {
        index_bytes,
        open_s: Spread::of(&times.open)?,
        first_hit_s: Spread::of(&times.first)?,
        last_hit_s: Spread::of(&times.last)?,
        scan_mb_per_s: Spread::of(&times.rate)?,
    });
    Some(row)
}

/// Opens the directory and asks for blocks until all of them were found; whether they were.
fn open(folder: &Path, blocks: u64, index_bytes: u64, times: &mut Times) -> Result<bool> {
    let step = (blocks / ASKED).max(1);
    let ids: Vec<BlockId> = (0..blocks).step_by(step as usize).chain([blocks - 1]).map(id).collect();
    let mut answers = vec![Lookup::Pending; ids.len()];
    let start = Instant::now();
    let tier = PfsTier::open(PfsConfig::new(folder, 1 << 50))?;
    times.open.push(start.elapsed().as_secs_f64());
    let mut first = None;
    loop {
        tier.lookup(&ids, &mut answers);
        let (now, hits) =
            (start.elapsed().as_secs_f64(), answers.iter().filter(|answer| answer.is_hit()).count());
        if hits > 0 && first.is_none() {
            first = Some(now);
        }
        if hits == ids.len() || now > PATIENCE_S {
            times.first.push(first.unwrap_or(now));
            times.last.push(now);
            times.rate.push(index_bytes as f64 / now / 1e6);
            times.memory = Some(tier.file_stats().index_bytes as f64 / blocks as f64);
            return Ok(hits == ids.len());
        }
    }
}

fn id(block: u64) -> BlockId {
    BlockId::named(&format!("opened-{block}"))
}

/// Makes the directory; gives the bytes of its index.
fn make_up(folder: &Path, blocks: u64) -> std::io::Result<u64> {
    let mut log = LogHeader { writer: WRITER }.to_page().to_vec();
    let mut number = 0;
    let mut note = |event| {
        log.extend(LogRecord { number, event }.to_bytes(WRITER));
        number += 1;
    };
    for segment in 0..blocks.div_ceil(BLOCKS_OF_SEGMENT) {
        let header = SegmentHeader { writer: WRITER, number: segment, sequence: 1, target_bytes: 256 << 20 };
        let file =
            RealFs.open(&folder.join(format!("{WRITER}.{segment:016x}.seg")), Access::Create, false)?;
        write_all(file.as_ref(), &[Buffer::of(&header.to_page()).piece()], 0)?;
        let mut offset = 4096;
        for block in segment * BLOCKS_OF_SEGMENT..blocks.min((segment + 1) * BLOCKS_OF_SEGMENT) {
            let meta = BlockMeta { len: BLOCK_BYTES, digest: block, class: Class::Ordinary, tenant: 0 };
            let record =
                Record { writer: WRITER, segment, offset, sequence: 1024 * (block + 1), id: id(block), meta };
            offset += record.bytes();
            note(LogEvent::Put(record));
        }
        note(LogEvent::Close { segment });
    }
    note(LogEvent::End);
    let file = RealFs.open(&folder.join(format!("{WRITER}.log")), Access::Create, false)?;
    write_all(file.as_ref(), &[Buffer::of(&log).piece()], 0)?;
    Ok(log.len() as u64)
}
