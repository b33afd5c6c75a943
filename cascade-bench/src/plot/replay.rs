//! Hit rate against capacity.

use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use plotters::prelude::*;

use super::{COLOURS, FONT, colour, failed};
use crate::report::{Replay, Row};

/// Draws the hit rate of each policy in `rows` against the capacity (logarithmic) to the SVG file `path`.
///
/// # Errors
/// `InvalidArgument` when no row is a replay, `System` when the file cannot be written.
pub fn hit_rates(path: &Path, title: &str, rows: &[Row]) -> Result<()> {
    let replays: Vec<&Replay> = rows.iter().filter_map(|row| row.replay.as_ref()).collect();
    let capacities = || replays.iter().map(|replay| replay.capacity_blocks as f64);
    let (smallest, largest) = (capacities().fold(f64::INFINITY, f64::min), capacities().fold(0.0, f64::max));
    let highest = replays.iter().map(|replay| replay.hit_rate * 100.0).fold(1.0, f64::max);
    if replays.is_empty() {
        let context = format!("cannot draw {}: nothing was replayed", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, context));
    }
    let mut policies: Vec<&str> = Vec::new();
    for replay in &replays {
        if !policies.contains(&replay.policy.as_str()) {
            policies.push(&replay.policy);
        }
    }
    let area = SVGBackend::new(path, (1000, 600)).into_drawing_area();
    let draw = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let sizes = (smallest / 1.2..largest * 1.2).log_scale();
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(sizes, 0.0..highest * 1.1)?;
        let whole = |value: &f64| format!("{value:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("capacity in blocks").y_desc("hits, % of blocks named");
        mesh.x_label_formatter(&whole).y_label_formatter(&whole);
        mesh.label_style((FONT, 14)).light_line_style(WHITE).draw()?;
        for (index, policy) in policies.iter().enumerate() {
            let shade = if index < COLOURS.len() { 1.0 } else { 0.5 };
            let line = colour(index).mix(shade).stroke_width(if index == 0 { 4 } else { 2 });
            let mut points: Vec<(f64, f64)> = replays
                .iter()
                .filter(|replay| replay.policy == *policy)
                .map(|replay| (replay.capacity_blocks as f64, replay.hit_rate * 100.0))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let sample = move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line);
            let series = chart.draw_series(LineSeries::new(points, line).point_size(3))?;
            series.label(*policy).legend(sample);
        }
        let mut legend = chart.configure_series_labels();
        legend.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).label_font((FONT, 13));
        legend.position(SeriesLabelPosition::LowerRight).draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| failed(path, &error))
}
