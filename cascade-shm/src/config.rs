//! How an arena is made or found.

use std::path::{Path, PathBuf};

use cascade_core::{Error, ErrorKind, Result};

use crate::hugepage::Medium;
use crate::index::BUCKET_SLOTS;
use crate::layout::{Geometry, STRIPE_ENTRIES, STRIPE_LEASES};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The default capacity is at most this.
const DEFAULT_MOST: u64 = 64 * GIB;
/// One slot for each so many bytes of data, unless configured: twice as many as blocks of 64 KiB need.
const BYTES_PER_SLOT: u64 = 32 * 1024;
const LEAST_SLOTS: u64 = 1024;
const REGION_MOST: u64 = 64 * MIB;
const REGION_LEAST: u64 = MIB;

/// Which blocks go first when the arena is full, as far as their classes leave that open. Each process that needs room goes by its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Those that are worth least: by what was learned of how long blocks stay unused, where a process tells the arena of its requests
    /// ([`crate::Arena::note_heats`], [`crate::Arena::publish_worth`]); by uses over age where none does, so that a scan displaces nothing that was used.
    #[default]
    Learned,
    /// Those unused for longest.
    Lru,
}

/// What an arena is to be like. What is `None` is chosen when the arena is made, and taken as it is when it is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Directory of the arena, made with mode 0700 if its parent exists; on tmpfs or hugetlbfs.
    pub dir: PathBuf,
    /// Bytes of the data area, rounded down to whole regions. Default: min(64 GiB, half of what is free).
    pub capacity_bytes: Option<u64>,
    /// Slots of the index, rounded up to whole buckets. Default: one for each 32 KiB of data.
    pub slots: Option<u64>,
    /// Bytes of a region, a power of two from 1 MiB to 1 GiB. Default: 64 MiB, less for arenas under 1 GiB.
    pub region_bytes: Option<u64>,
    /// Handles that can be open at once on the node. Default: 255, or 63 under 256 MiB.
    pub owners: Option<u16>,
    /// Leases that one handle can hold at once, at least. Default: 4096, or 1024 under 256 MiB.
    pub leases: Option<u32>,
    /// Identity of the node. Default: `SLURMD_NODENAME`, else the host name.
    pub node: Option<String>,
    /// Whether this handle's thread may be the arena's janitor: grow it, and recover the dead, without being called. Default: yes.
    /// Without any, both are done by the operations that need it.
    pub janitor: bool,
    /// Which blocks go first. Default: those that are worth least.
    pub eviction: Eviction,
}

impl ArenaConfig {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            capacity_bytes: None,
            slots: None,
            region_bytes: None,
            owners: None,
            leases: None,
            node: None,
            janitor: true,
            eviction: Eviction::default(),
        }
    }

    /// The same with a capacity.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity_bytes = Some(bytes);
        self
    }

    /// The identity of this node, safe as part of a file name.
    #[must_use]
    pub fn node_name(&self) -> String {
        let slurm = || std::env::var("SLURMD_NODENAME").ok().filter(|name| !name.is_empty());
        let host = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
        let name = self.node.clone().or_else(slurm).or_else(host).unwrap_or_else(|| "localhost".into());
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
        name.chars().map(safe).take(64).collect()
    }

    /// The arena's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(format!("arena.{}", self.node_name()))
    }

    /// The numbers of an arena that is made now.
    ///
    /// # Errors
    /// `Config` for impossible numbers, `NoSpace` when the machine has less than was asked for.
    pub fn geometry(&self) -> Result<Geometry> {
        let medium = Medium::of_dir(&self.dir)?;
        let free = free_bytes(&self.dir, medium)?;
        let asked = self.capacity_bytes.unwrap_or_else(|| DEFAULT_MOST.min(free / 2));
        let region_bytes = self.region_bytes.unwrap_or_else(|| {
            let sixteenth = (asked / 16).max(1);
            let least = if medium.is_pool() { medium.page_bytes.max(REGION_LEAST) } else { REGION_LEAST };
            (1 << sixteenth.ilog2()).clamp(least.min(REGION_MOST), REGION_MOST)
        });
        medium.check(region_bytes)?;
        let data_bytes = asked / region_bytes.max(1) * region_bytes;
        if data_bytes == 0 {
            let what = format!(
                "shm capacity of {asked} bytes is less than one region of {region_bytes} bytes: ask for at least that"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        let small = data_bytes < 256 * MIB;
        let slots = self.slots.unwrap_or(data_bytes / BYTES_PER_SLOT).max(LEAST_SLOTS);
        let leases = u64::from(self.leases.unwrap_or(if small { 1024 } else { 4096 }));
        let geometry = Geometry {
            data_bytes,
            region_bytes,
            buckets: slots.div_ceil(BUCKET_SLOTS as u64),
            owners: u64::from(self.owners.unwrap_or(if small { 63 } else { 255 })) + 1,
            ledger_entries: ledger_entries(leases),
        };
        // Numbers beyond the machine's memory first: it is what such an error is about.
        if data_bytes < free {
            geometry.check().map_err(|error| Error::new(ErrorKind::Config, error.context()))?;
        }
        let need = if data_bytes < free { geometry.offsets().total } else { data_bytes };
        if need > free && medium.is_pool() {
            return Err(medium.too_few(need, free));
        }
        if need > free {
            let what = format!(
                "an arena of {data_bytes} bytes needs {need} bytes of memory at {0}, and {free} are free there: ask for \
                 less, or free or enlarge it (`df -h {0}`)",
                self.dir.display()
            );
            return Err(Error::new(ErrorKind::NoSpace, what));
        }
        Ok(geometry)
    }

    /// Checks the numbers of an arena that exists against those asked for.
    ///
    /// # Errors
    /// `Config`, showing both.
    pub fn check_existing(&self, found: &Geometry) -> Result<()> {
        let asked_capacity = self.capacity_bytes.map(|bytes| bytes / found.region_bytes * found.region_bytes);
        let differing = [
            ("capacity_bytes", asked_capacity, found.data_bytes),
            ("region_bytes", self.region_bytes, found.region_bytes),
            ("slots", self.slots.map(|slots| slots.max(LEAST_SLOTS).next_multiple_of(8)), found.buckets * 8),
            ("owners", self.owners.map(|owners| u64::from(owners) + 1), found.owners),
            ("leases", self.leases.map(|leases| ledger_entries(u64::from(leases))), found.ledger_entries),
        ];
        for (name, asked, found) in differing {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                let what = format!(
                    "the arena {} was made with {name} {found}, and {asked} is asked for: use the same configuration, \
                     or remove the arena when no process uses it",
                    self.path().display()
                );
                return Err(Error::new(ErrorKind::Config, what));
            }
        }
        Ok(())
    }
}

/// Ledger entries of an owner that can hold `leases` leases.
fn ledger_entries(leases: u64) -> u64 {
    leases.div_ceil(STRIPE_LEASES as u64).max(1) * STRIPE_ENTRIES as u64
}

/// Memory that growth leaves to others.
const LEFT_TO_OTHERS: u64 = 64 * MIB;

/// Bytes that an arena in `dir` may take: what the file system, the machine's memory and the memory cgroup have free, or the
/// pool of huge pages.
fn free_bytes(dir: &Path, medium: Medium) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).map_err(|error| {
        Error::new(ErrorKind::System, format!("cannot stat {}", dir.display())).with_source(error)
    })?;
    if let Some(free) = medium.pool_free() {
        // A mount without a limit of its own says 0 blocks.
        return Ok(if stat.blocks() == 0 { free } else { free.min(file_system_free(&stat)) });
    }
    Ok(memory_free().fold(file_system_free(&stat), u64::min))
}

/// Bytes that the arena `file` may still take; `None` when the system does not say, or has put them by already.
pub(crate) fn room(file: &std::fs::File) -> Option<u64> {
    if Medium::of_file(file).is_pool() {
        return None;
    }
    let stat = nix::sys::statvfs::fstatvfs(file).ok()?;
    let memory = memory_free().map(|free| free.saturating_sub(LEFT_TO_OTHERS));
    Some(memory.fold(file_system_free(&stat), u64::min))
}

fn file_system_free(stat: &nix::sys::statvfs::Statvfs) -> u64 {
    stat.blocks_available() * stat.fragment_size()
}

fn memory_free() -> impl Iterator<Item = u64> {
    [memory_available(), cgroup_available()].into_iter().flatten()
}

fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the process's memory cgroup (v2, else v1) leaves; `None` without a limit.
fn cgroup_available() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let v1 = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let pair = |base: String, max: &str, now: &str| {
        Some(read(format!("{base}/{max}"))?.saturating_sub(read(format!("{base}/{now}"))?))
    };
    v2.and_then(|path| pair(format!("/sys/fs/cgroup{path}"), "memory.max", "memory.current")).or_else(|| {
        let path = v1?;
        let base = format!("/sys/fs/cgroup/memory{path}");
        pair(base, "memory.limit_in_bytes", "memory.usage_in_bytes")
    })
}
