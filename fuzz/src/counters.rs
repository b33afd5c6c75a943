//! What the stores of a node have counted.

use cascade_store::Level;
use cascade_store::counters::parse;

/// The incarnation that files are read for.
const INCARNATION: u64 = 7;
const LEN: usize = 4096 + 16 * 8192;

/// Reads the input as a file, and once more as if it had the right first page and length.
pub fn read(data: &[u8]) {
    let _ = parse(data, INCARNATION);
    let mut bytes = header();
    bytes.resize(4096, 0);
    // A short input repeats itself, so that numbers stand in every place.
    bytes.extend(data.iter().cycle().copied().take(LEN - 4096));
    bytes.resize(LEN, 0);
    let Ok(totals) = parse(&bytes, INCARNATION) else { panic!("its first page is right") };
    let levels = [Level::Device, Level::Arena, Level::Remote, Level::Files];
    assert!(levels.iter().all(|level| totals.hits(*level) <= totals.all_hits()));
    for time in levels.map(|level| totals.latency(level)).into_iter().chain([totals.put_latency()]) {
        assert_eq!(time.quantile(0.99).is_some(), time.count() > 0);
        let _ = time.mean();
    }
    assert!(totals.origin_hits(Level::Arena) <= totals.hits(Level::Arena));
    let _ = (totals.all_misses(), totals.first_put());
}

fn header() -> Vec<u8> {
    let words = [u64::from_le_bytes(*b"CASCOUNT"), 1, INCARNATION, 1_800_000_000];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// A first page, numbers of every length, and nothing.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    vec![header(), vec![0xff; 64], 3_u64.to_le_bytes().to_vec(), Vec::new()]
}
