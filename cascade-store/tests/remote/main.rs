//! The store beside other nodes, without MPI: an agent on a real socket, whose other nodes are one more store of this process.

#![allow(clippy::unwrap_used, reason = "clippy sees helpers of an integration test as library code")]

mod agent;
mod other;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Level, Put};
use other::{Nodes, bytes, fill, id};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[test]
fn what_another_node_has_comes_here_and_is_a_hit_here_afterwards() {
    let nodes = Nodes::new("");
    fill(&nodes.other, 0..20);
    let store = &nodes.client;
    let ids: Vec<_> = (0..20).map(id).collect();
    assert!(store.locate(&ids).iter().all(|found| found.level == Some(Level::Remote)));
    assert_eq!(store.longest_prefix(&ids), 20);
    for _ in 0..2 {
        for number in 0..10 {
            let mut out = vec![0; bytes(number).len()];
            assert!(store.get(&id(number), &mut out).is_ok());
            assert!(out == bytes(number));
        }
    }
    let stats = store.stats();
    assert_eq!(
        (stats.hits(Level::Remote), stats.hits(Level::Arena), stats.moves.remote_brought),
        (10, 10, 10)
    );
    assert_eq!(stats.total().hits, 20);
    let bytes_of: u64 = (0..10).map(|number| bytes(number).len() as u64).sum();
    assert_eq!(stats.served_from(Level::Remote).served_bytes, bytes_of);
    assert!(store.locate(&ids[..10]).iter().all(|found| found.level == Some(Level::Arena)));
    // Leases, parts and prefetches bring too.
    assert_eq!(store.lease(&ids[10]).unwrap().len(), bytes(10).len());
    let mut part = [0; 7];
    assert!(store.get_part(&ids[11], 3, &mut part).is_ok());
    assert_eq!(part, bytes(11)[3..10]);
    let ticket = store.prefetch(&ids[9..14]);
    use Outcome::{Exists, Stored};
    assert_eq!(ticket.wait(soon()).unwrap(), [Exists, Exists, Exists, Stored, Stored]);
    assert_eq!(store.stats().hits(Level::Remote), 12);
}

#[test]
fn a_miss_has_the_reason_that_is_worth_knowing() {
    let nodes = Nodes::new("");
    let (mut out, store) = (vec![0; 1 << 20], &nodes.client);
    assert_eq!(store.get(&id(1), &mut out), Err(MissReason::Absent));
    fill(&nodes.other, [1]);
    nodes.far.fail_with(Some(MissReason::Deadline));
    assert_eq!(store.get(&id(1), &mut out), Err(MissReason::Deadline));
    assert_eq!(store.lease(&id(1)).err(), Some(MissReason::Deadline));
    assert_eq!(store.prefetch(&[id(1)]).wait(soon()).unwrap(), [Outcome::Miss(MissReason::Deadline)]);
    assert!(!store.contains(&id(1)));
    nodes.far.fail_with(None);
    assert!(store.get(&id(1), &mut out).is_ok());
    let misses = store.stats().misses;
    assert!(
        misses.contains(&(MissReason::Deadline, 2)) && misses.contains(&(MissReason::Absent, 1)),
        "{misses:?}"
    );
}

#[test]
fn a_name_may_mean_other_bytes_on_each_node_and_is_asked_for_on_none() {
    let nodes = Nodes::new("");
    let name = BlockId::named("greeting");
    assert_eq!(nodes.other.put(&name, b"there", Put::default()), Outcome::Stored);
    assert_eq!(nodes.client.get(&name, &mut [0; 9]), Err(MissReason::Absent));
    assert_eq!(nodes.far.asked(), 0);
}

#[test]
fn other_nodes_are_asked_before_files_and_files_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::new(dir.path().to_str().unwrap());
    let store = &nodes.client;
    fill(&nodes.other, [1]);
    fill(store, [1, 2]);
    store.flush(soon()).unwrap();
    assert!(store.demote(&[id(1), id(2)]).iter().all(|outcome| *outcome == Outcome::Stored));
    let levels: Vec<_> = store.locate(&[id(1), id(2), id(3)]).iter().map(|found| found.level).collect();
    assert_eq!(levels, [Some(Level::Remote), Some(Level::Files), None]);
    let outcomes = store.prefetch(&[id(1), id(2), id(3)]).wait(soon()).unwrap();
    assert_eq!(outcomes, [Outcome::Stored, Outcome::Stored, Outcome::Miss(MissReason::Absent)]);
}

#[test]
fn rubbish_on_the_socket_ends_that_connection_and_nothing_else() {
    let nodes = Nodes::new("");
    fill(&nodes.other, [1]);
    let mut stream = UnixStream::connect(nodes.agent().socket()).unwrap();
    stream.write_all(&[7; 64]).unwrap();
    // Half a question, and gone.
    let mut half = UnixStream::connect(nodes.agent().socket()).unwrap();
    half.write_all(b"CAGT").unwrap();
    drop(half);
    let mut out = vec![0; bytes(1).len()];
    assert!(nodes.client.get(&id(1), &mut out).is_ok());
    while nodes.agent().stats().turned_away == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(nodes.agent().stats().brought, 1);
}
