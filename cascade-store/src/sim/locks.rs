//! The record locks of a simulation: the very protocol that ships, over bytes that exist here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::clock::Clock;
use parking_lot::Mutex;

use super::world::World;
use crate::moves::changes::{Page, WORDS};
use crate::moves::node::Bytes;

/// Who has which byte.
pub(super) type Held = Arc<Mutex<BTreeMap<i64, usize>>>;

/// The page that the processes of a node share. What a process does while it is killed never happened.
#[derive(Debug)]
pub(super) struct SimPage {
    words: Vec<AtomicU64>,
    unseen: Vec<AtomicU64>,
}

impl Default for SimPage {
    fn default() -> Self {
        let words = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words: words(), unseen: words() }
    }
}

impl SimPage {
    /// It goes with the node.
    pub(super) fn lose(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

impl Page for SimPage {
    fn words(&self) -> &[AtomicU64] {
        if std::thread::panicking() { &self.unseen } else { &self.words }
    }
}

/// Those of one process.
#[derive(Debug)]
pub(super) struct SimBytes {
    pub(super) world: Arc<World>,
    pub(super) held: Held,
    pub(super) process: usize,
}

impl Bytes for SimBytes {
    fn try_take(&self, at: i64) -> bool {
        *self.held.lock().entry(at).or_insert(self.process) == self.process
    }

    fn give_back(&self, at: i64) {
        let mut held = self.held.lock();
        if held.get(&at) == Some(&self.process) {
            held.remove(&at);
        }
    }

    fn is_held(&self, at: i64) -> bool {
        self.held.lock().get(&at).is_some_and(|holder| *holder != self.process)
    }

    fn now(&self) -> Duration {
        self.world.clock.now()
    }

    fn nap(&self, time: Duration) {
        self.world.waits.fetch_add(1, Ordering::Relaxed);
        self.world.clock.advance(time);
        self.world.pass();
    }
}
