//! Names, whose blocks are replaced, and deletion: no older block comes back from below.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::MissReason;
use cascade_store::{Level, Put, Reach, Store};

use crate::rig::{Rig, level, soon};

fn name() -> BlockId {
    BlockId::named("the same name")
}

fn put(store: &Store, byte: u8, len: usize) -> Outcome {
    store.put(&name(), &vec![byte; len], Put::default())
}

fn got(store: &Store) -> Result<Vec<u8>, MissReason> {
    let mut out = vec![0; 100_000];
    store.get(&name(), &mut out).map(|meta| out[..usize::try_from(meta.len).unwrap()].to_vec())
}

/// Evicts everything from the arena, without a word to the files.
fn lose_arena(rig: &Rig, store: Store) -> Store {
    drop(store);
    rig.lose_the_arena();
    rig.open("32MiB", &[("demote", "off")])
}

#[test]
fn an_older_block_in_files_never_comes_back() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "off")]);
    assert_eq!(store.put(&name(), &[1; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
    assert_eq!(put(&store, 2, 2000), Outcome::Stored);
    assert_eq!(got(&store), Ok(vec![2; 2000]));
    let store = lose_arena(&rig, store);
    assert_eq!(
        got(&store),
        Err(MissReason::Absent),
        "the newer one is lost with the arena, and the older is no answer"
    );
}

#[test]
fn equal_bytes_exist_wherever_they_are() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "off")]);
    assert_eq!(store.put(&name(), &[1; 70_000], Put::default().until(Reach::Files)), Outcome::Stored);
    assert_eq!(put(&store, 1, 70_000), Outcome::Exists);
    let store = lose_arena(&rig, store);
    assert_eq!(put(&store, 1, 70_000), Outcome::Exists);
    assert_eq!(level(&store, &name()), Some(Level::Files));
    assert_eq!(put(&store, 3, 70_000), Outcome::Stored);
    assert_eq!((level(&store, &name()), got(&store)), (Some(Level::Arena), Ok(vec![3; 70_000])));
    assert_eq!(put(&store, 1, 70_000), Outcome::Stored, "what was forgotten is stored anew");
}

#[test]
fn the_newest_of_many_is_what_files_keep() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    for round in 0..100_u8 {
        assert_eq!(put(&store, round, 50_000 + usize::from(round)), Outcome::Stored);
        assert_eq!(got(&store), Ok(vec![round; 50_000 + usize::from(round)]));
    }
    let store = lose_arena(&rig, store);
    assert_eq!(got(&store), Ok(vec![99; 50_099]));
}

#[test]
fn a_name_too_large_for_the_arena_replaces_what_the_arena_has() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[]);
    assert_eq!(put(&store, 1, 1000), Outcome::Stored);
    assert_eq!(store.put(&name(), &vec![2; 20 << 20], Put::default()), Outcome::Stored);
    let mut out = vec![0; 20 << 20];
    assert_eq!(store.get(&name(), &mut out).map(|meta| meta.len), Ok(20 << 20));
    assert!(out.iter().all(|byte| *byte == 2));
    assert_eq!(put(&store, 3, 1000), Outcome::Stored);
    assert_eq!(got(&store), Ok(vec![3; 1000]));
}

#[test]
fn a_reservation_of_a_name_replaces_in_files_too() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "off")]);
    assert_eq!(store.put(&name(), &[1; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
    let reserve = || match store.reserve(&name(), 3, Put::default()) {
        Reserve::Reserved(reservation) => reservation,
        other => panic!("{other:?}"),
    };
    drop(reserve());
    assert_eq!(got(&store), Ok(vec![1; 1000]), "a reservation that is given up changes nothing");
    let mut reservation = reserve();
    assert!(reservation.write_at(0, b"new"));
    let in_flight = reservation.start_transfer().unwrap();
    assert!(matches!(in_flight.complete().unwrap().seal(), Sealed::Stored(meta) if meta.len == 3));
    assert_eq!(got(&store), Ok(b"new".to_vec()));
    let store = lose_arena(&rig, store);
    assert_eq!(got(&store), Err(MissReason::Absent));
}

#[test]
fn deleted_is_deleted_in_every_tier() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    assert_eq!(put(&store, 1, 1000), Outcome::Stored);
    store.flush(soon()).unwrap();
    assert!(store.delete(&name()) && !store.delete(&name()));
    assert_eq!(got(&store), Err(MissReason::Absent));
    let store = lose_arena(&rig, store);
    assert_eq!(got(&store), Err(MissReason::Absent));
    assert_eq!(store.put(&name(), &[2; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
    let store = lose_arena(&rig, store);
    assert!(store.delete(&name()), "it was in files alone");
    assert_eq!(got(&store), Err(MissReason::Absent));
}

#[test]
fn another_handle_deletes_what_it_has_not_heard_of_yet() {
    let rig = Rig::new();
    let (first, second) = (rig.open("32MiB", &[]), rig.open("32MiB", &[]));
    for round in 0..20_u8 {
        assert_eq!(first.put(&name(), &[round; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
        // The second handle reads the first one's log every quarter of a second.
        assert!(second.delete(&name()));
        first.arena().clear();
        assert_eq!(got(&second), Err(MissReason::Absent));
    }
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!((got(&first), got(&second)), (Err(MissReason::Absent), Err(MissReason::Absent)));
}

#[test]
fn clear_forgets_every_tier() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    for number in 0..50_u8 {
        assert_eq!(store.put(&BlockId::content(&[number]), &[number; 5000], Put::default()), Outcome::Stored);
    }
    store.clear().unwrap();
    let stats = store.stats();
    assert_eq!((stats.total().blocks, stats.total().used_bytes), (0, 0));
    let store = lose_arena(&rig, store);
    assert_eq!(store.stats().total().blocks, 0);
}
