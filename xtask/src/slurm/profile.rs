//! What is particular to a site: data files, two of them built in.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const BUILT_IN: [(&str, &str); 2] = [
    ("generic", include_str!("../../slurm/generic.toml")),
    ("perlmutter", include_str!("../../slurm/perlmutter.toml")),
];

/// A site. What is missing is not asked of SLURM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) account: Option<String>,
    /// Jobs without an account are refused there, after they were queued.
    #[serde(default)]
    pub(crate) needs_account: bool,
    /// Quality of service.
    pub(crate) queue: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) constraint: Option<String>,
    pub(crate) gpus_per_node: Option<u32>,
    #[serde(default = "half_an_hour")]
    pub(crate) time: String,
    /// What `srun --mpi` is told.
    #[serde(default = "pmi2")]
    pub(crate) mpi: String,
    #[serde(default)]
    pub(crate) modules: Vec<String>,
    /// Set for agents and command.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// The program `cascade`, built with MPI.
    #[serde(default = "agent")]
    pub(crate) agent: String,
    #[serde(default = "shm_path")]
    pub(crate) shm_path: String,
    /// The directory of tier 4.
    pub(crate) scratch: Option<String>,
    /// On Lustre; -1 is all.
    pub(crate) stripe_count: Option<i32>,
    pub(crate) stripe_size: Option<String>,
    /// Further options of sbatch, as they are: `--exclusive`.
    #[serde(default)]
    pub(crate) directives: Vec<String>,
}

fn half_an_hour() -> String {
    "00:30:00".into()
}

fn pmi2() -> String {
    "pmi2".into()
}

fn agent() -> String {
    "cascade".into()
}

fn shm_path() -> String {
    "/dev/shm/cascade-$USER".into()
}

impl Profile {
    /// A built-in one by its name, or a file.
    pub(crate) fn read(site: &str) -> Result<Self> {
        let text = match BUILT_IN.iter().find(|(name, _)| *name == site) {
            Some((_, text)) => (*text).to_owned(),
            None if site.contains(['/', '.']) => std::fs::read_to_string(site)
                .with_context(|| format!("cannot read the site profile {site}"))?,
            None => {
                let known = BUILT_IN.map(|(name, _)| name).join(", ");
                bail!(
                    "no site {site:?}: there are {known}, or give the path of a file such as xtask/slurm/generic.toml"
                )
            }
        };
        toml::from_str(&text).with_context(|| format!("the site profile {site} cannot be used"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_read() {
        for (name, _) in BUILT_IN {
            Profile::read(name).unwrap();
        }
        assert_eq!(Profile::read("perlmutter").unwrap().gpus_per_node, Some(4));
    }

    #[test]
    fn a_profile_of_ones_own_is_a_file_whose_misspelt_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let site = path.to_str().unwrap();
        std::fs::write(&path, "queue = \"debug\"\n").unwrap();
        let profile = Profile::read(site).unwrap();
        assert_eq!((profile.queue.as_deref(), profile.mpi.as_str()), (Some("debug"), "pmi2"));
        std::fs::write(&path, "que = \"debug\"\n").unwrap();
        assert!(format!("{:#}", Profile::read(site).unwrap_err()).contains("unknown field `que`"));
        assert!(Profile::read("nowhere").unwrap_err().to_string().contains("generic, perlmutter"));
    }
}
