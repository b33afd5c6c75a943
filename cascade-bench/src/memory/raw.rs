//! Raw memory behind regions, and the operations that reach into it.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::copy::{Direction, Kernel, StoreKind, copy_only, copy_plain};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{PutMeta, Tier};
use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// How long one wait for a ticket lasts before it is waited for again.
const WAIT: Duration = Duration::from_secs(60);

/// A mapping. Its bytes are reached through parts.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
}

/// A run of a region that nobody else reaches while this lives.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    first: *mut u8,
    len: usize,
    _region: PhantomData<&'a mut Region>,
}

// SAFETY: parts of a region are disjoint and borrow it exclusively (`split`), so a part is as good as a `&mut [u8]`.
unsafe impl Send for Part<'_> {}
// SAFETY: as above; through a shared part memory is only read.
unsafe impl Sync for Part<'_> {}

/// How a plain copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// `memcpy` of the C library.
    Libc,
    /// Streaming stores of this kernel.
    Streaming(Kernel),
    /// The microcode's copy.
    #[cfg(target_arch = "x86_64")]
    RepMovsb,
    /// Cascade's own choice, shared by its pool of threads, in this direction.
    Pool(Direction),
}

impl Method {
    /// What one thread of this machine can do.
    pub(crate) fn available() -> Vec<Self> {
        let mut methods = vec![Self::Libc];
        #[cfg(target_arch = "x86_64")]
        methods.push(Self::RepMovsb);
        methods.extend(Kernel::available().filter(|kernel| *kernel != Kernel::Scalar).map(Self::Streaming));
        methods
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Libc => f.write_str("memcpy"),
            Self::Streaming(kernel) => write!(f, "{kernel} streaming copy"),
            #[cfg(target_arch = "x86_64")]
            Self::RepMovsb => f.write_str("rep movsb"),
            Self::Pool(_) => f.write_str("plain copy by the pool"),
        }
    }
}

impl Region {
    pub(super) fn anonymous(bytes: usize) -> std::io::Result<Self> {
        Ok(Self { map: MmapMut::map_anon(bytes)?.into() })
    }

    pub(super) fn of_file(file: &File, bytes: usize) -> std::io::Result<Self> {
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(file)? })
    }

    /// All of it as one piece, which keeps it mapped. Who copies when is the caller's order of operations.
    pub(crate) fn piece(self: &std::sync::Arc<Self>) -> Piece {
        // SAFETY: the mapping is that long and the piece keeps it; benchmarks wait for an operation before they look.
        let whole = unsafe { Piece::host_write(self.map.as_mut_ptr(), self.map.len()) };
        whole.kept_by(std::sync::Arc::clone(self) as std::sync::Arc<_>)
    }

    /// Whether the first `len` bytes of both are the same; nobody writes to either.
    pub(crate) fn same(&self, other: &Self, len: usize) -> bool {
        assert!(len <= self.map.len() && len <= other.map.len(), "a run of bytes lies within its region");
        // SAFETY: both mappings are that long, and the caller has waited for every operation on them.
        unsafe {
            std::slice::from_raw_parts(self.map.as_ptr(), len)
                == std::slice::from_raw_parts(other.map.as_ptr(), len)
        }
    }

    /// The digest of each 64 KiB of the first `len` bytes, by the CPU; nobody writes to them.
    pub(crate) fn digests(&self, len: usize) -> Vec<u64> {
        assert!(len <= self.map.len(), "a run of bytes lies within its region");
        let mut digests = vec![0; cascade_core::digest::chunk_count(len)];
        // SAFETY: the mapping is that long, and there is a place for each chunk.
        unsafe { cascade_core::copy::digest_chunks(self.map.as_ptr(), len, &mut digests) };
        digests
    }

    /// `parts` parts of equal length, a multiple of 64 bytes where that is possible.
    pub(crate) fn split(&mut self, parts: usize) -> Vec<Part<'_>> {
        let equal = self.map.len() / parts.max(1);
        let len = if equal >= 64 { equal & !63 } else { equal };
        let len = if parts == 1 { self.map.len() } else { len };
        // SAFETY: `index * len` stays within the mapping.
        let first = |index: usize| unsafe { self.map.as_mut_ptr().add(index * len) };
        (0..parts).map(|index| Part { first: first(index), len, _region: PhantomData }).collect()
    }
}

impl Part<'_> {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn check(&self, at: usize, len: usize) {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "a run of bytes lies within its part"
        );
    }

    /// Address of the byte at `at`, from where `len` bytes are in this part.
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        self.check(at, len);
        // SAFETY: checked to be within the mapping.
        unsafe { self.first.add(at) }
    }

    /// Sets every byte.
    pub(crate) fn fill(&mut self, byte: u8) {
        // SAFETY: the part is exclusive and mapped for its whole length.
        unsafe { self.first.write_bytes(byte, self.len) };
    }

    /// Fills with a xorshift sequence.
    pub(crate) fn fill_random(&mut self, seed: u64) {
        let mut state = seed | 1;
        // SAFETY: the part is exclusive, mapped for its whole length, and bytes have no invalid value.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.first, self.len) };
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
    }

    /// Whether `len` bytes from `at` on are those of `other` from `other_at` on.
    pub(crate) fn equals(&self, at: usize, other: &Part<'_>, other_at: usize, len: usize) -> bool {
        let (mine, theirs) = (self.at(at, len), other.at(other_at, len));
        // SAFETY: both runs are mapped, and shared borrows of their parts forbid writers.
        unsafe {
            std::slice::from_raw_parts(mine, len) == std::slice::from_raw_parts(theirs.cast_const(), len)
        }
    }

    /// Whether the bytes from `at` on are `bytes`.
    pub(crate) fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        let mine = self.at(at, bytes.len());
        // SAFETY: mapped, and the shared borrow forbids writers.
        unsafe { std::slice::from_raw_parts(mine.cast_const(), bytes.len()) == bytes }
    }
}

/// Copies `len` bytes by `method`, on the calling thread (`Pool` on more).
pub(crate) fn copy(
    method: Method,
    target: &mut Part<'_>,
    target_at: usize,
    source: &Part<'_>,
    source_at: usize,
    len: usize,
) {
    let (dst, src) = (target.at(target_at, len), source.at(source_at, len).cast_const());
    // SAFETY: both runs are mapped for `len` bytes, and an exclusive part overlaps no other.
    unsafe {
        match method {
            Method::Libc => src.copy_to_nonoverlapping(dst, len),
            Method::Streaming(kernel) => copy_only(kernel, StoreKind::Streaming, dst, src, len),
            #[cfg(target_arch = "x86_64")]
            Method::RepMovsb => rep_movsb(dst, src, len),
            Method::Pool(direction) => copy_plain(dst, src, len, direction),
        }
    }
}

/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, without overlap.
#[cfg(target_arch = "x86_64")]
unsafe fn rep_movsb(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the contract is that of the instruction, and the ABI keeps the direction flag clear.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") dst => _, inout("rsi") src => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Stores blocks of `block` bytes from `source`, block `i` from place `i` of `places` that lie there side by side
/// (again from the first when all were used), in one batch; returns when it is complete.
pub(crate) fn store(
    tier: &dyn Tier,
    ids: &[BlockId],
    source: &Part<'_>,
    first_place: usize,
    places: usize,
    block: usize,
) -> Vec<Outcome> {
    let op = |(index, id): (usize, &BlockId)| {
        let at = (first_place + index) % places * block;
        // SAFETY: the part is borrowed until `complete` returns, and shared, so nobody writes there.
        let piece = unsafe { Piece::host_read(source.at(at, block), block) };
        Op::Store { id: *id, from: SgList::from(piece), meta: PutMeta::default() }
    };
    complete(tier, ids.iter().enumerate().map(op).collect())
}

/// Stores one block of the `len` bytes from `at` on; returns when it is complete.
pub(crate) fn store_run(tier: &dyn Tier, id: &BlockId, source: &Part<'_>, at: usize, len: usize) -> Outcome {
    // SAFETY: as in `store`.
    let piece = unsafe { Piece::host_read(source.at(at, len), len) };
    let op = Op::Store { id: *id, from: SgList::from(piece), meta: PutMeta::default() };
    complete(tier, vec![op]).first().copied().unwrap_or(Outcome::Cancelled)
}

/// Fetches one block into `target` at `at`; returns when that is complete.
pub(crate) fn fetch(
    tier: &dyn Tier,
    id: &BlockId,
    target: &mut Part<'_>,
    at: usize,
    block: usize,
) -> Outcome {
    // SAFETY: the part is borrowed exclusively until `complete` returns.
    let piece = unsafe { Piece::host_write(target.at(at, block), block) };
    let outcomes = complete(tier, vec![Op::Fetch { id: *id, into: SgList::from(piece) }]);
    outcomes.first().copied().unwrap_or(Outcome::Cancelled)
}

/// Submits and waits, however long it takes: the operations may use borrowed memory until they are complete.
fn complete(tier: &dyn Tier, ops: Vec<Op>) -> Vec<Outcome> {
    wait(&tier.submit(Batch::new(ops)))
}

fn wait(ticket: &Ticket) -> Vec<Outcome> {
    loop {
        if let Some(outcomes) = ticket.wait(Instant::now() + WAIT) {
            return outcomes;
        }
    }
}

/// Stores blocks of `block` bytes that lie side by side in `source`, in batches of `batch`, at most `most` of them under way;
/// returns when all are complete.
pub(crate) fn store_all(
    tier: &dyn Tier,
    ids: &[BlockId],
    source: &Part<'_>,
    block: usize,
    batch: usize,
    most: usize,
) -> Vec<Outcome> {
    let op = |(index, id): (usize, &BlockId)| {
        // SAFETY: the part is borrowed until every ticket was waited for, and shared, so nobody writes there.
        let piece = unsafe { Piece::host_read(source.at(index * block, block), block) };
        Op::Store { id: *id, from: SgList::from(piece), meta: PutMeta::default() }
    };
    let mut ops = ids.iter().enumerate().map(op);
    let (mut under_way, mut outcomes) = (VecDeque::new(), Vec::with_capacity(ids.len()));
    loop {
        let next: Vec<Op> = ops.by_ref().take(batch).collect();
        if next.is_empty() || under_way.len() >= most {
            outcomes.extend(under_way.pop_front().map(|ticket| wait(&ticket)).unwrap_or_default());
        }
        if !next.is_empty() {
            under_way.push_back(tier.submit(Batch::new(next)));
        } else if under_way.is_empty() {
            return outcomes;
        }
    }
}

/// Fetches blocks of `block` bytes in one batch, side by side into `target`; returns when that is complete.
pub(crate) fn fetch_all(
    tier: &dyn Tier,
    ids: &[BlockId],
    target: &mut Part<'_>,
    block: usize,
) -> Vec<Outcome> {
    let op = |(index, id): (usize, &BlockId)| {
        // SAFETY: the part is borrowed exclusively until `complete` returns, and places of different blocks are disjoint.
        let piece = unsafe { Piece::host_write(target.at(index * block, block), block) };
        Op::Fetch { id: *id, into: SgList::from(piece) }
    };
    complete(tier, ids.iter().enumerate().map(op).collect())
}
