//! The mount table.

use std::path::{Path, PathBuf};

use super::machine::Machine;

pub(super) const TABLE: &str = "/proc/self/mountinfo";

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Major and minor number of what is mounted.
    pub(super) device: String,
    /// The part of it that is: `/` unless it is a bind mount.
    pub(super) part: String,
    pub(super) point: PathBuf,
    /// Kind of file system.
    pub(super) kind: String,
    /// Options of the mount and of the file system.
    options: Vec<String>,
}

impl Mount {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let mut rest = filesystem.split(' ');
        let kind = rest.next()?.to_owned();
        let options = [fields.get(5).copied().unwrap_or_default(), rest.nth(1).unwrap_or_default()];
        Some(Self {
            device: (*fields.get(2)?).into(),
            part: (*fields.get(3)?).into(),
            // Spaces are written as \040.
            point: fields.get(4)?.replace("\\040", " ").into(),
            kind,
            options: options.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
        })
    }

    /// The value of an option; empty for one without a value.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| {
            let (found, value) = option.split_once('=').unwrap_or((option, ""));
            (found == name).then_some(value)
        })
    }
}

/// The mount that `path` lies on, by the table at `table`; a later one hides an earlier one.
pub(super) fn of(machine: &Machine, table: &str, path: &Path) -> Option<Mount> {
    let text = machine.read(table)?;
    let mounts = text.lines().filter_map(Mount::parse).filter(|mount| path.starts_with(&mount.point));
    mounts.max_by_key(|mount| mount.point.components().count())
}
