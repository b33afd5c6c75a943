//! The buckets that one rank keeps.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_core::id::BlockId;
use cascade_core::tier::BlockMeta;
use parking_lot::Mutex;

use super::bucket::{BUCKET_BYTES, Bucket, ENTRIES, Entry, OWNERS, Owner};
use crate::route::BucketAt;

const WORDS: usize = BUCKET_BYTES / 8;

/// What a table has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Owners that were entered anew.
    pub published: u64,
    /// Owners that were taken out because they said so, or somebody found them gone.
    pub retracted: u64,
    /// Entries that went because their bucket was full: these blocks are misses for other ranks.
    pub overflowed: u64,
    /// Buckets that were found damaged, and emptied.
    pub damaged: u64,
}

/// One rank's part of the directory. Others read its memory at any time; its writers take turns.
#[derive(Debug)]
pub struct Table {
    rank: u32,
    words: Box<[AtomicU64]>,
    writing: Mutex<TableStats>,
}

impl Table {
    /// A table of `buckets` empty buckets, kept by `rank`.
    #[must_use]
    pub fn new(rank: u32, buckets: usize) -> Self {
        let words = (0..buckets.max(1) * WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { rank, words, writing: Mutex::default() }
    }

    /// Number of buckets.
    #[must_use]
    pub fn buckets(&self) -> u64 {
        (self.words.len() / WORDS) as u64
    }

    /// The memory that others read.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// Bucket number `bucket`, as its bytes; zeros beyond the end.
    #[must_use]
    pub fn bytes(&self, bucket: u64) -> [u8; BUCKET_BYTES] {
        let mut bytes = [0; BUCKET_BYTES];
        let words = self.place(bucket).unwrap_or_default();
        for (word, place) in words.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *place = word.load(Ordering::Relaxed).to_le_bytes();
        }
        bytes
    }

    /// What is known of `id` in bucket number `bucket`.
    #[must_use]
    pub fn find(&self, bucket: u64, id: &BlockId) -> Option<Entry> {
        let mut stats = self.writing.lock();
        self.read(bucket, &mut stats).find(id).cloned()
    }

    /// Enters `owner` as one who has the block. Other bytes than those that were known replace them. Of too many owners the one
    /// that was entered first goes; of too many entries one by turns, counted.
    pub fn publish(&self, bucket: u64, id: &BlockId, meta: &BlockMeta, owner: Owner) {
        let mut stats = self.writing.lock();
        let mut content = self.read(bucket, &mut stats);
        stats.published += 1;
        match content.entries.iter_mut().find(|entry| entry.id == *id) {
            Some(entry) if entry.meta.digest == meta.digest && entry.meta.len == meta.len => {
                entry.owners.retain(|known| known.rank != owner.rank);
                if entry.owners.len() == OWNERS {
                    entry.owners.remove(0);
                }
                entry.owners.push(owner);
            }
            Some(entry) => *entry = Entry { id: *id, meta: *meta, owners: vec![owner] },
            None => {
                let entry = Entry { id: *id, meta: *meta, owners: vec![owner] };
                if content.entries.len() < ENTRIES {
                    content.entries.push(entry);
                } else {
                    let turn = content.changes as usize % ENTRIES;
                    content.entries[turn] = entry;
                    stats.overflowed += 1;
                }
            }
        }
        self.write(bucket, content);
    }

    /// Takes `owner` out, if it is entered with this very slot and generation.
    pub fn retract(&self, bucket: u64, id: &BlockId, owner: &Owner) {
        let mut stats = self.writing.lock();
        let mut content = self.read(bucket, &mut stats);
        let Some(entry) = content.entries.iter_mut().find(|entry| entry.id == *id) else { return };
        let before = entry.owners.len();
        let is_meant = |known: &Owner| {
            (known.rank, known.slot, known.generation, known.incarnation)
                == (owner.rank, owner.slot, owner.generation, owner.incarnation)
        };
        entry.owners.retain(|known| !is_meant(known));
        if entry.owners.len() == before {
            return;
        }
        stats.retracted += 1;
        content.entries.retain(|entry| !entry.owners.is_empty());
        self.write(bucket, content);
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        *self.writing.lock()
    }

    /// Under the lock, so that only damage makes it unreadable.
    fn read(&self, bucket: u64, stats: &mut TableStats) -> Bucket {
        Bucket::parse(&self.bytes(bucket), self.at(bucket)).unwrap_or_else(|_| {
            stats.damaged += 1;
            Bucket::default()
        })
    }

    /// Word by word: who reads meanwhile finds a digest that does not fit, and reads again.
    fn write(&self, bucket: u64, mut content: Bucket) {
        content.changes += 1;
        let bytes = content.encode(self.at(bucket));
        let words = self.place(bucket).unwrap_or_default();
        for (word, bytes) in words.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
    }

    fn at(&self, bucket: u64) -> BucketAt {
        BucketAt { rank: self.rank, bucket }
    }

    fn place(&self, bucket: u64) -> Option<&[AtomicU64]> {
        let start = usize::try_from(bucket).ok()?.checked_mul(WORDS)?;
        self.words.get(start..start.checked_add(WORDS)?)
    }
}
