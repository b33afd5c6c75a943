//! Asks the node's agent. An agent that is not there, or does not answer in time, costs misses and nothing else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason};
use parking_lot::Mutex;

use super::wire::{ANSWER_BYTES, HEAD_BYTES, Head, Kind, MOST_IDS, encode_ids, parse_answer};
use super::{Remote, socket_path};

/// How long an agent that could not be reached is left alone.
const REST: Duration = Duration::from_millis(500);
/// What an answer may take beyond its deadline: the agent keeps to that by itself.
const SLACK: Duration = Duration::from_millis(200);
/// Connections that are kept for the next question.
const KEPT: usize = 8;

/// A client of the agent of the node that an arena belongs to.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    rests_until: Mutex<Option<Instant>>,
}

impl Client {
    /// A client of the agent whose arena is at `arena`, whether it runs or not.
    #[must_use]
    pub fn new(arena: &Path) -> Self {
        let (idle, rests_until) = (Mutex::default(), Mutex::default());
        Self { socket: socket_path(arena), idle, rests_until }
    }

    /// Whether an agent answers now.
    #[must_use]
    pub fn is_served(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(1);
        self.asked(Kind::Locate, &[], deadline).is_some()
    }

    /// One answer for each id: of the agent, or that there is none.
    fn ask(&self, kind: Kind, ids: &[BlockId], deadline: Instant) -> Vec<Lookup> {
        let silence = || {
            let is_late = Instant::now() >= deadline;
            Lookup::Miss(if is_late { MissReason::Deadline } else { MissReason::Unavailable })
        };
        let part =
            |ids: &[BlockId]| self.asked(kind, ids, deadline).unwrap_or_else(|| vec![silence(); ids.len()]);
        ids.chunks(MOST_IDS).flat_map(part).collect()
    }

    fn asked(&self, kind: Kind, ids: &[BlockId], deadline: Instant) -> Option<Vec<Lookup>> {
        let now = Instant::now();
        if self.rests_until.lock().is_some_and(|until| now < until) {
            return None;
        }
        // A connection that was kept may be one of an agent that has ended: then a new one is tried, once.
        let kept = self.idle.lock().pop();
        let answered = kept.and_then(|stream| self.exchange(stream, kind, ids, deadline));
        let answered = answered.or_else(|| {
            let stream = UnixStream::connect(&self.socket).ok()?;
            self.exchange(stream, kind, ids, deadline)
        });
        *self.rests_until.lock() = if answered.is_some() { None } else { Some(Instant::now() + REST) };
        answered
    }

    fn exchange(
        &self,
        mut stream: UnixStream,
        kind: Kind,
        ids: &[BlockId],
        deadline: Instant,
    ) -> Option<Vec<Lookup>> {
        let patience = deadline.checked_duration_since(Instant::now())?;
        stream.set_read_timeout(Some(patience + SLACK)).ok()?;
        stream.set_write_timeout(Some(patience + SLACK)).ok()?;
        let head = Head { kind, count: ids.len(), patience };
        stream.write_all(&[&head.encode()[..], &encode_ids(ids)].concat()).ok()?;
        let mut head = [0; HEAD_BYTES];
        stream.read_exact(&mut head).ok()?;
        Head::parse(&head).filter(|head| head.kind == kind && head.count == ids.len())?;
        let mut answers = vec![0; ids.len() * ANSWER_BYTES];
        stream.read_exact(&mut answers).ok()?;
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            idle.push(stream);
        }
        Some(answers.as_chunks::<ANSWER_BYTES>().0.iter().map(parse_answer).collect())
    }
}

impl Remote for Client {
    fn locate(&self, ids: &[BlockId], deadline: Instant) -> Vec<Lookup> {
        self.ask(Kind::Locate, ids, deadline)
    }

    fn bring(&self, ids: &[BlockId], deadline: Instant) -> Vec<Result<(), MissReason>> {
        let brought = |answer| match answer {
            Lookup::Hit(_) => Ok(()),
            Lookup::Miss(why) => Err(why),
            Lookup::Pending => Err(MissReason::Absent),
        };
        self.ask(Kind::Bring, ids, deadline).into_iter().map(brought).collect()
    }
}
