//! The results as a table for people.

use super::Row;
use crate::units::format_size;

const HEADS: [&str; 15] = [
    "system", "op", "path", "block", "threads", "state", "n", "min", "GB/s", "max", "ceiling", "of it",
    "p50 us", "p99 us", "bytes",
];

/// The rows as lines of text, columns aligned, rates in GB/s (median under `GB/s`).
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let lines: Vec<_> = std::iter::once(HEADS.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    aligned(&lines)
}

fn cells(row: &Row) -> [String; 15] {
    let rate = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), microseconds);
    let blocks = row.blocks.map(|blocks| format!(" of {blocks}")).unwrap_or_default();
    [
        row.system.clone(),
        row.op.clone(),
        format!("{}{blocks}", row.path),
        format_size(row.block_bytes),
        row.threads.to_string(),
        row.state.clone(),
        row.n.to_string(),
        rate(row.gbps.map(|gbps| gbps.min)),
        rate(row.gbps.map(|gbps| gbps.median)),
        rate(row.gbps.map(|gbps| gbps.max)),
        rate(row.ceiling.as_ref().map(|ceiling| ceiling.gbps)),
        row.efficiency.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0)),
        time(row.latency_us.map(|latency| latency.p50)),
        time(row.latency_us.map(|latency| latency.p99)),
        row.verified.map_or("-", |verified| if verified { "right" } else { "WRONG" }).to_owned(),
    ]
}

/// Three digits that matter.
fn microseconds(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.3}"),
        1.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Words to the left, figures to the right.
fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let is_word = |column: usize| matches!(column, 0 | 1 | 2 | 5);
    let line = |cells: &[String; N]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| match is_word(column) {
            true => format!("{cell:<0$}", widths[column]),
            false => format!("{cell:>0$}", widths[column]),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Ceiling;
    use crate::stats::Spread;

    #[test]
    fn a_table_has_a_line_a_row_and_says_what_is_wrong() {
        let mut row = Row::new("shm", "put", "single", 512 << 20);
        let ceiling = Ceiling { what: "copy".to_owned(), gbps: 25.0 };
        row.set_rate(Some(Spread { min: 20.0, median: 22.5, max: 23.0 }), Some(ceiling));
        row.verified = Some(false);
        let text = table(&[row]);
        assert_eq!(text.lines().count(), 2);
        for word in ["512MiB", "22.50", "90.0%", "WRONG"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
