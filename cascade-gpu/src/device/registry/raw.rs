//! Registration itself: host memory that stays mapped.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use cascade_core::memory::{Piece, Space};
use parking_lot::Mutex;

use super::super::{Device, Fault};
use super::{Map, Ranges};

/// Bytes that one call registers: small enough that a copy which arrives meanwhile does not wait long for the driver.
const CHUNK_BYTES: usize = 256 << 20;

/// Pages of the CPU.
const PAGE_BYTES: usize = 4096;

#[derive(Debug)]
struct Inner {
    device: Arc<dyn Device>,
    map: Map,
    stopped: AtomicBool,
    registered: AtomicU64,
    /// Why registering ended early, and what keeps the memory that is registered.
    failed: Mutex<Option<Fault>>,
}

/// Host memory registered with a device; unregistered when dropped.
#[derive(Debug)]
pub struct Registry {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    chunks: Arc<Mutex<Vec<Kept>>>,
}

/// A registered chunk, with what keeps its memory mapped.
struct Kept {
    first: NonNull<u8>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: an address, used only to unregister.
unsafe impl Send for Kept {}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({:p})", self.first)
    }
}

impl Registry {
    /// Nothing registered yet.
    #[must_use]
    pub fn new(device: &Arc<dyn Device>) -> Self {
        let inner = Inner {
            device: Arc::clone(device),
            map: Map::default(),
            stopped: AtomicBool::new(false),
            registered: AtomicU64::new(0),
            failed: Mutex::new(None),
        };
        Self { inner: Arc::new(inner), threads: Mutex::default(), chunks: Arc::default() }
    }

    /// Registers host memory in chunks on a thread of its own, and returns at once. Copies from and to chunks that are not
    /// registered yet go through staging. `owner` keeps the memory mapped for as long as this registry lives.
    ///
    /// `false`, and nothing is done, when `memory` is not host memory that may be written.
    pub fn add_in_background(&self, memory: &Piece, owner: Arc<dyn Any + Send + Sync>) -> bool {
        if memory.space() != Space::Host || !memory.is_writable() || memory.is_empty() {
            return false;
        }
        let (inner, chunks, memory) = (Arc::clone(&self.inner), Arc::clone(&self.chunks), memory.clone());
        let work = move || {
            let mut at = 0;
            while at < memory.len() && !inner.stopped.load(Ordering::Relaxed) {
                // Chunks meet where pages do: a page is registered once.
                let past = (memory.as_ptr() as usize + at) % PAGE_BYTES;
                let len = (CHUNK_BYTES - past).min(memory.len() - at);
                let Some(part) = memory.part(at, len) else { return };
                if let Err(fault) = register(&inner, &part, &owner, &chunks) {
                    *inner.failed.lock() = Some(fault);
                    return;
                }
                at += len;
            }
        };
        match std::thread::Builder::new().name("cascade-register".to_owned()).spawn(work) {
            Ok(thread) => self.threads.lock().push(thread),
            Err(_) => return false,
        }
        true
    }

    /// Waits until what was added is registered, or registering it failed.
    ///
    /// # Errors
    /// What the device answered. What was registered before stays so.
    pub fn finish(&self) -> Result<(), Fault> {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread that panicked has registered less, which the ranges say.
            drop(thread.join());
        }
        self.inner.failed.lock().clone().map_or(Ok(()), Err)
    }

    /// Bytes registered so far.
    #[must_use]
    pub fn registered_bytes(&self) -> u64 {
        self.inner.registered.load(Ordering::Relaxed)
    }

    pub(crate) fn ranges(&self) -> Ranges {
        self.inner.map.snapshot()
    }
}

fn register(
    inner: &Inner,
    part: &Piece,
    owner: &Arc<dyn Any + Send + Sync>,
    chunks: &Mutex<Vec<Kept>>,
) -> Result<(), Fault> {
    let Some(first) = NonNull::new(part.as_ptr()) else { return Ok(()) };
    // SAFETY: the owner keeps the memory mapped, and is kept until the registration is taken back.
    unsafe { inner.device.register(first, part.len()) }?;
    chunks.lock().push(Kept { first, _owner: Arc::clone(owner) });
    let address = first.as_ptr() as usize;
    inner.map.add((address, address + part.len()));
    inner.registered.fetch_add(part.len() as u64, Ordering::Relaxed);
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        // A failure was reported where it mattered: by the copies that went through staging.
        drop(self.finish());
        for kept in std::mem::take(&mut *self.chunks.lock()) {
            self.inner.map.remove(kept.first.as_ptr() as usize);
            // SAFETY: registered above, once; the engine that copies with these ranges owns this registry and has waited
            // for its transfers.
            unsafe { self.inner.device.unregister(kept.first) };
        }
    }
}
