//! `cascade stat --pfs`: who writes in a directory of files, and what is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cascade_core::units::format_size;
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::inspect::{Inspection, Life, WriterView, inspect};
use serde::Serialize;

use super::{ADOPT_AFTER, unreadable};
use crate::cli::interrupt::Interrupts;
use crate::cli::out::{Done, Failure, Out};
use crate::cli::text::{of, percent, span, table};

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    time: f64,
    dir: PathBuf,
    filesystem: String,
    free_bytes: u64,
    total_bytes: u64,
    files: u64,
    segments: u64,
    blocks: u64,
    file_bytes: u64,
    live_bytes: u64,
    log_bytes: u64,
    /// Files of a version of the format that this program does not read.
    other_version: u64,
    writers: Vec<Writer>,
}

#[derive(Debug, Serialize)]
struct Writer {
    writer: String,
    node: Option<String>,
    pid: Option<u64>,
    /// `lives`, `ended`, `dead`, or `silent`: of another node, and not heard of.
    life: &'static str,
    silent_s: Option<u64>,
    claimed_by: Option<String>,
    segments: u64,
    blocks: u64,
    file_bytes: u64,
    live_bytes: u64,
    log_bytes: u64,
    /// Bytes of files that it may have; `null` where it did not say.
    capacity_bytes: Option<u64>,
}

impl Writer {
    fn new(view: &WriterView) -> Self {
        let (life, silent_s) = match view.life {
            Life::Lives => ("lives", None),
            Life::Ended => ("ended", None),
            Life::Dead => ("dead", None),
            Life::Silent(time) if time > ADOPT_AFTER => ("dead", Some(time.as_secs())),
            Life::Silent(time) => ("silent", Some(time.as_secs())),
        };
        let identity = view.identity.as_ref();
        Self {
            writer: view.writer.to_string(),
            node: identity.map(|identity| identity.host.clone()),
            pid: identity.map(|identity| identity.pid),
            life,
            silent_s,
            claimed_by: view.claimed_by.map(|writer| writer.to_string()),
            segments: view.segments,
            blocks: view.blocks,
            file_bytes: view.file_bytes,
            live_bytes: view.live_bytes,
            log_bytes: view.log_bytes,
            capacity_bytes: identity.map(|identity| identity.capacity_bytes).filter(|bytes| *bytes > 0),
        }
    }
}

impl Document {
    fn new(dir: &Path, seen: &Inspection) -> Self {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let sum = |of: fn(&WriterView) -> u64| seen.writers.iter().map(of).sum();
        Self {
            schema: "cascade.stat.pfs/1",
            time: time.as_secs_f64(),
            dir: dir.to_owned(),
            filesystem: seen.on.kind.to_string(),
            free_bytes: seen.on.free_bytes,
            total_bytes: seen.on.total_bytes,
            files: seen.files,
            segments: sum(|writer| writer.segments),
            blocks: sum(|writer| writer.blocks),
            file_bytes: sum(|writer| writer.file_bytes),
            live_bytes: sum(|writer| writer.live_bytes),
            log_bytes: sum(|writer| writer.log_bytes),
            other_version: seen.others.len() as u64,
            writers: seen.writers.iter().map(Writer::new).collect(),
        }
    }
}

pub(in crate::cli) fn run(dir: &Path, watch: Option<Duration>, json: bool, out: &mut Out) -> Done {
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let interrupts = Interrupts::watch();
    loop {
        let seen = inspect(dir, &fs).map_err(|error| unreadable(dir, error))?;
        let document = Document::new(dir, &seen);
        if watch.is_some() && out.is_terminal() && !json {
            out.text("\x1b[H\x1b[J")?;
        }
        if json {
            out.json(&document)?;
        } else {
            print(&document, out)?;
        }
        out.flush()?;
        let Some(every) = watch else { return Ok(0) };
        if !interrupts.sleep(every) {
            return Ok(0);
        }
    }
}

fn print(document: &Document, out: &mut Out) -> Result<(), Failure> {
    out.line(&format!(
        "{} on {}, {} free of {}",
        document.dir.display(),
        document.filesystem,
        format_size(document.free_bytes),
        format_size(document.total_bytes)
    ))?;
    out.line(&format!(
        "{} in {}, {} of files, {} of it live, {} of logs\n",
        of(document.blocks, "block"),
        of(document.segments, "segment"),
        format_size(document.file_bytes),
        percent(document.live_bytes, document.file_bytes),
        format_size(document.log_bytes)
    ))?;
    if document.other_version > 0 {
        out.line(&format!(
            "{} of another version of the format, left alone\n",
            of(document.other_version, "file")
        ))?;
    }
    let head =
        ["writer", "node", "pid", "life", "segments", "blocks", "files", "live", "budget", "claimed by"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let short = |writer: &str| writer.chars().take(8).collect::<String>();
    for writer in &document.writers {
        let silent = writer.silent_s.map(|s| format!(", silent {}", span(Duration::from_secs(s))));
        rows.push(vec![
            short(&writer.writer),
            writer.node.clone().unwrap_or_else(|| "-".into()),
            writer.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            format!("{}{}", writer.life, silent.unwrap_or_default()),
            writer.segments.to_string(),
            writer.blocks.to_string(),
            format_size(writer.file_bytes),
            percent(writer.live_bytes, writer.file_bytes),
            writer.capacity_bytes.map_or_else(|| "-".into(), format_size),
            writer.claimed_by.as_deref().map_or_else(|| "-".into(), short),
        ]);
    }
    out.text(&table(&rows, "  "))
}
