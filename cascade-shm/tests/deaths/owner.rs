//! The owner that dies: a process that holds of everything something.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::lease::Lease;
use cascade_core::memory::Piece;
use cascade_core::reservation::{InFlight, Reservation, Reserve};
use cascade_core::tier::{Addressable, MissReason, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::block;
use crate::raw;

/// Blocks that the survivors put, numbered from 0.
pub const BASE: u64 = 60;
/// Number of the first block of the owner's own.
pub const OWN: u64 = 1000;
/// Own blocks that stay sealed.
pub const SEALED: u64 = 4;
/// Reservations, and of those in flight.
pub const RESERVED: u64 = 3;
pub const FLYING: u64 = 2;

pub fn config(folder: &Path) -> ArenaConfig {
    let config = ArenaConfig::new(folder.join("arena")).capacity(48 << 20);
    ArenaConfig { region_bytes: Some(1 << 20), owners: Some(16), ..config }
}

pub fn run(arena: &Arena, op: Op) -> Outcome {
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

pub fn put(arena: &Arena, number: u64) -> Outcome {
    let from = Piece::shared(Arc::from(block::bytes(number, 7))).into();
    run(arena, Op::Store { id: block::id(number), from, meta: PutMeta::default() })
}

pub fn delete(arena: &Arena, number: u64) -> Outcome {
    run(arena, Op::Delete { id: block::id(number) })
}

fn reserve(arena: &Arena, number: u64) -> Reservation {
    let data = block::bytes(number, 7);
    let reserved = arena.reserve(&block::id(number), data.len() as u64, PutMeta::default());
    let Reserve::Reserved(mut place) = reserved else { panic!("no room for block {number}") };
    assert!(place.write_at(0, &data[..data.len() / 2]));
    place
}

struct Held {
    leases: Vec<(u64, Lease)>,
    reserved: Vec<(u64, Reservation)>,
    flying: Vec<InFlight>,
}

/// Leases, some of them of blocks that are deleted under them; reservations half filled; transfers under way, and one given
/// up. With `full`, leases until there is no ledger entry left.
fn hold(arena: &Arena, full: bool) -> Held {
    let lease = |number: u64| (number, arena.lease(&block::id(number)).unwrap());
    (OWN..OWN + SEALED + 2).for_each(|number| assert_eq!(put(arena, number), Outcome::Stored));
    let mut leases: Vec<_> = (0..BASE).chain(OWN..OWN + SEALED + 2).map(lease).collect();
    (OWN + SEALED..OWN + SEALED + 2).for_each(|number| assert_eq!(delete(arena, number), Outcome::Deleted));
    let reserved = (OWN + 10..OWN + 10 + RESERVED).map(|number| (number, reserve(arena, number))).collect();
    let fly = |number| reserve(arena, number).start_transfer().unwrap();
    let flying = (OWN + 20..OWN + 20 + FLYING).map(fly).collect();
    // The last to be filled: the next would find the end of its time in quarantine.
    drop(fly(OWN + 30));
    for number in (0..BASE).cycle().take_while(|_| full) {
        match arena.lease(&block::id(number)) {
            Ok(lease) => leases.push((number, lease)),
            Err(MissReason::Throttled) => break,
            Err(why) => panic!("a lease answers {why:?}"),
        }
    }
    Held { leases, reserved, flying }
}

impl Held {
    /// Everything is as it was.
    fn check(self) {
        for (number, lease) in &self.leases {
            let mut found = vec![0; lease.len()];
            assert!(lease.read_at(0, &mut found));
            block::verify(*number, &found);
        }
        for (number, mut place) in self.reserved {
            let data = block::bytes(number, 7);
            assert!(place.write_at(data.len() / 2, &data[data.len() / 2..]));
            assert!(matches!(place.seal(), cascade_core::reservation::Sealed::Stored(_)));
        }
        for flight in self.flying {
            assert!(flight.complete().is_some());
        }
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").unwrap();
    out.flush().unwrap();
}

/// What an owner process does, by the name that it is started with.
pub fn work(mode: &str, folder: &Path) {
    // The test harness has written the beginning of a line.
    say("");
    match mode {
        "hold" | "full" | "forked" => {
            let arena = Arena::open(&config(folder)).unwrap();
            let held = hold(&arena, mode == "full");
            let child = if mode == "forked" { raw::bare_child(folder) } else { 0 };
            say(&format!("ready {child}"));
            if std::io::stdin().lock().lines().next().is_some() {
                held.check();
                say("fine");
            }
        }
        // Puts until a kill point ends or stops it.
        "put" => {
            let arena = Arena::open(&config(folder)).unwrap();
            say("ready 0");
            for number in 0..2000 {
                put(&arena, OWN * 2 + number);
            }
            say("fine");
            std::io::stdin().lock().lines().next();
        }
        // In a pid namespace of its own whose /proc shows another: an owner with a number that nobody has there.
        "nested" => {
            std::fs::write("/proc/sys/kernel/ns_last_pid", "2000000").unwrap();
            assert!(start("nested-owner", folder).status().unwrap().success());
        }
        "nested-owner" => {
            let arena = Arena::open(&config(folder)).unwrap();
            assert!(start("nested-judge", folder).status().unwrap().success());
            drop(arena);
        }
        "nested-judge" => {
            let arena = Arena::open(&config(folder)).unwrap();
            (0..3).for_each(|_| arena.recover());
            say(&format!("owners {}", arena.audit().unwrap().live_owners));
        }
        other => panic!("no such owner: {other}"),
    }
}

/// This program as an owner process.
pub fn start(mode: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    prepare(&mut command, mode, folder);
    command
}

/// As [`start`], in a pid namespace of its own.
pub fn start_in_namespace(mode: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(std::env::current_exe().unwrap());
    prepare(&mut command, mode, folder);
    command
}

fn prepare(command: &mut Command, mode: &str, folder: &Path) {
    command.args(["--exact", "owner_process", "--nocapture", "--test-threads=1"]);
    command.env("CASCADE_DEATH_MODE", mode).env("CASCADE_DEATH_FOLDER", folder);
    command.env_remove("CASCADE_KILL_POINT");
}
