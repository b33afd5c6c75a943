//! How fast blocks go to files and come back, beside plain writes and reads of the same bytes by one thread.
//!
//! `cargo run --release -p cascade-pfs --example file_speed -- DIRECTORY [BLOCK_BYTES [TOTAL_BYTES]]`
//!
//! Both sides use direct I/O where the file system has it, calls of 8 MiB, and memory that is aligned and touched. The plain
//! side makes nothing durable but at the end, as durability *segment* does.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::tier::{PutMeta, Tier};
use cascade_core::units::{format_size, gbps};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::{Access, Fs, RealFs};
use cascade_pfs::{PfsConfig, PfsTier};

const ROUNDS: usize = 5;
const CALL_BYTES: usize = 8 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("the directory to use is missing")?;
    let block = arguments.next().map_or(Ok(1 << 20), |text| text.parse::<usize>())?;
    let total = arguments.next().map_or(Ok(1 << 30), |text| text.parse::<usize>())?;
    let folder = Path::new(&parent).join(format!("cascade-speed-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = measure(&folder, block, total / block);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path, block: usize, blocks: usize) -> Result<(), Box<dyn std::error::Error>> {
    let bytes = (block * blocks) as u64;
    let buffer = touched(block);
    let mut rates = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        // Alternating, so that both meet the same weather.
        let (write, read) = plain(&folder.join(format!("plain.{round}")), &buffer, blocks)?;
        let (put, get) = tier(&folder.join(format!("tier.{round}")), &buffer, blocks, round)?;
        for (rates, seconds) in rates.iter_mut().zip([write, read, put, get]) {
            rates.push(gbps(bytes, seconds));
        }
    }
    println!("{blocks} blocks of {}, {ROUNDS} rounds, GB/s: least, median, most", format_size(block as u64));
    for (name, rates) in ["plain write", "plain read", "tier put", "tier get"].iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        println!("{name:12} {:.2} {:.2} {:.2}", rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]);
    }
    Ok(())
}

/// A buffer whose pages exist.
fn touched(len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    if let Some(bytes) = buffer.bytes_mut() {
        bytes.fill(7);
    }
    buffer
}

fn plain(path: &Path, buffer: &Buffer, blocks: usize) -> io::Result<(f64, f64)> {
    let started = Instant::now();
    let file = RealFs.open(path, Access::Create, true)?;
    let each = buffer.len().min(CALL_BYTES);
    let calls = buffer.len() * blocks / CALL_BYTES;
    let pieces: Vec<_> = (0..CALL_BYTES / each).map(|_| buffer.part(0, each)).collect();
    let step: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    for call in 0..calls as u64 {
        cascade_pfs::io::write_all(file.as_ref(), &pieces, call * step)?;
    }
    file.sync()?;
    let write = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for call in 0..calls as u64 {
        cascade_pfs::io::read_all(file.as_ref(), &pieces, call * step)?;
    }
    let read = started.elapsed().as_secs_f64();
    RealFs.remove(path)?;
    Ok((write, read))
}

fn tier(
    dir: &Path,
    buffer: &Buffer,
    blocks: usize,
    round: usize,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let capacity = 4 * (buffer.len() * blocks) as u64 + (1 << 30);
    let config = PfsConfig { in_flight_bytes: u64::MAX, ..PfsConfig::new(dir, capacity) };
    let tier = PfsTier::open(config)?;
    let ids: Vec<BlockId> = (0..blocks).map(|block| BlockId::named(&format!("{round} {block}"))).collect();
    let run = |ops: Vec<Op>, sync: bool, good: fn(&Outcome) -> bool| -> Result<f64, String> {
        let started = Instant::now();
        let outcomes = tier.submit(Batch::new(ops)).wait(started + Duration::from_secs(300));
        if sync {
            tier.flush(started + Duration::from_secs(300)).map_err(|error| error.to_string())?;
        }
        let bad = outcomes.ok_or("too slow")?.into_iter().find(|outcome| !good(outcome));
        bad.map_or(Ok(started.elapsed().as_secs_f64()), |outcome| Err(format!("{outcome:?}")))
    };
    let store = |id: &BlockId| Op::Store { id: *id, from: buffer.piece().into(), meta: PutMeta::default() };
    let put = run(ids.iter().map(store).collect(), true, |outcome| *outcome == Outcome::Stored)?;
    // As an engine asks: a batch of blocks, each to a place of its own.
    let places: Vec<Buffer> =
        (0..blocks.min((256 << 20) / buffer.len()).max(1)).map(|_| touched(buffer.len())).collect();
    let mut get = 0.0;
    for batch in ids.chunks(places.len()) {
        let fetch = |(id, into): (&BlockId, &Buffer)| Op::Fetch { id: *id, into: into.piece().into() };
        let ops = batch.iter().zip(&places).map(fetch).collect();
        get += run(ops, false, |outcome| matches!(outcome, Outcome::Fetched(_)))?;
    }
    drop(tier);
    std::fs::remove_dir_all(dir)?;
    Ok((put, get))
}
