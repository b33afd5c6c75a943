//! This run against an older one, row by row.

use std::fmt::Write;

use super::{Report, Row};
use crate::units::format_size;

/// A table of ratios, new over old: of the median rate or share of space, or where there is none of the p50 latency. Rows that only one
/// of the reports has are named at the end.
#[must_use]
pub fn compare(new: &Report, old: &Report) -> String {
    let mut text = String::new();
    let commit = old.commit.as_deref().unwrap_or("an unknown commit");
    let _ = writeln!(text, "Against {commit}{}:", if old.dirty { " with changes" } else { "" });
    if (&new.host.cpu, new.host.cores) != (&old.host.cpu, old.host.cores) {
        let _ = writeln!(
            text,
            "  another machine: {} x {}, then {} x {}",
            new.host.cores, new.host.cpu, old.host.cores, old.host.cpu
        );
    }
    for row in &new.results {
        let line = match old.results.iter().find(|other| key(other) == key(row)) {
            Some(before) => ratio(row, before),
            None => "only in this run".to_owned(),
        };
        let _ = writeln!(text, "  {:<58} {line}", name(row));
    }
    for row in old.results.iter().filter(|old| !new.results.iter().any(|row| key(row) == key(old))) {
        let _ = writeln!(text, "  {:<58} only in the older run", name(row));
    }
    text
}

fn key(row: &Row) -> impl PartialEq + '_ {
    let words = [&row.system, &row.tier, &row.op, &row.path, &row.state];
    (words, row.block_bytes, row.threads, row.ranks, row.blocks.filter(|_| row.space.is_none()))
}

fn name(row: &Row) -> String {
    let blocks = row.blocks.map(|blocks| format!(" of {blocks}")).unwrap_or_default();
    let Row { system, tier, op, path, state, threads, .. } = row;
    format!("{system} {tier} {op} {path}{blocks} {} x{threads} {state}", format_size(row.block_bytes))
}

fn ratio(new: &Row, old: &Row) -> String {
    if let (Some(now), Some(then)) = (new.gbps, old.gbps) {
        let ratio = now.median / then.median;
        return format!("{ratio:.2}x rate   ({:.2} against {:.2} GB/s)", now.median, then.median);
    }
    if let (Some(now), Some(then)) = (new.throughput, old.throughput) {
        let (now, then) = (now.per_second.median, then.per_second.median);
        return format!(
            "{:.2}x rate   ({:.3} against {:.3} million a second)",
            now / then,
            now / 1e6,
            then / 1e6
        );
    }
    if let (Some(now), Some(then)) = (&new.space, &old.space) {
        let (now, then) = (now.used_share.median, then.used_share.median);
        return format!("{:.2}x used   ({:.1}% against {:.1}%)", now / then, now * 100.0, then * 100.0);
    }
    if let (Some(now), Some(then)) = (new.latency_us, old.latency_us) {
        let ratio = now.p50 / then.p50;
        return format!("{ratio:.2}x time   (p50 {:.3} against {:.3} us)", now.p50, then.p50);
    }
    "nothing to compare".to_owned()
}
