//! What the command lines of all suites have.

use std::ffi::OsStr;
use std::path::PathBuf;

/// Where results go, beside the table.
#[derive(Debug, clap::Args)]
pub struct Outputs {
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the results as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// The suite that a command line asks for: suites have options of their own.
#[must_use]
pub fn wanted<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Option<String> {
    let mut words = words.into_iter().map(OsStr::to_string_lossy);
    while let Some(word) = words.next() {
        match word.strip_prefix("--suite") {
            Some("") => return Some(words.next().unwrap_or_default().into_owned()),
            Some(name) if name.starts_with('=') => return Some(name[1..].to_owned()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_found_in_both_spellings() {
        let wanted = |line: &str| wanted(line.split(' ').map(OsStr::new));
        assert_eq!(wanted("--json x --suite oversubscription").as_deref(), Some("oversubscription"));
        assert_eq!(wanted("--suite=trace --json x").as_deref(), Some("trace"));
        assert_eq!(wanted("--suite").as_deref(), Some(""), "clap says what is wrong");
        assert_eq!(wanted("--suites trace --tier shm"), None);
    }
}
