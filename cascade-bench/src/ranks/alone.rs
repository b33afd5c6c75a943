//! Lookups beside gets of 512 bytes; what rests of the thread of MPI cost who reads, and what it takes while nobody asks.

use std::time::{Duration, Instant};

use cascade_core::memory::HostBuffer;
use cascade_core::tier::Lookup;
use cascade_core::{Error, ErrorKind, Result};
use cascade_mpi::directory::BUCKET_BYTES;
use cascade_mpi::message::Area;
use cascade_mpi::route::Route;

use super::job::{Rank, id, unexpected};
use super::{Results, path_taken, row};
use crate::report::Ceiling;
use crate::stats::{Latency, Spread};
use crate::units::gbps;

/// Blocks of 64 KiB of the first other rank.
const BLOCKS: u64 = 512;
const BLOCK: usize = 65_536;
const FIRST: u64 = 7 << 50;
/// How long nothing is asked.
const IDLE: Duration = Duration::from_secs(4);
/// The thread of MPI, by the name that the system shows.
const THREAD: &str = "cascade-fabric";

pub(super) fn run(rank: &Rank, reps: usize, results: &mut Results) -> Result<()> {
    if rank.ranks() > 1 {
        if rank.rank() == 1 {
            for number in FIRST..FIRST + BLOCKS {
                rank.put(&*rank.tier, number, BLOCK)?;
            }
        }
        rank.flush()?;
        rank.meet("lookups")?;
        // Each is measured with the others never at rest, and as they are in use.
        let (mut lookups, mut rested) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut raw = Vec::new();
        for rep in 0..=reps {
            for (at, is_awake) in [(0, true), (1, false)] {
                rank.fabric().stay_awake(is_awake && rank.rank() > 0);
                rank.meet(&format!("awake {rep} {is_awake}"))?;
                if rank.rank() == 0 {
                    let rate = leases(rank)?;
                    if rep > 0 {
                        rested[at].push(rate);
                    }
                    if is_awake {
                        let (found, plain) = lookups_of(rank)?;
                        if rep > 0 {
                            lookups.extend(found);
                            raw.extend(plain);
                        }
                    }
                }
                rank.meet(&format!("slept {rep} {is_awake}"))?;
            }
        }
        rank.fabric().stay_awake(false);
        if rank.rank() == 0 {
            tell(rank, reps, &lookups, &raw, &rested, results);
        }
    }
    idle(rank, results)
}

/// Rate of leases of all blocks, one after the other.
fn leases(rank: &Rank) -> Result<f64> {
    let numbers: Vec<u64> = (FIRST..FIRST + BLOCKS).collect();
    rank.forget(&numbers);
    let before = rank.tier.mpi_stats();
    let began = Instant::now();
    for number in &numbers {
        rank.tier.lease(&id(*number)).map_err(|why| unexpected("lease", why))?;
    }
    let rate = gbps(BLOCKS * BLOCK as u64, began.elapsed().as_secs_f64());
    if path_taken(rank, before) == "none" {
        return Err(unexpected("lease", "a block that was here"));
    }
    Ok(rate)
}

/// Microseconds of each lookup, and of each plain get of as many bytes.
fn lookups_of(rank: &Rank) -> Result<(Vec<f64>, Vec<f64>)> {
    let route = Route::new(rank.ranks(), rank.fabric().table().buckets());
    let far: Vec<_> = (FIRST..FIRST + BLOCKS).map(id).filter(|id| route.of(id).rank == 1).collect();
    let reads = rank.fabric().stats().reads;
    let mut times = Vec::with_capacity(far.len());
    for id in &far {
        let began = Instant::now();
        let found = rank.tier.locate_until(std::slice::from_ref(id), began + Duration::from_secs(10));
        times.push(began.elapsed().as_secs_f64() * 1e6);
        if !matches!(found[..], [Lookup::Hit(_)]) {
            return Err(unexpected("lookup", found));
        }
    }
    let reads = rank.fabric().stats().reads - reads;
    if reads != far.len() as u64 {
        let what = format!("{} lookups took {reads} gets, and not one each", far.len());
        return Err(Error::new(ErrorKind::System, what));
    }
    let places = far.iter().map(|id| (route.of(id).bucket * BUCKET_BYTES as u64, BUCKET_BYTES)).collect();
    let mut into = HostBuffer::zeroed(BUCKET_BYTES * BLOCKS as usize);
    into.bytes_mut().into_iter().for_each(|bytes| bytes.fill(1));
    let raw = rank.fabric().raw_reads(1, Area::Directory, places, &into, Duration::from_secs(60));
    let raw = raw.ok_or_else(|| Error::new(ErrorKind::System, "MPI refused a plain read"))?;
    Ok((times, raw.iter().map(|time| time.as_secs_f64() * 1e6).collect()))
}

fn tell(
    rank: &Rank,
    reps: usize,
    lookups: &[f64],
    raw: &[f64],
    rested: &[Vec<f64>; 2],
    results: &mut Results,
) {
    let path = rank.fabric().path().name();
    let bytes = BUCKET_BYTES as u64;
    let rates = |times: &[f64]| times.iter().map(|time| gbps(bytes, time / 1e6)).collect::<Vec<_>>();
    let mut lookup = row(rank, "lookup", path, bytes);
    let plain = Spread::of(&rates(raw));
    let what = format!("a loop of reads of {bytes} bytes");
    lookup.set_rate(Spread::of(&rates(lookups)), plain.map(|plain| Ceiling { what, gbps: plain.median }));
    (lookup.n, lookup.latency_us) = (reps, Latency::of(lookups));
    if let Some(remote) = &mut lookup.remote {
        (remote.ceiling, remote.ceiling_us, remote.gets) = (plain, Latency::of(raw), Some(1.0));
    }
    let mut adaptive = row(rank, "lease", path, BLOCK as u64);
    let [awake, adapting] = rested;
    let never = Spread::of(awake);
    let what = "the same, the other rank never at rest".to_owned();
    adaptive.set_rate(Spread::of(adapting), never.map(|never| Ceiling { what, gbps: never.median }));
    (adaptive.n, adaptive.state) = (reps, "adaptive".into());
    if let Some(remote) = &mut adaptive.remote {
        remote.ceiling = never;
    }
    results.rows.extend([lookup, adaptive]);
}

/// The share of a core that the thread of MPI takes while nobody asks.
fn idle(rank: &Rank, results: &mut Results) -> Result<()> {
    rank.meet("before rest")?;
    // What was put is told by now, and everyone has seen that nothing follows.
    std::thread::sleep(Duration::from_secs(1));
    let (began, before) = (Instant::now(), on_core());
    std::thread::sleep(IDLE);
    let share = before
        .zip(on_core())
        .map(|(before, now)| (now - before).as_secs_f64() / began.elapsed().as_secs_f64());
    rank.say("idle", &share.unwrap_or(f64::NAN).to_string())?;
    rank.meet("after rest")?;
    if rank.rank() == 0 {
        let shares =
            (0..rank.ranks()).map(|of| rank.said("idle", of).map(|text| text.parse().unwrap_or(f64::NAN)));
        let shares: Vec<f64> = shares.collect::<Result<_>>()?;
        let mut row = row(rank, "idle", rank.fabric().path().name(), 0);
        row.n = shares.len();
        if let Some(remote) = &mut row.remote {
            remote.core_share = Spread::of(&shares);
        }
        results.rows.push(row);
    }
    Ok(())
}

/// The time that the thread of MPI has had on a core.
fn on_core() -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut folders = tasks.flatten().map(|task| task.path());
    let is_it = |folder: &std::path::PathBuf| {
        std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == THREAD)
    };
    let text = std::fs::read_to_string(folders.find(is_it)?.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
