//! How long it takes to open a tier of many blocks: to the first hit, and until another writer's blocks are known.
//!
//! `cargo run --release -p cascade-pfs --example open_speed -- DIRECTORY [BLOCKS]`
//!
//! The directory of a dead writer is made up: its log, and segments that have nothing but their first page. So this is the time
//! to read the log and to fill the index, not that of reading any block.

use std::path::Path;
use std::time::Instant;

use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class, Lookup, Tier};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::{Access, Fs, RealFs};
use cascade_pfs::io::write_all;
use cascade_pfs::layout::{LogEvent, LogHeader, LogRecord, Record, SegmentHeader, WriterId};
use cascade_pfs::{PfsConfig, PfsTier};

const WRITER: WriterId = WriterId([0x5A; 16]);
const BLOCK_BYTES: u64 = 1 << 20;
const BLOCKS_OF_SEGMENT: u64 = 250;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("the directory to use is missing")?;
    let blocks = arguments.next().map_or(Ok(1_000_000), |text| text.parse::<u64>())?;
    let folder = Path::new(&parent).join(format!("cascade-open-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = measure(&folder, blocks);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path, blocks: u64) -> Result<(), Box<dyn std::error::Error>> {
    let bytes = make_up(folder, blocks)?;
    for _ in 0..5 {
        let started = Instant::now();
        let tier = PfsTier::open(PfsConfig::new(folder, 1 << 50))?;
        let opened = started.elapsed();
        let mut found = [Lookup::Pending; 2];
        tier.lookup(&[id(0), id(blocks - 1)], &mut found);
        if !found.iter().all(Lookup::is_hit) {
            return Err(format!("not all blocks were found: {found:?}").into());
        }
        let mbps = bytes as f64 / opened.as_secs_f64() / 1e6;
        println!(
            "{blocks} blocks, log of {bytes} bytes: first and last hit after {opened:.3?}, {mbps:.0} MB/s of log, {:.1} bytes \
             of memory a block",
            tier.file_stats().index_bytes as f64 / blocks as f64
        );
    }
    Ok(())
}

fn id(block: u64) -> BlockId {
    BlockId::named(&block.to_string())
}

fn make_up(folder: &Path, blocks: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let mut log = LogHeader { writer: WRITER }.to_page().to_vec();
    let mut number = 0;
    let mut note = |event| {
        log.extend(LogRecord { number, event }.to_bytes(WRITER));
        number += 1;
    };
    for segment in 0..blocks.div_ceil(BLOCKS_OF_SEGMENT) {
        let header = SegmentHeader { writer: WRITER, number: segment, sequence: 1, target_bytes: 256 << 20 };
        let file =
            RealFs.open(&folder.join(format!("{WRITER}.{segment:016x}.seg")), Access::Create, false)?;
        write_all(file.as_ref(), &[Buffer::of(&header.to_page()).piece()], 0)?;
        let mut offset = 4096;
        for block in segment * BLOCKS_OF_SEGMENT..blocks.min((segment + 1) * BLOCKS_OF_SEGMENT) {
            let meta = BlockMeta { len: BLOCK_BYTES, digest: block, class: Class::Ordinary, tenant: 0 };
            let record =
                Record { writer: WRITER, segment, offset, sequence: 1024 * (block + 1), id: id(block), meta };
            offset += record.bytes();
            note(LogEvent::Put(record));
        }
        note(LogEvent::Close { segment });
    }
    note(LogEvent::End);
    let file = RealFs.open(&folder.join(format!("{WRITER}.log")), Access::Create, false)?;
    write_all(file.as_ref(), &[Buffer::of(&log).piece()], 0)?;
    Ok(log.len() as u64)
}
