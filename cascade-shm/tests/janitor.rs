//! What is done without anyone calling: the dead are recovered, the role goes on, and a handle leaves no thread behind.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

/// Grossly too long for anything that is done in the background.
const PATIENCE: Duration = Duration::from_secs(5);

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn config(folder: &Path) -> ArenaConfig {
    ArenaConfig::new(folder.join("arena")).capacity(16 << 20)
}

fn put(arena: &Arena, name: &str, len: usize) {
    let reserved = arena.reserve(&BlockId::named(name), len as u64, PutMeta::default());
    let Reserve::Reserved(mut place) = reserved else { panic!("{reserved:?}") };
    assert!(place.write_at(0, &vec![7; len]));
    assert!(matches!(place.seal(), Sealed::Stored(_)));
}

/// A process of ours, and what it prints.
struct Process(Child, Option<BufReader<ChildStdout>>);

impl Process {
    /// Lets it end, in order.
    fn end(&mut self) {
        drop(self.0.stdin.take());
        let mut rest = String::new();
        self.1.take().unwrap().read_to_string(&mut rest).unwrap();
        assert!(self.0.wait().unwrap().success(), "{rest}");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

/// A process that runs the test `role` of this file, and has said that it is ready.
fn process(role: &str, folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", role, "--nocapture", "--test-threads=1"]);
    command.env("CASCADE_TEST_FOLDER", folder).stdout(Stdio::piped()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("ready\n") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "{role} ended early");
    }
    Process(child, Some(out))
}

/// In a process started by [`process`]: its folder.
fn given() -> Option<PathBuf> {
    std::env::var_os("CASCADE_TEST_FOLDER").map(PathBuf::from)
}

/// Says so, and stays until it is killed or its parent is gone.
fn stay() {
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Time from now until `done`.
fn time_until(what: &str, done: impl Fn() -> bool) -> Duration {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
    since.elapsed()
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{what}: n {}, median {:?}, p90 {:?}, worst {:?}", times.len(), at(0.5), at(0.9), at(1.0));
}

#[test]
fn an_owner_that_holds_much() {
    let Some(folder) = given() else { return };
    let arena = Arena::open(&config(&folder)).unwrap();
    let lease = arena.lease(&BlockId::named("block")).unwrap();
    let half = arena.reserve(&BlockId::named("half"), 1 << 20, PutMeta::default());
    let flying = match arena.reserve(&BlockId::named("flying"), 1 << 20, PutMeta::default()) {
        Reserve::Reserved(reservation) => reservation.start_transfer().unwrap(),
        other => panic!("{other:?}"),
    };
    stay();
    drop((lease, half, flying));
}

#[test]
fn an_owner_that_stays() {
    let Some(folder) = given() else { return };
    let arena = Arena::open(&config(&folder)).unwrap();
    time_until("the role is taken", || arena.janitor_pid().is_some());
    stay();
}

#[test]
fn what_the_dead_held_is_given_back_without_a_call() {
    if given().is_some() {
        return;
    }
    let folder = folder();
    let arena = Arena::open(&config(folder.path())).unwrap();
    put(&arena, "block", 1 << 20);
    let before = arena.stats().used_bytes;
    let mut times = Vec::new();
    for _ in 0..20 {
        let mut child = process("an_owner_that_holds_much", folder.path());
        assert_eq!((arena.stats().used_bytes, arena.audit().unwrap().live_owners), (before + (2 << 20), 2));
        child.kill();
        // `audit` looks and recovers nothing.
        times.push(time_until("recovered", || arena.audit().unwrap().live_owners == 1));
        child.0.wait().unwrap();
        let audit = arena.audit().unwrap();
        assert_eq!((audit.ledger_entries, audit.filling_slots, audit.disagreements), (0, 0, 0), "{audit:?}");
        assert_eq!(arena.stats().used_bytes, before);
    }
    print_times("from SIGKILL to all given back", times);
}

#[test]
fn the_role_goes_on_when_its_holder_dies_or_leaves() {
    if given().is_some() {
        return;
    }
    let folder = folder();
    let me = u64::from(std::process::id());
    let mut times = Vec::new();
    for round in 0..10 {
        let mut first = process("an_owner_that_stays", folder.path());
        let arena = Arena::open(&config(folder.path())).unwrap();
        assert_eq!(arena.janitor_pid(), Some(u64::from(first.0.id())), "who lives keeps the role");
        if round % 2 == 0 {
            first.kill()
        } else {
            first.end()
        }
        times.push(time_until("handed on", || arena.janitor_pid() == Some(me)));
        first.0.wait().unwrap();
    }
    print_times("from the end of the janitor to the next", times);
}

#[test]
fn without_a_janitor_nobody_has_the_role_and_the_arena_still_grows() {
    if given().is_some() {
        return;
    }
    let folder = folder();
    let arena = Arena::open(&ArenaConfig { janitor: false, ..config(folder.path()) }).unwrap();
    assert_eq!(arena.ready_bytes(), 0, "nothing is touched before it is needed");
    put(&arena, "block", 1 << 20);
    assert!(arena.ready_bytes() >= 1 << 20 && arena.janitor_pid().is_none());
    assert!(arena.wait_ready(Instant::now() + PATIENCE));
    assert_eq!((arena.ready_bytes(), arena.janitor_pid()), (16 << 20, None));
}

#[test]
fn handles_come_and_go() {
    let Some(folder) = given() else { return };
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let before = (count("task"), count("fd"));
    for round in 0..50 {
        let arena = Arena::open(&config(&folder)).unwrap();
        let other = arena.clone();
        put(&arena, &round.to_string(), 1000);
        drop(arena);
        drop(other);
    }
    assert_eq!((count("task"), count("fd")), before, "threads and descriptors");
    stay();
}

#[test]
fn a_handle_leaves_no_thread_and_no_descriptor_behind() {
    if given().is_some() {
        return;
    }
    let folder = folder();
    process("handles_come_and_go", folder.path()).end();
}
