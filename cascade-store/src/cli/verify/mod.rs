//! `cascade verify`: every block of an arena against its digests, and the tables against each other.

mod sweep;

use std::path::PathBuf;
use std::time::Duration;

use cascade_core::units::{format_size, gbps};
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::inspect::Inspection;
use cascade_shm::{Arena, Scrub};
use clap::Args;
use serde::Serialize;

use super::files::{self, Files};
use super::interrupt::Interrupts;
use super::out::{Done, Failure, Out};
use super::place::Place;
use super::text::of;

const HELP: &str = "\
Examples:
  cascade verify
  cascade verify --repair
  cascade verify --json | jq .damaged
  cascade verify --pfs /scratch/me/cascade

Others may work meanwhile: each block is pinned while it is read, and its age and use stay as
they are. A damaged block is never served anyway (gets verify what they copy); --repair drops it
now, so that its room is free and it can be put again.
Exit status: 0 all is sound, 1 damage was found (also when it was repaired), 2 it could not be
done. JSON: docs/cli.md.";

/// Damaged blocks that are listed one by one; the rest is counted.
const LISTED: usize = 100;
/// Looks at the tables while others work, before what they disagree on is reported.
const AUDITS: usize = 5;

/// Options of `cascade verify`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    files: Files,
    /// Drop damaged blocks.
    #[arg(long)]
    repair: bool,
    /// Threads that read [default: one for each CPU, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Print one JSON document on one line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    path: PathBuf,
    /// Whether every block was looked at; `false` after Ctrl-C.
    is_complete: bool,
    blocks: u64,
    payload_bytes: u64,
    sound: u64,
    damaged: u64,
    /// Of the damaged, those that were dropped.
    dropped: u64,
    /// Blocks that could not be pinned.
    skipped: u64,
    seconds: f64,
    damaged_blocks: Vec<Damaged>,
    /// Units of the data area that the tables and the slots disagree on.
    disagreements: u64,
    /// Whether others were at work, so that a few disagreements may be work under way.
    others_at_work: bool,
}

#[derive(Debug, Serialize)]
struct Damaged {
    id: String,
    slot: u32,
    payload_bytes: u64,
    is_dropped: bool,
}

pub(super) fn run(options: &Options, out: &mut Out) -> Done {
    if let Some(dir) = options.files.dir(&options.place)? {
        let threads = options.threads.map_or_else(default_threads, usize::from);
        return files::verify(&dir, options.repair, threads, options.json, out);
    }
    let config = options.place.resolve()?;
    let path = config.path();
    let missing = || {
        let what = format!("there is no arena {}: `cascade stat` lists what there is", path.display());
        Error::new(ErrorKind::NotFound, what)
    };
    // Looked at first: a visitor would make the directory.
    let seen = Inspection::open(&path)?.ok_or_else(missing)?;
    let slots = seen.snapshot()?.slots;
    let payload_bytes = slots.ordinary.payload_bytes + slots.prefix.payload_bytes;
    let arena = Arena::attach(&config)?.ok_or_else(missing)?;
    let interrupts = Interrupts::watch();
    let threads = options.threads.map_or_else(default_threads, usize::from);
    let swept = sweep::run(&arena, threads, options.repair, payload_bytes, &interrupts);
    let mut document = Document {
        schema: "cascade.verify/1",
        path,
        is_complete: swept.is_complete,
        blocks: swept.count.iter().sum(),
        payload_bytes: swept.bytes,
        sound: swept.of(Scrub::Sound),
        damaged: swept.of(Scrub::Damaged) + swept.of(Scrub::Dropped),
        dropped: swept.of(Scrub::Dropped),
        skipped: swept.of(Scrub::Skipped),
        seconds: swept.took.as_secs_f64(),
        damaged_blocks: swept.damaged.iter().take(LISTED).map(Damaged::new).collect(),
        disagreements: 0,
        others_at_work: false,
    };
    if document.is_complete {
        audit(&arena, &mut document)?;
    }
    let code = document.code();
    if options.json {
        out.json(&document)?
    } else {
        print(&document, out)?
    }
    Ok(code)
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8)
}

/// Compares the tables. While others work a table may be a moment ahead of another, so the best of some looks counts.
fn audit(arena: &Arena, document: &mut Document) -> Result<()> {
    let look = || {
        arena.audit().ok_or_else(|| Error::new(ErrorKind::System, "this process could not join the arena"))
    };
    let mut best = look()?;
    for _ in 1..AUDITS {
        if best.disagreements == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        let again = look()?;
        best = if again.disagreements < best.disagreements { again } else { best };
    }
    document.disagreements = best.disagreements;
    document.others_at_work = best.live_owners > 1;
    Ok(())
}

impl Damaged {
    fn new(one: &cascade_shm::Scrubbed) -> Self {
        Self {
            id: one.id.to_string(),
            slot: one.slot,
            payload_bytes: one.bytes,
            is_dropped: one.found == Scrub::Dropped,
        }
    }
}

impl Document {
    fn code(&self) -> u8 {
        let tables = self.disagreements > 0 && !self.others_at_work;
        if self.damaged > 0 || tables { 1 } else { u8::from(!self.is_complete || self.skipped > 0) * 2 }
    }
}

fn print(document: &Document, out: &mut Out) -> std::result::Result<(), Failure> {
    for one in &document.damaged_blocks {
        let fate = if one.is_dropped { "dropped" } else { "left; --repair drops it" };
        let size = format_size(one.payload_bytes);
        out.line(&format!("damaged: block {} ({size}, slot {}): {fate}", one.id, one.slot))?;
    }
    let listed = document.damaged_blocks.len() as u64;
    if document.damaged > listed {
        out.line(&format!("damaged: and {} more", document.damaged - listed))?;
    }
    out.line(&format!(
        "{}: {} ({}) read in {:.1} s, {:.2} GB/s: {} sound, {} damaged, {} dropped",
        document.path.display(),
        of(document.blocks, "block"),
        format_size(document.payload_bytes),
        document.seconds,
        gbps(document.payload_bytes, document.seconds),
        document.sound,
        document.damaged,
        document.dropped,
    ))?;
    if document.skipped > 0 {
        out.line(&format!("{} could not be pinned: run it again", of(document.skipped, "block")))?;
    }
    match (document.disagreements, document.others_at_work) {
        _ if !document.is_complete => out.line("interrupted: the rest was not looked at"),
        (0, _) => out.line("tables: agree with each other"),
        (units, true) => out.line(&format!(
            "tables: disagree on {}; others are at work, so this may be a moment's. Run it again when they rest",
            of(units, "unit")
        )),
        (units, false) => out.line(&format!(
            "tables: DISAGREE on {}: blocks are safe by their digests, room may be lost. Cure: close every store of \
             this arena and `cascade gc --older-than 0s`",
            of(units, "unit")
        )),
    }
}
