//! Agents that come, go, and hang.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::tier::MissReason;
use cascade_store::remote::{Agent, Client};

use crate::other::{Nodes, bytes, fill, id};

#[test]
fn a_client_outlives_its_agent_and_finds_the_next_one() {
    let mut nodes = Nodes::new("");
    fill(&nodes.other, 0..3);
    let mut out = vec![0; 1 << 20];
    assert!(nodes.client.get(&id(0), &mut out).is_ok());
    let client = Client::new(nodes.client.arena().path());
    assert!(client.is_served());
    nodes.end_agent();
    assert!(!client.is_served());
    assert_eq!(nodes.client.get(&id(1), &mut out), Err(MissReason::Unavailable));
    // What is here is served all the same.
    assert!(nodes.client.get(&id(0), &mut out).is_ok());
    nodes.start_agent();
    let until = Instant::now() + Duration::from_secs(20);
    while nodes.client.get(&id(1), &mut out).is_err() {
        assert!(Instant::now() < until, "the next agent is found");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_agent_serves_a_node_and_what_a_killed_one_left_is_no_hindrance() {
    let mut nodes = Nodes::new("");
    let arena = nodes.client.arena().path().to_owned();
    let error = Agent::start(&arena, Arc::clone(&nodes.far) as Arc<_>).unwrap_err();
    assert!(error.to_string().contains("another agent serves"), "{error}");
    let socket = nodes.agent().socket().to_owned();
    nodes.end_agent();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    nodes.start_agent();
    assert!(Client::new(&arena).is_served());
}

#[test]
fn an_agent_that_hangs_costs_a_miss_and_not_more() {
    let nodes = Nodes::new("");
    fill(&nodes.other, [1]);
    nodes.far.hang(true);
    let until = Instant::now() + Duration::from_millis(100);
    let brought = Client::new(nodes.client.arena().path());
    let brought = cascade_store::remote::Remote::bring(&brought, &[id(1)], until);
    assert_eq!(brought, [Err(MissReason::Deadline)]);
    nodes.far.hang(false);
}

#[test]
fn many_clients_ask_at_once() {
    let nodes = Nodes::new("");
    fill(&nodes.other, 0..32);
    std::thread::scope(|scope| {
        for of in 0..8 {
            let store = nodes.client.clone();
            scope.spawn(move || {
                for number in (0..32).map(|number| (number + of * 5) % 32) {
                    let mut out = vec![0; bytes(number).len()];
                    let got = store.get(&id(number), &mut out).map(|meta| meta.len);
                    assert_eq!(got, Ok(out.len() as u64), "block {number}");
                    assert!(out == bytes(number), "block {number} has other bytes");
                }
            });
        }
    });
}
