//! Sizes as people type and read them, and rates. GB is 1e9 bytes; KiB, MiB and GiB are powers of 1,024.

use crate::{Error, ErrorKind, Result};

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Bytes of a size such as `64KiB`, `1.5GiB`, `2GB` or `4096`.
///
/// # Errors
/// `InvalidArgument` when it is not a number with one of these units, is zero, or is not a whole number of bytes.
///
/// ```
/// assert_eq!(cascade_core::units::parse_size("64KiB").unwrap(), 65_536);
/// ```
pub fn parse_size(text: &str) -> Result<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim());
    let factor = match unit {
        "" => Some(1),
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
    };
    factor.and_then(|factor| scaled(number, factor)).filter(|bytes| *bytes > 0).ok_or_else(|| {
        let hint = "a size is a number above 0 with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB behind it, such as 512MiB";
        Error::new(ErrorKind::InvalidArgument, format!("{text:?} is not a size: {hint}"))
    })
}

/// `number` times `factor` when that is a whole number.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Beyond 2^53 a float no longer holds every whole number.
    (bytes.fract() == 0.0 && bytes < 9e15).then_some(bytes as u64)
}

/// Sizes separated by commas.
///
/// # Errors
/// As [`parse_size`], for the first that is wrong.
pub fn parse_sizes(text: &str) -> Result<Vec<u64>> {
    text.split(',').map(parse_size).collect()
}

/// A size for people: in the largest binary unit that gives at least 1, with at most one decimal.
///
/// ```
/// assert_eq!(cascade_core::units::format_size(512 << 20), "512MiB");
/// ```
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let unit = UNITS[..4].iter().rev().find(|(_, factor)| bytes >= *factor);
    let Some((name, factor)) = unit else { return format!("{bytes}B") };
    let value = bytes as f64 / *factor as f64;
    if bytes.is_multiple_of(*factor) {
        format!("{}{name}", bytes / factor)
    } else {
        format!("{value:.1}{name}")
    }
}

/// A size that [`parse_size`] reads as exactly these bytes: in the largest binary unit of which it is a whole number.
///
/// ```
/// assert_eq!(cascade_core::units::exact_size(3 << 29), "1536MiB");
/// ```
#[must_use]
pub fn exact_size(bytes: u64) -> String {
    let whole = |(_, factor): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*factor);
    match UNITS[..4].iter().rev().find(whole) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Rate of `bytes` in `seconds`, in GB/s.
#[must_use]
pub fn gbps(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds.max(1e-12) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("4096", 4096),
            ("1B", 1),
            ("64KiB", 65_536),
            ("512mib", 512 << 20),
            (" 1 GiB ", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("0.5KiB", 512),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(parse_sizes("64KiB,1MiB").unwrap(), [65_536, 1 << 20]);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "0", "-1", "1XiB", "1.5B", "1..5KiB", "99999999999999TiB", "1e3", "64KiB,"] {
            let parsed = parse_sizes(text);
            assert_eq!(parsed.unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["1023B", "64KiB", "512MiB", "1GiB", "3TiB"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(format_size(3 << 29), "1.5GiB");
    }

    #[test]
    fn exact_sizes_are_read_back_as_they_were() {
        for bytes in [1, 1023, 1024, 1025, (1 << 20) + 4096, 3 << 29, 10_000_000_000, 5 << 40] {
            assert_eq!(parse_size(&exact_size(bytes)).unwrap(), bytes);
        }
        assert_eq!((exact_size(65 << 20), exact_size(1_000_001)), ("65MiB".into(), "1000001B".into()));
    }

    #[test]
    fn a_gigabyte_has_nine_zeros() {
        assert!((gbps(2_000_000_000, 0.5) - 4.0).abs() < 1e-9);
    }
}
