//! The GPU tier: copies between device and host memory beside the driver's own copy of pinned memory, paired repetition by
//! repetition; pages of real models; pageable memory; other devices of the node; leases by pointer; what is left of device memory after many blocks.

mod choice;
mod lease;
mod models;
mod pages;
mod peer;
mod raw;
mod rig;
mod staged;
mod whole;

use std::path::PathBuf;

use cascade_core::Result;

pub use models::{Layout, MODELS};
use rig::Rig;

use crate::run::{Progress, Results};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Block sizes in bytes.
    pub blocks: Vec<u64>,
    /// Repetitions of each measurement.
    pub reps: usize,
    /// Where shared memory is.
    pub dir: PathBuf,
    /// Number of the device.
    pub device: u32,
    /// Blocks that are put, leased and evicted to see what is left of device memory.
    pub cycles: u64,
}

/// Measures the device; on a machine without one, says why.
///
/// # Errors
/// `NotFound` without a device, `System` when the device fails, `NoSpace` when buffers do not fit.
pub fn measure(options: &Options, progress: Progress<'_>) -> Result<Results> {
    let rig = Rig::new(options)?;
    let mut results = Results { notes: rig.notes(), ..Results::default() };
    let steps = 3 * options.blocks.len() + MODELS.len() + 5;
    let mut done = 0;
    let mut step = |next: &str| {
        progress(done, steps, next);
        done += 1;
    };
    for block in &options.blocks {
        step(&format!("{block} B registered"));
        results.rows.extend(whole::registered(&rig, *block)?);
        step(&format!("{block} B pageable"));
        results.rows.extend(whole::pageable(&rig, *block)?);
        step(&format!("{block} B both ways"));
        results.rows.extend(whole::both_ways(&rig, *block)?);
    }
    for model in MODELS {
        step(model.name);
        results.rows.extend(pages::model(&rig, model)?);
        results.notes.push(pages::handing_over(&rig, model)?);
    }
    let choices = choice::rows(&results.rows);
    results.notes.push(choice::worst(&choices));
    results.rows.extend(choices);
    step("staging");
    results.rows.extend(staged::rows(&rig)?);
    step("other devices");
    match peer::rows(&rig)? {
        Ok(rows) => results.rows.extend(rows),
        Err(why) => {
            results.rows.extend(peer::not_run(&why));
            results.notes.push(why);
        }
    }
    step("digests");
    results.rows.push(whole::digests(&rig)?);
    step("leases");
    results.rows.push(lease::latency(&rig)?);
    step("cycles");
    let (row, note) = lease::cycles(&rig, options.cycles)?;
    results.rows.push(row);
    results.notes.push(note);
    step("");
    Ok(results)
}
