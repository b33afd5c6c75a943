//! What a tier of files is to be like.

use std::path::PathBuf;
use std::time::Duration;

use cascade_core::digest::CHUNK_BYTES;
use cascade_core::{Error, ErrorKind, Result};

use crate::layout::PAGE_BYTES;

const MIB: u64 = 1 << 20;
const SEGMENT_LEAST: u64 = 64 << 10;
const SEGMENT_MOST: u64 = 256 * MIB;
/// A block takes at most this part of the capacity.
const BLOCK_PART: u64 = 4;

/// When a block that was acknowledged survives a loss of power. The death of a process it survives always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Whenever the system has written it.
    None,
    /// When its segment is full, or after `flush`.
    #[default]
    Segment,
    /// At once. Blocks that wait together share one fdatasync.
    Block,
}

/// What moves the bytes of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoEngine {
    /// io_uring where it works in this process, on local file systems with direct I/O; calls of threads elsewhere.
    #[default]
    Auto,
    /// io_uring; opening fails where it does not work.
    Uring,
    /// pread and pwrite by a pool of threads.
    Pool,
}

impl IoEngine {
    /// Every setting.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Uring, Self::Pool];

    /// The name as configuration and statistics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Pool => "pool",
        }
    }
}

impl std::str::FromStr for IoEngine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|engine| engine.name() == name);
        known.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("io_engine is \"auto\", \"uring\" or \"pool\", not {name:?}"),
            )
        })
    }
}

/// How a tier of files is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfsConfig {
    /// Directory of the tier, made with mode 0700 if its parent exists; the same for all who are to share blocks.
    pub dir: PathBuf,
    /// Bytes of all segment files of this writer, and of those that it adopts.
    pub capacity_bytes: u64,
    /// Bytes of a segment. Default: 256 MiB, or a sixteenth of a capacity under 4 GiB.
    pub segment_bytes: Option<u64>,
    /// When acknowledged blocks are durable.
    pub durability: Durability,
    /// Whether to go past the page cache where the file system allows it.
    pub direct: bool,
    /// What moves the bytes.
    pub io_engine: IoEngine,
    /// Bytes of one read or write call; a multiple of 64 KiB.
    pub io_bytes: usize,
    /// Bytes of puts that are under way at once; beyond, puts are refused as throttled.
    pub in_flight_bytes: u64,
    /// Bytes of reads that are under way at once; others wait for them. One read is always under way, however large.
    pub read_in_flight_bytes: u64,
    /// Threads that write, where calls do, and copy what direct I/O cannot take from where it is.
    pub write_threads: usize,
    /// Threads that read, where calls do, and verify.
    pub read_threads: usize,
    /// Bytes at which an index log is ended and another begun. A log goes with the last segment that it speaks of, and with it
    /// what it says of segments that went before.
    pub log_bytes: u64,
    /// How often the logs of other writers are read.
    pub follow_every: Duration,
    /// A writer of another node is dead when it has not been heard of for so long.
    pub adopt_after: Duration,
    /// On Lustre: storage targets that each file is spread over, 65535 for all. `None` leaves that to the directory.
    pub stripe_count: Option<u16>,
    /// On Lustre: bytes that go to one target before the next has its turn, a multiple of 64 KiB. `None` with a count: 4 MiB.
    pub stripe_bytes: Option<u32>,
    /// The program that sets stripes. `None`: the one that `CASCADE_LFS` names, else `lfs`.
    pub lfs: Option<PathBuf>,
}

impl PfsConfig {
    /// The defaults, in `dir`, with at most `capacity_bytes` of files.
    pub fn new(dir: impl Into<PathBuf>, capacity_bytes: u64) -> Self {
        Self {
            dir: dir.into(),
            capacity_bytes,
            segment_bytes: None,
            durability: Durability::default(),
            direct: true,
            io_engine: IoEngine::default(),
            io_bytes: 8 << 20,
            in_flight_bytes: 256 * MIB,
            read_in_flight_bytes: 128 * MIB,
            write_threads: 4,
            read_threads: 8,
            log_bytes: 32 * MIB,
            follow_every: Duration::from_millis(250),
            adopt_after: Duration::from_secs(600),
            stripe_count: None,
            stripe_bytes: None,
            lfs: None,
        }
    }

    /// Bytes at which a segment is closed: whole pages, and whole stripes where their size is configured.
    #[must_use]
    pub fn target_bytes(&self) -> u64 {
        let by_capacity = (self.capacity_bytes / 16).clamp(SEGMENT_LEAST, SEGMENT_MOST);
        let bytes = self.segment_bytes.unwrap_or(by_capacity);
        let stripe = self.stripe_bytes.map(u64::from).filter(|stripe| (1..=bytes).contains(stripe));
        let unit = stripe.unwrap_or(PAGE_BYTES as u64);
        bytes / unit * unit
    }

    /// Payload bytes of the largest block.
    #[must_use]
    pub fn max_block_bytes(&self) -> u64 {
        self.capacity_bytes / BLOCK_PART
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// `Config`, naming the field and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |what: String| Err(Error::new(ErrorKind::Config, format!("{}: {what}", self.dir.display())));
        let page = PAGE_BYTES as u64;
        if self.segment_bytes.is_some_and(|bytes| bytes < 4 * page || bytes > self.capacity_bytes / 4) {
            return wrong(
                "segment_bytes must be at least 16 KiB and at most a quarter of capacity_bytes".into(),
            );
        }
        if self.capacity_bytes < 4 * SEGMENT_LEAST {
            return wrong(format!("capacity_bytes must be at least {}", 4 * SEGMENT_LEAST));
        }
        if self.io_bytes == 0 || !self.io_bytes.is_multiple_of(CHUNK_BYTES) {
            return wrong("io_bytes must be a multiple of 64 KiB".into());
        }
        let uneven = |bytes: u32| bytes == 0 || !u64::from(bytes).is_multiple_of(64 << 10);
        if self.stripe_bytes.is_some_and(uneven) || self.stripe_count == Some(0) {
            return wrong("stripe_bytes must be a multiple of 64 KiB, and stripe_count at least 1".into());
        }
        if self.write_threads == 0 || self.read_threads == 0 {
            return wrong("write_threads and read_threads must be at least 1".into());
        }
        Ok(())
    }
}
