//! Owners that are stopped, or whose process id says something else than it seems to.

use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::tier::{Lookup, MissReason, Tier};
use nix::sys::signal::Signal;

use crate::owner::{self, BASE, OWN};
use crate::rig::{Owner, PATIENCE, Rig};
use crate::{block, no_namespaces};

/// Number of the first block that only presses.
const PRESSURE: u64 = 5000;

fn look(rig: &Rig, number: u64) -> Lookup {
    let mut found = [Lookup::Pending];
    rig.survivors[0].lookup(&[block::id(number)], &mut found);
    found[0]
}

#[test]
fn a_stopped_owner_keeps_all_that_it_holds() {
    let rig = Rig::new();
    for _ in 0..20 {
        let mut owner = Owner::spawn(&mut owner::start("hold", &rig.path()));
        owner.hear("ready ");
        owner.signal(Signal::SIGSTOP);
        owner.wait_stopped();
        let held = rig.now().0;
        // Others want its room, and look for the dead.
        for number in PRESSURE..PRESSURE + 200 {
            assert_eq!(owner::put(&rig.survivors[0], number), Outcome::Stored);
        }
        rig.survivors.iter().for_each(|survivor| survivor.recover());
        let now = rig.now().0;
        assert_eq!((now.live_owners, now.ledger_entries), (held.live_owners, held.ledger_entries));
        assert_eq!((now.filling_slots, now.retired_slots), (held.filling_slots, held.retired_slots));
        owner.signal(Signal::SIGCONT);
        owner.tell("check\n");
        owner.hear("fine");
        owner.signal(Signal::SIGKILL);
        rig.reclaimed(Instant::now());
        owner.reap();
        rig.survivors[0].clear();
        (0..BASE).for_each(|number| assert_eq!(owner::put(&rig.survivors[0], number), Outcome::Stored));
        assert_eq!(rig.now(), rig.before);
    }
}

/// An owner that stops itself at `point`, in an arena that is full.
fn stopped_at(rig: &Rig, point: &str) -> Owner {
    for number in PRESSURE..PRESSURE + 300 {
        assert_eq!(owner::put(&rig.survivors[0], number), Outcome::Stored);
    }
    assert!(rig.survivors[0].stats().evictions > 0, "the arena is full");
    let mut command = owner::start("put", &rig.path());
    let owner = Owner::spawn(command.env("CASCADE_KILL_POINT", format!("{point}:1:stop")));
    owner.wait_stopped();
    owner
}

#[test]
fn a_block_that_a_stopped_owner_is_evicting_is_not_absent() {
    for end in [Signal::SIGKILL, Signal::SIGCONT] {
        let rig = Rig::new();
        let owner = stopped_at(&rig, "evict.begun");
        let all = (0..BASE).chain(PRESSURE..PRESSURE + 300);
        let begun: Vec<u64> =
            all.filter(|number| look(&rig, *number) == Lookup::Miss(MissReason::Evicting)).collect();
        assert!(!begun.is_empty(), "nothing is being evicted");
        for number in &begun {
            let answer = owner::delete(&rig.survivors[0], *number);
            assert_eq!(answer, Outcome::Miss(MissReason::Evicting), "it may come back");
        }
        owner.signal(end);
        if end == Signal::SIGKILL {
            owner.reap();
            rig.reclaimed(Instant::now());
            for number in begun {
                assert!(matches!(look(&rig, number), Lookup::Hit(_)), "it came back");
                assert_eq!(owner::delete(&rig.survivors[0], number), Outcome::Deleted);
                assert_eq!(look(&rig, number), Lookup::Miss(MissReason::Absent));
            }
            continue;
        }
        let deadline = Instant::now() + PATIENCE;
        while begun.iter().any(|number| look(&rig, *number) == Lookup::Miss(MissReason::Evicting)) {
            assert!(Instant::now() < deadline, "the eviction does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        owner.signal(Signal::SIGKILL);
        owner.reap();
    }
}

#[test]
fn what_waits_for_a_stopped_owner_is_counted_and_ends_with_the_wait() {
    for end in [Signal::SIGCONT, Signal::SIGKILL] {
        let rig = Rig::new();
        let survivor = &rig.survivors[0];
        // It holds the lock of a region.
        let owner = stopped_at(&rig, "alloc.locked");
        let since = Instant::now();
        survivor.clear();
        let waiting = survivor.stats().waiting_blocks;
        assert!(waiting > 0, "no block of the region had to wait");
        assert_eq!(rig.now().0.leaving_slots, waiting);
        // The other regions serve, and nobody waits for this one again and again.
        for number in PRESSURE..PRESSURE + 300 {
            assert_eq!(owner::put(survivor, number), Outcome::Stored);
        }
        assert!(since.elapsed() < PATIENCE, "others are held up: {:?}", since.elapsed());
        assert!(survivor.stats().waiting_blocks > 0);
        owner.signal(end);
        let deadline = Instant::now() + PATIENCE;
        while survivor.stats().waiting_blocks > 0 {
            assert!(Instant::now() < deadline, "what waits is never freed");
            survivor.recover();
            std::thread::sleep(Duration::from_millis(1));
        }
        if end == Signal::SIGCONT {
            owner.signal(Signal::SIGKILL);
        }
        owner.reap();
        rig.reclaimed(Instant::now());
        survivor.clear();
        let (audit, used) = rig.now();
        assert_eq!(
            (used, audit.leaving_slots, audit.disagreements, audit.sealed_slots),
            (0, 0, 0, 0),
            "{audit:?}"
        );
    }
}

#[test]
fn a_process_id_that_is_used_again_does_not_keep_an_owner_alive() {
    let last = "/proc/sys/kernel/ns_last_pid";
    if let Err(error) = std::fs::OpenOptions::new().write(true).open(last) {
        println!("process ids used again: not run, cannot write {last}: {error}");
        return;
    }
    let mut rig = Rig::new();
    let mut owner = Owner::spawn(&mut owner::start("forked", &rig.path()));
    let child: i32 = owner.hear("ready ").parse().unwrap();
    // They would notice at once.
    rig.survivors.clear();
    owner.signal(Signal::SIGKILL);
    let pid = owner.reap();
    // Others start processes meanwhile: it may take more than one attempt. The start time differs by a tick at least.
    std::thread::sleep(Duration::from_millis(20));
    let mut same = None;
    for _ in 0..200 {
        std::fs::write(last, (pid - 1).to_string()).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        if other.id() == pid {
            same = Some(other);
            break;
        }
        other.kill().unwrap();
        other.wait().unwrap();
    }
    let mut same = same.unwrap();
    rig.join();
    // The forked child keeps the lock, and the id has a process; its start time tells.
    rig.reclaimed(Instant::now());
    same.kill().unwrap();
    same.wait().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
    for number in OWN..OWN + owner::SEALED {
        assert_eq!(owner::delete(&rig.survivors[0], number), Outcome::Deleted);
    }
    assert_eq!(rig.now(), rig.before);
}

#[test]
fn an_owner_whose_proc_shows_another_namespace_is_not_taken_for_dead() {
    if let Some(why) = no_namespaces() {
        println!("owners under a foreign /proc: not run, {why}");
        return;
    }
    let rig = Rig::new();
    let mut nested = Owner::spawn(&mut owner::start_in_namespace("nested", &rig.path()));
    // The survivors, the owner, and the one that looked.
    assert_eq!(nested.hear("owners "), "4");
    nested.reap();
}
