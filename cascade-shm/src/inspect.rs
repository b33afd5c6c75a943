//! An arena seen from outside: read through a descriptor that cannot write. It is not mapped, no owner row is taken and no
//! lock is waited for, so looking disturbs nobody, works on an arena whose processes hang, and no content of the file can do
//! worse than give wrong counts.

mod count;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cascade_core::id::BlockId;
use cascade_core::{Error, ErrorKind, Result};

use crate::arena::note;
use crate::collapse::HugePages;
use crate::file;
use crate::hugepage::{Huge, Medium};
use crate::index::BUCKET_SLOTS;
use crate::layout::{
    MAGIC, NOTE, NOTE_AT, NOTE_WORDS, OWNER_ROW_BYTES, REGION_LINE_BYTES, STRIPE_ENTRIES, SUPERBLOCK_BYTES,
    Superblock,
};
use crate::ledger::Entry;
use crate::lock::Holder;
use crate::owner::{OwnerRow, Process, RowState};
use crate::process;
use crate::slot::{Slot, State};

pub use count::{ClassCount, RegionCount, SlotCount};

/// Bytes read at once: large enough for speed, small enough for the cache.
const STEP_BYTES: u64 = 1 << 20;

/// An arena file, open for looking.
#[derive(Debug)]
pub struct Inspection {
    file: File,
    path: PathBuf,
    superblock: Superblock,
}

/// What an arena holds, as it was read: consistent where nobody is at work, close to it elsewhere.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Memory that the file takes, in bytes.
    pub allocated_bytes: u64,
    /// When the file was last grown, or opened or closed by a store.
    pub last_used: Option<SystemTime>,
    /// Where its pages come from.
    pub huge: Huge,
    /// Bytes of a page; where huge pages are not certain, of the largest.
    pub page_bytes: u64,
    /// What was put together into huge pages where the file system hands out ordinary ones.
    pub huge_pages: HugePages,
    /// Bytes of the data area whose pages exist.
    pub ready_bytes: u64,
    /// Bytes that growth may still reach: less than the geometry's after memory ran out.
    pub limit_bytes: u64,
    /// Bytes of the data area in use, allocation rounding included.
    pub used_bytes: u64,
    /// Payload bytes ever put.
    pub put_bytes: u64,
    /// Blocks ever evicted.
    pub evictions: u64,
    /// Owners that ended without closing the arena, since it was made.
    pub unclean_deaths: u64,
    /// Times that growth stopped for want of memory, since it was made.
    pub shortfalls: u64,
    /// What the store that uses it noted of itself.
    pub note: Option<String>,
    /// Slots by what they do.
    pub slots: SlotCount,
    /// Regions by kind.
    pub regions: RegionCount,
    /// Owner rows in use.
    pub owners: Vec<Owner>,
    /// Locks that are held: what they guard, and by whom.
    pub locks: Vec<(HeldLock, Holder)>,
}

/// What a lock guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldLock {
    /// Growth.
    Growth,
    /// The recovery of dead owners.
    Recovery,
    /// The janitor role: held for as long as its owner does the background work.
    Janitor,
    /// The region of this number.
    Region(usize),
}

/// A slot that holds an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSlot {
    /// What it does; only `Sealed` can be hit.
    pub state: State,
    /// Payload in bytes.
    pub len: u64,
    /// Whether a tier below is noted to have the block too.
    pub is_kept: bool,
}

/// Why a file is no arena that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An arena of a version or with features that this program does not know; another build of it might.
    OtherFormat,
    /// It begins as an arena and is damaged, or was cut short.
    Damaged,
    /// It never was an arena.
    Foreign,
}

/// What is wrong with the file at `path`, which [`Inspection::open`] refused with `Format`.
///
/// # Errors
/// `Permission` when it is not a regular file of this user.
pub fn fault(path: &Path) -> Result<Option<Fault>> {
    let Some(file) = file::look_any(path)? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
    let read = file.take(SUPERBLOCK_BYTES as u64).read_to_end(&mut bytes);
    let sum = bytes.last_chunk().map(|sum| u64::from_le_bytes(*sum));
    let is_whole = bytes.len() == SUPERBLOCK_BYTES
        && sum == Some(cascade_core::digest::crc64(&bytes[..SUPERBLOCK_BYTES - 8]));
    Ok(Some(match (read.is_ok() && bytes.starts_with(&MAGIC), is_whole) {
        (true, true) if Superblock::parse(&bytes).is_err() => Fault::OtherFormat,
        (true, _) => Fault::Damaged,
        (false, _) => Fault::Foreign,
    }))
}

/// An owner row in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its row, and how many owners the row has had.
    pub holder: Holder,
    /// The process, as its own pid namespace names it.
    pub process: Process,
    /// When that process started, where it can be seen from here.
    pub since: Option<SystemTime>,
    /// Its command's name, where it can be seen from here.
    pub command: Option<String>,
    /// Whether it lives; a dead one is recovered by the next that opens the arena or needs room.
    pub alive: bool,
    /// Ledger stripes that it has used.
    pub stripes: u64,
    /// Pins: leases, and fetches under way.
    pub pins: u64,
    /// Blocks that it fills, evicts or keeps out of use.
    pub intents: u64,
}

impl Inspection {
    /// Opens the arena at `path` for looking; `None` if there is no such file.
    ///
    /// # Errors
    /// `Permission` for a file that is not this user's alone, `Format` for one that is no arena or a damaged one.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let Some((file, superblock)) = file::look(path)? else { return Ok(None) };
        // What no store would use is not shown as if one could.
        file::check_whole(path, &file, &superblock.geometry)?;
        Ok(Some(Self { file, path: path.to_owned(), superblock }))
    }

    /// The arena's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was made with.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    fn metadata(&self) -> Result<std::fs::Metadata> {
        self.file.metadata().map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::System, format!("cannot read {}", self.path.display())).with_source(error)
    }

    /// Reads all tables: one pass over about 64 bytes for each slot.
    ///
    /// # Errors
    /// `System` when the file cannot be read, or was cut short meanwhile.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let geometry = self.superblock.geometry;
        let control = self.words(geometry.offsets().control, 48)?;
        let word = |at: usize| control.get(at).copied().unwrap_or(0);
        let bounded = |regions: u64| regions.min(geometry.regions() as u64) * geometry.region_bytes;
        let ready_bytes = bounded(word(0));
        let metadata = self.metadata()?;
        let medium = Medium::of_file(&self.file);
        let (regions, used_bytes) = self.count_regions(ready_bytes / geometry.region_bytes)?;
        let mut locks: Vec<_> = [(HeldLock::Growth, 8), (HeldLock::Recovery, 16), (HeldLock::Janitor, 24)]
            .into_iter()
            .filter_map(|(what, at)| Some((what, Holder::of_lock(word(at))?)))
            .collect();
        locks.extend(self.region_locks()?);
        Ok(Snapshot {
            allocated_bytes: metadata.blocks() * 512,
            last_used: metadata.modified().ok(),
            huge: medium.huge,
            page_bytes: medium.page_bytes,
            huge_pages: HugePages::new([word(42), word(43), word(44)], geometry.offsets().total),
            ready_bytes,
            limit_bytes: bounded(word(1)),
            used_bytes,
            put_bytes: word(3),
            evictions: word(4),
            unclean_deaths: word(6),
            shortfalls: word(5),
            note: self.note()?,
            slots: self.count_slots((word(2) % 63) as u8 + 1)?,
            regions,
            owners: self.owners()?,
            locks,
        })
    }

    fn note(&self) -> Result<Option<String>> {
        if self.superblock.optional_features & NOTE == 0 {
            return Ok(None);
        }
        let at = self.superblock.geometry.offsets().control + NOTE_AT;
        Ok(note::parse(&self.words(at, NOTE_WORDS as u64)?))
    }

    /// What stands in the slots under each of `ids`: its state, length, and whether a tier below has it too. Of several slots the
    /// one that is visible, or nearest to it.
    ///
    /// # Errors
    /// `System` when the file cannot be read.
    pub fn find(&self, ids: &[BlockId]) -> Result<Vec<Option<FoundSlot>>> {
        let geometry = self.superblock.geometry;
        let mut found: Vec<Option<FoundSlot>> = vec![None; ids.len()];
        let bytes = geometry.buckets * (BUCKET_SLOTS * size_of::<Slot>()) as u64;
        self.read(geometry.offsets().slots, bytes, |step| {
            for slot in step.as_chunks::<64>().0.iter().map(Slot::from_bytes) {
                let state = slot.word().state();
                let id = slot.id();
                let places =
                    ids.iter().zip(&mut found).filter(|(wanted, _)| **wanted == id && state != State::Free);
                for (_, place) in places {
                    let is_better = place.is_none_or(|known| known.state != State::Sealed);
                    if is_better {
                        let len = slot.extent().map_or(0, |extent| extent.len);
                        *place = Some(FoundSlot { state, len, is_kept: slot.is_kept() });
                    }
                }
            }
        })?;
        Ok(found)
    }

    /// Hands each step of `len` bytes from `offset` on to `look`.
    fn read(&self, offset: u64, len: u64, mut look: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; len.min(STEP_BYTES) as usize];
        let mut done = 0;
        while done < len {
            let step = &mut buffer[..(len - done).min(STEP_BYTES) as usize];
            self.file.read_exact_at(step, offset + done).map_err(|error| self.unreadable(error))?;
            look(step);
            done += step.len() as u64;
        }
        Ok(())
    }

    fn words(&self, offset: u64, count: u64) -> Result<Vec<u64>> {
        let mut words = Vec::with_capacity(count as usize);
        self.read(offset, count * 8, |step| {
            words.extend(step.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        })?;
        Ok(words)
    }

    fn region_locks(&self) -> Result<Vec<(HeldLock, Holder)>> {
        let geometry = self.superblock.geometry;
        let lines =
            self.words(geometry.offsets().regions, geometry.regions() as u64 * REGION_LINE_BYTES / 8)?;
        let held = lines.iter().step_by(REGION_LINE_BYTES as usize / 8).enumerate();
        Ok(held
            .filter_map(|(region, word)| Some((HeldLock::Region(region), Holder::of_lock(*word)?)))
            .collect())
    }

    fn owners(&self) -> Result<Vec<Owner>> {
        let geometry = self.superblock.geometry;
        let mut rows = Vec::new();
        self.read(geometry.offsets().owners, geometry.owners * OWNER_ROW_BYTES, |step| {
            rows.extend(step.as_chunks().0.iter().map(OwnerRow::from_bytes));
        })?;
        let live = rows.iter().enumerate().filter(|(_, row)| row.state().0 == RowState::Live);
        live.map(|(number, row)| self.owner(number as u16, row)).collect()
    }

    fn owner(&self, number: u16, row: &OwnerRow) -> Result<Owner> {
        let geometry = self.superblock.geometry;
        let stripes = (row.stripes() as u64).min(geometry.ledger_entries / STRIPE_ENTRIES as u64);
        let ledger = geometry.offsets().ledgers + u64::from(number) * geometry.ledger_entries * 8;
        let entries = self.words(ledger, stripes * STRIPE_ENTRIES as u64)?;
        let held = entries.into_iter().map(Entry::from_bits).filter(|entry| *entry != Entry::EMPTY);
        let (pins, intents): (Vec<_>, Vec<_>) = held.partition(|entry| entry.is_pin());
        let process = row.process();
        Ok(Owner {
            holder: Holder { row: number, generation: row.state().1 },
            process,
            since: process::since(process),
            command: process::command(process),
            alive: process::is_row_locked(&self.file, number) && !process::is_gone(process),
            stripes,
            pins: pins.len() as u64,
            intents: intents.len() as u64,
        })
    }
}
