//! `cascade verify --pfs`: every byte of a directory of files.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cascade_core::units::{format_size, gbps};
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::scrub::{Finding, Options, Progress, Report, What, scrub};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::unreadable;
use crate::cli::interrupt::Interrupts;
use crate::cli::out::{Done, Failure, Out};
use crate::cli::text::of;

/// Findings that are listed one by one; the rest is counted.
const LISTED: usize = 100;

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    dir: PathBuf,
    /// Whether everything was looked at; `false` after Ctrl-C.
    is_complete: bool,
    segments: u64,
    logs: u64,
    bytes: u64,
    seconds: f64,
    bytes_per_s: f64,
    sound: u64,
    lost: u64,
    /// Findings that are damage and were not out of use before.
    damages: u64,
    /// Blocks that this repair put out of use.
    hidden: u64,
    /// Segments that it moved to the folder `quarantine`.
    moved: u64,
    findings: Vec<Line>,
    more_findings: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    file: String,
    at: u64,
    bytes: u64,
    what: &'static str,
    is_damage: bool,
    id: Option<String>,
    loses_block: bool,
    is_known: bool,
    is_repaired: bool,
}

impl Line {
    fn new(finding: &Finding) -> Self {
        Self {
            file: finding.file.clone(),
            at: finding.at,
            bytes: finding.bytes,
            what: finding.what.name(),
            is_damage: finding.what.is_damage(),
            id: finding.id.map(|id| id.to_string()),
            loses_block: finding.loses_block,
            is_known: finding.is_known,
            is_repaired: finding.is_repaired,
        }
    }
}

pub(in crate::cli) fn run(dir: &Path, repair: bool, threads: usize, json: bool, out: &mut Out) -> Done {
    let options = Options { threads, repair, ..Options::default() };
    let report = watched(dir, &options).map_err(|error| unreadable(dir, error))?;
    let hidden =
        report.findings.iter().filter(|finding| finding.is_repaired && finding.loses_block).count() as u64;
    let seconds = report.took.as_secs_f64();
    let document = Document {
        schema: "cascade.verify.pfs/1",
        dir: dir.to_owned(),
        is_complete: report.is_complete,
        segments: report.segments,
        logs: report.logs,
        bytes: report.bytes,
        seconds,
        bytes_per_s: report.bytes as f64 / seconds.max(1e-9),
        sound: report.sound,
        lost: report.lost,
        damages: report.damages(),
        hidden,
        moved: report.moved,
        findings: report.findings.iter().take(LISTED).map(Line::new).collect(),
        more_findings: report.findings.len().saturating_sub(LISTED),
    };
    if json {
        out.json(&document)?;
    } else {
        print(&document, &report, out)?;
    }
    Ok(if document.damages > 0 { 1 } else { u8::from(!document.is_complete) * 2 })
}

/// A scrub with a bar, which Ctrl-C ends.
fn watched(dir: &Path, options: &Options) -> std::io::Result<Report> {
    let (progress, fs) = (Progress::default(), Arc::new(RealFs) as Arc<dyn Fs>);
    let (interrupts, bar) = (Interrupts::watch(), bar());
    std::thread::scope(|scope| {
        let work = scope.spawn(|| scrub(dir, &fs, options, &progress));
        while !work.is_finished() {
            bar.set_length(progress.total_bytes.load(Ordering::Relaxed));
            bar.set_position(progress.done_bytes.load(Ordering::Relaxed));
            if interrupts.came() {
                progress.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(if bar.is_hidden() { 1 } else { 50 }));
        }
        bar.finish_and_clear();
        work.join().unwrap_or_else(|_| Err(std::io::Error::other("the scrub ended without an answer")))
    })
}

/// On the standard error, and only where a person sees it.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => ProgressBar::new(0).with_style(style),
        Err(_) => ProgressBar::new(0),
    }
}

/// What a finding means.
fn meaning(what: What) -> &'static str {
    match what {
        What::FirstPage(_) => "the first page is damaged; the blocks behind it do not depend on it",
        What::Header => "the header of a block is damaged",
        What::Payload => "a block does not match its digests",
        What::Padding => "bytes behind a block are not zero; no block depends on them",
        What::Disagrees => "the index speaks of another block here",
        What::Footer(_) => "the footer is damaged; log and headers say the same",
        What::Gap => "bytes that belong to no block",
        What::Tail => "a write that the death of its writer cut off; no damage",
        What::Missing => "the segment of a block is not there",
        What::LogPage(_) => "the first page of a log is damaged: nobody follows it",
        What::LogRecord(_) => "a record within a log is damaged: who follows it reads no further",
        What::LogTail => "the last write to a log was cut off; no damage",
        What::Identity => "an identity or claim cannot be read",
        What::OtherVersion => {
            "a version of the format that this program does not read; left alone, no damage"
        }
        What::Unreadable(_) => "the file system does not give the bytes",
        _ => "damage",
    }
}

fn print(document: &Document, report: &Report, out: &mut Out) -> Result<(), Failure> {
    for finding in report.findings.iter().take(LISTED) {
        let word = if finding.what.is_damage() { "damaged" } else { "note" };
        let id = finding.id.map_or_else(String::new, |id| format!(", block {id}"));
        let fate = match (finding.loses_block, finding.is_known, finding.is_repaired) {
            (true, true, _) => ": lost, out of use since before",
            (true, _, true) => ": lost, put out of use",
            (true, ..) => ": lost; --repair puts it out of use",
            (false, _, true) => ": moved to quarantine",
            _ => "",
        };
        out.line(&format!(
            "{word}: {} at {} ({}){id}: {}{fate}",
            finding.file,
            finding.at,
            format_size(finding.bytes),
            meaning(finding.what)
        ))?;
    }
    if document.more_findings > 0 {
        out.line(&format!("and {} more", document.more_findings))?;
    }
    out.line(&format!(
        "{}: {} in {}, {} read in {:.1} s, {:.2} GB/s: {} sound, {} lost, {} put out of use, {} moved",
        document.dir.display(),
        of(document.sound + document.lost, "block"),
        of(document.segments, "segment"),
        format_size(document.bytes),
        document.seconds,
        gbps(document.bytes, document.seconds),
        document.sound,
        document.lost,
        document.hidden,
        of(document.moved, "segment"),
    ))?;
    if !document.is_complete {
        out.line("interrupted: the rest was not looked at")?;
    }
    Ok(())
}
