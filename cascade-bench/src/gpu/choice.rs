//! How good the calibrated choice is: of each measurement, beside the best of the fixed ways that were measured with it.

use crate::report::{Ceiling, Row};

/// What a row without a forced way is called, and what stands before the name of a forced one.
const CALIBRATED: &str = "calibrated";
const BARE: &str = "without digests";

/// One row for each size and direction: the calibrated rate, and as its ceiling the best fixed way's.
pub(super) fn rows(measured: &[Row]) -> Vec<Row> {
    let chosen = measured.iter().filter(|row| is_chosen(row));
    chosen.filter_map(|row| beside_the_best(row, measured)).collect()
}

/// The row of [`rows`] that is the furthest below its best, in words.
pub(super) fn worst(rows: &[Row]) -> String {
    let least = rows.iter().filter_map(|row| Some((row.efficiency?, row)));
    match least.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((least, row)) => format!(
            "the calibrated choice is at least {:.1} % of the best fixed way, in {} measurements; least: {} of {} bytes",
            least * 100.0,
            rows.len(),
            row.path,
            row.block_bytes
        ),
        None => "nothing was measured to compare the calibrated choice with".to_owned(),
    }
}

fn is_chosen(row: &Row) -> bool {
    row.path == "registered" || row.path.ends_with(CALIBRATED)
}

/// What the paths of all ways of one measurement begin with.
fn family(path: &str) -> &str {
    path.strip_suffix(CALIBRATED).unwrap_or(path).trim_end()
}

fn beside_the_best(chosen: &Row, measured: &[Row]) -> Option<Row> {
    let family = family(&chosen.path);
    let way = |row: &Row| {
        let way = row.path.strip_prefix(family)?.strip_prefix(' ')?;
        let is_other = way == CALIBRATED || way.ends_with(BARE) || way.starts_with("batch") && way != "batch";
        (row.op == chosen.op && row.block_bytes == chosen.block_bytes && !is_other).then(|| way.to_owned())
    };
    let fixed = measured.iter().filter_map(|row| Some((way(row)?, row.gbps?.median)));
    let (way, gbps) = fixed.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let mut row = Row::new("gpu", "choice", &format!("{} {family}", chosen.op), chosen.block_bytes);
    row.n = chosen.n;
    row.set_rate(chosen.gbps, Some(Ceiling { what: format!("the best fixed way, {way}"), gbps }));
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Spread;

    fn row(op: &str, path: &str, block: u64, gbps: f64) -> Row {
        let mut row = Row::new("gpu", op, path, block);
        row.set_rate(Spread::of(&[gbps]), None);
        row
    }

    #[test]
    fn each_size_and_direction_has_its_best() {
        let measured = [
            row("put", "registered", 8, 45.0),
            row("put", "registered batch32", 8, 99.0),
            row("put", "registered dma", 8, 50.0),
            row("put", "registered move32", 8, 43.0),
            row("get", "registered", 8, 50.0),
            row("get", "registered dma", 8, 40.0),
            row("put", "registered dma", 64, 60.0),
            row("load pages", "llama 4096 B calibrated", 7, 49.0),
            row("load pages", "llama 4096 B relay32", 7, 50.0),
            row("load pages", "llama 4096 B batch", 7, 3.0),
            row("load pages", "llama 4096 B relay32 without digests", 7, 53.0),
            row("put", "pageable", 8, 20.0),
        ];
        let rows = rows(&measured);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.path.as_str(), row.ceiling.as_ref().unwrap().what.as_str(), row.efficiency.unwrap())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("put registered", "the best fixed way, dma", 0.9),
                ("get registered", "the best fixed way, dma", 1.25),
                ("load pages llama 4096 B", "the best fixed way, relay32", 0.98),
            ]
        );
        assert!(worst(&rows).contains("90.0 %") && worst(&rows).ends_with("put registered of 8 bytes"));
    }
}
