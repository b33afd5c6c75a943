//! The commands on a directory of files (tier 4), with `--pfs`.

mod gc;
mod stat;
mod verify;

use std::path::PathBuf;

use cascade_core::{Error, ErrorKind, Result};
use clap::Args;

use super::place::Place;

pub(super) use gc::run as gc;
pub(super) use stat::run as stat;
pub(super) use verify::run as verify;

/// A writer of another node that was not heard of for so long is dead, as the tier itself has it.
const ADOPT_AFTER: std::time::Duration = std::time::Duration::from_secs(600);

/// Options that make a command one on files.
#[derive(Args, Debug)]
pub(super) struct Files {
    /// Look at a directory of files (tier 4) instead of arenas [without DIR: the configured one].
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, present without a directory, with one")]
    pfs: Option<Option<PathBuf>>,
}

impl Files {
    /// The directory, if the command is about one.
    pub(super) fn dir(&self, place: &Place) -> Result<Option<PathBuf>> {
        match &self.pfs {
            None => Ok(None),
            Some(Some(dir)) => Ok(Some(dir.clone())),
            Some(None) => match place.files()? {
                Some(config) => Ok(Some(config.dir)),
                None => Err(unconfigured()),
            },
        }
    }
}

/// What a command says when there is no directory to look at.
pub(super) fn unconfigured() -> Error {
    let what = "--pfs: no directory of files is configured; name one, or set pfs_path (CASCADE_PFS_PATH)";
    Error::new(ErrorKind::Config, what)
}

/// What a command says when a directory cannot be read.
fn unreadable(dir: &std::path::Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        _ => ErrorKind::System,
    };
    Error::new(kind, format!("cannot read {}", dir.display())).with_source(error)
}
