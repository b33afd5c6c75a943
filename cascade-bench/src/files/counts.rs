//! Files, calls and bytes that 1,000 blocks take.

use std::path::Path;
use std::sync::Arc;

use cascade_core::Result;
use cascade_core::batch::Outcome;
use cascade_pfs::PfsTier;

use super::bandwidth::census;
use super::cli::{Durability, Plan};
use super::cold::device_bytes;
use super::counting::CountingFs;
use super::system::{Data, Work, failed};
use super::tier::{config, ids, store_and_flush};
use crate::memory::fetch_all;
use crate::report::{Calls, Files, Made, Row};
use crate::run::Results;

const BLOCKS: usize = 1000;
/// 1,000 blocks of 1 MiB are four segments, the index log and the writer's own file.
const MOST_FILES: u64 = 6;

/// Measures the tier with its default settings: a write by one handle, a read by another.
pub(super) fn measure(plan: &Plan, dir: &Path, results: &mut Results) -> Result<()> {
    let folder = dir.join("counts");
    let block = plan.counted_bytes as usize;
    let work = Work { block, blocks: BLOCKS, folder: folder.clone(), durability: Durability::End, rep: 0 };
    let mut data = Data::new(work.bytes())?;
    let fs = CountingFs::default();
    let config = || config(&folder, 0, Durability::End, plan.depth);
    let tier = || PfsTier::open_on(config(), Arc::new(fs.clone()));

    let before = device_bytes(None);
    let writer = tier()?;
    store_and_flush(&writer, &work, config().in_flight_bytes, &mut data)?;
    drop(writer);
    let written = device_bytes(None).zip(before).map(|(after, before)| after.1.saturating_sub(before.1));
    let calls = fs.calls();
    let mut made = census(&folder, work.bytes())?;
    (made.device_bytes, made.calls, made.files_limit) = (written, Some(calls), Some(MOST_FILES));
    let mut put = row("put", &work, made);
    put.verified = Some(made.files <= MOST_FILES);
    results.rows.push(put);

    let reader = tier()?;
    let outcomes = fetch_all(&reader, &ids(0, BLOCKS), &mut data.target.split(1)[0], block);
    if let Some(other) = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Fetched(_))) {
        return Err(failed(format!("the tier answered {other:?} to a get of a block that was put")));
    }
    drop(reader);
    let made = census(&folder, work.bytes())?;
    let made = Made { calls: Some(since(fs.calls(), calls)), ..made };
    results.rows.push(row("get", &work, made));
    std::fs::remove_dir_all(&folder)
        .map_err(|error| failed(format!("cannot remove {}", folder.display())).with_source(error))
}

fn since(now: Calls, before: Calls) -> Calls {
    Calls {
        creates: now.creates - before.creates,
        opens: now.opens - before.opens,
        removes: now.removes - before.removes,
        lists: now.lists - before.lists,
        attributes: now.attributes - before.attributes,
        syncs: now.syncs - before.syncs,
        writes: now.writes - before.writes,
        reads: now.reads - before.reads,
    }
}

fn row(op: &str, work: &Work, made: Made) -> Row {
    let mut row = Row::new("pfs", op, "counts", work.block as u64);
    (row.n, row.blocks) = (1, Some(BLOCKS as u64));
    "new".clone_into(&mut row.state);
    let durability = work.durability.name().to_owned();
    row.files =
        Some(Files { durability, engine: "cascade-pfs".to_owned(), made: Some(made), ..Files::default() });
    row
}
