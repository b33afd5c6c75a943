//! The cluster: one controller and four node daemons of this machine, with a key, ports and a folder of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, run};

pub(super) const NODES: &str = "4";
const COUNT: usize = 4;
pub(super) const PACKAGES: [&str; 7] =
    ["slurm-wlm", "slurmd", "slurmctld", "slurm-client", "munge", "libpmi2-0", "shellcheck"];
const LONG: Duration = Duration::from_secs(30);

/// Running daemons, which end with this value.
pub(super) struct Cluster {
    folder: tempfile::TempDir,
    arenas: tempfile::TempDir,
}

/// A program of the path, or of the folders of daemons.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Daemons start tasks as other users, and set up groups of control.
pub(super) fn check_root() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    ensure!(
        std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0),
        "SLURM's daemons need root to be set up and started"
    );
    Ok(())
}

impl Cluster {
    /// Starts everything; returns once every node is idle.
    pub(super) fn start() -> Result<Self> {
        let temporary = |parent: &str| tempfile::Builder::new().prefix("cascade-slurm-").tempdir_in(parent);
        let cluster = Self {
            folder: temporary("/tmp").context("no temporary folder")?,
            arenas: temporary("/dev/shm").context("no folder in memory")?,
        };
        for name in ["state", "spool", "log", "run"] {
            std::fs::create_dir(cluster.folder().join(name))?;
        }
        std::fs::write(cluster.configuration(), cluster.settings()?)?;
        cluster.start_munge()?;
        let daemon = |name: &str| {
            let mut daemon = Command::new(find(name).unwrap_or_default());
            daemon.env("SLURM_CONF", cluster.configuration());
            daemon
        };
        run(daemon("slurmctld").arg("-c"))?;
        for node in 1..=COUNT {
            run(daemon("slurmd").args(["-N", &format!("n{node}")]))?;
        }
        let until = Instant::now() + LONG;
        loop {
            let shown = output(cluster.client("sinfo").args(["--noheader", "--Node", "--format", "%T"]))
                .unwrap_or_default();
            if shown.lines().filter(|state| *state == "idle").count() == COUNT {
                return Ok(cluster);
            }
            if Instant::now() > until {
                bail!("the nodes of the cluster are not idle but: {shown}{}", cluster.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.folder().join("slurm.conf")
    }

    /// The profile of this site: a file, as users have.
    pub(super) fn site(&self) -> Result<PathBuf> {
        let path = self.folder().join("virtual.toml");
        let arenas = self.arenas.path().join("arenas");
        let text = format!(
            "time = \"00:05:00\"\nmpi = \"pmi2\"\nshm_path = {:?}\ndirectives = [\"--overcommit\"]\n[environment]\nCASCADE_SHM_CAPACITY = \"32MiB\"\n",
            arenas.display().to_string()
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// After a job: no step, no agent, no arena is left.
    pub(super) fn is_clean(&self) -> Result<()> {
        let until = Instant::now() + LONG;
        loop {
            let queue = output(self.client("squeue").arg("--noheader"))?;
            let agents = self.agents();
            if queue.trim().is_empty() && agents.is_empty() {
                break;
            }
            ensure!(Instant::now() < until, "the job left something: {queue}agents {agents:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        let left: Vec<_> =
            std::fs::read_dir(self.arenas.path().join("arenas")).into_iter().flatten().flatten().collect();
        let left: Vec<_> = left
            .iter()
            .map(std::fs::DirEntry::file_name)
            .filter(|name| name.to_string_lossy().starts_with("arena."))
            .collect();
        ensure!(left.is_empty(), "arenas are left in memory: {left:?}");
        Ok(())
    }

    /// Processes that have this cluster's arenas in their environment, and serve.
    fn agents(&self) -> Vec<u32> {
        let of = format!("CASCADE_SHM_PATH={}", self.arenas.path().join("arenas").display());
        let has = |file: String, word: &str| {
            std::fs::read(file)
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
        };
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            has(format!("/proc/{pid}/cmdline"), "serve") && has(format!("/proc/{pid}/environ"), &of)
        })
        .collect()
    }

    fn client(&self, program: &str) -> Command {
        let mut client = Command::new(program);
        client.env("SLURM_CONF", self.configuration());
        client
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log/slurmctld.log")).unwrap_or_default()
    }

    fn start_munge(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let run_folder = self.folder().join("run");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        // Its socket must be reachable, its key must not.
        mode(self.folder(), 0o755)?;
        mode(&run_folder, 0o755)?;
        let mut key = vec![0; 1024];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
        std::fs::write(run_folder.join("munge.key"), key)?;
        mode(&run_folder.join("munge.key"), 0o400)?;
        let at = |name: &str| format!("{}/{name}", run_folder.display());
        run(Command::new(find("munged").unwrap_or_default())
            .arg("--force")
            .arg(format!("--key-file={}", at("munge.key")))
            .arg(format!("--socket={}", at("munge.socket")))
            .arg(format!("--pid-file={}", at("munged.pid")))
            .arg(format!("--seed-file={}", at("munged.seed")))
            .arg(format!("--log-file={}/log/munged.log", self.folder().display())))
    }

    fn settings(&self) -> Result<String> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        let (host, at) = (host.trim(), self.folder().display());
        let ports = free_ports(2 + COUNT)?;
        let nodes: Vec<String> = (1..=COUNT)
            .map(|node| {
                let port = ports[1 + node];
                format!("NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000 State=UNKNOWN\n")
            })
            .collect();
        Ok(format!(
            "ClusterName=cascade\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\n\
             AuthInfo=socket={at}/run/munge.socket\nCryptoType=crypto/munge\nMpiDefault=none\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_CPU\nAccountingStorageType=accounting_storage/none\n\
             JobAcctGatherType=jobacct_gather/none\nSwitchType=switch/none\nReturnToService=2\nStateSaveLocation={at}/state\n\
             SlurmdSpoolDir={at}/spool/%n\nSlurmctldPidFile={at}/run/slurmctld.pid\nSlurmdPidFile={at}/run/slurmd.%n.pid\n\
             SlurmctldLogFile={at}/log/slurmctld.log\nSlurmdLogFile={at}/log/slurmd.%n.log\nSlurmctldPort={}\nSlurmdPort={}\n\
             {}PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            ports[0],
            ports[1],
            nodes.concat()
        ))
    }
}

/// Ports that nobody has at this moment.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(held
        .iter()
        .map(TcpListener::local_addr)
        .map(|at| at.map(|at| at.port()))
        .collect::<std::io::Result<_>>()?)
}

impl Drop for Cluster {
    /// What was started here ends, by the numbers that it wrote.
    fn drop(&mut self) {
        let _ = self.client("scancel").args(["--user", "root"]).output();
        let files = std::fs::read_dir(self.folder().join("run")).into_iter().flatten().flatten();
        let files: Vec<PathBuf> = files
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "pid"))
            .collect();
        let pids: Vec<String> = files
            .iter()
            .filter_map(|file| Some(std::fs::read_to_string(file).ok()?.trim().to_owned()))
            .collect();
        for pid in &pids {
            let _ = Command::new("kill").arg(pid).output();
        }
        let until = Instant::now() + LONG;
        while pids.iter().any(|pid| Path::new("/proc").join(pid).exists()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
