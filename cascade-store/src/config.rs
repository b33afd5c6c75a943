//! Configuration from code, environment and file: validated, and printable as what is in force.

mod files;
mod gpu;
mod recorded;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cascade_core::units::{exact_size, parse_size};
use cascade_core::{Error, ErrorKind, Result};
use cascade_pfs::PfsConfig;
use cascade_shm::{Arena, ArenaConfig, Eviction};
use serde::Deserialize;

use values::Values;

pub use files::{Demote, FilesConfig};
pub use gpu::{GpuCapacity, GpuConfig, GpuDevices};
#[cfg(feature = "cli")]
pub(crate) use recorded::Recorded;
pub(crate) use recorded::agree;

/// The directory of the arena unless configured.
const DEFAULT_SHM_PATH: &str = "/dev/shm/cascade";
/// Bytes of submitted batches under way, unless configured.
const DEFAULT_IN_FLIGHT: u64 = 1 << 30;
/// The environment variable that names a configuration file.
const FILE_VARIABLE: &str = "CASCADE_CONFIG";

/// What goes first when the arena is full.
const EVICTIONS: [(&str, Eviction); 2] = [("learned", Eviction::Learned), ("lru", Eviction::Lru)];

/// Whether other nodes are asked, by the node's agent.
const REMOTES: [(&str, bool); 2] = [("off", false), ("agent", true)];

/// Where a setting came from; a later one in this list wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
    /// The program.
    Code,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Code => "code",
        }
    }
}

/// Every setting: its name in files and code, and its environment variable.
const SETTINGS: [(&str, &str); 24] = [
    ("shm_path", "CASCADE_SHM_PATH"),
    ("shm_capacity", "CASCADE_SHM_CAPACITY"),
    ("shm_slots", "CASCADE_SHM_SLOTS"),
    ("shm_region", "CASCADE_SHM_REGION"),
    ("shm_owners", "CASCADE_SHM_OWNERS"),
    ("shm_leases", "CASCADE_SHM_LEASES"),
    ("node", "CASCADE_NODE"),
    ("janitor", "CASCADE_JANITOR"),
    ("eviction", "CASCADE_EVICTION"),
    ("pfs_path", "CASCADE_PFS_PATH"),
    ("pfs_capacity", "CASCADE_PFS_CAPACITY"),
    ("pfs_segment", "CASCADE_PFS_SEGMENT"),
    ("pfs_durability", "CASCADE_PFS_DURABILITY"),
    ("pfs_direct", "CASCADE_PFS_DIRECT"),
    ("pfs_io_engine", "CASCADE_PFS_IO_ENGINE"),
    ("pfs_stripe_count", "CASCADE_PFS_STRIPE_COUNT"),
    ("pfs_stripe_size", "CASCADE_PFS_STRIPE_SIZE"),
    ("demote", "CASCADE_DEMOTE"),
    ("in_flight", "CASCADE_IN_FLIGHT"),
    ("acknowledge", "CASCADE_ACKNOWLEDGE"),
    ("gpu_capacity", "CASCADE_GPU_CAPACITY"),
    ("gpu_devices", "CASCADE_GPU_DEVICES"),
    ("gpu_share", "CASCADE_GPU_SHARE"),
    ("remote", "CASCADE_REMOTE"),
];

/// A configuration that was checked. Make one with [`StoreConfig::builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    arena: ArenaConfig,
    files: Option<FilesConfig>,
    in_flight_bytes: u64,
    gpu: Option<GpuConfig>,
    asks_agent: bool,
    origins: BTreeMap<&'static str, Origin>,
}

/// Settings as they come together: code over environment over file over defaults.
#[derive(Clone, Debug, Default)]
pub struct StoreConfigBuilder {
    code: BTreeMap<&'static str, String>,
    file: Option<PathBuf>,
    without_environment: bool,
}

/// A number or a text: `shm_capacity = 1073741824` and `shm_capacity = "1GiB"` are the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileValue {
    Number(u64),
    Text(String),
}

impl StoreConfig {
    /// Starts a configuration.
    #[must_use]
    pub fn builder() -> StoreConfigBuilder {
        StoreConfigBuilder::default()
    }

    /// What the arena is opened with.
    #[must_use]
    pub fn arena(&self) -> ArenaConfig {
        self.arena.clone()
    }

    /// The tier of files; `None` where there is none.
    #[must_use]
    pub fn files(&self) -> Option<&FilesConfig> {
        self.files.as_ref()
    }

    /// Bytes of submitted batches that may be under way at once.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// The tier in the memory of GPUs; `None` where there is to be none.
    #[must_use]
    pub fn gpu(&self) -> Option<&GpuConfig> {
        self.gpu.as_ref()
    }

    /// Whether blocks of other nodes are asked for, of this node's agent.
    #[must_use]
    pub fn asks_agent(&self) -> bool {
        self.asks_agent
    }

    /// Every setting with its value and origin, as TOML. What the configuration leaves open is shown as the tiers have it:
    /// `files` is what the tier of files was opened with.
    #[must_use]
    pub fn in_force(&self, arena: &Arena, files: Option<&PfsConfig>) -> String {
        let geometry = arena.superblock().geometry;
        let quoted = |text: String| format!("{text:?}");
        let mut shown = vec![
            ("shm_path", quoted(self.arena.dir.display().to_string())),
            ("shm_capacity", quoted(exact_size(geometry.data_bytes))),
            ("shm_slots", (geometry.buckets * 8).to_string()),
            ("shm_region", quoted(exact_size(geometry.region_bytes))),
            ("shm_owners", (geometry.owners - 1).to_string()),
            ("shm_leases", geometry.leases().to_string()),
            ("node", quoted(self.arena.node_name())),
            ("eviction", quoted(values::word(&EVICTIONS, &self.arena.eviction).to_owned())),
            ("janitor", quoted(if self.arena.janitor { "on" } else { "off" }.to_owned())),
        ];
        match (&self.files, files) {
            (Some(config), Some(open)) => shown.extend(config.shown(open)),
            _ => shown.push(("pfs_path", quoted(String::new()))),
        }
        shown.push(("in_flight", quoted(exact_size(self.in_flight_bytes))));
        match &self.gpu {
            Some(config) => shown.extend(config.shown()),
            None => shown.push(("gpu_capacity", quoted("off".to_owned()))),
        }
        shown.push(("remote", quoted(values::word(&REMOTES, &self.asks_agent).to_owned())));
        let line = |(name, value): (&str, String)| {
            let origin = self.origins.get(name).map_or("default", |origin| origin.name());
            format!("{name} = {value}  # {origin}\n")
        };
        shown.into_iter().map(line).collect()
    }
}

impl StoreConfigBuilder {
    /// Directory of the arena, on tmpfs or hugetlbfs. Default `/dev/shm/cascade`.
    #[must_use]
    pub fn shm_path(mut self, path: impl AsRef<Path>) -> Self {
        self.code.insert("shm_path", path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Capacity of the arena, such as `10GiB`. Default: min(64 GiB, half of what is free).
    ///
    /// # Errors
    /// `InvalidArgument` when it is not a size.
    pub fn shm_capacity(mut self, size: &str) -> Result<Self> {
        parse_size(size)?;
        self.code.insert("shm_capacity", size.to_owned());
        Ok(self)
    }

    /// Directory of the tier of files, shared by all who are to find each other's blocks. Default: no such tier.
    #[must_use]
    pub fn pfs_path(mut self, path: impl AsRef<Path>) -> Self {
        self.code.insert("pfs_path", path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Any setting by its name in files.
    ///
    /// # Errors
    /// `Config` when there is no such setting.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Result<Self> {
        let known = SETTINGS.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
        self.code.insert(known.0, value.into());
        Ok(self)
    }

    /// Reads a TOML file; `CASCADE_CONFIG` does the same where the program names none.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Looks at no environment variable.
    #[must_use]
    pub fn without_environment(mut self) -> Self {
        self.without_environment = true;
        self
    }

    /// Puts the settings together and checks them.
    ///
    /// # Errors
    /// `Config` for a setting that is unknown or wrong, `NotFound` for a file that is named and not there.
    pub fn resolve(&self) -> Result<StoreConfig> {
        let variable = |name: &str| {
            if self.without_environment {
                None
            } else {
                std::env::var(name).ok().filter(|value| !value.is_empty())
            }
        };
        let file = self.file.clone().or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
        let from_file = file.map_or_else(|| Ok(BTreeMap::new()), |path| read_file(&path))?;
        let mut values: BTreeMap<&'static str, (String, Origin)> = BTreeMap::new();
        for (name, env_name) in SETTINGS {
            let candidates = [
                (self.code.get(name).cloned(), Origin::Code),
                (variable(env_name), Origin::Environment),
                (from_file.get(name).cloned(), Origin::File),
            ];
            if let Some((value, origin)) =
                candidates.into_iter().find_map(|(value, origin)| Some((value?, origin)))
            {
                values.insert(name, (value, origin));
            }
        }
        check(&values)
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
    Error::new(
        ErrorKind::Config,
        format!("there is no setting {name:?}; the settings are {}", names.join(", ")),
    )
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, String>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::System
        };
        Error::new(kind, format!("cannot read the configuration {}", path.display())).with_source(error)
    })?;
    let values: BTreeMap<String, FileValue> = toml::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::Config, format!("{} is not a valid configuration", path.display()))
            .with_source(error)
    })?;
    let mut known = BTreeMap::new();
    for (name, value) in values {
        let (setting, _) = SETTINGS.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(&name))?;
        let value = match value {
            FileValue::Number(number) => number.to_string(),
            FileValue::Text(text) => text,
        };
        known.insert(*setting, value);
    }
    Ok(known)
}

fn check(values: &BTreeMap<&'static str, (String, Origin)>) -> Result<StoreConfig> {
    let origins = values.iter().map(|(name, (_, origin))| (*name, *origin)).collect();
    let values = Values(values);
    let arena = ArenaConfig {
        capacity_bytes: values.size("shm_capacity")?,
        slots: values.number("shm_slots", 8, 1 << 31)?,
        region_bytes: values.size("shm_region")?,
        owners: values.number("shm_owners", 1, 65_534)?.and_then(|owners| u16::try_from(owners).ok()),
        leases: values.number("shm_leases", 1, 1 << 20)?.and_then(|leases| u32::try_from(leases).ok()),
        node: values.text("node").map(str::to_owned),
        janitor: values.switch("janitor", true)?,
        eviction: values.one_of("eviction", &EVICTIONS, "learned")?,
        ..ArenaConfig::new(values.path("shm_path", DEFAULT_SHM_PATH)?)
    };
    let in_flight_bytes = values.size("in_flight")?.unwrap_or(DEFAULT_IN_FLIGHT);
    if in_flight_bytes == 0 {
        return Err(values.wrong("in_flight", "0", "at least one byte is needed"));
    }
    let (files, gpu) = (FilesConfig::read(&values)?, GpuConfig::read(&values)?);
    let asks_agent = values.one_of("remote", &REMOTES, "off")?;
    Ok(StoreConfig { arena, files, gpu, asks_agent, in_flight_bytes, origins })
}
