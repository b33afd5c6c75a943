//! What the checks look at: files below a root, which tests replace by planted trees, and the few answers that no file gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cascade_core::copy::{Kernel, plan};
use cascade_core::units::format_size;
use cascade_shm::inspect::Inspection;
use cascade_shm::{ArenaConfig, HugePages};

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) total_bytes: u64,
    /// What this user may still take.
    pub(super) free_bytes: u64,
}

/// One machine, as the checks see it.
#[derive(Debug)]
pub(super) struct Machine {
    /// `/`, or a planted tree.
    pub(super) root: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    /// Directory of the arena, without the root.
    pub(super) dir: PathBuf,
    /// The arena that is there: what it is, or why a store refuses it.
    pub(super) arena: Option<Result<String, String>>,
    /// Bytes of the arena that is there or configured.
    pub(super) capacity_bytes: Option<u64>,
    /// Memory that the arena which is there takes already.
    pub(super) taken_bytes: u64,
    /// What that arena has put together into huge pages.
    pub(super) huge: HugePages,
    /// Of the file system that the directory is, or will be, on.
    pub(super) space: Option<Space>,
    pub(super) kernel: Kernel,
    /// The copy plan, and settings of it that have no effect.
    pub(super) copy_plan: String,
    pub(super) copy_notes: Vec<String>,
}

impl Machine {
    /// This machine.
    pub(super) fn here(config: &ArenaConfig) -> Self {
        let opened = Inspection::open(&config.path());
        let arena = match &opened {
            Ok(None) => None,
            Ok(Some(seen)) => Some(usable(config, seen)),
            Err(error) => Some(Err(error.to_string())),
        };
        let existing = opened.ok().flatten();
        let seen = existing.as_ref().and_then(|seen| seen.snapshot().ok());
        let found = existing.map(|seen| seen.superblock().geometry.data_bytes);
        let plan = plan();
        Self {
            root: "/".into(),
            environment: std::env::vars().collect(),
            dir: config.dir.clone(),
            arena,
            capacity_bytes: found.or(config.capacity_bytes),
            taken_bytes: seen.as_ref().map_or(0, |seen| seen.allocated_bytes),
            huge: seen.map(|seen| seen.huge_pages).unwrap_or_default(),
            space: config.dir.ancestors().find_map(space),
            kernel: plan.kernel,
            copy_plan: plan.to_string().lines().next().unwrap_or_default().to_owned(),
            copy_notes: plan.notes.clone(),
        }
    }

    /// Where an absolute path lies below the root.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, if there is one that can be read.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read(self.at(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// The field `name:` of `/proc/self/status`.
    pub(super) fn status(&self, name: &str) -> Option<String> {
        let text = self.read("/proc/self/status")?;
        let field = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(field.trim().to_owned())
    }

    /// The effective user.
    pub(super) fn uid(&self) -> Option<u32> {
        self.status("Uid")?.split_whitespace().nth(1)?.parse().ok()
    }

    /// A line `name: N kB` of a file such as `/proc/meminfo`, in bytes.
    pub(super) fn kib(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.read(path)?;
        let line = text.lines().find_map(|line| line.split_once(name)?.1.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Memory that the arena will take in all: its data, and tables of about half a percent.
    pub(super) fn needed_bytes(&self) -> Option<u64> {
        self.capacity_bytes.map(|bytes| bytes + bytes / 200 + (16 << 20))
    }

    /// What of it is not taken yet.
    pub(super) fn missing_bytes(&self) -> Option<u64> {
        Some(self.needed_bytes()?.saturating_sub(self.taken_bytes))
    }
}

/// Whether a store that is configured so takes the arena that is there.
fn usable(config: &ArenaConfig, seen: &Inspection) -> Result<String, String> {
    let superblock = seen.superblock();
    config.check_existing(&superblock.geometry).map_err(|error| error.to_string())?;
    let size = format_size(superblock.geometry.data_bytes);
    Ok(format!("{} is there: {size}, format {}", seen.path().display(), superblock.version))
}

fn space(dir: &Path) -> Option<Space> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let unit = stat.fragment_size() as u64;
    Some(Space {
        total_bytes: stat.blocks() as u64 * unit,
        free_bytes: stat.blocks_available() as u64 * unit,
    })
}
