//! Puts into an arena that still grows, against a plain loop that makes the same pages exist:
//! `growing [DIRECTORY [MEBIBYTES [CALLERS [BLOCK_MEBIBYTES]]]]`. Rates in GB/s of payload, from opening on.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::{Arena, ArenaConfig};
use memmap2::{Advice, MmapOptions};

const MIB: u64 = 1 << 20;
const ROUNDS: usize = 5;

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::System, "the plain loop failed").with_source(error)
}

/// One thread: fallocate, then populate, 64 MiB at a time.
fn plain(dir: &Path, bytes: u64) -> Result<f64> {
    let file = tempfile::tempfile_in(dir).map_err(failed)?;
    file.set_len(bytes).map_err(failed)?;
    let started = Instant::now();
    let map = MmapOptions::new().len(bytes as usize).map_raw(&file).map_err(failed)?;
    for start in (0..bytes).step_by(64 << 20) {
        let len = (bytes - start).min(64 << 20);
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), start as i64, len as i64)
            .map_err(failed)?;
        map.advise_range(Advice::PopulateWrite, start as usize, len as usize).map_err(failed)?;
    }
    Ok(bytes as f64 / started.elapsed().as_secs_f64() / 1e9)
}

/// Callers that put blocks until `bytes` are stored, all into pages that do not exist yet.
fn put(dir: &Path, bytes: u64, callers: u64, block: u64) -> Result<f64> {
    let folder = tempfile::tempdir_in(dir).map_err(failed)?;
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(bytes + 64 * MIB);
    let data: Arc<[u8]> = vec![7; block as usize].into();
    let started = Instant::now();
    let arena = Arena::open(&config)?;
    let stored: u64 = std::thread::scope(|scope| {
        let work = |caller: u64| {
            let (arena, data) = (&arena, &data);
            scope.spawn(move || {
                let mut stored = 0;
                for number in 0..bytes / callers / block {
                    let id = BlockId::named(&format!("{caller} {number}"));
                    let from = Piece::shared(Arc::clone(data)).into();
                    let ticket =
                        arena.submit(Batch::new(vec![Op::Store { id, from, meta: PutMeta::default() }]));
                    let done = ticket.wait(Instant::now()).is_some_and(|done| done == [Outcome::Stored]);
                    stored += u64::from(done) * block;
                }
                stored
            })
        };
        let callers: Vec<_> = (0..callers).map(work).collect();
        callers.into_iter().filter_map(|caller| caller.join().ok()).sum()
    });
    let rate = stored as f64 / started.elapsed().as_secs_f64() / 1e9;
    println!("  stored {} MiB, evicted {}", stored / MIB, arena.stats().evictions);
    Ok(rate)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number =
        |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let dir = Path::new(arguments.get(1).map_or("/dev/shm", String::as_str));
    let (bytes, callers, block) = (number(2, 2048) * MIB, number(3, 2), number(4, 1) * MIB);
    // Pages that the machine itself has never used cost more: the first round is not counted.
    plain(dir, bytes + 64 * MIB)?;
    let (mut plains, mut puts) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plains.push(plain(dir, bytes)?);
        puts.push(put(dir, bytes, callers, block)?);
    }
    println!("plain {plains:.2?}\nput   {puts:.2?}");
    let (plain, put) = (median(plains), median(puts));
    println!("median: plain {plain:.2} GB/s, put {put:.2} GB/s, {:.0} %", 100.0 * put / plain);
    Ok(())
}
