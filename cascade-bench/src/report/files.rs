//! What rows of the tier of files say beside rates and times, and their table.

use serde::{Deserialize, Serialize};

use super::Row;
use super::table::{BLOCK, Columns, SPEED, SUBJECT, dash, verdict};
use crate::stats::Spread;
use crate::units::format_size;

/// How files were written or read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// `none`: when the system writes; `end`: all of it before the clock stops; `block`: each block when it is acknowledged.
    pub durability: String,
    /// What made the calls, such as `io_uring` or `8 threads, pwrite`.
    pub engine: String,
    /// Bytes of a call.
    pub io_bytes: u64,
    /// Calls under way at once.
    pub depth: usize,
    /// Whether data goes past the page cache; `None` where that is not known.
    pub direct: Option<bool>,
    /// This system's rate over that of fio in the same repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_fio: Option<Spread>,
    /// This system's rate over that of the plain loop in the same repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_plain: Option<Spread>,
    /// This system's rate over that of vLLM's tier in the same repetition, as durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_vllm: Option<Spread>,
    /// Of reads: where the bytes came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Of writes: what is on the disk after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// Where bytes that were read came from: the worst of all repetitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Bytes of the files in the page cache before reading, by mincore; `None` where it could not be asked.
    pub resident_bytes: Option<u64>,
    /// Bytes that the reading process had from devices, by `/proc/PID/io`; `None` where the system does not count them.
    pub device_bytes: Option<u64>,
    /// Bytes that were read.
    pub payload_bytes: u64,
    /// How caches were dropped; `None` where they were not.
    pub dropped: Option<String>,
}

impl Origin {
    /// Whether caches were dropped, and the bytes then came from the device: no page was there, and as many bytes were read
    /// from the device as there are, where the system counts them.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        let by_device = self.device_bytes.is_none_or(|bytes| bytes >= self.payload_bytes);
        self.dropped.is_some() && self.resident_bytes == Some(0) && by_device
    }

    /// The less cold of two.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let resident = self.resident_bytes.zip(other.resident_bytes).map(|(a, b)| a.max(b));
        let device = self.device_bytes.zip(other.device_bytes).map(|(a, b)| a.min(b));
        Self { resident_bytes: resident, device_bytes: device, ..self }
    }

    fn cell(&self) -> String {
        let resident = self
            .resident_bytes
            .map_or_else(|| "? cached".to_owned(), |b| format!("{} cached", format_size(b)));
        let share = |bytes: u64| {
            format!("{:.0}% from device", bytes as f64 / self.payload_bytes.max(1) as f64 * 100.0)
        };
        let device = self.device_bytes.map_or_else(|| "device not counted".to_owned(), share);
        format!("{resident}, {device}")
    }
}

/// Files that one repetition made, and what that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Bytes that were to be stored.
    pub payload_bytes: u64,
    /// Files.
    pub files: u64,
    /// Sum of their lengths.
    pub file_bytes: u64,
    /// What the file system took for them.
    pub allocated_bytes: u64,
    /// Bytes that were sent to devices, by `/proc/PID/io`: the data, without the journal of the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes: Option<u64>,
    /// Calls, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// As many files there may be, where that is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_limit: Option<u64>,
}

/// Calls to the file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Files made.
    pub creates: u64,
    /// Files opened that were there.
    pub opens: u64,
    /// Files removed.
    pub removes: u64,
    /// Directories listed or made.
    pub lists: u64,
    /// Lengths and times asked or set, files cut, locks taken or asked.
    pub attributes: u64,
    /// fdatasync, and fsync of directories.
    pub syncs: u64,
    /// Writes.
    pub writes: u64,
    /// Reads.
    pub reads: u64,
}

impl Calls {
    /// Calls that a metadata server answers.
    #[must_use]
    pub fn metadata(&self) -> u64 {
        self.creates + self.opens + self.removes + self.lists + self.attributes
    }
}

/// How long it takes until the blocks of a directory are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Bytes of the index that is read.
    pub index_bytes: u64,
    /// Seconds until the handle is there.
    pub open_s: Spread,
    /// Seconds from the start to the first hit.
    pub first_hit_s: Spread,
    /// Seconds from the start until every block asked for was found.
    pub last_hit_s: Spread,
    /// MB of index a second, over the time to the last hit.
    pub scan_mb_per_s: Spread,
}

fn files(row: &Row, cell: impl FnOnce(&Files) -> String) -> String {
    row.files.as_ref().map_or_else(dash, cell)
}

fn made(row: &Row, cell: impl FnOnce(&Made) -> String) -> String {
    row.files.as_ref().and_then(|files| files.made.as_ref()).map_or_else(dash, cell)
}

fn calls(row: &Row, cell: impl FnOnce(&Calls, f64) -> String) -> String {
    let made = row.files.as_ref().and_then(|files| files.made.as_ref());
    let gb = made.map_or(1.0, |made| made.payload_bytes as f64 / 1e9);
    made.and_then(|made| made.calls.as_ref()).map_or_else(dash, |calls| cell(calls, gb))
}

fn per(count: u64, gb: f64) -> String {
    format!("{:.1}", count as f64 / gb)
}

fn spread(value: Option<Spread>) -> String {
    value.map_or_else(dash, |v| {
        format!("{:.0} [{:.0}-{:.0}]%", v.median * 100.0, v.min * 100.0, v.max * 100.0)
    })
}

pub(super) const FILES: Columns = &[
    SUBJECT,
    BLOCK,
    &[
        ("state", true, |row| row.state.clone()),
        ("io", false, |row| files(row, |files| format_size(files.io_bytes))),
        ("depth", false, |row| row.threads.to_string()),
        ("direct", true, |row| {
            files(row, |f| f.direct.map_or("?", |d| if d { "yes" } else { "no" }).to_owned())
        }),
        ("n", false, |row| row.n.to_string()),
    ],
    SPEED,
    &[
        ("paired, of fio", false, |row| files(row, |files| spread(files.of_fio))),
        ("paired, of plain loop", false, |row| files(row, |files| spread(files.of_plain))),
        ("of vLLM", false, |row| files(row, |files| spread(files.of_vllm))),
        ("files", false, |row| made(row, |made| made.files.to_string())),
        ("disk/payload", false, |row| {
            made(row, |m| format!("{:.3}", m.allocated_bytes as f64 / m.payload_bytes as f64))
        }),
        ("proof", true, |row| files(row, |f| f.origin.as_ref().map_or_else(dash, Origin::cell))),
        ("bytes", true, verdict),
    ],
];

pub(super) const COUNTS: Columns = &[
    SUBJECT,
    BLOCK,
    &[
        ("blocks", false, |row| row.blocks.map_or_else(dash, |blocks| blocks.to_string())),
        ("files", false, |row| made(row, |made| made.files.to_string())),
        ("at most", false, |row| {
            made(row, |made| made.files_limit.map_or_else(dash, |limit| limit.to_string()))
        }),
        ("per GB: creates", false, |row| calls(row, |calls, gb| per(calls.creates, gb))),
        ("metadata", false, |row| calls(row, |calls, gb| per(calls.metadata(), gb))),
        ("syncs", false, |row| calls(row, |calls, gb| per(calls.syncs, gb))),
        ("writes", false, |row| calls(row, |calls, gb| per(calls.writes, gb))),
        ("reads", false, |row| calls(row, |calls, gb| per(calls.reads, gb))),
        ("file/payload", false, |row| {
            made(row, |m| format!("{:.4}", m.file_bytes as f64 / m.payload_bytes as f64))
        }),
        ("disk/payload", false, |row| {
            made(row, |m| format!("{:.4}", m.allocated_bytes as f64 / m.payload_bytes as f64))
        }),
        ("written/payload", false, |row| {
            made(row, |m| {
                m.device_bytes.map_or_else(dash, |b| format!("{:.4}", b as f64 / m.payload_bytes as f64))
            })
        }),
        ("check", true, |row| {
            row.verified.map_or("-", |holds| if holds { "holds" } else { "BROKEN" }).to_owned()
        }),
    ],
];

fn opening(row: &Row, cell: impl FnOnce(&Opening) -> Spread, digits: usize) -> String {
    let text = |v: Spread| format!("{:.digits$} [{:.digits$}-{:.digits$}]", v.median, v.min, v.max);
    row.opening.as_ref().map_or_else(dash, |opening| text(cell(opening)))
}

pub(super) const OPENINGS: Columns = &[
    SUBJECT,
    &[
        ("state", true, |row| row.state.clone()),
        ("blocks", false, |row| row.blocks.map_or_else(dash, |blocks| blocks.to_string())),
        ("n", false, |row| row.n.to_string()),
        ("index", false, |row| {
            row.opening.as_ref().map_or_else(dash, |opening| format_size(opening.index_bytes))
        }),
        ("open s", false, |row| opening(row, |opening| opening.open_s, 3)),
        ("first hit s", false, |row| opening(row, |opening| opening.first_hit_s, 3)),
        ("last hit s", false, |row| opening(row, |opening| opening.last_hit_s, 3)),
        ("scan MB/s", false, |row| opening(row, |opening| opening.scan_mb_per_s, 0)),
        ("memory B/block", false, |row| row.index_bytes.map_or_else(dash, |bytes| format!("{bytes:.1}"))),
        ("found", true, |row| row.verified.map_or("-", |all| if all { "all" } else { "NOT ALL" }).to_owned()),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_is_what_is_proven() {
        let cold = Origin {
            resident_bytes: Some(0),
            device_bytes: Some(4096),
            payload_bytes: 4096,
            dropped: Some("posix_fadvise".to_owned()),
        };
        assert!(cold.is_cold());
        let not_counted = Origin { device_bytes: None, ..cold.clone() };
        assert!(not_counted.is_cold(), "mincore alone");
        for warm in [
            Origin { dropped: None, ..cold.clone() },
            Origin { resident_bytes: Some(4096), ..cold.clone() },
            Origin { resident_bytes: None, ..cold.clone() },
            Origin { device_bytes: Some(4095), ..cold.clone() },
        ] {
            assert!(!warm.is_cold(), "{warm:?}");
            assert!(!cold.clone().worse(warm.clone()).is_cold() || warm.dropped.is_none());
        }
    }
}
