//! Rates of writing and reading by block size: all systems in turns, each repetition beginning with another one, so that all of
//! them meet the same weather.

use std::path::Path;

use cascade_core::Result;
use cascade_pfs::{IoEngine, PfsConfig};

use super::cli::{Durability, Plan, Rival};
use super::cold::{self, device_bytes};
use super::fio::{self, Fio, Installed};
use super::plain::Plain;
use super::rivals::{self, Python};
use super::system::{Data, Manner, Reading, System, Work, failed};
use super::tier::{self, Cascade};
use crate::report::{Ceiling, Files, Made, Origin, Row};
use crate::run::{Progress, Results};
use crate::stats::Spread;
use crate::units::{format_size, gbps};

/// Blocks that are durable one by one take this much longer, so fewer bytes are moved.
const BLOCK_SHARE: u64 = 8;
/// Calls of fio under way at once, where they are as small as blocks.
const MOST_CALLS: usize = 128;
/// Direct I/O wants whole pages.
const PAGE_BYTES: u64 = 4096;

/// A system with one durability, and what it has reached.
struct Contender {
    system: Box<dyn System>,
    durability: Durability,
    reads: bool,
    writes: Vec<f64>,
    read_rates: Vec<f64>,
    is_right: Option<bool>,
    origin: Option<Origin>,
    made: Option<Made>,
    failed: Option<String>,
}

impl Contender {
    fn new(system: Box<dyn System>, durability: Durability, reads: bool) -> Self {
        let (writes, read_rates) = (Vec::new(), Vec::new());
        Self {
            system,
            durability,
            reads,
            writes,
            read_rates,
            is_right: None,
            origin: None,
            made: None,
            failed: None,
        }
    }

    /// Writes, and reads where that is its part, in a folder that is gone after.
    fn lap(&mut self, work: &Work, is_cold: bool, data: &mut Data) -> Result<()> {
        make(&work.folder)?;
        let done = self.measured(work, is_cold, data);
        std::fs::remove_dir_all(&work.folder)
            .map_err(|error| failed(format!("cannot remove {}", work.folder.display())).with_source(error))?;
        done
    }

    fn measured(&mut self, work: &Work, is_cold: bool, data: &mut Data) -> Result<()> {
        settle(&work.folder);
        let seconds = self.system.write(work, data)?;
        self.writes.push(gbps(work.bytes(), seconds));
        self.made = Some(census(&work.folder, work.bytes())?);
        if self.reads {
            self.read(work, is_cold, data)?;
        }
        Ok(())
    }

    fn read(&mut self, work: &Work, is_cold: bool, data: &mut Data) -> Result<()> {
        let unread = |error: std::io::Error| {
            failed(format!("cannot drop {} from the page cache", work.folder.display())).with_source(error)
        };
        let dropped = is_cold.then(|| cold::drop_caches(&work.folder)).transpose().map_err(unread)?;
        // Before the system opens its index, which it reads then; the payload is what counts from the clock's start on.
        let resident_bytes = cold::resident(&work.folder);
        self.system.prepare(work)?;
        let before = device_bytes(self.system.process());
        let Reading { seconds, is_right } = self.system.read(work, data)?;
        let after = device_bytes(self.system.process());
        let device_bytes = before.zip(after).map(|(before, after)| after.0.saturating_sub(before.0));
        let origin = Origin { resident_bytes, device_bytes, payload_bytes: work.bytes(), dropped };
        self.origin = Some(match self.origin.take() {
            Some(worst) => worst.worse(origin),
            None => origin,
        });
        self.read_rates.push(gbps(work.bytes(), seconds));
        self.is_right = match (self.is_right, is_right) {
            (Some(before), Some(now)) => Some(before && now),
            (before, now) => before.or(now),
        };
        Ok(())
    }

    fn row(&self, op: &str, block: u64, manner: Manner, state: &str, rates: &[f64]) -> Row {
        let path = format!("{}{}", self.durability.name(), self.system.variant());
        let mut row = Row::new("pfs", op, &path, block);
        self.system.name().clone_into(&mut row.system);
        state.clone_into(&mut row.state);
        (row.threads, row.n) = (manner.depth, rates.len());
        row.gbps = Spread::of(rates);
        let Manner { engine, io_bytes, depth, direct } = manner;
        row.files = Some(Files {
            durability: self.durability.name().to_owned(),
            engine,
            io_bytes: if io_bytes == 0 { block } else { io_bytes },
            depth,
            direct,
            ..Files::default()
        });
        row
    }
}

fn make(folder: &Path) -> Result<()> {
    let context = || failed(format!("cannot make {}", folder.display()));
    std::fs::create_dir(folder).map_err(|error| context().with_source(error))
}

/// Lets the file system finish what it has left to do of others: where that cannot be asked, the next lap pays for it.
fn settle(folder: &Path) {
    if let Ok(folder) = std::fs::File::open(folder) {
        let _ = nix::unistd::syncfs(folder);
    }
}

/// What is on the disk.
pub(super) fn census(folder: &Path, payload_bytes: u64) -> Result<Made> {
    use std::os::unix::fs::MetadataExt;
    let context = || failed(format!("cannot look at the files of {}", folder.display()));
    let mut made = Made { payload_bytes, ..Made::default() };
    for path in cold::files(folder).map_err(|error| context().with_source(error))? {
        let metadata = path.metadata().map_err(|error| context().with_source(error))?;
        made.files += 1;
        made.file_bytes += metadata.len();
        made.allocated_bytes += metadata.blocks() * 512;
    }
    Ok(made)
}

/// Measures every block size.
pub(super) fn measure(plan: &Plan, dir: &Path, results: &mut Results, progress: Progress<'_>) -> Result<()> {
    if let Some(odd) = plan.blocks.iter().find(|block| !block.is_multiple_of(PAGE_BYTES)) {
        let what = format!("a block of {odd} bytes: direct I/O, and so fio, takes multiples of 4096 only");
        return Err(cascade_core::Error::new(cascade_core::ErrorKind::InvalidArgument, what));
    }
    let engine = tier::engine(dir)?;
    let mut missing = Vec::new();
    let installed = match plan.rivals.contains(&Rival::Fio) {
        false => Err("not asked for (--rivals)"),
        true => Installed::find().ok_or(fio::CURE),
    };
    let installed = installed.map_err(|why| missing.push((Rival::Fio, why.to_owned()))).ok();
    let mut pythons = Vec::new();
    for rival in [Rival::Python, Rival::Hdf5, Rival::Vllm] {
        match started(rival, plan) {
            Ok(python) => pythons.push(python),
            Err(why) => missing.push((rival, why)),
        }
    }
    for (rival, why) in &missing {
        let ceiling = if *rival == Rival::Fio { "; the ceiling is the plain loop" } else { "" };
        results.notes.push(format!("{}: not run: {why}{ceiling}", rivals::name(*rival)));
    }
    // What nobody asked for is in the notes only.
    let missing =
        missing.into_iter().map(|(rival, _)| rival).filter(|rival| plan.rivals.contains(rival)).collect();
    let bench = Bench { plan, dir, engine, installed, pythons, missing };
    for (index, block) in plan.blocks.iter().enumerate() {
        bench.size(*block, results, &mut |done, all, what| {
            progress(index * all + done, plan.blocks.len() * all, what);
        })?;
    }
    Ok(())
}

fn started(rival: Rival, plan: &Plan) -> std::result::Result<Python, String> {
    if !plan.rivals.contains(&rival) {
        return Err("not asked for (--rivals)".to_owned());
    }
    let program = if rival == Rival::Vllm { &plan.vllm_python } else { &plan.python };
    // Threads, as the tier has them where it makes calls.
    let threads = plan.depth.unwrap_or_else(|| PfsConfig::new(".", 0).read_threads);
    Python::start(rival, program, threads)
}

struct Bench<'a> {
    plan: &'a Plan,
    dir: &'a Path,
    engine: IoEngine,
    installed: Option<Installed>,
    pythons: Vec<Python>,
    missing: Vec<Rival>,
}

impl Bench<'_> {
    /// One block size.
    fn size(&self, block: u64, results: &mut Results, progress: Progress<'_>) -> Result<()> {
        let (write, read) = Cascade::new(self.plan.depth, self.engine, block).manners();
        let mut data = Data::new(self.lap(block, Durability::End, write.io_bytes).max(self.lap(
            block,
            Durability::Block,
            write.io_bytes,
        )))?;
        let mut contenders = self.contenders(block, &write, &read);
        let (count, laps) = (contenders.len(), self.plan.reps * contenders.len());
        for rep in 0..self.plan.reps {
            for turn in 0..count {
                let number = (turn + rep) % count;
                let contender = &mut contenders[number];
                let what = format!(
                    "{}, {} {}",
                    format_size(block),
                    contender.system.name(),
                    contender.durability.name()
                );
                progress(rep * count + turn, laps, &what);
                if contender.failed.is_some() {
                    continue;
                }
                let bytes = self.lap(block, contender.durability, write.io_bytes);
                let folder = self.dir.join("lap");
                let (durability, blocks) = (contender.durability, (bytes / block) as usize);
                let work = Work { block: block as usize, blocks, folder, durability, rep };
                if let Err(error) = contender.lap(&work, self.plan.is_cold, &mut data) {
                    contender.failed = Some(error.to_string());
                }
            }
        }
        finish(&contenders, block, results);
        results.rows.extend(self.missing.iter().map(|rival| not_run(rivals::name(*rival), "-", block)));
        Ok(())
    }

    /// Bytes of a lap: whole blocks, and whole calls.
    fn lap(&self, block: u64, durability: Durability, io_bytes: u64) -> u64 {
        let share = if durability == Durability::Block { BLOCK_SHARE } else { 1 };
        let least = (self.plan.lap_bytes / share).max(block);
        let unit = call(io_bytes, least).max(block);
        least.next_multiple_of(unit).next_multiple_of(block)
    }

    fn contenders(&self, block: u64, write: &Manner, read: &Manner) -> Vec<Contender> {
        let durabilities = &self.plan.durabilities;
        // Files are read once, of the durability that is compared with fio.
        let readers = [Durability::End, Durability::None, Durability::Block];
        let read_of = readers.into_iter().find(|durability| durabilities.contains(durability));
        let mut contenders = Vec::new();
        for durability in durabilities {
            let bytes = self.lap(block, *durability, write.io_bytes);
            // Of smaller calls more are under way: as many bytes.
            let calls = |manner: &Manner, each: u64| {
                let depth = manner.depth * (manner.io_bytes / each).max(1) as usize;
                (
                    call(each, bytes),
                    if each < manner.io_bytes { depth.min(MOST_CALLS.max(manner.depth)) } else { depth },
                )
            };
            let (wide_write, wide_read) = (calls(write, write.io_bytes), calls(read, read.io_bytes));
            let reads = Some(*durability) == read_of;
            let mut add =
                |system: Box<dyn System>, reads| contenders.push(Contender::new(system, *durability, reads));
            add(Box::new(Cascade::new(self.plan.depth, self.engine, block)), reads);
            add(Box::new(Plain::new(wide_write, wide_read)), reads);
            if let Some(installed) = &self.installed {
                add(Box::new(Fio::new(installed, wide_write, wide_read)), reads);
                if block < wide_write.0 {
                    add(Box::new(Fio::of_blocks(installed, calls(write, block), calls(read, block))), reads);
                }
            }
        }
        for (python, durability) in
            self.pythons.iter().flat_map(|python| durabilities.iter().map(move |d| (python, d)))
        {
            if python.can(*durability) {
                let reads = Some(*durability) == read_of;
                contenders.push(Contender::new(Box::new(python.clone()), *durability, reads));
            }
        }
        contenders
    }
}

/// Bytes of a call of at most `io_bytes`, where `bytes` are moved in all.
fn call(io_bytes: u64, bytes: u64) -> u64 {
    io_bytes.min(bytes)
}

fn not_run(system: &str, path: &str, block: u64) -> Row {
    let mut row = Row::new("pfs", "put", path, block);
    system.clone_into(&mut row.system);
    "not run".clone_into(&mut row.state);
    row.files = Some(Files { durability: "-".to_owned(), engine: "-".to_owned(), ..Files::default() });
    row
}

/// The rows of one block size, with ceilings and ratios.
fn finish(contenders: &[Contender], block: u64, results: &mut Results) {
    for contender in contenders {
        if let Some(why) = &contender.failed {
            let (name, durability) = (contender.system.name(), contender.durability.name());
            // That another system cannot run here says nothing of this one.
            let is_ours = name == "cascade";
            results.failures += usize::from(is_ours);
            let word = if is_ours { "FAILED" } else { "not run" };
            results.notes.push(format!("{}, {name} {durability}: {word}: {why}", format_size(block)));
            results.rows.push(not_run(name, contender.durability.name(), block));
            continue;
        }
        let (written, read) = contender.system.manners();
        let mut row = contender.row("put", block, written, "new", &contender.writes);
        let rates =
            |other: &Contender| (other.durability == contender.durability).then(|| other.writes.clone());
        compare(&mut row, contender, contenders, &rates, &contender.writes);
        row.files.iter_mut().for_each(|files| files.made = contender.made);
        results.rows.push(row);
        if contender.reads {
            let is_cold = contender.origin.as_ref().is_some_and(Origin::is_cold);
            let state = if is_cold { "cold" } else { "warm" };
            let mut row = contender.row("get", block, read, state, &contender.read_rates);
            let rates = |other: &Contender| other.reads.then(|| other.read_rates.clone());
            compare(&mut row, contender, contenders, &rates, &contender.read_rates);
            row.verified = contender.is_right;
            row.files.iter_mut().for_each(|files| files.origin.clone_from(&contender.origin));
            results.rows.push(row);
        }
    }
}

/// Sets the ceiling of `row` and the ratios of `mine` within each repetition.
fn compare(
    row: &mut Row,
    contender: &Contender,
    all: &[Contender],
    rates: &dyn Fn(&Contender) -> Option<Vec<f64>>,
    mine: &[f64],
) {
    let best = |name: &str| {
        let named = all.iter().filter(|other| other.system.name() == name && other.failed.is_none());
        let rated = named.filter_map(|other| {
            let rates = rates(other)?;
            Some((Spread::of(&rates)?.median, rates, other))
        });
        rated.max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (fio, plain, vllm) = (best("fio"), best("plain-loop"), best("vllm-fs"));
    let ratios = |(_, theirs, _): &(f64, Vec<f64>, &Contender)| {
        let ratios: Vec<f64> = mine.iter().zip(theirs).map(|(mine, theirs)| mine / theirs).collect();
        Spread::of(&ratios)
    };
    if let Some(files) = row.files.as_mut() {
        (files.of_fio, files.of_plain) = (fio.as_ref().and_then(ratios), plain.as_ref().and_then(ratios));
        files.of_vllm = vllm.as_ref().and_then(ratios);
    }
    let is_itself = ["fio", "plain-loop"].contains(&contender.system.name());
    if let Some((gbps, _, best)) = fio.or(plain).filter(|_| !is_itself) {
        let manners = best.system.manners();
        let manner = if row.op == "put" { manners.0 } else { manners.1 };
        let what = format!("{}: {} x {}", manner.engine, format_size(manner.io_bytes), manner.depth);
        row.set_rate(row.gbps, Some(Ceiling { what, gbps }));
    }
}
