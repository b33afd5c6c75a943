//! Settings as text, read as what they must be; an error names the setting, its value and where it came from.

use std::collections::BTreeMap;

use cascade_core::units::parse_size;
use cascade_core::{Error, ErrorKind, Result};

use super::Origin;

/// The word that means `meaning`.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], meaning: &T) -> &'static str {
    words.iter().find(|(_, known)| known == meaning).map_or("", |(word, _)| *word)
}

/// Text and origin of every setting that somebody made.
pub(super) struct Values<'a>(pub(super) &'a BTreeMap<&'static str, (String, Origin)>);

impl Values<'_> {
    /// The text; `None` where nobody set it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.as_str())
    }

    /// An error about a setting.
    pub(super) fn wrong(&self, name: &str, value: &str, why: &str) -> Error {
        let origin = self.0.get(name).map_or("default", |(_, origin)| origin.name());
        Error::new(ErrorKind::Config, format!("{name} = {value:?} (from {origin}): {why}"))
    }

    /// Bytes.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>> {
        let read = |value| parse_size(value).map_err(|error| self.wrong(name, value, error.context()));
        self.text(name).map(read).transpose()
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>> {
        let read = |value: &str| {
            let number = value.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| {
                self.wrong(name, value, &format!("a whole number from {least} to {most} is needed"))
            })
        };
        self.text(name).map(read).transpose()
    }

    /// `on` or `off`.
    pub(super) fn switch(&self, name: &str, default: bool) -> Result<bool> {
        let default = if default { "on" } else { "off" };
        self.one_of(name, &[("on", true), ("off", false)], default)
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)], default: &str) -> Result<T> {
        let value = self.text(name).unwrap_or(default);
        let found = words.iter().find(|(word, _)| *word == value);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(name, value, &format!("{} is needed", known.join(" or ")))
        })
    }

    /// An absolute path.
    pub(super) fn path<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        let path = self.text(name).unwrap_or(default);
        if path.starts_with('/') {
            Ok(path)
        } else {
            Err(self.wrong(name, path, "an absolute path is needed"))
        }
    }
}
