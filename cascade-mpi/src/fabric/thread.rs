//! What the thread of MPI does, over and over: messages, reads, and a rest whose length follows from what there was to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use cascade_core::Result;
use parking_lot::Mutex;

use super::card::Card;
use super::raw::{Mpi, Progress, Request, Window};
use super::reads::{Around, Looked, Reads};
use super::{Ask, Counters, FabricConfig, Path, Shared, Started};
use crate::directory::Table;
use crate::home::Home;
use crate::launch;
use crate::message::{Area, Message};
use crate::peers::Peers;
use crate::route::Route;

/// How long it looks without a rest after there was something to do: the next read of a chain comes within this.
const AWAKE: Duration = Duration::from_micros(300);
/// The same after a ping: another rank is about to read here, and that is not seen otherwise.
const AWAKE_FOR_READERS: Duration = Duration::from_millis(3);
/// A rank that is read from is pinged as often.
const PING_EVERY: Duration = Duration::from_millis(1);
/// Rests grow from the first to the last.
const RESTS: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(2)];
/// Messages under way to all ranks together, beyond which new ones are not sent.
const MOST_UNDER_WAY: usize = 16 * 1024;
/// How long answers that nobody waits for are looked for at the end.
const LAST_STRAYS: Duration = Duration::from_millis(500);
/// Messages taken in one turn.
const AT_A_TIME: usize = 64;

/// The thread's whole life. Tells `tell` how the start went.
pub(super) fn run(
    config: FabricConfig,
    home: &Arc<dyn Home>,
    asked: &Receiver<Ask>,
    tell: &Sender<Result<(Started, Arc<Shared>)>>,
) {
    let mut worker = match Worker::start(config, home) {
        Ok((worker, started)) => {
            let shared = Arc::clone(&worker.shared);
            if tell.send(Ok((started, shared))).is_err() {
                return;
            }
            worker
        }
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let stop = worker.serve(asked);
    worker.shared.ended.store(true, Ordering::Relaxed);
    let is_ended = stop.is_orderly && worker.mpi.end().is_ok();
    if let Some(tell) = stop.tell {
        let _ = tell.send(is_ended);
    }
}

/// Notes in the directory what `from` said, if it is ours to keep.
pub(super) fn note(table: &Table, route: Route, own: u32, message: Message) {
    match message {
        Message::Publish(records) => {
            for (id, meta, owner) in records {
                let at = route.of(&id);
                if at.rank == own && owner.rank < route.ranks() {
                    table.publish(at.bucket, &id, &meta, owner);
                }
            }
        }
        Message::Retract(records) => {
            for (id, owner) in records {
                let at = route.of(&id);
                if at.rank == own {
                    table.retract(at.bucket, &id, &owner);
                }
            }
        }
        _ => {}
    }
}

struct Stop {
    is_orderly: bool,
    tell: Option<Sender<bool>>,
}

struct Worker {
    mpi: Mpi,
    shared: Arc<Shared>,
    route: Route,
    directory: Window,
    arena: Window,
    reads: Reads,
    sends: Vec<Request>,
    pinged: Vec<Option<Instant>>,
    awake_until: Instant,
    rest: Duration,
    /// Keeps the windows' memory.
    _home: Arc<dyn Home>,
}

impl Worker {
    fn start(config: FabricConfig, home: &Arc<dyn Home>) -> Result<(Self, Started)> {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let launch = launch::detect(&environment.collect())?;
        let mut mpi = Mpi::start()?;
        let (rank, size) = (mpi.rank, mpi.size);
        launch.confirm(rank, size)?;
        let table = Arc::new(Table::new(rank, config.buckets));
        let (directory, arena) = (Window::of_table(&table), home.window());
        let cards = Card::all(&mpi.gather(&Card::of(&**home, table.buckets()).encode())?)?;
        // With one rank Open MPI 4 has no windows; nobody would read there.
        let path = if size == 1 {
            Path::Alone
        } else if config.windows && mpi.open_windows(&directory, &arena)? {
            Path::Rma
        } else {
            Path::Message
        };
        let started = Started { rank, library: mpi.library(), path, cards };
        let shared = Arc::new(Shared {
            peers: Mutex::new(Peers::new(size, config.patience)),
            counters: Counters::default(),
            began: Instant::now(),
            ended: AtomicBool::new(false),
            is_awake: AtomicBool::new(false),
            meetings: super::barrier::Meetings::default(),
            table,
        });
        let route = Route::new(size, shared.table.buckets());
        let worker = Self {
            mpi,
            shared,
            route,
            directory,
            arena,
            reads: Reads::new(path),
            sends: Vec::new(),
            pinged: vec![None; size as usize],
            awake_until: Instant::now(),
            rest: RESTS[0],
            _home: Arc::clone(home),
        };
        Ok((worker, started))
    }

    /// Until it is asked to stop and everybody has said goodbye.
    fn serve(&mut self, asked: &Receiver<Ask>) -> Stop {
        let mut leaving: Option<(Instant, Sender<bool>)> = None;
        let mut alone_since = None;
        loop {
            let mut is_busy = false;
            loop {
                match asked.try_recv() {
                    Ok(Ask::Read(reads)) => self.reads.push(reads),
                    Ok(Ask::Tell(rank, message)) => self.send(rank, &message),
                    Ok(Ask::Raw(raw)) => raw.run(&self.mpi, self.reads.path()),
                    Ok(Ask::Stop(patience, tell)) => {
                        leaving = Some((Instant::now() + patience, tell));
                        (0..self.mpi.size).for_each(|rank| self.send(rank, &Message::Bye));
                    }
                    Err(TryRecvError::Empty) => break,
                    // The handle says when to stop before it goes; without one nobody is left to be served here, but others are.
                    Err(TryRecvError::Disconnected) => return Stop { is_orderly: false, tell: None },
                }
                is_busy = true;
            }
            is_busy |= self.hear();
            is_busy |= self.look_at_reads();
            self.sends.retain_mut(|request| self.mpi.test(request) == Progress::UnderWay);
            if let Some((until, _)) = &leaving {
                let all_leave = self.shared.peers.lock().all_leave(self.mpi.rank);
                let is_orderly = all_leave && self.is_drained(&mut alone_since) && self.sends.is_empty();
                if is_orderly || Instant::now() >= *until {
                    return Stop { is_orderly, tell: leaving.map(|(_, tell)| tell) };
                }
            }
            self.pace(is_busy);
        }
    }

    /// Whether nothing is under way to this rank, once all have said goodbye. Answers that were given up may come a moment later: who
    /// sends them cannot leave before they are received.
    fn is_drained(&mut self, alone_since: &mut Option<Instant>) -> bool {
        let since = *alone_since.get_or_insert_with(Instant::now);
        self.reads.is_clear() && (self.reads.is_at_rest() || since.elapsed() >= LAST_STRAYS)
    }

    /// Takes what has arrived. Asking is also what lets the library serve reads by others.
    fn hear(&mut self) -> bool {
        for heard in 0..AT_A_TIME {
            let Some((from, len)) = self.mpi.probe() else { return heard > 0 };
            let Some(bytes) = self.mpi.receive(from, len) else { return true };
            self.shared.counters.messages.fetch_add(1, Ordering::Relaxed);
            let now = self.shared.began.elapsed();
            match Message::parse(&bytes) {
                Some(message) => {
                    self.shared.peers.lock().heard(from, now);
                    self.handle(from, message);
                }
                None => {
                    self.shared.counters.bad_messages.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        true
    }

    fn handle(&mut self, from: u32, message: Message) {
        match message {
            Message::Ping(_) => {
                self.awake_until = Instant::now() + AWAKE_FOR_READERS;
                let readers = {
                    let (mut peers, now) = (self.shared.peers.lock(), self.shared.began.elapsed());
                    peers.pinged(from, now);
                    peers.readers_but(from, now)
                };
                self.send(from, &Message::Pong(readers));
            }
            Message::Pong(readers) => {
                self.shared.peers.lock().is_busy(from, readers, self.shared.began.elapsed());
            }
            Message::Read { tag, area, offset, len } => {
                let window = if area == Area::Arena { &self.arena } else { &self.directory };
                match self.mpi.send_part(from, tag, window, offset, len) {
                    Some(request) => self.sends.push(request),
                    None => self.send(from, &Message::Refused(tag)),
                }
            }
            Message::Refused(tag) => self.reads.refuse(from, tag, &self.mpi, &self.shared.counters),
            Message::Bye => self.shared.peers.lock().leaves(from),
            Message::Met { meeting, round } => self.shared.meetings.heard(meeting, round),
            message @ (Message::Publish(_) | Message::Retract(_)) => {
                note(&self.shared.table, self.route, self.mpi.rank, message);
            }
        }
    }

    fn look_at_reads(&mut self) -> bool {
        if self.reads.is_at_rest() {
            return false;
        }
        let Looked { moved, tell } = {
            let mut peers = self.shared.peers.lock();
            let now = self.shared.began.elapsed();
            let counters = &self.shared.counters;
            self.reads.look(&mut Around { mpi: &self.mpi, peers: &mut peers, counters, now })
        };
        for (rank, message) in tell {
            self.send(rank, &message);
        }
        self.keep_awake();
        moved
    }

    /// Those we read from do not see it: they are told, so that they stay awake.
    fn keep_awake(&mut self) {
        let now = Instant::now();
        for rank in self.reads.ranks() {
            let pinged = self.pinged.get(rank as usize).copied().flatten();
            if pinged.is_none_or(|at| now.duration_since(at) >= PING_EVERY) {
                self.send(rank, &Message::Ping(1));
            }
        }
    }

    fn send(&mut self, rank: u32, message: &Message) {
        if rank == self.mpi.rank {
            return;
        }
        if matches!(message, Message::Ping(_))
            && let Some(pinged) = self.pinged.get_mut(rank as usize)
        {
            *pinged = Some(Instant::now());
        }
        // What a rank that does not answer was not told costs misses, and is said again with the next round.
        let is_out = {
            let is_asked =
                matches!(message, Message::Ping(_) | Message::Pong(_) | Message::Bye | Message::Met { .. });
            !is_asked && self.shared.peers.lock().is_out(rank, self.shared.began.elapsed())
        };
        let sent = if is_out || self.sends.len() >= MOST_UNDER_WAY {
            None
        } else {
            self.mpi.send(rank, message.encode())
        };
        match sent {
            Some(request) => self.sends.push(request),
            None => {
                self.shared.counters.unsent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Rests, longer the longer there was nothing to do. Whoever asks something wakes it; another rank's message waits for the end of
    /// the rest.
    fn pace(&mut self, is_busy: bool) {
        let now = Instant::now();
        if is_busy {
            self.awake_until = self.awake_until.max(now + AWAKE);
        }
        let is_awake = self.shared.is_awake.load(Ordering::Relaxed);
        if is_awake || now < self.awake_until || !self.reads.is_idle() {
            self.rest = RESTS[0];
            std::thread::yield_now();
        } else {
            std::thread::park_timeout(self.rest);
            self.rest = (self.rest * 2).min(RESTS[1]);
        }
    }
}
