//! Horizontal bars.

use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FONT, colour, failed};

const WIDTH: u32 = 960;
const BAR_HEIGHT: u32 = 46;
const HEAD_HEIGHT: u32 = 60;
const FOOT_HEIGHT: u32 = 24;
const LABEL_WIDTH: i32 = 250;
const VALUE_WIDTH: i32 = 200;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for, written at its left.
    pub label: String,
    /// Its length; finite and not negative.
    pub value: f64,
    /// Written at its end, such as `0.42 s`.
    pub note: String,
}

/// Draws `chart` to the SVG file `path`, the bars from the top in the order given, lengths in proportion to the longest.
///
/// # Errors
/// `InvalidArgument` when there is no bar or a value is negative or not finite, `System` when the file cannot be written.
///
/// ```
/// use cascade_bench::plot::{Bar, bars};
/// let path = std::env::temp_dir().join("cascade-bars-example.svg");
/// let bar = |label: &str, value| Bar { label: label.to_owned(), value, note: format!("{value} s") };
/// bars(&path, "Time to first token", &[bar("recompute", 5.2), bar("arena", 0.3)])?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), cascade_core::Error>(())
/// ```
pub fn bars(path: &Path, title: &str, chart: &[Bar]) -> Result<()> {
    let longest = chart.iter().map(|bar| bar.value).fold(0.0, f64::max);
    if chart.is_empty() || chart.iter().any(|bar| !bar.value.is_finite() || bar.value < 0.0) {
        let context = format!("cannot draw {}: bars need finite lengths from 0 on", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, context));
    }
    let rows = u32::try_from(chart.len()).unwrap_or(u32::MAX / BAR_HEIGHT / 2);
    let area =
        SVGBackend::new(path, (WIDTH, HEAD_HEIGHT + FOOT_HEIGHT + rows * BAR_HEIGHT)).into_drawing_area();
    let draw = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let middle = |x, y| (x, y);
        area.draw(&Text::new(title.to_owned(), middle(20, 22), (FONT, 24)))?;
        for (index, bar) in chart.iter().enumerate() {
            let top = HEAD_HEIGHT as i32 + index as i32 * BAR_HEIGHT as i32;
            let room = f64::from(WIDTH as i32 - LABEL_WIDTH - VALUE_WIDTH);
            let share = if longest > 0.0 { bar.value / longest } else { 0.0 };
            let end = LABEL_WIDTH + (room * share).round().max(1.0) as i32;
            let bottom = top + BAR_HEIGHT as i32 - 12;
            area.draw(&Rectangle::new([(LABEL_WIDTH, top), (end, bottom)], colour(index).filled()))?;
            let centre = (top + bottom) / 2;
            let left = text(HPos::Right);
            area.draw(&Text::new(bar.label.clone(), (LABEL_WIDTH - 10, centre), left))?;
            area.draw(&Text::new(bar.note.clone(), (end + 10, centre), text(HPos::Left)))?;
        }
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| failed(path, &error))
}

fn text(side: HPos) -> TextStyle<'static> {
    (FONT, 16).into_text_style(&(WIDTH, BAR_HEIGHT)).pos(Pos::new(side, VPos::Center))
}
