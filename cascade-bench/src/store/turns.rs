//! What is measured in turns: through the store, and by the tier itself.

use cascade_core::Result;
use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::Tier;
use cascade_store::{GetTime, Store};

use super::rig::{Rig, Waiting, check};
use super::{Series, Took, timed};
use crate::memory::{fetch_all, store_all};

/// Bytes of a batch handed to the tier of files itself, which bounds what is under way.
const FILE_BATCH: usize = 8 << 20;

/// A kind of row.
pub(super) struct Turn {
    pub(super) op: &'static str,
    pub(super) path: &'static str,
    pub(super) state: &'static str,
    pub(super) ceiling: &'static str,
    measure: fn(&mut Rig, &mut Series) -> Result<()>,
}

/// In this order: later turns read what earlier ones have put.
pub(super) const TURNS: [Turn; 6] = [
    Turn { op: "put", path: "arena", state: "hot", ceiling: "the arena itself", measure: put_arena },
    Turn { op: "get", path: "arena", state: "hot", ceiling: "the arena itself", measure: get_arena },
    Turn { op: "put", path: "files", state: "hot", ceiling: "the files themselves", measure: put_files },
    Turn { op: "get", path: "files", state: "cold", ceiling: "the files themselves", measure: get_files },
    Turn { op: "get", path: "split", state: "cold", ceiling: "its half in files alone", measure: get_split },
    Turn {
        op: "lease",
        path: "split",
        state: "cold",
        ceiling: "its half in files alone",
        measure: lease_split,
    },
];

/// Every turn of one repetition.
pub(super) fn all(rig: &mut Rig, series: &mut [Series]) -> Result<()> {
    for (turn, series) in TURNS.iter().zip(series) {
        let queue_us = rig.queue_us();
        series.queue_us.push(queue_us);
        (turn.measure)(rig, series)?;
    }
    Ok(())
}

fn is_stored(outcome: &Outcome) -> bool {
    *outcome == Outcome::Stored
}

fn is_fetched(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Fetched(_))
}

/// Seconds that `tier` takes to store a chain.
fn put(rig: &mut Rig, tier: &dyn Tier, ids: &[BlockId], batch: usize) -> Result<f64> {
    let len = rig.len();
    let source = rig.source.split(1);
    let (seconds, outcomes) = timed(|| store_all(tier, ids, &source[0], len, batch, 3));
    check("a put", &outcomes, is_stored)?;
    Ok(seconds)
}

/// Seconds that `tier` takes to fetch blocks, and whether the bytes are right; `places` are theirs in the source.
fn get(rig: &mut Rig, tier: &dyn Tier, ids: &[BlockId], places: &[usize]) -> Result<(f64, bool)> {
    let len = rig.len();
    let mut target = rig.target.split(1);
    target[0].fill(0x5a);
    let (seconds, outcomes) = timed(|| fetch_all(tier, ids, &mut target[0], len));
    check("a get", &outcomes, is_fetched)?;
    let source = rig.source.split(1);
    let is_right = |(at, place): (usize, &usize)| target[0].equals(at * len, &source[0], place * len, len);
    Ok((seconds, places.iter().enumerate().all(is_right)))
}

fn every(rig: &Rig) -> Vec<usize> {
    (0..rig.blocks).collect()
}

fn locate(rig: &Rig, ids: &[BlockId], series: &mut Series) {
    series.lookup_us.push(timed(|| rig.store.locate(ids)).0 * 1e6);
}

fn note(rig: &mut Rig, series: &mut Series, through: f64, alone: f64, is_right: bool) {
    series.took.push(Took { through, alone });
    series.wrong += usize::from(!is_right);
    let bytes = rig.len() * rig.blocks;
    series.verify_us.push(timed(|| rig.target.digests(bytes)).0 * 1e6);
}

/// Where the time of gets has gone since.
fn since(before: GetTime, store: &Store) -> GetTime {
    store.stats().get_time - before
}

fn put_arena(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, own, blocks) = (rig.chain(0), rig.chain(1), rig.blocks);
    locate(rig, &mine, series);
    let (store, arena) = (rig.store.clone(), rig.store.arena().clone());
    let through = put(rig, &store, &mine, blocks)?;
    let alone = put(rig, &arena, &own, blocks)?;
    note(rig, series, through, alone, true);
    Ok(())
}

fn get_arena(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, own, places) = (rig.chain(0), rig.chain(1), every(rig));
    locate(rig, &mine, series);
    let (store, arena) = (rig.store.clone(), rig.store.arena().clone());
    let before = store.stats().get_time;
    let (through, is_right) = get(rig, &store, &mine, &places)?;
    series.of_gets.push(since(before, &store));
    let (alone, _) = get(rig, &arena, &own, &places)?;
    note(rig, series, through, alone, is_right);
    Ok(())
}

fn put_files(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, own, blocks) = (rig.chain(2), rig.chain(3), rig.blocks);
    // Room for what follows.
    for id in rig.chain(1) {
        let _ = rig.store.delete(&id);
    }
    locate(rig, &mine, series);
    let (store, files) = (rig.store.clone(), rig.files.clone());
    let through = put(rig, &Waiting(&store), &mine, blocks)?;
    let alone = put(rig, &files, &own, (FILE_BATCH / rig.len()).max(1))?;
    note(rig, series, through, alone, true);
    // From here on only the files have it.
    check("a demotion", &rig.store.demote(&mine), is_stored)
}

fn get_files(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, own, places) = (rig.chain(2), rig.chain(3), every(rig));
    let (store, files) = (rig.store.clone(), rig.files.clone());
    locate(rig, &mine, series);
    rig.cool()?;
    let before = store.stats().get_time;
    let (through, is_right) = get(rig, &store, &mine, &places)?;
    series.of_gets.push(since(before, &store));
    rig.cool()?;
    let (alone, _) = get(rig, &files, &own, &places)?;
    note(rig, series, through, alone, is_right);
    check("a demotion", &rig.store.demote(&mine), is_stored)
}

/// A chain whose odd blocks are in files alone, and those blocks.
fn split_chain(rig: &Rig) -> (Vec<BlockId>, Vec<BlockId>, Vec<usize>) {
    let (above, below) = (rig.chain(0), rig.chain(2));
    let pick = |at: usize| if at.is_multiple_of(2) { above[at] } else { below[at] };
    let odd: Vec<usize> = (1..rig.blocks).step_by(2).collect();
    let own = rig.chain(3);
    ((0..rig.blocks).map(pick).collect(), odd.iter().map(|at| own[*at]).collect(), odd)
}

fn get_split(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, slower, odd) = split_chain(rig);
    let (store, files, places) = (rig.store.clone(), rig.files.clone(), every(rig));
    locate(rig, &mine, series);
    rig.cool()?;
    let before = store.stats().get_time;
    let (through, is_right) = get(rig, &store, &mine, &places)?;
    series.of_gets.push(since(before, &store));
    rig.cool()?;
    let (alone, _) = get(rig, &files, &slower, &odd)?;
    note(rig, series, through, alone, is_right);
    let risen: Vec<BlockId> = odd.iter().map(|at| mine[*at]).collect();
    check("a demotion", &rig.store.demote(&risen), is_stored)
}

fn lease_split(rig: &mut Rig, series: &mut Series) -> Result<()> {
    let (mine, slower, odd) = split_chain(rig);
    let (store, files) = (rig.store.clone(), rig.files.clone());
    locate(rig, &mine, series);
    rig.cool()?;
    let before = store.stats().get_time;
    let (through, leases) = timed(|| store.lease_batch(&mine));
    series.of_gets.push(since(before, &store));
    let is_right = leases.iter().all(|lease| lease.as_ref().is_ok_and(|lease| lease.len() == rig.len()));
    drop(leases);
    rig.cool()?;
    let (alone, _) = get(rig, &files, &slower, &odd)?;
    note(rig, series, through, alone, is_right);
    Ok(())
}
