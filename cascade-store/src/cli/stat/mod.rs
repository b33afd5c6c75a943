//! `cascade stat`: what the arenas hold. Reads their files; takes no owner row, maps nothing, waits for nothing.

mod document;
mod page;
mod stores;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cascade_shm::ArenaConfig;
use clap::Args;

use super::files::{self, Files};
use super::interrupt::Interrupts;
use super::out::{Done, Failure, Out};
use super::place::{self, Place};
use crate::counters::Totals;
use document::{Arena, Document, Rates};
pub(super) use stores::warning as fruitless;

const HELP: &str = "\
Examples:
  cascade stat
  cascade stat --watch 5
  cascade stat --pfs /scratch/me/cascade
  cascade stat --dir /dev/shm/other --json | jq '.arenas[].used_bytes'

It reads the arena's file and nothing else: no arena is made, grown or waited for, so it also
answers when the processes of an arena hang. Counts are exact while nobody works, close to it
otherwise. Hits, misses and moves are those of all stores that had the arena open, living or not;
Store.stats() has those of one. JSON: docs/cli.md.";

/// Options of `cascade stat`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    files: Files,
    /// Show it again every so many seconds, with rates, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
    /// Print one JSON document on one line; with --watch one for each tick.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| (0.1..=86_400.0).contains(&time.as_secs_f64()))
        .ok_or_else(|| format!("{text:?} is not a number of seconds from 0.1 to 86400"))
}

pub(super) fn run(options: &Options, out: &mut Out) -> Done {
    if let Some(dir) = options.files.dir(&options.place)? {
        return files::stat(&dir, options.watch, options.json, out);
    }
    let config = options.place.resolve()?;
    let Some(every) = options.watch else {
        show(&look(&config, &mut Ticks::default())?, options, out)?;
        return Ok(0);
    };
    let interrupts = Interrupts::watch();
    let mut ticks = Ticks::default();
    loop {
        let document = look(&config, &mut ticks)?;
        if out.is_terminal() && !options.json {
            // Home, then everything below is cleared: no flicker, and the scroll-back stays as it was.
            out.text("\x1b[H\x1b[J")?;
        }
        show(&document, options, out)?;
        out.flush()?;
        if !interrupts.sleep(every) {
            return Ok(0);
        }
    }
}

fn show(document: &Document, options: &Options, out: &mut Out) -> Result<(), Failure> {
    if options.json { out.json(document) } else { out.text(&page::render(document)) }
}

/// Counters of each arena at the last tick, for rates.
#[derive(Default)]
struct Ticks {
    last: BTreeMap<(PathBuf, String), Tick>,
}

/// When an arena was looked at, what it had counted, and what its stores had.
type Tick = (Instant, [u64; 3], Option<Totals>);

impl Ticks {
    /// Rates since the last look at this arena, if it is still the same one.
    fn rates(&mut self, arena: &Arena) -> Option<Rates> {
        let usable = arena.usable.as_ref()?;
        let now = Instant::now();
        let numbers = [usable.counters.put_bytes, usable.counters.evictions, usable.ready_bytes];
        let key = (arena.path.clone(), usable.format.incarnation.clone());
        let (then, before, totals) = self.last.insert(key, (now, numbers, usable.totals.clone()))?;
        let seconds = (now - then).as_secs_f64().max(1e-3);
        let rate = |place: usize| numbers[place].saturating_sub(before[place]) as f64 / seconds;
        let stores = totals.as_ref().zip(usable.totals.as_ref());
        Some(Rates {
            seconds,
            put_bytes_per_s: rate(0),
            evictions_per_s: rate(1),
            ready_bytes_per_s: rate(2),
            stores: stores.map(|(before, now)| stores::StoreRates::between(before, now, seconds)),
        })
    }
}

fn look(config: &ArenaConfig, ticks: &mut Ticks) -> Result<Document, Failure> {
    let mut document = Document::new(config);
    for path in place::arenas(config)? {
        let Some(mut arena) = Arena::look(&path) else { continue };
        let rates = ticks.rates(&arena);
        if let Some(usable) = &mut arena.usable {
            usable.rates = rates;
        }
        document.arenas.push(arena);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_within_reason() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "nan", "inf", "100000"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
