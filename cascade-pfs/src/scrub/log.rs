//! A log, record by record, beyond the first that is damaged too.

use std::io::Result;

use super::{Finding, Index, What};
use crate::core::Core;
use crate::fs::Access;
use crate::io;
use crate::layout::{Damage, LOG_RECORD_BYTES, LogHeader, LogRecord, PAGE_BYTES, WriterId};
use crate::names::Name;

/// Records read at once: 4 MiB.
const PART: u64 = (4 << 20) / LOG_RECORD_BYTES as u64;

/// Checks a log and notes in `index` what it says.
pub(super) fn check(core: &Core, writer: WriterId, index: &mut Index) -> Result<Vec<Finding>> {
    let name = Name::Log(writer);
    let file = core.fs.open(&core.path(name), Access::Read, false)?;
    let len = file.len_bytes()?;
    let mut found = Vec::new();
    if len < PAGE_BYTES as u64 {
        found.push(Finding::new(name, 0, len, What::LogTail));
        return Ok(found);
    }
    let mut page = io::read_bytes(file.as_ref(), 0, PAGE_BYTES)?;
    let header = LogHeader::parse(page.bytes(), writer);
    if header == Err(Damage::Version) {
        found.push(Finding::new(name, 0, len, What::OtherVersion));
        return Ok(found);
    }
    if let Err(damage) = header {
        found.push(Finding::new(name, 0, PAGE_BYTES as u64, What::LogPage(damage)));
    }
    let records = (len - PAGE_BYTES as u64) / LOG_RECORD_BYTES as u64;
    let mut damaged: Vec<(u64, Damage)> = Vec::new();
    let mut last_good = None;
    let mut first = 0;
    while first < records {
        let count = PART.min(records - first);
        let bytes = usize::try_from(count).unwrap_or(0) * LOG_RECORD_BYTES;
        let mut buffer = io::read_bytes(file.as_ref(), LogRecord::at(first), bytes)?;
        for (number, bytes) in (first..).zip(buffer.bytes().chunks_exact(LOG_RECORD_BYTES)) {
            match LogRecord::parse(bytes, writer, number) {
                Ok(record) => {
                    last_good = Some(number);
                    let is_heard = header.is_ok() && damaged.is_empty();
                    if let Some(LogRecord { event, .. }) = record {
                        index.take(writer, event, is_heard);
                    }
                }
                Err(damage) => damaged.push((number, damage)),
            }
        }
        first += count;
    }
    // What stands behind the last good record may be a write that was cut off; what stands before it may not.
    let within = |number: u64| last_good.is_some_and(|last| number < last);
    for (number, damage) in damaged.iter().filter(|(number, _)| within(*number)) {
        found.push(Finding::new(
            name,
            LogRecord::at(*number),
            LOG_RECORD_BYTES as u64,
            What::LogRecord(*damage),
        ));
    }
    let end = LogRecord::at(last_good.map_or(0, |last| last + 1));
    if end < len {
        found.push(Finding::new(name, end, len - end, What::LogTail));
    }
    Ok(found)
}
