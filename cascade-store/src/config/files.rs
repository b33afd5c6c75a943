//! Settings of the tier of files.

use std::path::{Path, PathBuf};

use cascade_core::units::exact_size;
use cascade_core::{Error, ErrorKind, Result};
use cascade_pfs::{Durability, IoEngine, PfsConfig, filesystem};

use super::values::{Values, word};
use crate::put::Reach;

/// The default capacity is at most this.
const DEFAULT_MOST: u64 = 1 << 40;

const DURABILITIES: [(&str, Durability); 3] =
    [("none", Durability::None), ("segment", Durability::Segment), ("block", Durability::Block)];
pub(super) const DEMOTIONS: [(&str, Demote); 4] = [
    ("through", Demote::Through),
    ("selective", Demote::Selective),
    ("back", Demote::Back),
    ("off", Demote::Off),
];

const ACKNOWLEDGEMENTS: [(&str, Reach); 4] = [
    ("found", Reach::Found),
    ("queued", Reach::Queued),
    ("files", Reach::Files),
    ("durable", Reach::Durable),
];

/// When a block that was put in the arena is copied to the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demote {
    /// At once, in the background. What the node loses, or the arena evicts, is in files: the default.
    #[default]
    Through,
    /// At once, but only blocks of a shared prefix, and those that were put or used a second time. Others are lost when the arena
    /// evicts them, and counted.
    Selective,
    /// When the arena fills: the coldest first, until enough of it can be evicted without loss.
    Back,
    /// Never. Only what the arena has no room for goes to files.
    Off,
}

/// The tier of files as it is configured. What is `None` is chosen when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// Directory of the segments; its parent exists.
    pub dir: PathBuf,
    /// Bytes of this writer's files. Default: min(1 TiB, half of what is free).
    pub capacity_bytes: Option<u64>,
    /// Bytes of a segment. Default: as [`PfsConfig`].
    pub segment_bytes: Option<u64>,
    /// When blocks in files survive a loss of power.
    pub durability: Durability,
    /// Whether to go past the page cache.
    pub direct: bool,
    /// What moves the bytes.
    pub io_engine: IoEngine,
    /// On Lustre: storage targets that a segment is spread over.
    pub stripe_count: Option<u16>,
    /// On Lustre: bytes of a stripe.
    pub stripe_bytes: Option<u32>,
    /// When blocks go there.
    pub demote: Demote,
    /// How far every put must have come before it is acknowledged, at least.
    pub acknowledge: Reach,
}

impl FilesConfig {
    /// What the settings say; `None` without `pfs_path`.
    pub(super) fn read(values: &Values<'_>) -> Result<Option<Self>> {
        let is_set = |name: &&&str| values.text(name).is_some();
        if values.text("pfs_path").is_none_or(str::is_empty) {
            let alone = super::SETTINGS.iter().map(|(name, _)| name);
            let alone =
                alone.filter(|name| name.starts_with("pfs_") || ["demote", "acknowledge"].contains(*name));
            return match alone.filter(|name| **name != "pfs_path").find(is_set) {
                None => Ok(None),
                Some(name) => {
                    let value = values.text(name).unwrap_or("");
                    Err(values.wrong(
                        name,
                        value,
                        "it says how files are kept, and pfs_path does not say where",
                    ))
                }
            };
        }
        let config = Self {
            dir: values.path("pfs_path", "")?.into(),
            capacity_bytes: values.size("pfs_capacity")?,
            segment_bytes: values.size("pfs_segment")?,
            durability: values.one_of("pfs_durability", &DURABILITIES, "segment")?,
            direct: values.switch("pfs_direct", true)?,
            io_engine: values.one_of("pfs_io_engine", &IoEngine::ALL.map(|e| (e.name(), e)), "auto")?,
            stripe_count: values.number("pfs_stripe_count", 1, 65_535)?.and_then(|n| u16::try_from(n).ok()),
            stripe_bytes: stripe_bytes(values)?,
            demote: values.one_of("demote", &DEMOTIONS, "through")?,
            acknowledge: values.one_of("acknowledge", &ACKNOWLEDGEMENTS, "found")?,
        };
        // What the capacity has no part in is checked here too.
        config.with_capacity(config.capacity_bytes.unwrap_or(DEFAULT_MOST)).check()?;
        Ok(Some(config))
    }

    fn with_capacity(&self, capacity_bytes: u64) -> PfsConfig {
        PfsConfig {
            segment_bytes: self.segment_bytes,
            durability: self.durability,
            direct: self.direct,
            io_engine: self.io_engine,
            stripe_count: self.stripe_count,
            stripe_bytes: self.stripe_bytes,
            ..PfsConfig::new(&self.dir, capacity_bytes)
        }
    }

    /// What the tier is opened with.
    ///
    /// # Errors
    /// `NotFound`, `Permission` or `System` when the capacity is to follow from what is free, and that cannot be asked.
    pub fn pfs(&self) -> Result<PfsConfig> {
        let capacity_bytes = match self.capacity_bytes {
            Some(bytes) => bytes,
            None => default_capacity(&self.dir)?,
        };
        Ok(self.with_capacity(capacity_bytes))
    }

    /// Why the tier could not be opened, with what to do about it.
    pub(crate) fn advise(&self, error: Error) -> Error {
        let cure = match error.kind() {
            ErrorKind::NotFound => "its parent directory must exist: make that, or name another place",
            ErrorKind::Permission => {
                "a directory that this user may write to is needed, or a parent that it may make one in"
            }
            ErrorKind::NoSpace => {
                "there is no room: free some (`df -h`, `df -i`, your quota), or name a place on another file system"
            }
            _ if self.dir.exists() && !self.dir.is_dir() => {
                "what is there is no directory: move it away, or name another place"
            }
            _ => return error,
        };
        Error::new(error.kind(), format!("pfs_path {}: {cure}", self.dir.display())).with_source(error)
    }

    /// Name and value of every setting, as TOML shows it; `open` is what was opened.
    pub(super) fn shown(&self, open: &PfsConfig) -> Vec<(&'static str, String)> {
        let quoted = |text: &str| format!("{text:?}");
        let mut shown = vec![
            ("pfs_path", quoted(&self.dir.display().to_string())),
            ("pfs_capacity", quoted(&exact_size(open.capacity_bytes))),
            ("pfs_segment", quoted(&exact_size(open.target_bytes()))),
            ("pfs_durability", quoted(word(&DURABILITIES, &self.durability))),
            ("pfs_direct", quoted(if self.direct { "on" } else { "off" })),
            ("pfs_io_engine", quoted(self.io_engine.name())),
        ];
        // What is not set is the directory's to say.
        shown.extend(self.stripe_count.map(|count| ("pfs_stripe_count", count.to_string())));
        shown.extend(self.stripe_bytes.map(|bytes| ("pfs_stripe_size", quoted(&exact_size(bytes.into())))));
        shown.push(("demote", quoted(word(&DEMOTIONS, &self.demote))));
        shown.push(("acknowledge", quoted(word(&ACKNOWLEDGEMENTS, &self.acknowledge))));
        shown
    }
}

fn stripe_bytes(values: &Values<'_>) -> Result<Option<u32>> {
    let name = "pfs_stripe_size";
    let too_large = || values.wrong(name, values.text(name).unwrap_or(""), "less than 4GiB is needed");
    values.size(name)?.map(|bytes| u32::try_from(bytes).map_err(|_| too_large())).transpose()
}

/// Half of what is free where `dir` is, or is to be made.
fn default_capacity(dir: &Path) -> Result<u64> {
    let found = match filesystem::probe(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = dir.parent().unwrap_or(Path::new("/"));
            filesystem::probe(parent).map_err(|error| {
                let what = format!(
                    "pfs_path {} cannot be made: its parent must be there ({})",
                    dir.display(),
                    error.context()
                );
                Error::new(error.kind(), what)
            })
        }
        other => other,
    };
    Ok(DEFAULT_MOST.min(found?.free_bytes / 2))
}
