//! Arenas written byte by byte from docs/format.md, without the code under test.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use cascade_core::digest;
use cascade_core::id::BlockId;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const CHUNK: u64 = 64 * 1024;
/// Node of every image.
pub(crate) const NODE: &str = "hostile";

/// The geometry that images have, and where it puts each area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) data_bytes: u64,
    pub(crate) region_bytes: u64,
    pub(crate) buckets: u64,
    pub(crate) owners: u64,
    pub(crate) ledger_entries: u64,
}

pub(crate) const SHAPE: Shape =
    Shape { data_bytes: 4 << 20, region_bytes: 1 << 20, buckets: 16, owners: 5, ledger_entries: 128 };

/// An area of the file: its name, where it begins and how long it is.
pub(crate) type Area = (&'static str, u64, u64);

impl Shape {
    pub(crate) fn areas(&self) -> Vec<Area> {
        let regions = self.data_bytes / self.region_bytes;
        let lengths = [
            ("superblock", PAGE),
            ("control", PAGE),
            ("owners", self.owners * 128),
            ("ledgers", self.owners * self.ledger_entries * 8),
            ("tags", self.buckets * 8),
            ("slots", self.buckets * 8 * 64),
            ("summaries", regions * 8),
            ("locks", regions * 64),
            ("bitmaps", self.data_bytes / PAGE / 8),
            ("residents", self.data_bytes / PAGE * 4),
            ("digests", self.data_bytes / CHUNK * 8),
        ];
        let mut end = 0_u64;
        let mut areas: Vec<Area> = lengths
            .into_iter()
            .map(|(name, len)| {
                let start = end;
                end = (end + len).next_multiple_of(PAGE);
                (name, start, len)
            })
            .collect();
        areas.push(("data", end.next_multiple_of(2 << 20), self.data_bytes));
        areas
    }

    pub(crate) fn at(&self, area: &str) -> usize {
        self.areas().iter().find(|(name, ..)| *name == area).unwrap().1 as usize
    }

    fn total(&self) -> usize {
        self.at("data") + self.data_bytes as usize
    }
}

/// An arena in private memory.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// An empty arena of format `version` whose regions are all ready.
    pub(crate) fn empty(version: u32) -> Self {
        let mut image = Self { bytes: vec![0; SHAPE.total()] };
        image.bytes[..8].copy_from_slice(b"CASCARNA");
        image.put_u32(8, version);
        image.put_u32(12, version);
        let shape = SHAPE;
        let numbers =
            [shape.data_bytes, shape.region_bytes, shape.buckets, shape.owners, shape.ledger_entries];
        for (at, number) in numbers.into_iter().enumerate() {
            image.put(24 + 8 * at, number);
        }
        image.put(64, 0x1234_5678_9abc_def0);
        image.put(72, NODE.len() as u64);
        image.bytes[80..80 + NODE.len()].copy_from_slice(NODE.as_bytes());
        image.sign();
        let regions = SHAPE.data_bytes / SHAPE.region_bytes;
        let control = SHAPE.at("control");
        image.put(control, regions);
        image.put(control + 8, regions);
        for region in 0..regions as usize {
            // Kind 1 (empty), 256 free units.
            image.put(SHAPE.at("summaries") + region * 8, 1 << 62 | SHAPE.region_bytes / PAGE);
        }
        image
    }

    pub(crate) fn put(&mut self, at: usize, number: u64) {
        self.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn put_u32(&mut self, at: usize, number: u32) {
        self.bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// Makes the superblock's digest right again.
    pub(crate) fn sign(&mut self) {
        let sum = digest::crc64(&self.bytes[..4088]);
        self.put(4088, sum);
    }

    /// Adds a sealed block of `data` at unit `unit` of `region`, in the first of its buckets.
    pub(crate) fn add(&mut self, name: &str, data: &[u8], region: u64, unit: u64) {
        let id = BlockId::named(name);
        let (len, is_small) = (data.len() as u64, data.len() as u64 <= CHUNK);
        let (unit_bytes, kind) = if is_small { (PAGE, 2_u64) } else { (CHUNK, 3_u64) };
        let offset = region * SHAPE.region_bytes + unit * unit_bytes;
        let chunks: Vec<u64> = data.chunks(CHUNK as usize).map(digest::crc64).collect();
        let (bucket, tag) = place(&id.words());
        let number = bucket * 8;
        self.bytes[SHAPE.at("tags") + number] = tag;
        let slot = SHAPE.at("slots") + number * 64;
        // State 5 (sealed), class 0, no owner, generation 3.
        self.put(slot, 5 | 3 << 24);
        self.bytes[slot + 8..slot + 40].copy_from_slice(id.as_bytes());
        self.put(slot + 40, digest::root(id.as_bytes(), len, chunks.iter().copied()));
        self.put(slot + 48, offset / PAGE);
        self.put(slot + 56, len);
        self.put(SHAPE.at("summaries") + region as usize * 8, kind << 62 | SHAPE.region_bytes / unit_bytes);
        for unit in unit..unit + len.div_ceil(unit_bytes) {
            let words = SHAPE.at("bitmaps") + (region * SHAPE.region_bytes / PAGE / 8) as usize;
            self.bytes[words + unit as usize / 8] |= 1 << (unit % 8);
            let residents = SHAPE.at("residents") + (region * SHAPE.region_bytes / PAGE * 4) as usize;
            self.put_u32(residents + unit as usize * 4, number as u32 + 1);
        }
        if !is_small {
            for (chunk, digest) in chunks.iter().enumerate() {
                self.put(SHAPE.at("digests") + ((offset / CHUNK) as usize + chunk) * 8, *digest);
            }
        }
        let data_at = SHAPE.at("data") + offset as usize;
        self.bytes[data_at..data_at + data.len()].copy_from_slice(data);
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        file.write_all(&self.bytes).unwrap();
    }

    /// Writes only what differs from `before`, into the file that holds it.
    pub(crate) fn write_changes(&self, before: &Self, path: &Path) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let pages = self.bytes.chunks(PAGE as usize).zip(before.bytes.chunks(PAGE as usize));
        for (page, (new, old)) in pages.enumerate() {
            if new != old {
                file.write_all_at(new, page as u64 * PAGE).unwrap();
            }
        }
    }
}

/// The first bucket of an id, and its tag.
fn place(words: &[u64; 4]) -> (usize, u8) {
    let mut mixed = 0x9e37_79b9_7f4a_7c15_u64;
    for word in words {
        mixed = (mixed ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
    }
    let second = (mixed ^ mixed >> 29).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let bucket = (u128::from(mixed) * u128::from(SHAPE.buckets) >> 64) as usize;
    (bucket, second as u8 | 0x80)
}
