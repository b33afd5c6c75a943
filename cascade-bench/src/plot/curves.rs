//! Rate against block size.

use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use plotters::prelude::*;

use super::{COLOURS, FONT, colour, failed};
use crate::report::Row;
use crate::units::format_size;

/// Height of the plot over the highest point: the legend lies above the curves.
const HEADROOM: f64 = 1.6;

/// Rows that are drawn: memory that was touched before, and files.
const STATES: [&str; 4] = ["hot", "new", "cold", "warm"];

/// One line of the plot: `(bytes of a block, GB/s)`.
struct Curve {
    name: String,
    is_ceiling: bool,
    /// A curve and its ceiling have one number, and so one colour.
    pair: usize,
    points: Vec<(f64, f64)>,
}

/// Draws the rates of `rows`, but those of first touch, against the block size (logarithmic) to the SVG file `path`: put and get of each system,
/// path and number of threads, and dashed in the same colours the ceilings that they were measured with.
///
/// # Errors
/// `InvalidArgument` when no row has a rate, `System` when the file cannot be written.
pub fn curves(path: &Path, title: &str, rows: &[Row]) -> Result<()> {
    let curves = collect(rows);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    let smallest = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let largest = points().map(|point| point.0).fold(0.0, f64::max);
    if highest <= 0.0 {
        let context = format!("cannot draw {}: no rates were measured", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, context));
    }
    let area = SVGBackend::new(path, (1100, 640)).into_drawing_area();
    let draw = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        // One size alone would give an axis without length.
        let sizes = (smallest / 1.2..largest * 1.2).log_scale().base(2.0);
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 24))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(sizes, 0.0..highest * HEADROOM)?;
        let size = |bytes: &f64| format_size(*bytes as u64);
        let rate = |gbps: &f64| format!("{gbps:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("block")
            .y_desc("GB/s (dashed: ceiling)")
            .x_label_formatter(&size)
            .y_label_formatter(&rate);
        mesh.label_style((FONT, 14)).light_line_style(WHITE).draw()?;
        for curve in &curves {
            let style = colour(curve.pair).mix(if curve.pair < COLOURS.len() { 1.0 } else { 0.5 });
            let line = style.stroke_width(if curve.is_ceiling { 1 } else { 3 });
            let points = curve.points.iter().copied();
            if curve.is_ceiling {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, line))?;
            } else {
                let sample = move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line);
                let series = chart.draw_series(LineSeries::new(points, line).point_size(3))?;
                series.label(curve.name.clone()).legend(sample);
            }
        }
        let mut legend = chart.configure_series_labels();
        legend.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).label_font((FONT, 13));
        legend.position(SeriesLabelPosition::UpperLeft).draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| failed(path, &error))
}

fn collect(rows: &[Row]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for row in rows.iter().filter(|row| STATES.contains(&&*row.state)) {
        let Some(gbps) = row.gbps else { continue };
        let name = format!("{} {} {} x{}", row.system, row.op, row.path, row.threads);
        let ceiling = row.ceiling.as_ref().map(|ceiling| (true, ceiling.gbps));
        for (is_ceiling, gbps) in [(false, gbps.median)].into_iter().chain(ceiling) {
            let point = (row.block_bytes as f64, gbps);
            match curves.iter_mut().find(|curve| curve.name == name && curve.is_ceiling == is_ceiling) {
                Some(curve) => curve.points.push(point),
                None => {
                    let others =
                        curves.iter().filter(|curve| !curve.is_ceiling && curve.name != name).count();
                    curves.push(Curve { name: name.clone(), is_ceiling, pair: others, points: vec![point] });
                }
            }
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}
