//! What measurements ask of the fabric: a plain loop of gets, which is the ceiling of all that it does, and a thread that never rests.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use cascade_core::memory::{HostBuffer, Piece};

use super::raw::{Destination, Mpi, Progress};
use super::{Ask, Fabric, Path};
use crate::message::{Area, Message};

/// Most bytes of one call: what counts of the library can say, with room.
const CALL_BYTES: usize = 1 << 30;
/// Tag of answers to plain requests: below those of the fabric's own reads.
const RAW_TAG: u32 = 2;

/// A plain loop of reads, to be run by the thread of MPI.
pub(super) struct RawReads {
    rank: u32,
    area: Area,
    places: Vec<(u64, usize)>,
    into: Piece,
    tell: Sender<Option<Vec<Duration>>>,
}

impl RawReads {
    pub(super) fn run(self, mpi: &Mpi, path: Path) {
        let Self { rank, area, places, into, tell } = self;
        let (mut at, mut times) = (0, Vec::with_capacity(places.len()));
        for (offset, len) in places {
            // Round and round in what there is.
            at = if at + len > into.len() { 0 } else { at };
            let began = Instant::now();
            for done in (0..len).step_by(CALL_BYTES) {
                let part = into.part(at + done, CALL_BYTES.min(len - done)).and_then(Destination::private);
                let from = offset + done as u64;
                let is_read = part.is_some_and(|part| match path {
                    Path::Rma => mpi.get_now(rank, area, from, &part),
                    Path::Message => exchange(mpi, rank, area, from, &part),
                    Path::Alone => false,
                });
                if !is_read {
                    let _ = tell.send(None);
                    return;
                }
            }
            times.push(began.elapsed());
            at += len;
        }
        let _ = tell.send(Some(times));
    }
}

/// One request, and its answer.
fn exchange(mpi: &Mpi, rank: u32, area: Area, offset: u64, into: &Destination) -> bool {
    let Ok(len) = u32::try_from(into.len()) else { return false };
    let Some(mut answer) = mpi.expect(rank, RAW_TAG, into) else { return false };
    let ask = Message::Read { tag: RAW_TAG, area, offset, len };
    let Some(mut asked) = mpi.send(rank, ask.encode()) else { return false };
    let (mut sent, mut came) = (Progress::UnderWay, Progress::UnderWay);
    while sent == Progress::UnderWay || came == Progress::UnderWay {
        if sent == Progress::UnderWay {
            sent = mpi.test(&mut asked);
        }
        if came == Progress::UnderWay {
            came = mpi.test(&mut answer);
        }
    }
    sent == Progress::Done && came == Progress::Done
}

impl Fabric {
    /// Reads `places` (offset and length in bytes) out of `rank`'s memory one after the other, by the thread of MPI and with nothing
    /// round them: `MPI_Get` and `MPI_Win_flush` where there are windows, else a request and its answer as messages. They land in
    /// `into` one behind the other, and from its start again where it ends. Gives the time of each; `None` when MPI refuses.
    ///
    /// For measurements: nothing is verified, nobody else is served by this rank meanwhile, and a rank that is gone or does not
    /// answer is waited for until `patience` is over, but by the thread of MPI for ever.
    #[must_use]
    pub fn raw_reads(
        &self,
        rank: u32,
        area: Area,
        places: Vec<(u64, usize)>,
        into: &HostBuffer,
        patience: Duration,
    ) -> Option<Vec<Duration>> {
        let piece = into.piece();
        if self.is_gone() || places.iter().any(|(_, len)| *len > piece.len()) {
            return None;
        }
        let (tell, told) = mpsc::channel();
        let raw = RawReads { rank, area, places, into: piece, tell };
        self.asks.send(Ask::Raw(raw)).ok()?;
        self.thread.unpark();
        told.recv_timeout(patience).ok()?
    }

    /// Whether this rank's thread of MPI looks without ever resting, which costs a core: what its rests cost others is measured
    /// against that.
    pub fn stay_awake(&self, is_awake: bool) {
        self.shared.is_awake.store(is_awake, Ordering::Relaxed);
        self.thread.unpark();
    }
}
