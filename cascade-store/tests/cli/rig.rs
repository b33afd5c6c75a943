//! A place for arenas, and the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_store::{Put, Store, StoreConfig};
use serde_json::Value;

/// A directory in memory, gone after the test.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Where the arenas are.
    pub(crate) fn dir(&self) -> PathBuf {
        self.0.path().join("arenas")
    }

    pub(crate) fn path(&self, node: &str) -> PathBuf {
        self.dir().join(format!("arena.{node}"))
    }

    /// A store of 32 MiB, every page of it ready.
    pub(crate) fn store(&self, node: &str) -> Store {
        let builder = StoreConfig::builder().without_environment().shm_path(self.dir());
        let builder = builder.shm_capacity("32MiB").unwrap().set("node", node).unwrap();
        let store = Store::open(&builder.resolve().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        assert!(store.arena().wait_ready(deadline));
        store
    }

    /// The program on this place, as node `n1`, with nothing else from the environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        command.args(arguments).env_clear().env("CASCADE_SHM_PATH", self.dir()).env("CASCADE_NODE", "n1");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The exit status and what was printed as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}", text(&output)));
        (output.status.code().unwrap(), document)
    }
}

/// Closes a store and waits until nothing holds its arena: for a moment a program that another test starts has a copy of every
/// descriptor of this process.
pub(crate) fn close(store: Store) {
    let path = store.arena().path().to_owned();
    drop(store);
    let deadline = Instant::now() + Duration::from_secs(30);
    while cascade_shm::remove::is_in_use(&path).unwrap() == Some(true) {
        assert!(Instant::now() < deadline, "{} stays in use", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Everything that was printed.
pub(crate) fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

pub(crate) fn put(store: &Store, name: &str, bytes: &[u8]) {
    assert_eq!(store.put(&BlockId::named(name), bytes, Put::default()), Outcome::Stored);
}

/// Overwrites the first place where `marker` stands in the file.
pub(crate) fn damage(path: &Path, marker: &[u8]) {
    use std::os::unix::fs::FileExt;
    let all = std::fs::read(path).unwrap();
    let at = all.windows(marker.len()).position(|window| window == marker).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[!marker[0]], at as u64).unwrap();
}
