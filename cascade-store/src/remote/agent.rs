//! The node's agent as its clients see it: a socket beside the arena. Each client has a thread; one that goes away, in the middle of
//! a question or not, costs nobody else anything.

use std::collections::BTreeMap;
use std::io::{ErrorKind as Io, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::tier::{BlockMeta, Class, Lookup};
use cascade_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::wire::{HEAD_BYTES, Head, ID_BYTES, Kind, encode_answer, ids};
use super::{Remote, socket_path};

/// Clients at a time; each has a few connections.
const MOST_CONNECTIONS: usize = 1024;
/// The longest that a client may wish to wait.
const LONGEST: Duration = Duration::from_secs(60);

/// What an agent has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentStats {
    /// Connections that are open.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Ids in them.
    pub ids: u64,
    /// Blocks that were brought here for them.
    pub brought: u64,
    /// Connections that were closed because what came made no sense, or because there were too many.
    pub turned_away: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    ids: AtomicU64,
    brought: AtomicU64,
    turned_away: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    remote: Arc<dyn Remote>,
    open: Mutex<BTreeMap<u64, UnixStream>>,
    counters: Counters,
    is_over: AtomicBool,
}

/// Serves the clients of one node until it is dropped.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Agent {
    /// Serves those who use the arena at `arena`, by `remote`.
    ///
    /// # Errors
    /// `Config` when another agent serves there; `System` when there can be no socket: its path may have about 100 bytes.
    pub fn start(arena: &Path, remote: Arc<dyn Remote>) -> Result<Self> {
        let socket = socket_path(arena);
        let system = |error| {
            let what = format!("cannot make the socket {}", socket.display());
            Error::new(ErrorKind::System, what).with_source(error)
        };
        if UnixStream::connect(&socket).is_ok() {
            let what = format!(
                "another agent serves {}: one is enough for a node, or end it first",
                socket.display()
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        // What is left of an agent that was killed.
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != Io::NotFound => return Err(system(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(system)?;
        // Its folder is this user's alone, too.
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).map_err(system)?;
        let (open, counters) = (Mutex::default(), Counters::default());
        let shared = Arc::new(Shared { remote, open, counters, is_over: AtomicBool::new(false) });
        let serving = Arc::clone(&shared);
        let accept = move || accept(&listener, &serving);
        let accepting =
            std::thread::Builder::new().name("cascade-agent".into()).spawn(accept).map_err(system)?;
        Ok(Self { socket, shared, accepting: Some(accepting) })
    }

    /// Where it is asked.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Counters of now.
    #[must_use]
    pub fn stats(&self) -> AgentStats {
        let (of, get) = (&self.shared.counters, |counter: &AtomicU64| counter.load(Relaxed));
        AgentStats {
            connections: self.shared.open.lock().len() as u64,
            requests: get(&of.requests),
            ids: get(&of.ids),
            brought: get(&of.brought),
            turned_away: get(&of.turned_away),
        }
    }
}

impl Drop for Agent {
    /// Ends every connection: whoever waits has no answer, and goes on without.
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        // Wakes who accepts.
        drop(UnixStream::connect(&self.socket));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let _ = std::fs::remove_file(&self.socket);
        for stream in self.shared.open.lock().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for (number, stream) in (0_u64..).zip(listener.incoming()) {
        if shared.is_over.load(Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors, say: it may be better in a moment.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Ok(known) = stream.try_clone() else { continue };
        let is_full = {
            let mut open = shared.open.lock();
            let is_full = open.len() >= MOST_CONNECTIONS;
            if !is_full {
                open.insert(number, known);
            }
            is_full
        };
        if is_full {
            shared.counters.turned_away.fetch_add(1, Relaxed);
            continue;
        }
        let serving = Arc::clone(shared);
        let serve = move || {
            serve(stream, &serving);
            serving.open.lock().remove(&number);
        };
        if std::thread::Builder::new().name("cascade-client".into()).spawn(serve).is_err() {
            shared.open.lock().remove(&number);
        }
    }
}

/// Answers one connection until it ends.
fn serve(mut stream: UnixStream, shared: &Shared) {
    let mut head = [0; HEAD_BYTES];
    while stream.read_exact(&mut head).is_ok() {
        let Some(head) = Head::parse(&head) else {
            shared.counters.turned_away.fetch_add(1, Relaxed);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        };
        let mut bytes = vec![0; head.count * ID_BYTES];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        let answers = answer(head, &ids(&bytes), shared);
        let encoded: Vec<u8> = answers.into_iter().flat_map(encode_answer).collect();
        if stream.write_all(&[&head.encode()[..], &encoded].concat()).is_err() {
            return;
        }
    }
}

fn answer(head: Head, ids: &[cascade_core::id::BlockId], shared: &Shared) -> Vec<Lookup> {
    let deadline = Instant::now() + head.patience.min(LONGEST);
    shared.counters.requests.fetch_add(1, Relaxed);
    shared.counters.ids.fetch_add(ids.len() as u64, Relaxed);
    if ids.is_empty() {
        return Vec::new();
    }
    if head.kind == Kind::Locate {
        return shared.remote.locate(ids, deadline);
    }
    // Where it is now is asked of the arena, which client and agent share.
    let here = BlockMeta { len: 0, digest: 0, class: Class::Ordinary, tenant: 0 };
    let brought = shared.remote.bring(ids, deadline);
    let count = brought.iter().filter(|brought| brought.is_ok()).count();
    shared.counters.brought.fetch_add(count as u64, Relaxed);
    brought.into_iter().map(|brought| brought.map_or_else(Lookup::Miss, |()| Lookup::Hit(here))).collect()
}
