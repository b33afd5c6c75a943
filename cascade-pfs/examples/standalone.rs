//! The tier of files alone: one writer stores blocks, a second "job" finds and reads them when the first is gone.
//!
//! Run it with `cargo run -p cascade-pfs --example standalone -- [DIRECTORY]`.

use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::tier::{PutMeta, Tier};
use cascade_pfs::{Durability, PfsConfig, PfsTier};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = parent.join(format!("cascade-standalone-{}", std::process::id()));
    println!("{} is on {}", parent.display(), cascade_pfs::filesystem::probe(&parent)?.kind);
    let outcome = run(&PfsConfig { durability: Durability::Block, ..PfsConfig::new(&folder, 1 << 30) });
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn run(config: &PfsConfig) -> Result<(), Box<dyn std::error::Error>> {
    let text: Vec<u8> = b"What one job stored, every later job can read. ".repeat(20_000);
    let ids: Vec<BlockId> = (0..64).map(|number| BlockId::named(&format!("block {number}"))).collect();

    // The first job: 64 blocks in one batch, durable when they are acknowledged.
    let writer = PfsTier::open(config.clone())?;
    let from = Piece::shared(text.clone().into());
    let store = |id: &BlockId| Op::Store { id: *id, from: from.clone().into(), meta: PutMeta::default() };
    let outcomes = writer.submit(Batch::new(ids.iter().map(store).collect())).wait(soon());
    if outcomes.is_none_or(|outcomes| outcomes.iter().any(|outcome| *outcome != Outcome::Stored)) {
        return Err("a block was not stored".into());
    }
    let stats = writer.file_stats();
    println!(
        "64 blocks of {} bytes: {} writes, {} syncs, {} files made",
        text.len(),
        stats.writes,
        stats.syncs,
        stats.creates
    );
    println!("direct I/O: {}", if stats.direct { "yes" } else { "refused by the file system, buffered" });
    drop(writer);

    // The second job: another writer, in the same directory.
    let reader = PfsTier::open(config.clone())?;
    let mut buffer = HostBuffer::zeroed(text.len());
    let fetch = Op::Fetch { id: ids[63], into: buffer.piece().into() };
    let outcome = reader.submit(Batch::new(vec![fetch])).wait(soon());
    println!("fetched: {outcome:?}");
    if buffer.bytes_mut().map(|bytes| bytes == text) != Some(true) {
        return Err("the second job read other bytes".into());
    }

    // A part of a block, verified by the digests of the 64 KiB chunks that hold it.
    let mut part = HostBuffer::zeroed(47);
    let outcome = reader.fetch_part(&ids[0], 47 * 10_000, &SgList::from(part.piece()));
    let words = part.bytes_mut().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    println!("a part: {outcome:?}, {words:?}");
    if words.as_deref() != Some("What one job stored, every later job can read. ") {
        return Err("the part is another".into());
    }
    Ok(())
}
