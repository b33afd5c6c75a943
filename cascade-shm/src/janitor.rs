//! The janitor: of all handles that are open on an arena, one grows it, and recovers whoever dies, without anyone calling.
//! Each handle has a thread that tries to be it; the role goes on when its holder leaves or dies.

mod raw;
mod watch;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::collapse::Sweeper;
use crate::evict::stock;
use crate::grow::Grower;
use crate::process::{ForkGuard, fork_epoch};
use crate::role::{Role, Standing};
use crate::seal;
use crate::session::{Core, Stripe};
use watch::Watch;

/// How often the janitor looks for what no descriptor tells of, and the others at who has the role.
const ROUND: Duration = Duration::from_millis(40);

/// A handle's thread, stopped when dropped.
#[derive(Debug)]
pub struct Janitor {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    epoch: u64,
}

#[derive(Debug)]
struct Stop {
    is_set: AtomicBool,
    bell: ForkGuard,
}

impl Janitor {
    /// Starts the thread. `None` when the system gives none: others, and operations that find something dead, then do its work.
    #[must_use]
    pub fn start(core: &Arc<Core>, stripes: &[Arc<Stripe>], file: File) -> Option<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = OwnedFd::from(EventFd::from_value_and_flags(0, flags).ok()?);
        let stop = Arc::new(Stop { is_set: AtomicBool::new(false), bell: ForkGuard::new(bell) });
        let worker =
            Worker { core: Arc::clone(core), stripes: stripes.to_vec(), file, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("cascade-janitor".into());
        let thread = thread.spawn(move || worker.work()).ok()?;
        Some(Self { stop, thread: Some(thread), epoch: fork_epoch() })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.epoch != fork_epoch() {
            // A forked child has the handle of a thread that it does not have.
            std::mem::forget(thread);
            return;
        }
        self.stop.is_set.store(true, Ordering::Relaxed);
        // If the bell cannot be rung, the thread looks by itself after a round.
        let _ = nix::unistd::write(&self.stop.bell, &1_u64.to_ne_bytes());
        // It never panics; and if it did, there is nothing to tell anyone here.
        let _ = thread.join();
    }
}

struct Worker {
    core: Arc<Core>,
    stripes: Vec<Arc<Stripe>>,
    file: File,
    stop: Arc<Stop>,
}

impl Worker {
    fn work(&self) {
        let core = &*self.core;
        let mut role = Role::new(&core.map().control().janitor, core.holder());
        let mut watch = Watch::default();
        let mut grower = None;
        let mut sweeper = Sweeper::new(&self.core, &self.file);
        let mut ended = Vec::new();
        while !self.stop.is_set.load(Ordering::Relaxed) {
            match role.tend(&|holder| !watch.sees_alive(holder, &ended) && core.is_dead(holder)) {
                Standing::Held(_) => {
                    crate::kill::point("janitor.holding");
                    watch.recover(core, &ended);
                    let grower = grower.get_or_insert_with(|| Grower::new(&self.core, &self.file));
                    if !grower.tend() {
                        sweeper.tend();
                    }
                }
                Standing::Elsewhere(holder) => watch.only(core, holder),
            }
            seal::release_quarantine(core, &self.stripes);
            self.stripes.iter().for_each(|stripe| stock::give_up_idle(stripe));
            (0..core.waiting.len()).for_each(|_| seal::free_waiting(core, &self.stripes));
            ended = self.wait(&watch);
        }
    }

    /// Waits for a round, the bell, or somebody's end: says whose.
    fn wait(&self, watch: &Watch) -> Vec<bool> {
        let mut polled = vec![PollFd::new(self.stop.bell.as_fd(), PollFlags::POLLIN)];
        polled.extend(watch.descriptors().map(|ended| PollFd::new(ended.as_fd(), PollFlags::POLLIN)));
        let round = PollTimeout::try_from(ROUND).unwrap_or(PollTimeout::ZERO);
        if nix::poll::poll(&mut polled, round).is_err() {
            // Interrupted, or no memory for it: a round without news.
            std::thread::sleep(ROUND / 8);
            return Vec::new();
        }
        polled.iter().skip(1).map(|polled| polled.any().unwrap_or(true)).collect()
    }
}
