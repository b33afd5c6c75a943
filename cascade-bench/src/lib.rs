//! Workloads, measured ceilings, baselines, reports and plots of Cascade.
//!
//! A figure means little without what the machine could have done: every rate is measured side by side, repetition by
//! repetition, with the best plain copy between the same kinds of memory, and reported as a share of it.
//!
//! * [`mod@run`]: a whole run over any [`Addressable`](cascade_core::tier::Addressable) tier; [`tiers`]: how it gets one;
//! * [`mod@space`]: what the arena makes of its data area; [`contention`]: leases by many processes at once;
//! * [`mod@files`]: the tier of files, beside fio and others;
//! * [`mod@gpu`]: the memory of GPUs, with rows of its own;
//! * [`mod@shm`]: the arena as that tier; [`cli`]: the command line;
//! * [`mod@oversubscription`]: more blocks than the arena holds, and what stays of prefix blocks;
//! * `ranks` (feature `mpi`): other ranks' memory, as a rank of a job;
//! * [`routing`]: directory and owners over thousands of ranks, simulated;
//! * [`trace`]: requests replayed against policies of eviction;
//! * [`report`]: the JSON document, the table, the comparison with an older run;
//! * [`mod@plot`]: SVG; [`units`], [`stats`]: sizes, rates, medians and percentiles.

pub mod cli;
pub mod contention;
pub mod files;
pub mod gpu;
pub mod oversubscription;
pub mod plot;
#[cfg(feature = "mpi")]
pub mod ranks;
pub mod report;
pub mod routing;
pub mod run;
pub mod shm;
pub mod space;
pub mod stats;
pub mod store;
pub mod suite;
pub mod tiers;
pub mod trace;
pub mod units;

mod bandwidth;
mod baseline;
mod buffers;
mod ceiling;
mod draw;
mod lap;
mod latency;
mod member;
mod memory;
mod prefill;
mod shape;
mod team;
