//! A process that holds a lease on node `n1`'s arena when it is stopped or killed.

use std::process::{Child, Command, Stdio};

use cascade_core::id::BlockId;
use cascade_store::{Store, StoreConfig};
use nix::sys::signal::{Signal, raise};

use crate::rig::{Place, put};

/// Name the place and the signal to the child.
const PLACE: &str = "CASCADE_TEST_PLACE";
const SIGNAL: &str = "CASCADE_TEST_SIGNAL";

/// Starts the process, which sends `signal` to itself.
pub(crate) fn child(place: &Place, signal: Signal) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "child::holds_a_lease"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.env(PLACE, place.dir()).env(SIGNAL, signal.as_str()).spawn().unwrap()
}

#[test]
#[ignore = "the process that other tests start"]
fn holds_a_lease() {
    let builder = StoreConfig::builder().without_environment().shm_path(std::env::var(PLACE).unwrap());
    let builder = builder.shm_capacity("32MiB").unwrap().set("node", "n1").unwrap();
    let store = Store::open(&builder.resolve().unwrap()).unwrap();
    put(&store, "block", &[1; 9999]);
    let _lease = store.lease(&BlockId::named("block")).unwrap();
    raise(std::env::var(SIGNAL).unwrap().parse::<Signal>().unwrap()).unwrap();
}
