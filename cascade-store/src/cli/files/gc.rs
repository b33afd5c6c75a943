//! `cascade gc --pfs`: small files that nobody needs any more. Segments are given up by the tiers that own them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cascade_core::units::format_size;
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::inspect::leftovers;
use cascade_pfs::survey::left_folders;
use serde::Serialize;

use super::{ADOPT_AFTER, unreadable};
use crate::cli::out::{Done, Out};
use crate::cli::text::of;

/// A folder of `cascade doctor` is left over when nothing was made in it for so long.
const FOLDER_AGE: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    dir: PathBuf,
    is_dry_run: bool,
    entries: Vec<Entry>,
    removed: u64,
    freed_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    bytes: u64,
    /// `removed`, `would_remove` or `failed`.
    outcome: &'static str,
    why: &'static str,
}

pub(in crate::cli) fn run(dir: &Path, dry_run: bool, json: bool, out: &mut Out) -> Done {
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let found = leftovers(dir, &fs, ADOPT_AFTER, !dry_run).map_err(|error| unreadable(dir, error))?;
    let outcome = |is_removed| match (dry_run, is_removed) {
        (true, _) => "would_remove",
        (_, true) => "removed",
        _ => "failed",
    };
    let mut entries: Vec<Entry> = found
        .into_iter()
        .map(|file| Entry {
            name: file.name,
            bytes: file.bytes,
            outcome: outcome(file.is_removed),
            why: "of a writer that is dead and has no segment",
        })
        .collect();
    for folder in left_folders(dir, FOLDER_AGE) {
        let is_removed = !dry_run && std::fs::remove_dir_all(&folder).is_ok();
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        entries.push(Entry {
            name,
            bytes: 0,
            outcome: outcome(is_removed),
            why: "of a killed `cascade doctor`",
        });
    }
    let gone = || entries.iter().filter(|entry| entry.outcome != "failed");
    let document = Document {
        schema: "cascade.gc.pfs/1",
        dir: dir.to_owned(),
        is_dry_run: dry_run,
        removed: gone().count() as u64,
        freed_bytes: gone().map(|entry| entry.bytes).sum(),
        entries,
    };
    let failed = document.entries.iter().any(|entry| entry.outcome == "failed");
    if json {
        out.json(&document)?;
        return Ok(u8::from(failed) * 2);
    }
    for entry in &document.entries {
        out.line(&format!("{:12} {} ({})", entry.outcome.replace('_', " "), entry.name, entry.why))?;
    }
    let word = if dry_run { "would be removed" } else { "removed" };
    out.line(&format!("{} {word}, {}", of(document.removed, "file"), format_size(document.freed_bytes)))?;
    Ok(u8::from(failed) * 2)
}
