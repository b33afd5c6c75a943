//! The mapping, as typed views. Everything mutable in it is an atomic, so a view is a plain shared reference; the data area
//! is given out as [`BlockMemory`](cascade_core::block::BlockMemory) only.

#[cfg(not(any(loom, shuttle)))]
mod mapping;
#[cfg(any(loom, shuttle))]
mod model;

#[cfg(any(loom, shuttle))]
pub(crate) fn prefetch<T>(_place: &T) {}

/// Brings the cache line of `place` in, ahead of its use.
#[cfg(not(any(loom, shuttle)))]
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally and cannot fault; the reference is valid anyway.
    unsafe {
        std::arch::x86_64::_mm_prefetch(std::ptr::from_ref(place).cast(), std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

pub use mapped::{Control, HUGE_BYTES, Map};
#[cfg(not(any(loom, shuttle)))]
pub use mapping::Words;

impl crate::Arena {
    /// The bytes `from..to` of the data area, kept mapped by the piece; `None` unless their pages exist ([`crate::Arena::ready_bytes`]).
    ///
    /// # Safety
    /// The piece is for making the memory known to a device. Nobody may read or write by it: blocks are reached by their leases and
    /// reservations.
    #[must_use]
    pub unsafe fn data_piece(&self, from: u64, to: u64) -> Option<cascade_core::memory::Piece> {
        let extent = crate::slot::Extent { offset: from, len: to.checked_sub(from)? };
        let memory = self.map().block(extent)?;
        // SAFETY: mapped and backed for that length; nobody uses it as memory, by the caller's promise.
        let piece = unsafe { cascade_core::memory::Piece::host_write(memory.as_ptr(), memory.len()) };
        Some(piece.kept_by(std::sync::Arc::clone(self.map()) as std::sync::Arc<_>))
    }
}

impl crate::Arena {
    /// First byte, length and keeper of the mapping, as memory that another rank reads: docs/format.md says what is where. Its data has
    /// pages only as far as [`crate::Arena::ready_bytes`] says.
    #[cfg(not(any(loom, shuttle)))]
    #[must_use]
    pub fn mapping(&self) -> (std::ptr::NonNull<u8>, usize, std::sync::Arc<dyn std::any::Any + Send + Sync>) {
        let (start, len) = self.map().whole();
        (start, len, std::sync::Arc::clone(self.map()) as std::sync::Arc<_>)
    }
}

mod mapped {
    use std::fs::File;
    use std::ptr::NonNull;

    use cascade_core::block::BlockMemory;
    use cascade_core::planted::{self, Bug};
    use cascade_core::policy::WorthTable;
    use cascade_core::sync::{AtomicU32, AtomicU64};
    use cascade_core::{Error, ErrorKind, Result};

    #[cfg(not(any(loom, shuttle)))]
    use super::mapping::{Advice, Mapping};
    #[cfg(any(loom, shuttle))]
    use super::model::{Advice, Memory as Mapping};

    use crate::layout::{Geometry, NOTE_AT, NOTE_WORDS, Offsets, REGION_LINE_BYTES};
    use crate::lock::Lock;
    use crate::owner::OwnerRow;
    use crate::slot::{Extent, Slot};

    /// Bytes of a huge page, and the alignment of a mapping: what a page table entry of the level above the lowest covers.
    pub const HUGE_BYTES: usize = 2 << 20;

    /// Types that shared memory may hold: made of atomics alone, valid for every bit pattern.
    trait Shared: 'static {}
    impl Shared for AtomicU64 {}
    impl Shared for AtomicU32 {}
    impl Shared for Slot {}
    impl Shared for OwnerRow {}
    impl Shared for Lock {}
    impl Shared for Control {}

    /// Shared counters and locks. Byte table in docs/format.md.
    #[derive(Debug, Default)]
    #[repr(C, align(64))]
    pub struct Control {
        /// Regions whose pages exist; the others may not be touched.
        pub ready_regions: AtomicU64,
        /// Regions that growth may still reach: fewer than the geometry's after it ran out of memory.
        pub limit_regions: AtomicU64,
        /// Counted up when bytes were not watched over: blocks verified in another epoch are verified again before they are
        /// leased.
        pub epoch: AtomicU64,
        /// Payload bytes ever put: the clock of eviction.
        pub put_bytes: AtomicU64,
        /// Blocks ever evicted, by anyone.
        pub evictions: AtomicU64,
        /// Times that growth stopped for want of memory.
        pub shortfalls: AtomicU64,
        /// Owners that died without leaving.
        pub deaths: AtomicU64,
        /// Guards growth.
        pub grow: Lock,
        /// Guards the recovery of dead owners.
        pub reap: Lock,
        /// The janitor role, held by whoever does the background work. Never taken over by waiting: a role, not a moment.
        pub janitor: Lock,
        /// Guards `claimed` and `claimant`.
        pub claim: Lock,
        /// Regions that are being emptied for one block: the first in the upper half, the one after the last in the lower; or 0.
        pub claimed: AtomicU64,
        /// Slot + 1 of that block.
        pub claimant: AtomicU64,
        /// Bytes of the file that were put together into huge pages, as far as is known; a hint for people.
        pub huge_bytes: AtomicU64,
        /// Times that the system refused to.
        pub huge_refusals: AtomicU64,
        /// Its last reason, as a number of the system's; 0: none.
        pub huge_error: AtomicU64,
    }

    /// An arena file in memory.
    #[derive(Debug)]
    pub struct Map {
        raw: Mapping,
        geometry: Geometry,
        offsets: Offsets,
    }

    impl Map {
        /// Maps `file`, which must be as long as `geometry` says.
        ///
        /// # Errors
        /// `Format` when the file is shorter, `System` when it cannot be mapped.
        #[cfg(not(any(loom, shuttle)))]
        pub fn new(file: &File, geometry: Geometry) -> Result<Self> {
            let offsets = geometry.offsets();
            let system = |error| Error::new(ErrorKind::System, "cannot map the arena").with_source(error);
            let len = file.metadata().map_err(system)?.len();
            if len != offsets.total {
                let what = format!(
                    "the arena file has {len} bytes, its superblock needs {}: remove it",
                    offsets.total
                );
                return Err(Error::new(ErrorKind::Format, what));
            }
            let total = usize::try_from(offsets.total).map_err(|_| {
                Error::new(ErrorKind::Unsupported, "the arena is larger than the address space")
            })?;
            let raw = Mapping::new(file, total).map_err(system)?;
            Ok(Self { raw, geometry, offsets })
        }

        /// A model has no files.
        ///
        /// # Errors
        /// `Unsupported`, always.
        #[cfg(any(loom, shuttle))]
        pub fn new(_file: &File, _geometry: Geometry) -> Result<Self> {
            Err(Error::new(ErrorKind::Unsupported, "a model maps no file: see `Arena::modelled`"))
        }

        /// Memory that stands for a file of a whole arena, with no page missing.
        #[cfg(any(loom, shuttle))]
        #[must_use]
        pub fn modelled(geometry: Geometry) -> Self {
            let map = Self { raw: Mapping::new(&geometry), geometry, offsets: geometry.offsets() };
            let regions = geometry.regions() as u64;
            map.control().ready_regions.store(regions, cascade_core::sync::Ordering::Release);
            map.control().limit_regions.store(regions, cascade_core::sync::Ordering::Release);
            map
        }

        /// First byte and length of the mapping.
        #[cfg(not(any(loom, shuttle)))]
        pub fn whole(&self) -> (NonNull<u8>, usize) {
            // A mapping is never at address 0.
            (NonNull::new(self.raw.as_mut_ptr()).unwrap_or(NonNull::dangling()), self.raw.len())
        }

        /// The numbers of this arena.
        pub fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        #[cfg(any(loom, shuttle))]
        fn view<T: Shared>(&self, offset: u64, count: usize) -> &[T] {
            self.raw.view(offset, count)
        }

        #[cfg(any(loom, shuttle))]
        fn data(&self) -> *mut u8 {
            self.raw.data()
        }

        #[cfg(not(any(loom, shuttle)))]
        fn data(&self) -> *mut u8 {
            self.raw.as_mut_ptr().wrapping_add(self.offsets.data as usize)
        }

        #[cfg(not(any(loom, shuttle)))]
        fn view<T: Shared>(&self, offset: u64, count: usize) -> &[T] {
            let end = offset as usize + count * size_of::<T>();
            assert!(
                end <= self.raw.len() && (offset as usize).is_multiple_of(align_of::<T>()),
                "views lie in the mapping"
            );
            // SAFETY: in bounds and aligned (checked), mapped as long as `self` lives, backed by pages that creation allocated,
            // and `T: Shared` is valid for every bit pattern and only ever accessed atomically.
            unsafe {
                std::slice::from_raw_parts(self.raw.as_mut_ptr().add(offset as usize).cast::<T>(), count)
            }
        }

        /// Shared counters and locks.
        pub fn control(&self) -> &Control {
            &self.view(self.offsets.control, 1)[0]
        }

        /// The words of the note at the end of the control page.
        pub fn note(&self) -> &[AtomicU64] {
            self.view(self.offsets.control + NOTE_AT, NOTE_WORDS)
        }

        /// The table of worth: a header and `WorthTable::WORDS` words, in the page before the data area where no other area reaches
        /// there; else, and in a model, there is none.
        pub fn worth_words(&self) -> &[AtomicU64] {
            const { assert!((1 + WorthTable::WORDS) * 8 <= 4096) };
            #[cfg(any(loom, shuttle))]
            return &[];
            #[cfg(not(any(loom, shuttle)))]
            {
                let end = self.offsets.digests + self.geometry.data_bytes / crate::layout::CHUNK_BYTES * 8;
                let at = self.offsets.data - 4096;
                if at < end { &[] } else { self.view(at, 1 + WorthTable::WORDS) }
            }
        }

        /// Owner rows.
        pub fn owners(&self) -> &[OwnerRow] {
            self.view(self.offsets.owners, self.geometry.owners as usize)
        }

        /// The ledger of owner `row`.
        pub fn ledger(&self, row: u16) -> &[AtomicU64] {
            let entries = self.geometry.ledger_entries;
            assert!(u64::from(row) < self.geometry.owners, "rows come from the geometry");
            self.view(self.offsets.ledgers + u64::from(row) * entries * 8, entries as usize)
        }

        /// Tag words.
        pub fn tags(&self) -> &[AtomicU64] {
            self.view(self.offsets.tags, self.geometry.buckets as usize)
        }

        /// Slots.
        pub fn slots(&self) -> &[Slot] {
            self.view(self.offsets.slots, self.geometry.buckets as usize * crate::index::BUCKET_SLOTS)
        }

        /// Kind and longest free run of each region.
        pub fn summaries(&self) -> &[AtomicU64] {
            self.view(self.offsets.summaries, self.geometry.regions())
        }

        /// The lock of each region.
        pub fn region_locks(&self) -> &[Lock] {
            const { assert!(cfg!(any(loom, shuttle)) || size_of::<Lock>() as u64 == REGION_LINE_BYTES) };
            self.view(self.offsets.regions, self.geometry.regions())
        }

        /// Which units of `region` are used.
        pub fn bitmap(&self, region: usize) -> &[AtomicU64] {
            let words = self.geometry.bitmap_words();
            assert!(region < self.geometry.regions(), "regions come from the geometry");
            self.view(self.offsets.bitmaps + (region * words * 8) as u64, words)
        }

        /// Slot + 1 of the block in each unit of `region`, 0 where it is free.
        pub fn residents(&self, region: usize) -> &[AtomicU32] {
            let entries = self.geometry.resident_entries();
            assert!(region < self.geometry.regions(), "regions come from the geometry");
            self.view(self.offsets.residents + (region * entries * 4) as u64, entries)
        }

        /// One digest for each 64 KiB of data.
        pub fn digests(&self) -> &[AtomicU64] {
            self.view(self.offsets.digests, (self.geometry.data_bytes / crate::layout::CHUNK_BYTES) as usize)
        }

        /// The memory of `extent`; `None` when it is not within the regions that are ready (a damaged slot).
        pub fn block(&self, extent: Extent) -> Option<BlockMemory> {
            let ready = self.control().ready_regions.load(cascade_core::sync::Ordering::Acquire);
            let ready_bytes = ready.min(self.geometry.regions() as u64) * self.geometry.region_bytes;
            let end = extent.offset.checked_add(extent.len)?;
            if (extent.len == 0 || end > ready_bytes) && !planted::is(Bug::TrustLength) {
                return None;
            }
            // SAFETY: within the data area (`end <= ready_bytes <= data_bytes`), so within the mapping, and not null.
            let ptr = unsafe { NonNull::new_unchecked(self.data().add(extent.offset as usize)) };
            // SAFETY: valid for `len` bytes while the mapping lives; holders keep the arena alive. Who may read or write is the
            // protocol's: leases of sealed blocks, reservations of claimed ones.
            Some(unsafe { BlockMemory::new(ptr, extent.len as usize) })
        }

        /// Writes the first bytes of a file that nobody else has mapped yet.
        pub fn write_start(&self, bytes: &[u8]) {
            let words = self.view::<AtomicU64>(0, bytes.len() / 8);
            for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
                let bytes = bytes.try_into().map_or(0, u64::from_ne_bytes);
                word.store(bytes, cascade_core::sync::Ordering::Release);
            }
        }

        /// Asks for huge pages for the data area, where the file system gives them on demand.
        pub fn ask_huge(&self) {
            let (start, bytes) = (self.offsets.data as usize, self.geometry.data_bytes as usize);
            // Without them it is slower, and no less right.
            let _ = self.raw.advise(Advice::HugePage, start, bytes);
        }

        /// Where the data area begins in the file.
        pub fn data_start(&self) -> u64 {
            self.offsets.data
        }

        /// Puts the pages of the file from `start` on, `bytes` bytes, together into huge ones, making them exist; only as much as is
        /// whole huge pages on both ends. Contents stay, and who touches them meanwhile waits for one huge page at most.
        ///
        /// # Errors
        /// The system's reason not to: `ENOMEM`, `EAGAIN` and `EBUSY` may pass; `EINVAL` where it knows no such thing.
        pub fn make_huge(&self, start: u64, bytes: u64) -> std::io::Result<()> {
            let start = start as usize;
            let end = (start + bytes as usize) / HUGE_BYTES * HUGE_BYTES;
            let start = start.next_multiple_of(HUGE_BYTES);
            if end <= start {
                return Ok(());
            }
            // One page has to be there, and says on which memory node.
            (start..end)
                .step_by(HUGE_BYTES)
                .try_for_each(|page| self.raw.advise(Advice::Populate, page, 4096))?;
            self.raw.advise(Advice::Collapse, start, end - start)
        }

        /// Makes the pages of `bytes` bytes of data from `offset` on exist, in the file and in this mapping.
        ///
        /// # Errors
        /// `NoSpace` when the system has no memory for them.
        pub fn populate(&self, file: &File, offset: u64, bytes: u64) -> Result<()> {
            let start = (self.offsets.data + offset) as usize;
            let full = |error: std::io::Error| {
                Error::new(ErrorKind::NoSpace, "cannot touch the arena's pages").with_source(error)
            };
            loop {
                let done = self.raw.advise(Advice::Populate, start, bytes as usize);
                return match done.as_ref().err().and_then(std::io::Error::raw_os_error) {
                    Some(libc::EINTR) => continue,
                    // Kernels before 5.14 do not know it: then the file gets its pages, and only their first use is slower.
                    Some(libc::EINVAL) => {
                        let none = nix::fcntl::FallocateFlags::empty();
                        nix::fcntl::fallocate(file, none, start as i64, bytes as i64)
                            .map_err(|error| full(error.into()))
                    }
                    _ => done.map_err(full),
                };
            }
        }
    }
}
