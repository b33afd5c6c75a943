//! One thread that hands transfers to the kernel's queue and hears of their ends.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cascade_core::memory::Piece;
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;

use super::raw::Queue;
use super::{Pool, Transfer, join};
use crate::fs::{Ending, Queued};
use crate::io::{Step, Steps};
use crate::pieces::{rest, total};

/// Calls that the kernel has at once. Their bytes are bounded by who submits: [`crate::queue::Queue`] for writes,
/// [`crate::gate::Gate`] for reads.
const DEPTH: usize = 256;
/// How long what is under way may go on when the tier is closed, before the kernel is asked to give it up.
const GRACE: Duration = Duration::from_secs(1);
/// How long the kernel may take to pin memory.
const PINNED_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Mail {
    transfers: VecDeque<Transfer>,
    /// Memory to be registered, and who waits for it.
    memory: Vec<(Piece, mpsc::SyncSender<io::Result<()>>)>,
    cancel_late: bool,
    /// Also what is not late.
    cancel_all: bool,
    closed: bool,
    /// The thread is gone.
    ended: bool,
    /// The thread waits for the kernel, and looks here only when it is woken.
    asleep: bool,
}

#[derive(Debug)]
pub(super) struct Ring {
    mail: Arc<Mutex<Mail>>,
    wake: Arc<EventFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
    registered: Arc<AtomicU64>,
    /// The process whose thread it is.
    pid: u32,
}

/// A transfer, how far it is, and what is done with the result of the call that is under way.
struct Job {
    transfer: Transfer,
    steps: Steps,
    ending: Option<Ending>,
}

impl Ring {
    /// Starts the thread. What has no descriptor goes to `pool`.
    ///
    /// # Errors
    /// The system's, when it gives no thread or no queue.
    pub(super) fn start(pool: Arc<Pool>) -> io::Result<Self> {
        let mail = Arc::new(Mutex::new(Mail::default()));
        let (send, receive) = mpsc::sync_channel(1);
        let (inbox, registered) = (Arc::clone(&mail), Arc::new(AtomicU64::new(0)));
        let bytes = Arc::clone(&registered);
        // The queue is made by the thread that uses it, as the kernel wants it.
        let work = move || match Queue::new(DEPTH) {
            Err(error) => drop(send.send(Err(error))),
            Ok(queue) => {
                let _ = send.send(Ok(queue.waker()));
                Driver { queue, mail: inbox, pool, paused: Vec::new(), registered: bytes, closing: false }
                    .work();
            }
        };
        let thread = thread::Builder::new().name("cascade-pfs-ring".into()).spawn(work)?;
        let wake = receive.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { mail, wake, thread: Mutex::new(Some(thread)), registered, pid: std::process::id() })
    }

    fn tell(&self, change: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail.lock();
        change(&mut mail);
        if std::mem::take(&mut mail.asleep) {
            drop(mail);
            let _ = self.wake.write(1);
        }
    }

    /// Hands over a transfer, or gives it back when the thread has ended.
    pub(super) fn submit(&self, transfer: Transfer) -> Option<Transfer> {
        let mut left = Some(transfer);
        self.tell(|mail| {
            if !mail.ended {
                mail.transfers.extend(left.take());
            }
        });
        left
    }

    /// Registers memory; waits for it.
    pub(super) fn register(&self, memory: Piece) -> io::Result<()> {
        let (send, receive) = mpsc::sync_channel(1);
        self.tell(|mail| mail.memory.push((memory, send)));
        receive.recv_timeout(PINNED_WITHIN).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    pub(super) fn registered_bytes(&self) -> u64 {
        self.registered.load(Ordering::Relaxed)
    }

    pub(super) fn cancel_late(&self) {
        self.tell(|mail| mail.cancel_late = true);
    }

    /// Ends the thread, once it has nothing left. One that waits for the kernel is left to it, with the memory it holds.
    pub(super) fn close(&self, deadline: Instant) {
        if std::process::id() != self.pid {
            return;
        }
        self.tell(|mail| mail.closed = true);
        let Some(thread) = self.thread.lock().take() else { return };
        let patient = deadline.min(Instant::now() + GRACE);
        while !thread.is_finished() && Instant::now() < patient {
            thread::sleep(Duration::from_millis(1));
        }
        self.tell(|mail| (mail.cancel_late, mail.cancel_all) = (true, true));
        join(thread, deadline);
    }
}

struct Driver {
    queue: Queue<Job>,
    mail: Arc<Mutex<Mail>>,
    pool: Arc<Pool>,
    /// Calls that are to be held back.
    paused: Vec<(Instant, Job, Queued)>,
    registered: Arc<AtomicU64>,
    /// Everything is to be given up.
    closing: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What nobody will do any more is answered when it is dropped.
        let left = {
            let mut mail = self.mail.lock();
            mail.ended = true;
            (std::mem::take(&mut mail.transfers), std::mem::take(&mut mail.memory))
        };
        drop(left);
    }
}

impl Driver {
    fn work(mut self) {
        while self.take_mail() {
            self.queue.wait(self.until_next());
            self.mail.lock().asleep = false;
            for (job, result) in self.queue.ended() {
                self.ended(job, result);
            }
            self.resume();
        }
    }

    /// Starts what there is room for; `false` when all is done and nothing more will come.
    fn take_mail(&mut self) -> bool {
        let mut mail = self.mail.lock();
        // What is held back has its place already.
        let room = self.queue.room().saturating_sub(self.paused.len()).min(mail.transfers.len());
        let transfers: Vec<Transfer> = mail.transfers.drain(..room).collect();
        let (cancel, idle) = (std::mem::take(&mut mail.cancel_late), transfers.is_empty());
        let (all, memory) = (mail.cancel_all, std::mem::take(&mut mail.memory));
        mail.asleep = true;
        if mail.closed
            && idle
            && mail.transfers.is_empty()
            && self.paused.is_empty()
            && self.queue.under_way() == 0
        {
            return false;
        }
        drop(mail);
        self.closing |= all;
        for (piece, told) in memory {
            let result = self.queue.register(&piece);
            self.registered.store(self.queue.registered_bytes(), Ordering::Relaxed);
            let _ = told.send(result);
        }
        for transfer in transfers {
            let Some(transfer) = transfer.begun() else { continue };
            let steps = Steps::new(total(&transfer.pieces), transfer.file.is_direct());
            self.call(Job { transfer, steps, ending: None });
        }
        if cancel {
            self.cancel_late(all);
        }
        true
    }

    /// Makes the next call of a transfer.
    fn call(&mut self, job: Job) {
        let Job { transfer, steps, .. } = &job;
        let left = rest(&transfer.pieces, steps.done());
        if left.is_empty() {
            let done = steps.done();
            return job.transfer.end(Ok(done));
        }
        match transfer.file.queued(transfer.way, &left) {
            None => {
                let Job { transfer, .. } = job;
                self.pool.run(move || transfer.run());
            }
            Some(Err(error)) => self.ended(job, Err(error)),
            Some(Ok(queued)) if queued.pause.is_zero() => self.start(job, queued),
            Some(Ok(queued)) => self.paused.push((Instant::now() + queued.pause, job, queued)),
        }
    }

    fn start(&mut self, mut job: Job, queued: Queued) {
        job.ending = queued.ending;
        if queued.pieces.is_empty() {
            return self.ended(job, Ok(0));
        }
        let (way, file) = (job.transfer.way, Arc::clone(&job.transfer.file));
        let offset = job.transfer.offset + job.steps.done() as u64;
        if let Err((job, error)) = self.queue.start(way, file, queued.descriptor, queued.pieces, offset, job)
        {
            self.ended(job, Err(error));
        }
    }

    /// One call of a transfer has ended.
    fn ended(&mut self, mut job: Job, result: io::Result<usize>) {
        let result = match job.ending.take() {
            Some(ending) => ending(result),
            None => result,
        };
        match job.steps.after(result) {
            Step::Ended(result) => job.transfer.end(result),
            // What was cancelled may say that it was interrupted.
            Step::Again if self.closing || job.transfer.is_late() => {
                job.transfer.end(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
            Step::Again => self.call(job),
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let next = self.paused.iter().map(|(until, ..)| *until).min()?;
        Some(next.saturating_duration_since(Instant::now()).max(Duration::from_micros(50)))
    }

    fn resume(&mut self) {
        let now = Instant::now();
        let (due, paused) =
            std::mem::take(&mut self.paused).into_iter().partition(|(until, ..)| *until <= now);
        self.paused = paused;
        let due: Vec<(Instant, Job, Queued)> = due;
        for (_, job, queued) in due {
            self.start(job, queued);
        }
    }

    fn cancel_late(&mut self, all: bool) {
        let is_late = |job: &Job| all || job.transfer.is_late();
        let under_way = self.queue.flying().filter(|(_, job)| is_late(job));
        let late: Vec<usize> = under_way.map(|(number, _)| number).collect();
        // One whose cancellation finds no place is asked for with the next deadline, or ends by itself.
        late.into_iter().for_each(|number| self.queue.cancel(number));
        let (late, paused) =
            std::mem::take(&mut self.paused).into_iter().partition(|(_, job, _)| is_late(job));
        self.paused = paused;
        let late: Vec<(Instant, Job, Queued)> = late;
        for (_, job, _) in late {
            job.transfer.end(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.close(Instant::now() + Duration::from_secs(5));
    }
}
