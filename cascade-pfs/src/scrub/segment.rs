//! A segment, from its first byte to its last.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Result};
use std::sync::atomic::Ordering;

use cascade_core::digest::{self, CHUNK_BYTES};
use cascade_core::planted::{self, Bug};

use super::reader::Reader;
use super::{Finding, Progress, What};
use crate::core::Core;
use crate::fs::Access;
use crate::layout::{
    Damage, OtherVersion, PAGE_BYTES, PREFIX_BYTES, Record, SegmentHeader, Trailer, footer_bytes,
    header_bytes, padded, parse_index,
};
use crate::names::{Name, SegmentId};

const PAGE: u64 = PAGE_BYTES as u64;
/// Bytes of a header that is read in one piece with what stands around it.
const NEAR_HEADER: usize = 1 << 20;

/// What is known of a segment before it is looked at.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// What logs have put there.
    pub(super) puts: &'a [Record],
    /// The log says that it has its footer.
    pub(super) is_closed: bool,
    /// Its writer is at work on it: only what the log names is looked at.
    pub(super) is_open: bool,
}

#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) sound: u64,
}

pub(super) fn length(core: &Core, id: SegmentId) -> u64 {
    let file = core.fs.open(&core.path(Name::Segment(id)), Access::Read, false);
    file.and_then(|file| file.len_bytes()).unwrap_or(0)
}

/// Checks a segment.
pub(super) fn check(
    core: &Core,
    id: SegmentId,
    known: &Known<'_>,
    direct: bool,
    progress: &Progress,
) -> Result<Checked> {
    let path = core.path(Name::Segment(id));
    let opened = core.fs.open(&path, Access::Read, direct)?;
    let len = opened.len_bytes()?;
    // The end of a file that is no whole number of pages cannot be read past the cache.
    let aligned = len.is_multiple_of(PAGE) || !opened.is_direct();
    let file = if aligned { opened } else { core.fs.open(&path, Access::Read, false)? };
    let mut sweep = Sweep {
        id,
        len,
        reader: Reader::new(file.as_ref(), len),
        known: BTreeMap::new(),
        checked: Checked::default(),
        progress,
        done: 0,
    };
    known.puts.iter().for_each(|record| sweep.learn(*record));
    if sweep.is_of_other_version()? {
        sweep.find(0, len, What::OtherVersion);
        sweep.done_to(len);
        return Ok(sweep.checked);
    }
    sweep.first_page(known)?;
    let end = if known.is_open { sweep.known_end() } else { sweep.footer(known)? };
    sweep.records(end, known)?;
    sweep.done_to(len);
    Ok(sweep.checked)
}

struct Sweep<'a> {
    id: SegmentId,
    len: u64,
    reader: Reader<'a>,
    known: BTreeMap<u64, Record>,
    checked: Checked,
    progress: &'a Progress,
    done: u64,
}

impl Sweep<'_> {
    fn name(&self) -> Name {
        Name::Segment(self.id)
    }

    fn find(&mut self, at: u64, bytes: u64, what: What) {
        self.checked.findings.push(Finding::new(self.name(), at, bytes, what));
    }

    /// Everything before `at` was looked at.
    fn done_to(&mut self, at: u64) {
        let to = at.min(self.len);
        self.progress.done_bytes.fetch_add(to.saturating_sub(self.done), Ordering::Relaxed);
        self.done = to.max(self.done);
    }

    /// Takes note of what an index says.
    fn learn(&mut self, record: Record) {
        if let Some(other) = self.known.insert(record.offset, record)
            && other != record
        {
            self.checked.findings.push(Finding::of(self.name(), &record, What::Disagrees));
        }
    }

    /// Whether the first page says so, and is whole.
    fn is_of_other_version(&mut self) -> Result<bool> {
        Ok(self.len >= PAGE && OtherVersion::of(self.reader.bytes(0, PAGE_BYTES)?).is_some())
    }

    fn known_end(&self) -> u64 {
        let last = self.known.values().next_back();
        last.map_or(PAGE, |record| record.offset.saturating_add(record.bytes())).min(self.len)
    }

    fn first_page(&mut self, known: &Known<'_>) -> Result<()> {
        if self.len < PAGE {
            // A file that its writer had only begun.
            let what = if known.puts.is_empty() && !known.is_closed { What::Tail } else { What::Gap };
            self.find(0, self.len, what);
            return Ok(());
        }
        let page = self.reader.bytes(0, PAGE_BYTES)?;
        let is_begun = page.iter().any(|byte| *byte != 0);
        if let Err(damage) = SegmentHeader::parse(page, self.id.writer, self.id.number) {
            // It is written beside the first records.
            match known.puts.is_empty() && !known.is_closed && !is_begun {
                true if known.is_open => {}
                true => self.find(0, PAGE, What::Tail),
                false => self.find(0, PAGE, What::FirstPage(damage)),
            }
        }
        Ok(())
    }

    /// Checks the footer; gives the end of the records, the end of the file where there is no footer.
    fn footer(&mut self, known: &Known<'_>) -> Result<u64> {
        let (writer, number) = (self.id.writer, self.id.number);
        let Some(last) = self.len.checked_sub(PAGE).filter(|at| *at >= PAGE && at.is_multiple_of(PAGE))
        else {
            if known.is_closed {
                self.find(self.len, 0, What::Footer(Damage::Short));
            }
            return Ok(self.len);
        };
        let page = self.reader.bytes(last, PAGE_BYTES)?;
        let trailer = match Trailer::parse(page, writer, number, self.len) {
            Ok(trailer) => trailer,
            Err(damage) => {
                if known.is_closed {
                    self.find(last, PAGE, What::Footer(damage));
                    // The footer begins where the records that the log names end.
                    return Ok(self.known_end().max(PAGE));
                }
                return Ok(self.len);
            }
        };
        let bytes = usize::try_from(trailer.index_bytes()).map_err(|_| ErrorKind::OutOfMemory)?;
        let entries = if bytes <= NEAR_HEADER {
            parse_index(self.reader.bytes(trailer.index_at, bytes)?, &trailer, writer, number)
        } else {
            parse_index(&self.far(trailer.index_at, bytes)?, &trailer, writer, number)
        };
        match entries {
            Ok(entries) => entries.into_iter().for_each(|record| self.learn(record)),
            Err(damage) => self.find(trailer.index_at, trailer.index_bytes(), What::Footer(damage)),
        }
        Ok(trailer.index_at)
    }

    /// Bytes that are more than the reader takes at once.
    fn far(&mut self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let part = (len - bytes.len()).min(NEAR_HEADER);
            let more = self.reader.bytes(at + bytes.len() as u64, part)?.to_vec();
            bytes.extend(more);
        }
        Ok(bytes)
    }

    /// The header at `at`, if it is good and its record ends within `end`.
    fn header(&mut self, at: u64, end: u64) -> Result<Option<(Record, Vec<u64>)>> {
        if end.saturating_sub(at) < PAGE {
            return Ok(None);
        }
        let page = self.reader.bytes(at, PAGE_BYTES)?;
        let announced = Record::announced(&page[..PREFIX_BYTES]).ok().filter(|bytes| *bytes <= end - at);
        let Some(bytes) = announced.and_then(|bytes| usize::try_from(bytes).ok()) else { return Ok(None) };
        let (writer, number) = (self.id.writer, self.id.number);
        let parsed = if bytes <= NEAR_HEADER {
            Record::parse(self.reader.bytes(at, bytes)?, writer, number, at)
        } else {
            Record::parse(&self.far(at, bytes)?, writer, number, at)
        };
        Ok(parsed.ok().filter(|(record, _)| record.bytes() <= end - at))
    }

    fn records(&mut self, end: u64, known: &Known<'_>) -> Result<()> {
        let (mut at, mut records) = (PAGE, 0);
        while at < end && !self.progress.stop.load(Ordering::Relaxed) {
            records += 1;
            self.done_to(at);
            if let Some((record, digests)) = self.header(at, end)? {
                self.record(&record, &digests)?;
                at += record.bytes();
                continue;
            }
            if let Some(record) = self.known.get(&at).copied() {
                self.headless(&record)?;
                at = at.saturating_add(record.bytes()).min(end.max(at + PAGE));
                continue;
            }
            let next = self.next(at, end)?;
            let is_tail = next == end && !known.is_closed && end == self.len;
            // As long as the footer of what stands before it: it was one.
            let was_footer = is_tail && footer_bytes(records - 1) == next - at;
            self.find(
                at,
                next - at,
                match (was_footer, is_tail) {
                    (true, _) => What::Footer(Damage::Magic),
                    (_, true) => What::Tail,
                    _ => What::Gap,
                },
            );
            at = next;
        }
        if self.progress.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What is named behind the end of the records is not there.
        let beyond: Vec<Record> = self.known.range(at.max(PAGE)..).map(|(_, record)| *record).collect();
        for record in beyond {
            let finding = Finding::of(self.name(), &record, What::Header);
            self.checked.findings.push(finding.lost(&record));
        }
        Ok(())
    }

    /// Where the next record begins that is known, or whose header is good.
    fn next(&mut self, at: u64, end: u64) -> Result<u64> {
        let mut place = at / PAGE * PAGE + PAGE;
        while place < end {
            if self.known.contains_key(&place) || self.header(place, end)?.is_some() {
                return Ok(place);
            }
            place += PAGE;
        }
        Ok(end)
    }

    fn record(&mut self, record: &Record, digests: &[u64]) -> Result<()> {
        if let Some(other) = self.known.get(&record.offset).copied().filter(|other| other != record) {
            self.checked.findings.push(Finding::of(self.name(), &other, What::Disagrees).lost(&other));
        }
        let (found, padding) = self.payload(record)?;
        if found == digests {
            self.checked.sound += 1;
        } else {
            self.checked.findings.push(Finding::of(self.name(), record, What::Payload).lost(record));
        }
        self.padding(record, padding);
        Ok(())
    }

    /// A block whose header is damaged: it can be read whole if its payload is right.
    fn headless(&mut self, record: &Record) -> Result<()> {
        let finding = Finding::of(self.name(), record, What::Header);
        if record.offset.saturating_add(record.bytes()) > self.len {
            self.checked.findings.push(finding.lost(record));
            return Ok(());
        }
        let (digests, padding) = self.payload(record)?;
        let root = digest::root(record.id.as_bytes(), record.meta.len, digests.into_iter());
        let is_sound = root == record.meta.digest;
        self.checked.sound += u64::from(is_sound);
        self.checked.findings.push(if is_sound { finding } else { finding.lost(record) });
        self.padding(record, padding);
        Ok(())
    }

    fn padding(&mut self, record: &Record, is_zero: bool) {
        if !is_zero {
            self.checked.findings.push(Finding::of(self.name(), record, What::Padding));
        }
    }

    /// The digests of a payload, and whether what follows it is zero.
    fn payload(&mut self, record: &Record) -> Result<(Vec<u64>, bool)> {
        let (len, start) = (record.meta.len, record.offset + header_bytes(record.meta.len));
        let mut digests = Vec::new();
        let mut is_zero = true;
        let mut done = 0;
        while done < len {
            let part = (len - done).min(CHUNK_BYTES as u64);
            let pages = padded(part).unwrap_or(part);
            let [part, pages] = [part, pages].map(|bytes| usize::try_from(bytes).unwrap_or(CHUNK_BYTES));
            let bytes = self.reader.bytes(start + done, pages)?;
            digests.push(digest::crc64(&bytes[..part]));
            is_zero &= bytes[part..].iter().all(|byte| *byte == 0) || planted::is(Bug::UnseenPadding);
            done += part as u64;
        }
        Ok((digests, is_zero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io;

    #[test]
    fn a_reader_ends_where_the_file_ends() {
        use crate::fs::Fs;
        let fs = crate::testing::MemFs::new();
        let file = fs.open(std::path::Path::new("/d/a"), Access::Create, false).unwrap();
        io::write_all(file.as_ref(), &[crate::buffer::Buffer::of(&[7; 10_000]).piece()], 0).unwrap();
        let mut reader = Reader::new(file.as_ref(), 10_000);
        assert_eq!(reader.bytes(4096, 4096).unwrap(), [7; 4096]);
        assert_eq!(reader.bytes(8192, 1808).unwrap(), [7; 1808]);
        assert_eq!(reader.bytes(8192, 4096).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(reader.bytes(0, 10_000).unwrap().len(), 10_000);
    }
}
