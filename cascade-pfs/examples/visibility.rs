//! How long it takes until a block is seen by another handle, which may reach the directory by another way: a second mount of
//! the same NFS export (`nosharecache`) remembers names and lengths for itself, as another node does.
//!
//! `cargo run --release -p cascade-pfs --example visibility -- DIRECTORY [THE_SAME_DIRECTORY_ELSEWHERE [ROUNDS]]`
//!
//! Prints, in ms: least, median, most of the time from a block's acknowledgement until the other handle finds it and has read it
//! right, of a writer that it knows and of one that is new; and from that of a deletion until it is a miss there.

use std::path::Path;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{Lookup, PutMeta, Tier};
use cascade_pfs::{PfsConfig, PfsTier};

const BLOCK_BYTES: usize = 200_000;
const MOST: Duration = Duration::from_secs(70);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let here = arguments.next().ok_or("the directory to use is missing")?;
    let there = arguments.next().unwrap_or_else(|| here.clone());
    let rounds = arguments.next().map_or(Ok(20), |text| text.parse::<usize>())?;
    let name = format!("cascade-visibility-{}", std::process::id());
    let done = measure(&Path::new(&here).join(&name), &Path::new(&there).join(&name), rounds);
    std::fs::remove_dir_all(Path::new(&here).join(&name))?;
    done
}

fn measure(here: &Path, there: &Path, rounds: usize) -> Result<()> {
    let open = |dir: &Path| PfsTier::open(PfsConfig::new(dir, 1 << 30));
    let (writer, reader) = (open(here)?, open(there)?);
    let stats = writer.file_stats();
    println!(
        "{} direct I/O, {:?}: {}",
        if stats.direct { "with" } else { "without" },
        stats.engine,
        stats.engine_reason
    );
    let mut times = [const { Vec::new() }; 4];
    for round in 0..rounds {
        let id = BlockId::named(&format!("known {round}"));
        put(&writer, id)?;
        times[0].push(seen(&reader, id, true)?);
        // Whoever has it now hears of its end.
        delete(&writer, id)?;
        times[1].push(seen(&reader, id, false)?);
        // The other way: a reader writes too.
        let id = BlockId::named(&format!("back {round}"));
        put(&reader, id)?;
        times[2].push(seen(&writer, id, true)?);
        if round < rounds.div_ceil(4) {
            let (new, id) = (open(here)?, BlockId::named(&format!("new {round}")));
            put(&new, id)?;
            times[3].push(seen(&reader, id, true)?);
        }
    }
    let names = ["known writer", "deletion", "known writer, the other way", "new writer"];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 2].as_secs_f64() * 1e3;
        println!("{name:28} n {:3}: {:.0} {:.0} {:.0} ms", times.len(), at(0), at(1), at(2));
    }
    Ok(())
}

fn run(tier: &PfsTier, op: Op) -> Result<Outcome> {
    let outcomes = tier.submit(Batch::new(vec![op])).wait(Instant::now() + MOST);
    Ok(*outcomes.and_then(|outcomes| outcomes.into_iter().next()).as_ref().ok_or("too slow")?)
}

fn bytes() -> Vec<u8> {
    (0..BLOCK_BYTES).map(|at| (at % 251) as u8).collect()
}

fn put(tier: &PfsTier, id: BlockId) -> Result<()> {
    let store = Op::Store { id, from: Piece::shared(bytes().into()).into(), meta: PutMeta::default() };
    match run(tier, store)? {
        Outcome::Stored => Ok(()),
        other => Err(format!("a put was {other:?}").into()),
    }
}

fn delete(tier: &PfsTier, id: BlockId) -> Result<()> {
    match run(tier, Op::Delete { id })? {
        Outcome::Deleted => Ok(()),
        other => Err(format!("a deletion was {other:?}").into()),
    }
}

/// Time until the block is there and read right, or is not there.
fn seen(tier: &PfsTier, id: BlockId, is_there: bool) -> Result<Duration> {
    let started = Instant::now();
    while started.elapsed() < MOST {
        let mut found = [Lookup::Pending];
        tier.lookup(&[id], &mut found);
        if found[0].is_hit() == is_there {
            if is_there {
                read(tier, id)?;
            }
            return Ok(started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err("it was not seen in time".into())
}

fn read(tier: &PfsTier, id: BlockId) -> Result<()> {
    let mut buffer = HostBuffer::zeroed(BLOCK_BYTES);
    match run(tier, Op::Fetch { id, into: buffer.piece().into() })? {
        Outcome::Fetched(_) if buffer.bytes_mut().is_some_and(|read| *read == *bytes()) => Ok(()),
        other => Err(format!("a get was {other:?}, or of other bytes").into()),
    }
}
