//! `cascade why`: why there is no hit on an id, or on a prompt. Reads files and nothing else.

mod chain;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cascade_core::id::{BlockId, IdKind};
use cascade_core::{Error, ErrorKind, Result};
use cascade_pfs::fs::{Fs, RealFs};
use cascade_shm::inspect::{FoundSlot, Inspection};
use cascade_shm::slot::State;
use cascade_shm::trail::{self, Left, Recall};
use clap::Args;
use serde::Serialize;

use super::out::{Done, Out};
use super::place::Place;
use super::text::span;
use chain::Prompt;

const HELP: &str = "\
Examples:
  cascade why name:greeting
  cascade why 3f0c...(64 hexadecimal digits) --json
  cascade why ID --dir /dev/shm/other --config cascade.toml
  cascade why --space space.toml --tokens prompt.json

Looks at this node's arena, at the record of what left it, and at the configured files. The record
keeps one place for each of 65,536 groups of ids: what left longer ago may be forgotten, and then
the answer says how far back it reaches. With --space and --tokens it says of each block of a prompt
where it is or why it is nowhere, and where the prefix breaks. Ids that an engine makes by its own hashes
(vLLM's connector) are not those of tokens: give them as IDs. Exit status: 0 every id is a hit, 1 one
is none.";

/// Options of `cascade why`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    /// Ids: 64 hexadecimal digits, or `name:` and any text.
    #[arg(required_unless_present = "space", conflicts_with = "space", value_name = "ID", value_parser = parse)]
    ids: Vec<Asked>,
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    place: Place,
    /// Print one JSON document on one line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    given: String,
    id: BlockId,
}

fn parse(text: &str) -> std::result::Result<Asked, String> {
    let id = match text.strip_prefix("name:") {
        Some(name) => BlockId::named(name),
        None => text.parse().map_err(|error: cascade_core::id::ParseBlockIdError| error.to_string())?,
    };
    Ok(Asked { given: text.to_owned(), id })
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    time: u64,
    arena: Option<PathBuf>,
    files: Option<PathBuf>,
    /// Of a prompt; `null` where ids were given.
    prefix: Option<chain::Prefix>,
    ids: Vec<Answer>,
}

/// What is known of one id. Times are seconds since 1970.
#[derive(Debug, Serialize)]
struct Answer {
    id: String,
    given: String,
    kind: &'static str,
    verdict: &'static str,
    arena: &'static str,
    files: &'static str,
    bytes: Option<u64>,
    left: Option<u64>,
    record_since: Option<u64>,
    text: String,
}

fn kind(id: &BlockId) -> &'static str {
    match id.kind() {
        IdKind::Name => "name",
        IdKind::Content => "content",
        IdKind::Chain => "chain",
        IdKind::Foreign => "foreign",
        IdKind::Raw => "raw",
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn ago(time: SystemTime) -> String {
    format!("{} ago", span(SystemTime::now().duration_since(time).unwrap_or_default()))
}

/// What was found in one place after the other.
struct Seen {
    slot: Option<FoundSlot>,
    recall: Option<Recall>,
    has_arena: bool,
    /// `None`: there are no files.
    below: Option<Option<u64>>,
}

impl Seen {
    fn arena(&self) -> &'static str {
        match self.slot.map(|slot| slot.state) {
            _ if !self.has_arena => "no_arena",
            None => "absent",
            Some(State::Sealed) => "there",
            Some(State::Evicting) => "evicting",
            Some(State::Writing | State::Claiming | State::Reserved | State::InFlight) => "pending",
            Some(_) => "leaving",
        }
    }

    fn files(&self) -> &'static str {
        match self.below {
            None => "none",
            Some(None) => "absent",
            Some(Some(_)) => "there",
        }
    }

    /// The verdict, and what a person is told.
    fn verdict(&self, id: &BlockId) -> (&'static str, String) {
        match (self.arena(), self.files()) {
            ("there", _) => return ("hit", "it is in the arena: a get that misses asks another arena, or was too early".into()),
            ("pending", _) => return ("pending", "somebody is writing or fetching it now, or died over that: it is to be seen once it is sealed".into()),
            (_, "there") => return ("hit", "it is in files, and comes up when it is asked for".into()),
            _ => {}
        }
        let below = if self.below.is_some() { "; the files do not have it (any more)" } else { "" };
        match self.recall {
            Some(Recall::Left(Left::Evicted, then)) => (
                "evicted",
                format!(
                    "it was evicted from the arena for room {}, and no tier below was known to have it{below}",
                    ago(then)
                ),
            ),
            Some(Recall::Left(Left::EvictedKept, then)) => (
                "given_up",
                format!(
                    "it was evicted from the arena for room {}, when the files had it{below}: they gave it up for room, or were removed",
                    ago(then)
                ),
            ),
            Some(Recall::Left(Left::Deleted, then)) => {
                ("deleted", format!("it was deleted, cleared or moved to files {}{below}", ago(then)))
            }
            Some(Recall::Left(Left::Damaged, then)) => (
                "damaged",
                format!("its bytes did not match their digest {}, and it was dropped{below}", ago(then)),
            ),
            Some(Recall::NotSince(then)) => ("not_known", never(id, &ago(then), below)),
            None if self.has_arena => (
                "not_known",
                format!("it is not in the arena, and there is no record of what left it{below}"),
            ),
            None => (
                "no_arena",
                format!(
                    "there is no arena of this node here: nothing was put, or another directory or node name is in force{below}"
                ),
            ),
        }
    }
}

fn never(id: &BlockId, since: &str, below: &str) -> String {
    let cure = match id.kind() {
        IdKind::Chain | IdKind::Foreign => {
            ": put under another key space (model, weights, dtype, layout, tokens of a block, adapter, tenant must be equal), with \
             other tokens before it, or never"
        }
        IdKind::Name => ": put under another name, or never",
        _ => "",
    };
    format!(
        "it is not in the arena{below}, and not known to have left it; the record reaches back to {since}{cure}"
    )
}

pub(super) fn run(options: &Options, out: &mut Out) -> Done {
    let config = options.place.resolve()?;
    let path = config.path();
    let named = options.prompt.named()?;
    let asked = named.as_ref().map_or(&options.ids, |named| &named.asked);
    let ids: Vec<BlockId> = asked.iter().map(|asked| asked.id).collect();
    let arena = Inspection::open(&path)?;
    let slots = arena.as_ref().map(|arena| arena.find(&ids)).transpose()?;
    let dir = options.place.files()?.map(|files| files.dir);
    let below = dir.as_deref().map(|dir| look_below(dir, &ids)).transpose()?;
    let answer = |(at, asked): (usize, &Asked)| {
        let incarnation = arena.as_ref().map(|arena| arena.superblock().incarnation);
        let seen = Seen {
            slot: slots.as_ref().and_then(|slots| slots.get(at).copied().flatten()),
            recall: incarnation.and_then(|incarnation| trail::recall(&path, incarnation, &asked.id)),
            has_arena: arena.is_some(),
            below: below.as_ref().map(|below| below.get(at).copied().flatten()),
        };
        answer(asked, &seen)
    };
    let answers: Vec<Answer> = asked.iter().enumerate().map(answer).collect();
    let is_all = answers.iter().all(|answer| answer.verdict == "hit");
    let document = Document {
        schema: "cascade.why/1",
        time: seconds(SystemTime::now()),
        arena: arena.map(|_| path),
        files: dir,
        prefix: named.map(|named| named.prefix(&answers)),
        ids: answers,
    };
    if options.json {
        out.json(&document)?;
    } else if let Some(prefix) = &document.prefix {
        prefix.lines(&document.ids).iter().try_for_each(|line| out.line(line))?;
    } else {
        for answer in &document.ids {
            out.line(&format!("{}  {}\n  {}", answer.given, answer.verdict, answer.text))?;
        }
    }
    Ok(u8::from(!is_all))
}

fn answer(asked: &Asked, seen: &Seen) -> Answer {
    let (verdict, text) = seen.verdict(&asked.id);
    let (left, since) = match seen.recall {
        Some(Recall::Left(_, then)) => (Some(seconds(then)), None),
        Some(Recall::NotSince(then)) => (None, Some(seconds(then))),
        None => (None, None),
    };
    Answer {
        id: asked.id.to_hex(),
        given: asked.given.clone(),
        kind: kind(&asked.id),
        verdict,
        arena: seen.arena(),
        files: seen.files(),
        bytes: seen
            .slot
            .filter(|slot| slot.state == State::Sealed)
            .map(|slot| slot.len)
            .or(seen.below.flatten()),
        left,
        record_since: since,
        text,
    }
}

fn look_below(dir: &Path, ids: &[BlockId]) -> Result<Vec<Option<u64>>> {
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    match cascade_pfs::inspect::find(dir, &fs, ids) {
        Ok(found) => Ok(found),
        // Files that were never made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![None; ids.len()]),
        Err(error) => {
            Err(Error::new(ErrorKind::System, format!("cannot read {}", dir.display())).with_source(error))
        }
    }
}
