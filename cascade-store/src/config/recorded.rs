//! What is below an arena, as the stores that share it agree: where its blocks go, and when.

use std::fmt;
use std::path::Path;

use cascade_core::tier::Tier;
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::{Arena, NOTE_MOST};
use serde::{Deserialize, Serialize};

use super::FilesConfig;
use super::files::DEMOTIONS;
use super::values::word;

/// What the arena notes, as TOML. Files of which nobody spoke are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// The directory of the files, without symbolic links; empty where there are none.
    #[serde(default)]
    pub(crate) pfs_path: String,
    /// When blocks go there.
    #[serde(default)]
    pub(crate) demote: String,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pfs_path.is_empty() {
            return f.write_str("no files (pfs_path is not set)");
        }
        write!(f, "pfs_path = {:?} with demote = {:?}", self.pfs_path, self.demote)
    }
}

/// The path as every process of the node would find it.
fn whole(dir: &Path) -> String {
    std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).to_string_lossy().into_owned()
}

impl Recorded {
    /// What a note says; `None` where it says nothing that can be understood.
    pub(crate) fn parse(note: &str) -> Option<Self> {
        toml::from_str(note).ok()
    }

    fn of(files: Option<&FilesConfig>) -> Self {
        let recorded = |files: &FilesConfig| Self {
            pfs_path: whole(&files.dir),
            demote: word(&DEMOTIONS, &files.demote).to_owned(),
        };
        files.map(recorded).unwrap_or_default()
    }

    /// Whether a store may take what stands here for over, instead of `self`: it is alone, and no block of the arena is noted to be in
    /// files that it does not have.
    fn gives_way(&self, wanted: &Self, arena: &Arena) -> bool {
        let is_elsewhere = !self.pfs_path.is_empty() && self.pfs_path != wanted.pfs_path;
        !(arena.has_others() || is_elsewhere && arena.stats().blocks > 0)
    }
}

/// Compares what is configured with what the arena records, and records it where nobody else uses the arena.
///
/// # Errors
/// `Config`, showing both, when they differ; also for a path that is too long.
pub(crate) fn agree(arena: &Arena, files: Option<&FilesConfig>) -> Result<()> {
    let wanted = Recorded::of(files);
    let text = toml::to_string(&wanted)
        .map_err(|error| Error::new(ErrorKind::Config, "pfs_path cannot be recorded").with_source(error))?;
    if text.len() > NOTE_MOST {
        let what = format!("pfs_path is longer than an arena can record ({NOTE_MOST} bytes)");
        return Err(Error::new(ErrorKind::Config, what));
    }
    arena.agree(|note| match note.as_deref().and_then(Recorded::parse) {
        Some(there) if there == wanted => Ok(None),
        Some(there) if !there.gives_way(&wanted, arena) => Err(differing(arena, &there, &wanted)),
        _ => Ok(Some(text)),
    })
}

fn differing(arena: &Arena, there: &Recorded, wanted: &Recorded) -> Error {
    let cure = if arena.has_others() {
        "end the processes that use it (`cascade stat` names them)"
    } else {
        "remove the arena first (`cascade gc`): what it holds may be newer than, or missing in, other files"
    };
    let what = format!(
        "the arena {} is used with {there}, and {wanted} is asked for: use the same settings, or {cure}",
        arena.path().display()
    );
    Error::new(ErrorKind::Config, what)
}
