//! Load or recompute: what the tiers were seen to need, against what a prefill was seen or said to need.

use std::time::Duration;

use cascade_core::id::BlockId;
use cascade_core::tier::Lookup;
use cascade_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::chain::{Level, Located};
use crate::observed::try_for;
use crate::tiers::Tiers;

/// What an observation still counts after each further one: the last fifty or so make the estimate.
const DECAY: f64 = 0.98;
/// Classes of block lengths: up to 64 KiB, then each eight times the one before.
const CLASSES: usize = 6;
/// Levels that are measured.
const LEVELS: usize = 3;
/// Until something was measured: seconds for a call, and for a byte, of arena, other nodes and files.
const ASSUMED: [(f64, f64); LEVELS] = [(20e-6, 1.0 / 4e9), (200e-6, 1.0 / 2e9), (2e-3, 1.0 / 0.5e9)];

/// How long a call waits to be measured, or to read what was.
const PATIENCE: Duration = Duration::from_micros(200);

/// A line through decayed observations: seconds = fixed + amount x each.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn observe(&mut self, amount: f64, seconds: f64) {
        for sum in [&mut self.n, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy] {
            *sum *= DECAY;
        }
        self.n += 1.0;
        self.x += amount;
        self.y += seconds;
        self.xx += amount * amount;
        self.xy += amount * seconds;
    }

    /// Fixed seconds and seconds for each unit; `None` before anything was observed.
    fn fit(&self) -> Option<(f64, f64)> {
        if self.n < 1.0 || self.x <= 0.0 {
            return None;
        }
        let spread = self.n * self.xx - self.x * self.x;
        // Amounts that are all alike say nothing of what is fixed.
        if spread <= 0.01 * self.x * self.x {
            return Some((0.0, self.y / self.x));
        }
        let each = ((self.n * self.xy - self.x * self.y) / spread).max(0.0);
        let fixed = (self.y - each * self.x) / self.n;
        // A negative start would promise small amounts for nothing.
        Some(if fixed < 0.0 { (0.0, self.y / self.x) } else { (fixed, each) })
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    loads: Mutex<[[Line; CLASSES]; LEVELS]>,
    prefill: Mutex<Line>,
}

/// Devices are not measured apart: what they have costs as if the arena had it.
pub(crate) fn place(level: Level) -> usize {
    match level {
        Level::Device | Level::Arena => 0,
        Level::Remote => 1,
        Level::Files => 2,
    }
}

fn class(block_bytes: u64) -> usize {
    let doublings = block_bytes.max(1).ilog2().saturating_sub(16) as usize;
    doublings.div_ceil(3).min(CLASSES - 1)
}

impl Measured {
    /// A call was served by one level alone: `blocks` of `bytes` in all.
    pub(crate) fn loaded(&self, level: Level, blocks: u64, bytes: u64, took: Duration) {
        if let Some(each) = bytes.checked_div(blocks)
            && let Some(mut loads) = try_for(&self.loads, PATIENCE)
        {
            loads[place(level)][class(each)].observe(bytes as f64, took.as_secs_f64());
        }
    }

    /// Seconds for a call for `blocks` of `bytes` in all, by the nearest class of lengths that was measured.
    fn estimate(&self, level: Level, blocks: u64, bytes: u64) -> f64 {
        let Some(each) = bytes.checked_div(blocks) else { return 0.0 };
        let lines = try_for(&self.loads, PATIENCE).map(|loads| loads[place(level)]).unwrap_or_default();
        let own = class(each);
        let mut classes: Vec<usize> = (0..CLASSES).collect();
        classes.sort_by_key(|other| own.abs_diff(*other));
        let fit = classes.into_iter().find_map(|class| lines[class].fit()).unwrap_or(ASSUMED[place(level)]);
        fit.0 + fit.1 * bytes as f64
    }
}

/// What recomputing costs.
#[derive(Clone, Copy)]
pub enum Recompute<'a> {
    /// What [`Store::observe_prefill`](crate::Store::observe_prefill) was told; unknown before that.
    Learned,
    /// So many tokens in a second.
    TokensPerSecond(f64),
    /// Seconds for the first so many tokens of a prompt.
    Seconds(&'a dyn Fn(u64) -> f64),
}

impl std::fmt::Debug for Recompute<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Learned => write!(f, "Learned"),
            Self::TokensPerSecond(rate) => write!(f, "TokensPerSecond({rate})"),
            Self::Seconds(_) => write!(f, "Seconds(..)"),
        }
    }
}

/// What to do with a prefix.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Blocks to load, from the first on; what is behind them is cheaper to recompute, or not stored.
    pub load: usize,
    /// Where those are: levels in the order of the chain, with the number of blocks in each. Blocks of devices count with the arena's.
    pub from: Vec<(Level, usize)>,
    /// Blocks that were found before the first that is not stored.
    pub found: usize,
    /// What loading is estimated to take.
    pub load_time: Duration,
    /// What recomputing the same tokens is estimated to take; `None` when that is not known. Then all that was found is to be loaded.
    pub recompute_time: Option<Duration>,
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

/// The plan for blocks that were found at these places: a pure function of what was seen and measured.
fn decide(
    found: &[Located],
    block_tokens: u64,
    measured: &Measured,
    prefill: Option<&dyn Fn(u64) -> f64>,
) -> Plan {
    let hits = found.iter().map_while(|found| match (found.level, found.answer) {
        (Some(level), Lookup::Hit(meta)) => Some((level, meta.len)),
        _ => None,
    });
    let (mut blocks, mut bytes) = ([0_u64; LEVELS], [0_u64; LEVELS]);
    let (mut best, mut best_gain) = (Plan::default(), 0.0);
    let mut last = Plan::default();
    for (at, (level, len)) in hits.enumerate() {
        blocks[place(level)] += 1;
        bytes[place(level)] += len;
        let levels = [Level::Arena, Level::Remote, Level::Files];
        let used = levels.into_iter().filter(|level| blocks[place(*level)] > 0);
        // The levels are read from at once, but share the caller's memory: their times are added, so that no plan is too hopeful.
        let load = used
            .clone()
            .map(|level| measured.estimate(level, blocks[place(level)], bytes[place(level)]))
            .sum::<f64>();
        let recompute = prefill.map(|cost| cost((at as u64 + 1) * block_tokens));
        last = Plan {
            load: at + 1,
            from: used.map(|level| (level, blocks[place(level)] as usize)).collect(),
            found: at + 1,
            load_time: duration(load),
            recompute_time: recompute.map(duration),
        };
        let gain = recompute.map_or(f64::INFINITY, |recompute| recompute - load);
        if gain > best_gain || gain == f64::INFINITY {
            (best, best_gain) = (last.clone(), gain);
        }
    }
    Plan { found: last.found, ..best }
}

/// A rate of 0 would make every load worth while, one below it none, and both are a caller's mistake.
fn check(block_tokens: u64, recompute: &Recompute<'_>) -> Result<()> {
    let what = match recompute {
        _ if block_tokens == 0 => "block_tokens is 0: say how many tokens a block holds".to_owned(),
        Recompute::TokensPerSecond(rate) if !(rate.is_finite() && *rate > 0.0) => {
            format!(
                "a prefill of {rate} tokens per second: give a positive number, or none to go by what was observed"
            )
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidArgument, format!("plan: {what}")))
}

impl Tiers {
    pub(crate) fn plan(&self, ids: &[BlockId], block_tokens: u64, recompute: Recompute<'_>) -> Result<Plan> {
        check(block_tokens, &recompute)?;
        let found = self.chain.locate(ids);
        self.count.asked(&found);
        let line = try_for(&self.tally.measured.prefill, PATIENCE).map(|line| *line).unwrap_or_default();
        let learned = move |tokens: u64| line.fit().map_or(0.0, |(fixed, each)| fixed + each * tokens as f64);
        let rated = |rate: f64| move |tokens: u64| tokens as f64 / rate;
        Ok(match recompute {
            Recompute::Learned if line.fit().is_none() => {
                decide(&found, block_tokens, &self.tally.measured, None)
            }
            Recompute::Learned => decide(&found, block_tokens, &self.tally.measured, Some(&learned)),
            Recompute::TokensPerSecond(rate) => {
                decide(&found, block_tokens, &self.tally.measured, Some(&rated(rate)))
            }
            Recompute::Seconds(cost) => decide(&found, block_tokens, &self.tally.measured, Some(cost)),
        })
    }

    pub(crate) fn observe_prefill(&self, tokens: u64, took: Duration) {
        if tokens > 0
            && let Some(mut line) = try_for(&self.tally.measured.prefill, PATIENCE)
        {
            line.observe(tokens as f64, took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use cascade_core::tier::{BlockMeta, Class, MissReason};

    use super::*;

    fn at(level: Level, len: u64) -> Located {
        let meta = BlockMeta { len, digest: 0, class: Class::Ordinary, tenant: 0 };
        Located { answer: Lookup::Hit(meta), level: Some(level), is_rising: false }
    }

    fn measured() -> Measured {
        let measured = Measured::default();
        for blocks in 1..60 {
            // The arena: 10 us and 10 GB/s. Files: 1 ms and 1 GB/s.
            let bytes = blocks << 20;
            measured.loaded(Level::Arena, blocks, bytes, duration(10e-6 + bytes as f64 / 10e9));
            measured.loaded(Level::Files, blocks, bytes, duration(1e-3 + bytes as f64 / 1e9));
        }
        measured
    }

    #[test]
    fn what_was_measured_is_what_is_estimated() {
        let measured = measured();
        for (level, expected) in [(Level::Arena, 10e-6 + 0.001_048_576), (Level::Files, 1e-3 + 0.010_485_76)]
        {
            let found = measured.estimate(level, 10, 10 << 20);
            assert!((found / expected - 1.0).abs() < 0.02, "{level:?}: {found} for {expected}");
        }
        // A class that nobody measured: the nearest that somebody did.
        assert!((measured.estimate(Level::Files, 1, 100 << 20) / 0.1059 - 1.0).abs() < 0.05);
    }

    #[test]
    fn rates_that_are_none_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = check(16, &Recompute::TokensPerSecond(rate)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{rate}");
        }
        assert!(check(0, &Recompute::Learned).is_err());
        assert!(
            check(16, &Recompute::TokensPerSecond(1.0)).is_ok() && check(16, &Recompute::Learned).is_ok()
        );
    }

    #[test]
    fn a_change_of_speed_is_noticed() {
        let measured = measured();
        (0..200).for_each(|_| measured.loaded(Level::Files, 10, 10 << 20, duration(1.0)));
        assert!(measured.estimate(Level::Files, 10, 10 << 20) > 0.9);
    }

    #[test]
    fn nothing_is_loaded_that_is_cheaper_to_recompute() {
        let measured = measured();
        let (above, below) = (at(Level::Arena, 1 << 20), at(Level::Files, 1 << 20));
        let missing = Located { answer: Lookup::Miss(MissReason::Absent), level: None, is_rising: false };
        let chain = [above, above, below, below, missing, above];
        let plan = |rate: f64| {
            let cost = move |tokens: u64| tokens as f64 / rate;
            decide(&chain, 16, &measured, Some(&cost))
        };
        // Slow prefill: all that is there, up to the gap.
        let all = plan(1000.0);
        assert_eq!((all.load, all.found), (4, 4));
        assert_eq!(all.from, [(Level::Arena, 2), (Level::Files, 2)]);
        // 16 tokens in 0.5 ms: a block of files takes 1 ms and more, one of the arena 0.1 ms.
        let some = plan(32_000.0);
        assert_eq!((some.load, some.from.clone()), (2, vec![(Level::Arena, 2)]));
        assert!(some.load_time < some.recompute_time.unwrap());
        // Very fast: nothing.
        assert_eq!(plan(1e9).load, 0);
        // Nobody knows: everything.
        let unknown = decide(&chain, 16, &measured, None);
        assert_eq!((unknown.load, unknown.recompute_time), (4, None));
    }
}
