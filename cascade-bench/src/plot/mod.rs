//! Plots as SVG: rate against block size, and hit rate against capacity, and bars for anything that
//! has a name and a length.

mod bars;
mod curves;
mod replay;

use cascade_core::{Error, ErrorKind};
use plotters::style::RGBColor;

pub use bars::{Bar, bars};
pub use curves::curves;
pub use replay::hit_rates;

/// Colours that are told apart also by the colour-blind (Okabe and Ito), darkest first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

fn failed(path: &std::path::Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::System, format!("cannot draw {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
