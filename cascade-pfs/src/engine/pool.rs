//! Threads that do blocking I/O.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

/// A fixed number of threads and a queue. The queue is bounded by whoever fills it.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process that has the threads; a forked child has not.
    pid: u32,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads.lock().len())
    }
}

fn work(shared: &Shared) {
    loop {
        let mut jobs = shared.jobs.lock();
        let job = loop {
            match jobs.waiting.pop_front() {
                Some(job) => break job,
                None if jobs.closed => return,
                None => shared.more.wait(&mut jobs),
            }
        };
        drop(jobs);
        job();
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn new(name: &str, threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared))
        };
        let pool = Self { shared: Arc::clone(&shared), threads: Mutex::default(), pid: std::process::id() };
        for number in 0..threads {
            let thread = start(number)?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Hands a job to the next free thread.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.jobs.lock().waiting.push_back(Box::new(job));
        self.shared.more.notify_one();
    }
}

/// Waits for `thread`, but not for ever: one that hangs in a call of the system is left to it.
pub(crate) fn join(thread: JoinHandle<()>, deadline: Instant) {
    if thread.thread().id() == thread::current().id() {
        return;
    }
    while !thread.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    if thread.is_finished() {
        let _ = thread.join();
    }
}

impl Pool {
    /// Ends the threads, once the queue is empty.
    pub(crate) fn close(&self, deadline: Instant) {
        // A forked child has none of them, and perhaps a lock that nobody opens.
        if std::process::id() != self.pid {
            return;
        }
        self.shared.jobs.lock().closed = true;
        self.shared.more.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        threads.into_iter().for_each(|thread| join(thread, deadline));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Instant::now() + Duration::from_secs(5));
    }
}
