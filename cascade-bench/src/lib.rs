//! Workloads, measured ceilings, baselines, reports and plots of Cascade.
//!
//! A figure means little without what the machine could have done: every rate is measured side by side, repetition by
//! repetition, with the best plain copy between the same kinds of memory, and reported as a share of it.
//!
//! * [`units`], [`stats`]: sizes, rates, medians and percentiles;
//! * [`report`]: the JSON document, the table, the comparison with an older run;
//! * [`plot`]: SVG.

pub mod plot;
pub mod report;
pub mod stats;
pub mod units;
