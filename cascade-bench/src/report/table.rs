//! The results as tables for people, one for each kind of rows.

use super::files::{COUNTS, FILES, OPENINGS};
use super::{Phases, Row};
use crate::stats::Latency;
use crate::units::format_size;

/// A column: its head, whether words stand in it (to the left; figures to the right), and the cell of a row.
pub(super) type Column = (&'static str, bool, fn(&Row) -> String);

/// Columns in parts, some of which several tables have.
pub(super) type Columns = &'static [&'static [Column]];

/// What was measured,
pub(super) const SUBJECT: &[Column] = &[
    ("system", true, |row| row.system.clone()),
    ("op", true, |row| row.op.clone()),
    ("path", true, |row| row.path.clone()),
];

/// and with which blocks.
pub(super) const BLOCK: &[Column] = &[("block", false, |row| format_size(row.block_bytes))];

/// How fast, and of what.
pub(super) const SPEED: &[Column] = &[
    ("min", false, |row| rate(row.gbps.map(|gbps| gbps.min))),
    ("GB/s", false, |row| rate(row.gbps.map(|gbps| gbps.median))),
    ("max", false, |row| rate(row.gbps.map(|gbps| gbps.max))),
    ("ceiling", false, |row| rate(row.ceiling.as_ref().map(|ceiling| ceiling.gbps))),
    ("of it", false, |row| share(row.efficiency)),
];

const RATES: Columns = &[
    SUBJECT,
    BLOCK,
    &[
        ("threads", false, |row| row.threads.to_string()),
        ("state", true, |row| row.state.clone()),
        ("n", false, |row| row.n.to_string()),
    ],
    SPEED,
    &[
        ("p50 us", false, |row| time(row, |latency| latency.p50)),
        ("p99 us", false, |row| time(row, |latency| latency.p99)),
        ("bytes", true, verdict),
    ],
];

const TIMES: Columns = &[
    SUBJECT,
    BLOCK,
    &[
        ("blocks", false, |row| row.blocks.map_or_else(dash, |blocks| blocks.to_string())),
        ("threads", false, |row| row.threads.to_string()),
        ("state", true, |row| row.state.clone()),
        ("n", false, |row| row.n.to_string()),
        ("p50 us", false, |row| time(row, |latency| latency.p50)),
        ("p99 us", false, |row| time(row, |latency| latency.p99)),
        ("p99.9 us", false, |row| time(row, |latency| latency.p999)),
        ("index B/block", false, |row| row.index_bytes.map_or_else(dash, |bytes| format!("{bytes:.1}"))),
        ("bytes", true, verdict),
    ],
];

const PHASES: Columns = &[
    SUBJECT,
    BLOCK,
    &[
        ("blocks", false, |row| row.blocks.map_or_else(dash, |blocks| blocks.to_string())),
        ("state", true, |row| row.state.clone()),
        ("n", false, |row| row.n.to_string()),
    ],
    SPEED,
    &[
        ("lookup us", false, |row| phase(row, |phases| phases.lookup_us)),
        ("queue us", false, |row| phase(row, |phases| phases.queue_us)),
        ("transfer us", false, |row| phase(row, |phases| phases.transfer_us)),
        ("copy us", false, |row| phase(row, |phases| phases.copy_us)),
        ("rest us", false, |row| phase(row, |phases| phases.rest_us)),
        ("verify us", false, |row| phase(row, |phases| phases.verify_us)),
        ("bytes", true, verdict),
    ],
];

const SPACES: Columns = &[
    SUBJECT,
    &[
        ("threads", false, |row| row.threads.to_string()),
        ("data", false, |row| space(row, |space| format_size(space.data_bytes))),
        ("puts", false, |row| space(row, |space| space.puts.to_string())),
        ("used min", false, |row| space(row, |space| share(Some(space.used_share.min)))),
        ("used", false, |row| space(row, |space| share(Some(space.used_share.median)))),
        ("payload", false, |row| space(row, |space| share(Some(space.payload_share.median)))),
        ("evictions/put", false, |row| space(row, |space| format!("{:.3}", space.evictions_per_put))),
        ("refused", false, |row| space(row, |space| space.refused.to_string())),
        ("puts/s", false, |row| space(row, |space| format!("{:.0}", space.puts_per_second))),
        ("p50 us", false, |row| time(row, |latency| latency.p50)),
        ("p99 us", false, |row| time(row, |latency| latency.p99)),
        ("private", false, |row| {
            space(row, |space| grown(space, |census| format_size(census.private_bytes)))
        }),
        ("fds", false, |row| space(row, |space| grown(space, |census| census.fds.to_string()))),
        ("left over", false, |row| {
            let left = |census: &super::Census| {
                census.odd_slots + census.retired_slots + census.ledger_entries + census.disagreements
            };
            space(row, |space| grown(space, |census| left(census).to_string()))
        }),
        ("bytes", true, verdict),
    ],
];

const THROUGHPUTS: Columns = &[
    SUBJECT,
    &[
        ("processes", false, |row| row.ranks.to_string()),
        ("threads", false, |row| row.threads.to_string()),
        ("n", false, |row| row.n.to_string()),
        ("min M/s", false, |row| millions(row.throughput.map(|all| all.per_second.min))),
        ("M/s", false, |row| millions(row.throughput.map(|all| all.per_second.median))),
        ("max M/s", false, |row| millions(row.throughput.map(|all| all.per_second.max))),
        ("each min", false, |row| millions(row.throughput.map(|all| all.member_per_second.min))),
        ("each", false, |row| millions(row.throughput.map(|all| all.member_per_second.median))),
        ("each max", false, |row| millions(row.throughput.map(|all| all.member_per_second.max))),
        ("of one", false, |row| share(row.throughput.map(|all| all.of_one))),
        ("p50 us", false, |row| time(row, |latency| latency.p50)),
        ("p99 us", false, |row| time(row, |latency| latency.p99)),
        ("bytes", true, verdict),
    ],
];

fn phase(row: &Row, of: fn(&Phases) -> f64) -> String {
    row.phases.map_or_else(dash, |phases| format!("{:.0}", of(&phases)))
}

/// The rows as lines of text, columns aligned: rates in GB/s (median under `GB/s`), then times without payload, the use of
/// space (before and after the churn where two figures stand), and operations by many at once in millions each second.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut kinds = [RATES, TIMES, SPACES, THROUGHPUTS, FILES, COUNTS, OPENINGS, PHASES]
        .map(|columns| (columns, Vec::<&Row>::new()));
    for row in rows {
        let kind = match row {
            Row { phases: Some(_), .. } => 7,
            Row { space: Some(_), .. } => 2,
            Row { throughput: Some(_), .. } => 3,
            Row { opening: Some(_), .. } => 6,
            Row { files: Some(_), gbps: None, n: 1.., .. } => 5,
            Row { files: Some(_), .. } => 4,
            Row { gbps: None, blocks: Some(_), .. } => 1,
            _ => 0,
        };
        kinds[kind].1.push(row);
    }
    let tables = kinds.iter().filter(|(_, rows)| !rows.is_empty());
    tables.map(|(columns, rows)| aligned(columns, rows)).collect::<Vec<_>>().join("\n")
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

pub(super) fn rate(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.2}"))
}

pub(super) fn share(value: Option<f64>) -> String {
    value.map_or_else(dash, |share| format!("{:.1}%", share * 100.0))
}

fn millions(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{:.3}", value / 1e6))
}

fn time(row: &Row, of: fn(Latency) -> f64) -> String {
    row.latency_us.map_or_else(dash, |latency| microseconds(of(latency)))
}

fn space(row: &Row, cell: impl FnOnce(&super::Space) -> String) -> String {
    row.space.as_ref().map_or_else(dash, cell)
}

fn grown(space: &super::Space, cell: impl Fn(&super::Census) -> String) -> String {
    format!("{} > {}", cell(&space.before), cell(&space.after))
}

pub(super) fn verdict(row: &Row) -> String {
    row.verified.map_or("-", |verified| if verified { "right" } else { "WRONG" }).to_owned()
}

/// Three digits that matter.
fn microseconds(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.3}"),
        1.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn aligned(columns: Columns, rows: &[&Row]) -> String {
    let columns = columns.concat();
    let head = columns.iter().map(|column| column.0.to_owned()).collect();
    let body = rows.iter().map(|row| columns.iter().map(|column| column.2(row)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&columns).zip(&widths).map(|((cell, column), width)| match column.1 {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Ceiling, Census, Space, Throughput};
    use crate::stats::Spread;

    const SPREAD: Spread = Spread { min: 20.0, median: 22.5, max: 23.0 };

    #[test]
    fn a_table_has_a_line_a_row_and_says_what_is_wrong() {
        let mut row = Row::new("shm", "put", "single", 512 << 20);
        let ceiling = Ceiling { what: "copy".to_owned(), gbps: 25.0 };
        row.set_rate(Some(SPREAD), Some(ceiling));
        row.verified = Some(false);
        let text = table(&[row]);
        assert_eq!(text.lines().count(), 2);
        for word in ["512MiB", "22.50", "90.0%", "WRONG"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn each_kind_of_rows_has_a_table_of_its_own() {
        let mut lookup = Row::new("shm", "lookup", "single", 4096);
        (lookup.blocks, lookup.index_bytes) = (Some(4_000_000), Some(91.53));
        let mut lease = Row::new("shm", "lease", "processes8 hot", 4096);
        lease.throughput = Some(Throughput {
            per_second: Spread { min: 1e6, median: 2e6, max: 3e6 },
            member_per_second: Spread { min: 1e5, median: 2e5, max: 3e5 },
            of_one: 1.25,
        });
        let mut put = Row::new("shm", "put", "churn", 65_536);
        let census = Census { fds: 8, ..Census::default() };
        put.space = Some(Space {
            sizes: "log-normal".to_owned(),
            data_bytes: 4 << 30,
            puts: 1_000_000,
            used_share: Spread { min: 0.92, median: 0.97, max: 0.99 },
            payload_share: Spread { min: 0.85, median: 0.89, max: 0.9 },
            evictions_per_put: 1.0025,
            refused: 0,
            puts_per_second: 13_825.9,
            before: census,
            after: Census { retired_slots: 3, ..census },
        });
        let text = table(&[put, lease, lookup]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[2], lines[5]), (8, "", ""), "{text}");
        assert!(lines[1].contains("4000000") && lines[1].contains("91.5"), "{text}");
        for word in ["97.0%", "89.0%", "1.002", "8 > 8", "0 > 3"] {
            assert!(lines[4].contains(word), "{word} in {text}");
        }
        assert!(lines[7].contains("2.000") && lines[7].contains("125.0%"), "{text}");
    }
}
