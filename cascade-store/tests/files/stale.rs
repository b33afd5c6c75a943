//! Two handles of a node, each with an index of its own of the files, which follows the other's log late: nobody is shown what was
//! replaced or deleted before.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Put, Reach, Store};

use crate::rig::{Rig, block};

fn name() -> BlockId {
    BlockId::named("seen by two")
}

/// What a handle reads, by each of the ways in turn.
fn read(store: &Store, round: u8) -> Result<u8, MissReason> {
    let mut out = [0; 1000];
    match round % 3 {
        0 => store.lease(&name()).map(|lease| assert!(lease.read_at(0, &mut out)))?,
        1 => store.get(&name(), &mut out).map(drop)?,
        _ => store.get_part(&name(), 7, &mut out[..500]).map(drop)?,
    }
    Ok(out[0])
}

#[test]
fn a_name_is_never_older_than_what_was_acknowledged() {
    let rig = Rig::new();
    let stores = [rig.open("32MiB", &[]), rig.open("32MiB", &[])];
    for round in 1..60_u8 {
        // Which of them writes changes too: who replaces must know of what the other has copied.
        let (writer, other) = (&stores[usize::from(round / 8 % 2)], &stores[usize::from(1 - round / 8 % 2)]);
        let put = Put::default().until(Reach::Files);
        assert_eq!(writer.put(&name(), &[round; 1000], put), Outcome::Stored);
        writer.arena().clear();
        for store in [other, writer] {
            assert_eq!(read(store, round), Ok(round), "round {round}");
        }
    }
}

#[test]
fn what_is_not_copied_leaves_nothing_older_behind() {
    let rig = Rig::new();
    let [first, second] = [rig.open("32MiB", &[("demote", "off")]), rig.open("32MiB", &[("demote", "off")])];
    for round in 1..30_u8 {
        assert_eq!(first.put(&name(), &[round; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
        first.arena().clear();
        // Its index does not tell of the block in files yet, which must go nevertheless.
        assert_eq!(second.put(&name(), &[100 + round; 1000], Put::default()), Outcome::Stored);
        first.arena().clear();
        for store in [&first, &second] {
            assert_eq!(read(store, round), Err(MissReason::Absent), "round {round}");
        }
    }
}

#[test]
fn what_was_deleted_does_not_come_up_again() {
    let rig = Rig::new();
    let [first, second] = [rig.open("32MiB", &[]), rig.open("32MiB", &[])];
    for round in 1..40_u8 {
        let (id, bytes) = block(u64::from(round), 1000);
        let blocks = [(id, &bytes[..]), (name(), &bytes[..])];
        assert_eq!(first.put_batch(&blocks, Put::default().until(Reach::Files)), [Outcome::Stored; 2]);
        // Both indexes tell of them.
        let known = |store: &Store| blocks.iter().all(|(id, _)| store.contains(id));
        first.arena().clear();
        crate::rig::eventually("the other handle has read on", || known(&second));
        assert!(first.delete(&id) && first.delete(&name()));
        let mut part = [0; 10];
        assert_eq!(second.get_part(&name(), 0, &mut part), Err(MissReason::Absent), "round {round}");
        assert!(second.get_part(&id, 0, &mut part).is_err(), "round {round}");
        assert_eq!(second.lease(&id).err().map(|_| ()), Some(()), "round {round}");
        assert_eq!(second.lease(&name()).err(), Some(MissReason::Absent), "round {round}");
        assert!(!first.contains(&id) && !first.contains(&name()), "round {round}");
    }
}
