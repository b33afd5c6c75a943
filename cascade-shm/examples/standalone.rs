//! The arena alone: one handle stores a block, another finds it and reads it where it lies.
//!
//! Run it with `cargo run -p cascade-shm --example standalone`.

use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{Addressable, MissReason, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::PathBuf::from(format!("/dev/shm/cascade-standalone-{}", std::process::id()));
    let outcome = run(&ArenaConfig::new(&folder).capacity(16 << 20));
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn run(config: &ArenaConfig) -> Result<(), Box<dyn std::error::Error>> {
    let writer = Arena::open(config)?;
    println!("made {} with {} bytes", writer.path().display(), writer.capability().capacity_bytes);

    // Put: copied once, straight to where it stays.
    let id = BlockId::named("greeting");
    let text: Vec<u8> = b"What one process stored, all of the node can read. ".repeat(2_000);
    let op = Op::Store { id, from: Piece::shared(text.clone().into()).into(), meta: PutMeta::default() };
    let stored = writer.submit(Batch::new(vec![op])).wait(Instant::now());
    println!("put {} bytes: {stored:?}", text.len());

    // Another handle (here of the same process, else of any other on the node) attaches, and leases without a copy.
    let reader = Arena::open(config)?;
    let lease = reader.lease(&id).map_err(|why| format!("no lease: {}", why.name()))?;
    let mut start = vec![0; 51];
    if !lease.read_at(0, &mut start) {
        return Err("the lease is shorter than what was put".into());
    }
    println!("leased {} bytes: {:?}...", lease.len(), String::from_utf8_lossy(&start));

    // Deleted under the lease: nobody finds it any more, and who holds it keeps it.
    let deleted = writer.submit(Batch::new(vec![Op::Delete { id }])).wait(Instant::now());
    println!("deleted: {deleted:?}");
    let buffer = HostBuffer::zeroed(text.len());
    let op = Op::Fetch { id, into: buffer.piece().into() };
    let fetched = reader.submit(Batch::new(vec![op])).wait(Instant::now());
    println!("after the deletion a fetch answers {fetched:?}");
    if !matches!(fetched.as_deref(), Some([Outcome::Miss(MissReason::Absent)])) {
        return Err("a deleted block was found".into());
    }
    let mut all = vec![0; lease.len()];
    if !lease.read_at(0, &mut all) || all != text {
        return Err("the lease did not keep the block".into());
    }
    drop(lease);
    println!("after the lease {} bytes are in use", reader.stats().used_bytes);
    Ok(())
}
