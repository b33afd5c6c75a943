//! `cascade gc`: arenas that are of no use any more, and the memory that they keep.

mod find;
mod judge;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cascade_core::units::format_size;
use cascade_shm::ArenaConfig;
use clap::Args;
use serde::Serialize;

use super::files::{self, Files};
use super::out::{Done, Failure, Out};
use super::place::Place;
use super::text::{of, span, table};
use find::Entry;
use judge::{Rule, Verdict};

const HELP: &str = "\
Examples:
  cascade gc --dry-run
  cascade gc
  cascade gc --older-than 7d --yes
  cascade gc --older-than 0s --all-nodes --yes
  cascade gc --pfs /scratch/me/cascade --dry-run

An arena without a living owner is not garbage: it is warm, and the next store finds its blocks.
So gc removes
  at once     what holds nothing to lose: damaged arenas, arenas without a block, folders of
              killed benchmarks;
  when asked  (--yes, or yes on a terminal) warm arenas last used longer ago than --older-than,
              arenas in the format of another Cascade, files in their place that are no arenas;
  never       an arena that a process holds, other nodes' arenas (unless --all-nodes), files of
              other users.
An arena's last use is when a store last opened or closed it. JSON: docs/cli.md.";

/// Options of `cascade gc`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    files: Files,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Also remove warm arenas that nobody has used for so long, such as 30m, 12h or 7d.
    #[arg(long, value_name = "DURATION", value_parser = judge::duration)]
    older_than: Option<Duration>,
    /// Also look at arenas of other node names in this directory.
    #[arg(long)]
    all_nodes: bool,
    /// Remove without asking what may hold blocks that a store could use again.
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document on one line; asks nothing.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    dir: PathBuf,
    node: String,
    is_dry_run: bool,
    entries: Vec<Line>,
    removed: u64,
    freed_bytes: u64,
    /// What --yes would have removed too.
    unconfirmed: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    path: PathBuf,
    status: &'static str,
    node: Option<String>,
    blocks: Option<u64>,
    file_bytes: u64,
    last_used_s_ago: Option<u64>,
    outcome: &'static str,
    note: String,
}

pub(super) fn run(options: &Options, out: &mut Out) -> Done {
    if let Some(dir) = options.files.dir(&options.place)? {
        return files::gc(&dir, options.dry_run, options.json, out);
    }
    let config = options.place.resolve()?;
    let rule =
        Rule { node: config.node_name(), older_than: options.older_than, all_nodes: options.all_nodes };
    let entries = find::entries(&config, SystemTime::now())?;
    let judge = |entry: Entry| {
        let verdict = rule.judge(&entry);
        (entry, verdict)
    };
    let judged: Vec<(Entry, Verdict)> = entries.into_iter().map(judge).collect();
    let confirmed = options.yes || ask(&judged, options, out)?;
    let mut failed = false;
    let mut document = Document::new(&config, options.dry_run);
    for (entry, verdict) in judged {
        let line = if verdict.removes(confirmed) {
            let line = Line::removed(entry, &verdict, options.dry_run);
            failed |= line.outcome == "failed";
            line
        } else {
            Line::kept(entry, &verdict)
        };
        document.add(line);
    }
    if options.json {
        out.json(&document)?
    } else {
        print(&document, out)?
    }
    Ok(u8::from(failed) * 2)
}

/// Asks a person whether to remove what may be of use.
fn ask(judged: &[(Entry, Verdict)], options: &Options, out: &mut Out) -> Result<bool, Failure> {
    let doubtful: Vec<_> = judged.iter().filter(|(_, verdict)| verdict.is_asked()).collect();
    let has_person = out.is_terminal() && std::io::stdin().is_terminal();
    if doubtful.is_empty() || options.json || options.dry_run || !has_person {
        return Ok(false);
    }
    for (entry, verdict) in &doubtful {
        out.line(&format!(
            "{} ({}): {}",
            entry.path.display(),
            format_size(entry.file_bytes),
            verdict.why()
        ))?;
    }
    out.text(&format!("Remove {} for good? [y/N] ", if doubtful.len() == 1 { "it" } else { "them" }))?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Document {
    fn new(config: &ArenaConfig, is_dry_run: bool) -> Self {
        Self {
            schema: "cascade.gc/1",
            dir: config.dir.clone(),
            node: config.node_name(),
            is_dry_run,
            entries: Vec::new(),
            removed: 0,
            freed_bytes: 0,
            unconfirmed: 0,
        }
    }

    fn add(&mut self, line: Line) {
        match line.outcome {
            "removed" | "would_remove" => {
                self.removed += 1;
                self.freed_bytes += line.file_bytes;
            }
            "needs_yes" => self.unconfirmed += 1,
            _ => {}
        }
        self.entries.push(line);
    }
}

impl Line {
    fn new(entry: Entry, outcome: &'static str, note: String) -> Self {
        Self {
            status: entry.status.name(),
            path: entry.path,
            node: entry.node,
            blocks: entry.blocks,
            file_bytes: entry.file_bytes,
            last_used_s_ago: entry.idle.map(|idle| idle.as_secs()),
            outcome,
            note,
        }
    }

    fn kept(entry: Entry, verdict: &Verdict) -> Self {
        let outcome = if verdict.is_asked() { "needs_yes" } else { "kept" };
        Self::new(entry, outcome, verdict.why().to_owned())
    }

    fn removed(mut entry: Entry, verdict: &Verdict, is_dry_run: bool) -> Self {
        let why = verdict.why().to_owned();
        if is_dry_run {
            return Self::new(entry, "would_remove", why);
        }
        match entry.remove() {
            Ok(Some(freed)) => {
                entry.file_bytes = freed;
                Self::new(entry, "removed", why)
            }
            Ok(None) => Self::new(entry, "kept", "a process opened it, or it went, meanwhile".into()),
            Err(error) => Self::new(entry, "failed", error.to_string()),
        }
    }
}

fn print(document: &Document, out: &mut Out) -> Result<(), Failure> {
    if document.entries.is_empty() {
        return out.line(&format!("Nothing in {}.", document.dir.display()));
    }
    let head = ["what", "size", "blocks", "last used", "", "why"].map(str::to_owned).to_vec();
    let rows = document.entries.iter().map(|line| {
        let outcome = match line.outcome {
            "would_remove" => "would go",
            "needs_yes" => "kept (--yes)",
            other => other,
        };
        vec![
            line.path.display().to_string(),
            format_size(line.file_bytes),
            line.blocks.map_or_else(|| "-".into(), super::text::count),
            line.last_used_s_ago
                .map_or_else(|| "-".into(), |ago| format!("{} ago", span(Duration::from_secs(ago)))),
            outcome.to_owned(),
            line.note.clone(),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    out.text(&table(&rows, ""))?;
    let verb = if document.is_dry_run { "would go" } else { "removed" };
    let freed = if document.is_dry_run { "would be freed" } else { "freed" };
    out.line(&format!(
        "{} {verb}, {} {freed}",
        of(document.removed, "item"),
        format_size(document.freed_bytes)
    ))?;
    if document.unconfirmed > 0 {
        out.line(&format!("{} kept that --yes removes", of(document.unconfirmed, "item")))?;
    }
    Ok(())
}
