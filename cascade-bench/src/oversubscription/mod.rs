//! `--suite oversubscription`: more blocks than the arena holds, a tenth of them prefix blocks. What stays of those, and how long their
//! hits take before the others come and while they do; over the arena alone, and with files below it.

mod cli;
#[cfg(test)]
mod tests;
mod work;

use std::fmt::Write as _;

use cascade_core::{Error, ErrorKind, Result};

pub use cli::Arguments;
pub use work::{Plan, Pressure, press};

use crate::plot::{Bar, bars};
use crate::report::{Report, Row};
use crate::tiers::{Scratch, check_room};
use crate::units::format_size;

/// Runs the suite: a table on standard output, and the files that were asked for.
///
/// # Errors
/// What opening a store gives, `NoSpace` without room for it; `System` when a fact does not hold: bytes were wrong, a put found no
/// room, or prefix blocks went although they fit.
pub fn run(arguments: &Arguments) -> Result<()> {
    let memory = Scratch::new(&arguments.dir)?;
    let files = Scratch::new(&arguments.files)?;
    check_room(&arguments.dir, arguments.capacity + (96 << 20), 256 << 20)?;
    let most = arguments.factor.iter().copied().fold(1.0, f64::max);
    check_room(&arguments.files, (arguments.capacity as f64 * most) as u64 + (64 << 20), 256 << 20)?;
    let mut rows = Vec::new();
    for (number, factor) in arguments.factor.iter().enumerate() {
        for has_files in [false, true] {
            let name = format!("oversubscribed-{number}-{}", u8::from(has_files));
            let plan = Plan {
                memory: memory.path().join(&name),
                files: has_files.then(|| files.path().join(&name)),
                capacity_bytes: arguments.capacity,
                block_bytes: arguments.block as usize,
                factor: *factor,
                eviction: arguments.eviction.name(),
            };
            rows.extend(of(&plan)?);
            for folder in [Some(&plan.memory), plan.files.as_ref()].into_iter().flatten() {
                // What stays here goes with the scratch folder.
                drop(std::fs::remove_dir_all(folder));
            }
        }
    }
    print!("{}", table(&rows, arguments));
    if let Some(path) = &arguments.outputs.plot {
        draw(path, &rows)?;
    }
    if let Some(path) = &arguments.outputs.json {
        Report::here(rows.clone(), Vec::new()).save(path)?;
    }
    let faults: Vec<String> = rows.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::System, faults.join("; "))) }
}

/// Two rows: hits of prefix blocks before the others came, and under their pressure.
fn of(plan: &Plan) -> Result<[Row; 2]> {
    let (pressure, before, under) = press(plan)?;
    let state = if plan.files.is_some() { "arena, files" } else { "arena" };
    Ok([("before", before), ("under pressure", under)].map(|(when, hits)| {
        let mut row = Row::new("store", "get", when, plan.block_bytes as u64);
        row.state = format!("{state}, {}x", plan.factor);
        row.n = hits.n;
        row.latency_us = hits.latency;
        row.verified = Some(pressure.wrong == 0);
        row.pressure = Some(pressure);
        row
    }))
}

/// What does not hold that must.
fn fault(row: &Row) -> Option<String> {
    let pressure = row.pressure?;
    let what = if pressure.wrong > 0 {
        format!("{} blocks had other bytes than those put", pressure.wrong)
    } else if pressure.refused > 0 {
        format!("{} puts were refused", pressure.refused)
    } else if pressure.fits && pressure.retained < pressure.prefix_blocks {
        format!("{} of {} prefix blocks are left, which fit", pressure.retained, pressure.prefix_blocks)
    } else {
        return None;
    };
    Some(format!("{}: {what}", row.state))
}

fn table(rows: &[Row], arguments: &Arguments) -> String {
    let (capacity, block) = (format_size(arguments.capacity), format_size(arguments.block));
    let eviction = arguments.eviction.name();
    let mut text = format!(
        "an arena of {capacity}, blocks of {block}, eviction {eviction}; a tenth are prefix blocks\n"
    );
    let head = "tiers, working set     prefix: put  in arena  fits      hits before        under pressure";
    let _ = writeln!(text, "{head}  (us: p50, p99)  from arena  puts refused");
    for pair in rows.chunks(2) {
        let [before, under] = pair else { continue };
        let Some(pressure) = before.pressure else { continue };
        let times = |row: &Row| {
            row.latency_us.map_or_else(|| "-".into(), |of| format!("{:.0}, {:.0}", of.p50, of.p99))
        };
        let _ = writeln!(
            text,
            "{:<22} {:>11} {:>9} {:>5} {:>16} {:>21} {:>26.1}% {:>13}",
            before.state,
            pressure.prefix_blocks,
            pressure.retained,
            if pressure.fits { "yes" } else { "no" },
            times(before),
            times(under),
            pressure.hits_from_arena * 100.0,
            pressure.refused,
        );
    }
    text
}

fn draw(path: &std::path::Path, rows: &[Row]) -> Result<()> {
    let bar = |row: &Row| {
        let latency = row.latency_us?;
        let label = format!("{}: {}", row.state, row.path);
        Some(Bar {
            label,
            value: latency.p50,
            note: format!("p50 {:.0}, p99 {:.0}", latency.p50, latency.p99),
        })
    };
    bars(
        path,
        "Hits of prefix blocks in us, before and under pressure",
        &rows.iter().filter_map(bar).collect::<Vec<_>>(),
    )
}
