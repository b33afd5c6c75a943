//! What the stores of an arena have counted together, and how fast that grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use cascade_core::metrics::Distribution;
use cascade_core::units::format_size;
use serde::Serialize;

use crate::chain::Level;
use crate::cli::text::{count, of, percent, span, table};
use crate::counters::{self, Totals};
use crate::tally::{FRUITLESS_PUTS, FRUITLESS_TIME};

const LEVELS: [Level; 4] = [Level::Device, Level::Arena, Level::Remote, Level::Files];

/// Since `since`, by all stores that had the arena open.
#[derive(Debug, Serialize)]
pub(super) struct Stores {
    since: u64,
    first_put: Option<u64>,
    puts: u64,
    exists: u64,
    located: u64,
    located_hits: u64,
    hits: u64,
    misses: u64,
    /// Blocks that left the arena when no tier below was known to have them.
    lost: u64,
    /// By the tier that had the bytes when they were needed.
    tiers: Vec<Tier>,
    misses_by_reason: BTreeMap<&'static str, u64>,
    moves: BTreeMap<&'static str, u64>,
    put_latency_us: Latency,
    pub(super) warning: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tier {
    tier: &'static str,
    hits: u64,
    origin_hits: u64,
    /// `null` of device memory: its bytes and times are not taken.
    served_bytes: Option<u64>,
    saved_tokens: Option<u64>,
    latency_us: Option<Latency>,
    evictions: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    n: u64,
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Latency {
    fn of(seen: &Distribution) -> Self {
        let quantile = |share| seen.quantile(share).map(|time| time.as_nanos() as f64 / 1e3);
        Self { n: seen.count(), p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// Since the tick before.
#[derive(Debug, Serialize)]
pub(super) struct StoreRates {
    puts_per_s: f64,
    hits_per_s: f64,
    misses_per_s: f64,
    /// Hits of the fetches and leases of this time; `null` where there were none.
    hit_share: Option<f64>,
    tiers: Vec<TierRate>,
    demoted_bytes_per_s: f64,
    promoted_bytes_per_s: f64,
    saved_tokens_per_s: f64,
}

#[derive(Debug, Serialize)]
struct TierRate {
    tier: &'static str,
    hits_per_s: f64,
    served_bytes_per_s: Option<f64>,
}

/// The words of the file that are shown under `moves`.
const MOVES: [&str; 21] = [
    "demoted",
    "demoted_bytes",
    "demote_refused",
    "demote_deferred",
    "promoted",
    "promoted_bytes",
    "promote_refused",
    "prefetched",
    "shared_reads",
    "spilled",
    "spilled_bytes",
    "put_elsewhere",
    "throttled",
    "remote_brought",
    "doubted",
    "hbm_demoted",
    "hbm_demoted_bytes",
    "hbm_promoted",
    "hbm_promoted_bytes",
    "hbm_refused",
    "hidden",
];

const REASONS: [(&str, &str); 7] = [
    ("absent", "miss_absent"),
    ("evicting", "miss_evicting"),
    ("corrupt", "miss_corrupt"),
    ("destination", "miss_destination"),
    ("throttled", "miss_throttled"),
    ("deadline", "miss_deadline"),
    ("unavailable", "miss_unavailable"),
];

/// The counters beside the arena at `path`, or why there are none.
pub(super) fn look(path: &Path, incarnation: u64) -> Result<Totals, String> {
    counters::look(path, incarnation)
}

/// What to say where much was put and nothing ever found, by now (seconds since 1970).
pub(in crate::cli) fn warning(totals: &Totals, now: u64) -> Option<String> {
    let first = totals.first_put()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let since = Duration::from_secs(now.saturating_sub(first));
    let (puts, found) = (totals.get("puts"), totals.all_hits().max(totals.get("located_hits")));
    let is_fruitless = puts >= FRUITLESS_PUTS && since >= FRUITLESS_TIME && found == 0;
    is_fruitless.then(|| {
        format!(
            "puts but never hits: {} were put in {} and not one was found",
            of(puts, "block"),
            span(since)
        )
    })
}

fn served(totals: &Totals, level: Level) -> Option<u64> {
    (level != Level::Device).then(|| totals.get(&format!("served_bytes_{}", level.name())))
}

fn saved(totals: &Totals, level: Level) -> Option<u64> {
    (level != Level::Device).then(|| totals.get(&format!("saved_tokens_{}", level.name())))
}

impl Stores {
    /// `evictions` are those of the arena.
    pub(super) fn new(totals: &Totals, evictions: u64, now: u64) -> Self {
        let unix =
            |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let tier = |level: Level| Tier {
            tier: level.name(),
            hits: totals.hits(level),
            origin_hits: totals.origin_hits(level),
            served_bytes: served(totals, level),
            saved_tokens: saved(totals, level),
            latency_us: (level != Level::Device).then(|| Latency::of(&totals.latency(level))),
            evictions: match level {
                Level::Arena => Some(evictions),
                Level::Files => Some(totals.get("files_evictions")),
                Level::Device | Level::Remote => None,
            },
        };
        Self {
            since: unix(totals.since),
            first_put: totals.first_put().map(unix),
            puts: totals.get("puts"),
            exists: totals.get("exists"),
            located: totals.get("located"),
            located_hits: totals.get("located_hits"),
            hits: totals.all_hits(),
            misses: totals.all_misses(),
            lost: evictions.saturating_sub(totals.get("kept_evictions")),
            tiers: LEVELS.map(tier).into(),
            misses_by_reason: REASONS.map(|(reason, word)| (reason, totals.get(word))).into(),
            moves: MOVES.map(|name| (name, totals.get(name))).into(),
            put_latency_us: Latency::of(&totals.put_latency()),
            warning: warning(totals, now),
        }
    }

    /// Lines for people: a title and what it says.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let asked = self.hits.saturating_add(self.misses);
        let reasons = self.misses_by_reason.iter().filter(|(_, count)| **count > 0);
        let reasons: Vec<_> =
            reasons.map(|(reason, number)| format!("{} {reason}", count(*number))).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
        let mut lines = vec![
            (
                "hits",
                format!(
                    "{} of {} fetches and leases ({}); {} missed{reasons}",
                    count(self.hits),
                    count(asked),
                    percent(self.hits, asked),
                    count(self.misses)
                ),
            ),
            ("look-ups", format!("{} of {} found", count(self.located_hits), of(self.located, "id"))),
            (
                "puts",
                format!(
                    "{}, {} of them were there; {}",
                    of(self.puts, "block"),
                    count(self.exists),
                    self.put_times()
                ),
            ),
            ("moves", self.moves()),
        ];
        lines.extend(self.warning.clone().map(|warning| ("WARNING", warning)));
        lines
    }

    fn put_times(&self) -> String {
        times(&self.put_latency_us)
    }

    fn moves(&self) -> String {
        let get = |name: &str| self.moves.get(name).copied().unwrap_or(0);
        format!(
            "{} down ({}), {} up ({}), {} evicted and in no tier below",
            count(get("demoted")),
            format_size(get("demoted_bytes")),
            count(get("promoted")),
            format_size(get("promoted_bytes")),
            count(self.lost)
        )
    }

    /// The tiers that have served something, or evicted.
    pub(super) fn table(&self) -> String {
        let head =
            ["tier", "hits", "of origin", "served", "tokens saved", "p50 and p99 of a call", "evicted"];
        let dash = || "-".to_owned();
        let is_worth = |tier: &&Tier| tier.hits + tier.evictions.unwrap_or(0) > 0;
        let rows = self.tiers.iter().filter(is_worth).map(|tier| {
            vec![
                tier.tier.to_owned(),
                count(tier.hits),
                count(tier.origin_hits),
                tier.served_bytes.map_or_else(dash, format_size),
                tier.saved_tokens.map_or_else(dash, count),
                tier.latency_us.as_ref().map_or_else(dash, times),
                tier.evictions.map_or_else(dash, count),
            ]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return String::new();
        }
        let rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
        table(&rows, "    ")
    }
}

fn times(latency: &Latency) -> String {
    match (latency.p50, latency.p99) {
        (Some(p50), Some(p99)) => format!("{p50:.1} and {p99:.1} us"),
        _ => "none timed".into(),
    }
}

impl StoreRates {
    pub(super) fn between(before: &Totals, now: &Totals, seconds: f64) -> Self {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let of = |name: &str| rate(now.get(name), before.get(name));
        let (hits, misses) =
            (rate(now.all_hits(), before.all_hits()), rate(now.all_misses(), before.all_misses()));
        let tier = |level: Level| TierRate {
            tier: level.name(),
            hits_per_s: rate(now.hits(level), before.hits(level)),
            served_bytes_per_s: served(now, level)
                .zip(served(before, level))
                .map(|(now, before)| rate(now, before)),
        };
        let tokens = LEVELS.into_iter().filter_map(|level| saved(now, level).zip(saved(before, level)));
        Self {
            puts_per_s: of("puts"),
            hits_per_s: hits,
            misses_per_s: misses,
            hit_share: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            tiers: LEVELS.map(tier).into(),
            demoted_bytes_per_s: of("demoted_bytes"),
            promoted_bytes_per_s: of("promoted_bytes"),
            saved_tokens_per_s: tokens.map(|(now, before)| rate(now, before)).sum(),
        }
    }

    pub(super) fn text(&self) -> String {
        let share = self.hit_share.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0));
        let served: f64 = self.tiers.iter().filter_map(|tier| tier.served_bytes_per_s).sum();
        let by: Vec<_> = self
            .tiers
            .iter()
            .filter(|tier| tier.hits_per_s > 0.0)
            .map(|tier| format!("{} {:.0}", tier.tier, tier.hits_per_s))
            .collect();
        let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
        format!(
            "{:.0} hits/s{by}, {:.0} misses/s, hit {share}, {:.0} puts/s, {:.2} GB/s served, {:.2} GB/s down, {:.2} GB/s up, \
             {:.0} tokens/s saved",
            self.hits_per_s,
            self.misses_per_s,
            self.puts_per_s,
            served / 1e9,
            self.demoted_bytes_per_s / 1e9,
            self.promoted_bytes_per_s / 1e9,
            self.saved_tokens_per_s
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_shown_is_in_the_file() {
        let words = MOVES
            .into_iter()
            .chain(REASONS.map(|(_, word)| word))
            .chain(["files_evictions", "kept_evictions"]);
        words.for_each(|name| assert!(counters::is_known(name), "{name}"));
    }

    #[test]
    fn puts_that_nobody_finds_are_said_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let board = counters::open(&arena, 1);
        board.first_put();
        board.counter("puts").add(FRUITLESS_PUTS);
        let totals = || counters::look(&arena, 1).unwrap();
        let first = totals().first_put().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(warning(&totals(), first + 599), None);
        let said = warning(&totals(), first + 600).unwrap();
        assert!(said.contains("4,000 blocks") && said.contains("10 min"), "{said}");
        board.counter("located_hits").add(1);
        assert_eq!(warning(&totals(), first + 600), None);
    }
}
