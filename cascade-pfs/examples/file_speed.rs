//! How fast blocks go to files and come back, beside plain calls that move the same bytes at the same depth.
//!
//! `cargo run --release -p cascade-pfs --example file_speed -- DIRECTORY [BLOCK_BYTES [TOTAL_BYTES [DEPTH]]]`
//!
//! All sides use direct I/O where the file system has it, and memory that is aligned and touched. The plain side is `DEPTH`
//! threads that call pwrite and pread for whole blocks, 8 MiB at most, and make everything durable at the end, as durability
//! *segment* does. The tier keeps so many bytes under way at once. Ratios are of pairs of one round.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::tier::{PutMeta, Tier};
use cascade_core::units::{format_size, gbps};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::{Access, File, Fs, RealFs};
use cascade_pfs::{IoEngine, PfsConfig, PfsTier};

const ROUNDS: usize = 9;
const CALL_BYTES: usize = 8 << 20;
/// Memory that blocks are read to.
const PLACES_BYTES: usize = 256 << 20;

type Outcomes<T> = Result<T, Box<dyn std::error::Error>>;

struct Work {
    block: usize,
    blocks: usize,
    depth: usize,
    /// One for each block that is under way, and more.
    places: Vec<Buffer>,
}

fn main() -> Outcomes<()> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("the directory to use is missing")?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (block, total, depth) = (number(1 << 20)?, number(1 << 30)?, number(8)?);
    let places =
        (0..(total / block).min((PLACES_BYTES / block).clamp(1, 512))).map(|_| touched(block)).collect();
    let work = Work { block, blocks: (total / block).max(1), depth, places };
    let folder = Path::new(&parent).join(format!("cascade-speed-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = measure(&folder, &work);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path, work: &Work) -> Outcomes<()> {
    let bytes = (work.block * work.blocks) as u64;
    let mut rates = [const { Vec::new() }; 8];
    for round in 0..=ROUNDS {
        // Alternating, so that all meet the same weather; the first round is for files and memory to be warm.
        let plain = plain(&folder.join(format!("plain.{round}")), work)?;
        let pool = tier(&folder.join(format!("pool.{round}")), work, round, IoEngine::Pool)?;
        let uring = tier(&folder.join(format!("uring.{round}")), work, round, IoEngine::Uring)?;
        let fixed = tier(&folder.join(format!("fixed.{round}")), work, round, IoEngine::Auto)?;
        let (put, get) = ([plain.0, pool.0, uring.0, fixed.0], [plain.1, pool.1, uring.1, fixed.1]);
        for (rates, seconds) in rates.iter_mut().zip(put.into_iter().chain(get)) {
            rates.extend((round > 0).then(|| gbps(bytes, seconds)));
        }
    }
    println!(
        "{} blocks of {}, depth {}, {ROUNDS} rounds; GB/s: least, median, most; of plain: median",
        work.blocks,
        format_size(work.block as u64),
        work.depth
    );
    let names = [
        "plain write",
        "pool put",
        "uring put",
        "uring put, registered memory",
        "plain read",
        "pool get",
        "uring get",
        "uring get, registered memory",
    ];
    for (number, name) in names.iter().enumerate() {
        let (rates, plain) = (&rates[number], &rates[number / 4 * 4]);
        let ratios = rates.iter().zip(plain).map(|(rate, plain)| rate / plain).collect();
        let (least, middle, most) = spread(rates.clone());
        println!("{name:28} {least:.2} {middle:.2} {most:.2}   {:.2}", spread(ratios).1);
    }
    Ok(())
}

fn spread(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[0], numbers[numbers.len() / 2], numbers[numbers.len() - 1])
}

/// A buffer whose pages exist.
fn touched(len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    if let Some(bytes) = buffer.bytes_mut() {
        bytes.fill(7);
    }
    buffer
}

/// Seconds to write and to read.
fn plain(path: &Path, work: &Work) -> io::Result<(f64, f64)> {
    let started = Instant::now();
    let file = RealFs.open(path, Access::Create, true)?;
    let write = |offset, place: &Buffer| cascade_pfs::io::write_all(file.as_ref(), &[place.piece()], offset);
    at_depth(work, &write)?;
    file.sync()?;
    let wrote = started.elapsed().as_secs_f64();
    let file: Arc<dyn File> = RealFs.open(path, Access::Read, true)?;
    let started = Instant::now();
    let read = |offset, place: &Buffer| cascade_pfs::io::read_all(file.as_ref(), &[place.piece()], offset);
    at_depth(work, &read)?;
    let read = started.elapsed().as_secs_f64();
    RealFs.remove(path)?;
    Ok((wrote, read))
}

fn at_depth(work: &Work, call: &(dyn Fn(u64, &Buffer) -> io::Result<()> + Sync)) -> io::Result<()> {
    let bytes = work.block.min(CALL_BYTES);
    let (next, calls) = (AtomicU64::new(0), (work.block / bytes * work.blocks) as u64);
    std::thread::scope(|scope| {
        let one = || {
            let place = touched(bytes);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return Ok(());
                }
                call(number * bytes as u64, &place)?;
            }
        };
        let threads: Vec<_> = (0..work.depth).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::ErrorKind::Other)?)
    })
}

/// Seconds to put and to get.
fn tier(dir: &Path, work: &Work, round: usize, io_engine: IoEngine) -> Outcomes<(f64, f64)> {
    let capacity = 4 * (work.block * work.blocks) as u64 + (1 << 30);
    let config = PfsConfig {
        io_engine,
        in_flight_bytes: u64::MAX,
        write_threads: work.depth,
        read_threads: work.depth,
        read_in_flight_bytes: (work.depth * work.block.clamp(1 << 20, CALL_BYTES)) as u64,
        ..PfsConfig::new(dir, capacity)
    };
    let tier = PfsTier::open(config)?;
    if io_engine == IoEngine::Auto {
        work.places.iter().try_for_each(|place| tier.register(&place.piece().into()))?;
    }
    let ids: Vec<BlockId> =
        (0..work.blocks).map(|block| BlockId::named(&format!("{round} {block}"))).collect();
    let run = |ops: Vec<Op>, good: fn(&Outcome) -> bool| -> Outcomes<f64> {
        let started = Instant::now();
        let outcomes = tier.submit(Batch::new(ops)).wait(started + Duration::from_secs(300));
        let bad = outcomes.ok_or("too slow")?.into_iter().find(|outcome| !good(outcome));
        bad.map_or_else(|| Ok(started.elapsed().as_secs_f64()), |outcome| Err(format!("{outcome:?}").into()))
    };
    // As an engine asks: a batch of blocks, each from or to a place of its own.
    let (mut put, mut get) = (0.0, 0.0);
    for batch in ids.chunks(work.places.len()) {
        let store = |(id, from): (&BlockId, &Buffer)| Op::Store {
            id: *id,
            from: from.piece().into(),
            meta: PutMeta::default(),
        };
        let ops = batch.iter().zip(&work.places).map(store).collect();
        put += run(ops, |outcome| *outcome == Outcome::Stored)?;
    }
    let started = Instant::now();
    tier.flush(started + Duration::from_secs(300))?;
    put += started.elapsed().as_secs_f64();
    for batch in ids.chunks(work.places.len()) {
        let fetch = |(id, into): (&BlockId, &Buffer)| Op::Fetch { id: *id, into: into.piece().into() };
        let ops = batch.iter().zip(&work.places).map(fetch).collect();
        get += run(ops, |outcome| matches!(outcome, Outcome::Fetched(_)))?;
    }
    drop(tier);
    std::fs::remove_dir_all(dir)?;
    Ok((put, get))
}
