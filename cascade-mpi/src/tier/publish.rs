//! Telling the directory what this home has: what was put by this tier at once, what others of the node put when it is seen, and
//! everything again from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;

use super::bring::Remote;
use crate::directory::Owner;
use crate::home::Place;
use crate::message::{Message, PUBLISHED};

/// The first rest after something was found; it doubles up to what the settings say.
const SHORTEST: Duration = Duration::from_millis(5);

enum Ask {
    Put(BlockId),
    Flush(Sender<()>),
    Stop,
}

/// The thread that publishes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    asks: Sender<Ask>,
    join: Option<JoinHandle<()>>,
}

impl Publisher {
    pub(super) fn start(remote: Arc<Remote>) -> std::io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let work = move || Work::new(remote).run(&asked);
        let join = std::thread::Builder::new().name("cascade-publish".into()).spawn(work)?;
        Ok(Self { asks, join: Some(join) })
    }

    /// A block was put.
    pub(super) fn put(&self, id: BlockId) {
        let _ = self.asks.send(Ask::Put(id));
    }

    /// Waits until all that is there now is published; `false` when `deadline` passed first.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let (tell, told) = mpsc::channel();
        self.asks.send(Ask::Flush(tell)).is_ok()
            && told.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.asks.send(Ask::Stop);
        if let Some(join) = self.join.take() {
            let _ = join.join();
        }
    }
}

struct Work {
    remote: Arc<Remote>,
    seen: Vec<u64>,
    /// By the rank that keeps their entries.
    found: BTreeMap<u32, Vec<(BlockId, Place)>>,
    rest: Duration,
}

impl Work {
    fn new(remote: Arc<Remote>) -> Self {
        Self { remote, seen: Vec::new(), found: BTreeMap::new(), rest: SHORTEST }
    }

    fn run(&mut self, asked: &Receiver<Ask>) {
        let mut whole = Instant::now();
        loop {
            match asked.recv_timeout(self.rest) {
                Ok(Ask::Put(id)) => {
                    self.put(&id);
                    // What else is waiting goes in the same messages.
                    for ask in asked.try_iter() {
                        match ask {
                            Ask::Put(id) => self.put(&id),
                            Ask::Flush(tell) => self.flush(&tell),
                            Ask::Stop => return,
                        }
                    }
                    self.say();
                }
                Ok(Ask::Flush(tell)) => self.flush(&tell),
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if whole.elapsed() >= self.remote.config.again_every {
                        whole = Instant::now();
                        self.seen.clear();
                    }
                    let found = self.look();
                    let next = if found { SHORTEST } else { self.rest * 2 };
                    self.rest = next.min(self.remote.config.news_every);
                }
            }
        }
    }

    fn put(&mut self, id: &BlockId) {
        if let Some(place) = self.remote.home.place(id) {
            self.keep(*id, place);
        }
    }

    fn flush(&mut self, tell: &Sender<()>) {
        self.look();
        let _ = tell.send(());
    }

    /// Publishes what became visible; whether there was anything.
    fn look(&mut self) -> bool {
        let mut seen = std::mem::take(&mut self.seen);
        let home = Arc::clone(&self.remote.home);
        home.news(&mut seen, &mut |id, place| self.keep(id, place));
        self.seen = seen;
        self.say()
    }

    fn keep(&mut self, id: BlockId, place: Place) {
        let rank = self.remote.fabric.route().of(&id).rank;
        self.found.entry(rank).or_default().push((id, place));
    }

    fn say(&mut self) -> bool {
        let (fabric, own) = (&self.remote.fabric, self.remote.fabric.rank());
        let incarnation = self.remote.home.incarnation() as u32;
        let found = std::mem::take(&mut self.found);
        for (rank, blocks) in &found {
            for some in blocks.chunks(PUBLISHED) {
                let record = |(id, place): &(BlockId, Place)| {
                    let Place { meta, slot, generation, offset } = *place;
                    (*id, meta, Owner { rank: own, slot, generation, incarnation, offset })
                };
                fabric.tell(*rank, Message::Publish(some.iter().map(record).collect()));
                self.remote.counters.published.fetch_add(some.len() as u64, Relaxed);
            }
        }
        !found.is_empty()
    }
}
