//! Real agents under a real launcher, and engines beside them that know nothing of MPI: this process is the engine of two nodes of
//! one machine. Started by `cargo xtask test --lane mpi` with `--launch` and the words that start two ranks; without them there is
//! nothing to run, which is said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test, though without the harness that clippy knows it by"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Level, Put, Store, StoreConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(60);
/// A miss for want of an agent is answered at once; the slack is for machines that do more than this.
const AT_ONCE: Duration = Duration::from_secs(5);

fn id(number: u64) -> BlockId {
    BlockId::content(&number.to_le_bytes())
}

fn bytes(number: u64) -> Vec<u8> {
    (0..100_000 + number * 70_001).map(|at| (at * 31 + number * 7) as u8).collect()
}

/// Two ranks of `cascade serve`, each the agent of a node.
struct Agents {
    launcher: Child,
    arenas: PathBuf,
}

impl Agents {
    fn start(launch: &[String], arenas: &Path) -> Self {
        let (program, words) = launch.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(words).arg(env!("CARGO_BIN_EXE_cascade"));
        command.args(["serve", "--each", "node", "--every", "0", "--json", "--dir"]).arg(arenas);
        command.env("CASCADE_SHM_CAPACITY", "64MiB").stdout(Stdio::piped());
        let mut launcher = command.spawn().unwrap();
        let said = BufReader::new(launcher.stdout.take().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        // Read to its end: a launcher that cannot say anything more ends.
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).for_each(|line| tell.send(line).unwrap_or(()))
        });
        for _ in 0..2 {
            let line = told.recv_timeout(LONG).expect("both ranks say that they serve");
            println!("agents: {line}");
            assert!(line.contains("\"event\":\"serving\""), "{line}");
        }
        Self { launcher, arenas: arenas.to_owned() }
    }

    /// Processes of this user that serve these arenas.
    fn ranks(&self) -> Vec<Pid> {
        let of = self.arenas.to_string_lossy().into_owned();
        let is_ours = |pid: i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            words.first().is_some_and(|word| word.ends_with("/cascade")) && words.contains(&of)
        };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| is_ours(*pid)).map(Pid::from_raw).collect()
    }

    fn signal(&self, signal: Signal) {
        self.ranks().into_iter().for_each(|rank| kill(rank, signal).unwrap_or_default());
    }

    /// The whole job dies at once.
    fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }

    /// Everyone is told to end, and does in good order.
    fn end(mut self) {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + LONG;
        let status = loop {
            if let Some(status) = self.launcher.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "agents end when they are told to");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}");
    }
}

fn engine(arenas: &Path, node: u32) -> Store {
    let builder = StoreConfig::builder().without_environment().shm_path(arenas);
    let builder = builder.set("node", format!("node-{node}")).unwrap().set("remote", "agent").unwrap();
    Store::open(&builder.resolve().unwrap()).unwrap()
}

fn get(store: &Store, number: u64) -> Result<(), MissReason> {
    let mut out = vec![0; bytes(number).len()];
    store.get(&id(number), &mut out)?;
    assert!(out == bytes(number), "wrong bytes for {number}");
    Ok(())
}

/// Until the directory has heard of what was put, or an agent has come back.
fn get_soon(store: &Store, number: u64) {
    let until = Instant::now() + LONG;
    while let Err(why) = get(store, number) {
        assert!(Instant::now() < until, "block {number} is still a miss: {why:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn put(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(store.put(&id(number), &bytes(number), Put::default()), Outcome::Stored);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = arguments.iter().position(|word| word == "--launch") else {
        println!("agents: NOT RUN: there is no launcher; `cargo xtask test --lane mpi` runs this with one");
        return;
    };
    let folder = tempfile::Builder::new().prefix("cascade-agents-").tempdir_in("/dev/shm").unwrap();
    let arenas = folder.path().join("arenas");
    let agents = Agents::start(&arguments[at + 1..], &arenas);
    let (a, b) = (engine(&arenas, 0), engine(&arenas, 1));
    put(&a, 0..8);
    put(&b, 100..104);
    (0..4).for_each(|number| get_soon(&b, number));
    get_soon(&a, 100);
    let stats = b.stats();
    assert_eq!((stats.hits(Level::Remote), stats.moves.remote_brought), (4, 4), "{:?}", stats.misses);
    (0..4).for_each(|number| assert_eq!(get(&b, number), Ok(())));
    assert_eq!(b.stats().hits(Level::Arena), 4, "what came is here");
    println!("agents: engines of two nodes read each other's blocks");

    agents.kill();
    let began = Instant::now();
    assert_eq!(get(&b, 5), Err(MissReason::Unavailable));
    assert!(began.elapsed() < AT_ONCE, "a miss took {:?}", began.elapsed());
    assert_eq!((get(&b, 0), get(&a, 5)), (Ok(()), Ok(())), "what is on the node is served");
    put(&a, 8..10);
    println!("agents: engines outlived their agents; a miss took {:?}", began.elapsed());

    let began = Instant::now();
    let agents = Agents::start(&arguments[at + 1..], &arenas);
    let serving = began.elapsed();
    (4..10).for_each(|number| get_soon(&b, number));
    println!("agents: new ones served after {serving:?}, remote hits were back after {:?}", began.elapsed());
    agents.end();
    assert_eq!(get(&a, 101), Err(MissReason::Unavailable));
    assert_eq!(get(&a, 9), Ok(()));
    println!("agents: ended in good order");
}
