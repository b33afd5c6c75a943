//! Configuration from code, environment and file: validated, and printable as what is in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cascade_core::units::{exact_size, parse_size};
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::{Arena, ArenaConfig};
use serde::Deserialize;

/// The directory of the arena unless configured.
const DEFAULT_SHM_PATH: &str = "/dev/shm/cascade";
/// The environment variable that names a configuration file.
const FILE_VARIABLE: &str = "CASCADE_CONFIG";

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
const SETTINGS: [(&str, &str); 8] = [
    ("shm_path", "CASCADE_SHM_PATH"),
    ("shm_capacity", "CASCADE_SHM_CAPACITY"),
    ("shm_slots", "CASCADE_SHM_SLOTS"),
    ("shm_region", "CASCADE_SHM_REGION"),
    ("shm_owners", "CASCADE_SHM_OWNERS"),
    ("shm_leases", "CASCADE_SHM_LEASES"),
    ("node", "CASCADE_NODE"),
    ("janitor", "CASCADE_JANITOR"),
];

/// A configuration that was checked. Make one with [`StoreConfig::builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    arena: ArenaConfig,
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

    /// Every setting with its value and origin, as TOML. What the configuration leaves open is shown as the arena has it.
    #[must_use]
    pub fn in_force(&self, arena: &Arena) -> String {
        let geometry = arena.superblock().geometry;
        let quoted = |text: String| format!("{text:?}");
        let values = [
            quoted(self.arena.dir.display().to_string()),
            quoted(exact_size(geometry.data_bytes)),
            (geometry.buckets * 8).to_string(),
            quoted(exact_size(geometry.region_bytes)),
            (geometry.owners - 1).to_string(),
            geometry.leases().to_string(),
            quoted(self.arena.node_name()),
            quoted(if self.arena.janitor { "on" } else { "off" }.to_owned()),
        ];
        let line = |((name, _), value): (&(&'static str, &str), String)| {
            let origin = self.origins.get(name).map_or("default", |origin| origin.name());
            format!("{name} = {value}  # {origin}\n")
        };
        SETTINGS.iter().zip(values).map(line).collect()
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
    let text = |name: &str| values.get(name).map(|(value, _)| value.as_str());
    let wrong = |name: &str, value: &str, why: &str| {
        let origin = values.get(name).map_or("default", |(_, origin)| origin.name());
        Error::new(ErrorKind::Config, format!("{name} = {value:?} (from {origin}): {why}"))
    };
    let size = |name: &str| {
        text(name)
            .map(|value| parse_size(value).map_err(|error| wrong(name, value, error.context())))
            .transpose()
    };
    let number = |name: &str, least: u64, most: u64| {
        let parse = |value: &str| {
            let number = value.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| {
                wrong(name, value, &format!("a whole number from {least} to {most} is needed"))
            })
        };
        text(name).map(parse).transpose()
    };
    let janitor = match text("janitor") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => return Err(wrong("janitor", other, "\"on\" or \"off\" is needed")),
    };
    let dir = text("shm_path").unwrap_or(DEFAULT_SHM_PATH);
    if !dir.starts_with('/') {
        return Err(wrong("shm_path", dir, "an absolute path is needed"));
    }
    let arena = ArenaConfig {
        capacity_bytes: size("shm_capacity")?,
        slots: number("shm_slots", 8, 1 << 31)?,
        region_bytes: size("shm_region")?,
        owners: number("shm_owners", 1, 65_534)?.and_then(|owners| u16::try_from(owners).ok()),
        leases: number("shm_leases", 1, 1 << 20)?.and_then(|leases| u32::try_from(leases).ok()),
        node: text("node").map(str::to_owned),
        janitor,
        ..ArenaConfig::new(dir)
    };
    Ok(StoreConfig { arena, origins: values.iter().map(|(name, (_, origin))| (*name, *origin)).collect() })
}
