//! Which arenas a command is about.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cascade_core::{Error, ErrorKind, Result};
use cascade_pfs::PfsConfig;
use cascade_shm::ArenaConfig;
use clap::Args;

use crate::{FilesConfig, StoreConfig, StoreConfigBuilder};

/// Options that say which arenas a command is about.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// Directory of the arenas [default: as the store: CASCADE_SHM_PATH, the configuration file, /dev/shm/cascade].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Configuration file of the store [default: CASCADE_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Identity of the node [default: as the store: CASCADE_NODE, SLURMD_NODENAME, the host name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Place {
    /// What a store that starts here would open.
    pub(super) fn resolve(&self) -> Result<ArenaConfig> {
        Ok(self.config()?.arena())
    }

    /// The directory of files that such a store would open, if one is configured.
    pub(super) fn files(&self) -> Result<Option<PfsConfig>> {
        self.config()?.files().map(FilesConfig::pfs).transpose()
    }

    /// The settings of such a store.
    pub(super) fn config(&self) -> Result<StoreConfig> {
        self.config_as(self.node.as_deref())
    }

    /// The same on a node that is called otherwise.
    #[cfg(feature = "mpi")]
    pub(super) fn config_of(&self, node: &str) -> Result<StoreConfig> {
        self.config_as(Some(node))
    }

    fn config_as(&self, node: Option<&str>) -> Result<StoreConfig> {
        let mut builder: StoreConfigBuilder = StoreConfig::builder();
        if let Some(file) = &self.config {
            builder = builder.file(file);
        }
        if let Some(dir) = &self.dir {
            let dir = std::path::absolute(dir).map_err(|error| {
                let what = format!("--dir {} is no path", dir.display());
                Error::new(ErrorKind::InvalidArgument, what).with_source(error)
            })?;
            builder = builder.shm_path(dir);
        }
        if let Some(node) = node {
            builder = builder.set("node", node)?;
        }
        builder.resolve()
    }
}

/// The arena files in the directory of `config`: this node's first, then the others by name. None where there is no such
/// directory.
pub(super) fn arenas(config: &ArenaConfig) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(&config.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&config.dir, error)),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"arena."))
        .map(|entry| entry.path())
        .collect();
    let own = config.path();
    found.sort_by_key(|path| (*path != own, path.clone()));
    Ok(found)
}

fn unreadable(dir: &Path, error: io::Error) -> Error {
    let owner = std::fs::symlink_metadata(dir).map(|metadata| metadata.uid());
    let cure = match owner {
        Ok(uid) if uid != nix::unistd::geteuid().as_raw() => {
            format!(": it belongs to uid {uid}; set CASCADE_SHM_PATH or --dir to a directory of your own")
        }
        _ => String::new(),
    };
    Error::new(ErrorKind::Permission, format!("cannot read {}{cure}", dir.display())).with_source(error)
}
