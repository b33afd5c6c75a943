//! The index log: what a writer has done, in order, for all others to follow.

use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};

use super::{
    Damage, PAGE_BYTES, Page, Record, WriterId, begin_page, check_page, end_page, get, get_u64, put, put_u64,
    record_bytes,
};

pub(super) const MAGIC: [u8; 8] = *b"CASCILOG";
/// Bytes of one record of the log. A power of two, so that none crosses a page.
pub const LOG_RECORD_BYTES: usize = 128;
const DIGEST_AT: usize = 120;

/// The first page of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Whose log this is.
    pub writer: WriterId,
}

impl LogHeader {
    /// The page.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let mut page = begin_page(MAGIC);
        put(&mut page, 24, &self.writer.0);
        end_page(&mut page);
        page
    }

    /// Reads the first page of the log of `writer`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], writer: WriterId) -> Result<Self, Damage> {
        let page = check_page(bytes, MAGIC)?;
        let found = WriterId(get(page, 24));
        if found == writer { Ok(Self { writer }) } else { Err(Damage::Misplaced) }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A block was stored in a segment of this writer.
    Put(Record),
    /// Everything of this id with a smaller sequence, whoever wrote it, is forgotten.
    Forget {
        /// Which block.
        id: BlockId,
        /// When.
        sequence: u64,
    },
    /// A segment, of this writer or of one whose segments it has adopted, is removed.
    Drop {
        /// Who wrote it.
        writer: WriterId,
        /// Its number.
        segment: u64,
    },
    /// The segment has its footer.
    Close {
        /// Its number.
        segment: u64,
    },
    /// The writer ended in good order and writes no more.
    End,
}

/// One event at its place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number in the log, counted from 0.
    pub number: u64,
    /// What happened.
    pub event: LogEvent,
}

impl LogRecord {
    /// Where record `number` begins, in bytes from the start of the file.
    #[must_use]
    pub const fn at(number: u64) -> u64 {
        PAGE_BYTES as u64 + number * LOG_RECORD_BYTES as u64
    }

    /// The bytes of this record in the log of `writer`.
    #[must_use]
    pub fn to_bytes(&self, writer: WriterId) -> [u8; LOG_RECORD_BYTES] {
        let mut bytes = [0; LOG_RECORD_BYTES];
        put(&mut bytes, 8, &writer.0);
        put_u64(&mut bytes, 24, self.number);
        bytes[0] = match self.event {
            LogEvent::Put(record) => {
                put(&mut bytes, 32, record.id.as_bytes());
                put_u64(&mut bytes, 64, record.sequence);
                put_u64(&mut bytes, 72, record.segment);
                put_u64(&mut bytes, 80, record.offset);
                put_u64(&mut bytes, 88, record.meta.len);
                put_u64(&mut bytes, 96, record.meta.digest);
                put(&mut bytes, 104, &record.meta.tenant.to_le_bytes());
                bytes[106] = record.meta.class.to_bits();
                1
            }
            LogEvent::Forget { id, sequence } => {
                put(&mut bytes, 32, id.as_bytes());
                put_u64(&mut bytes, 64, sequence);
                2
            }
            LogEvent::Drop { writer: of, segment } => {
                put(&mut bytes, 32, &of.0);
                put_u64(&mut bytes, 72, segment);
                3
            }
            LogEvent::Close { segment } => {
                put_u64(&mut bytes, 72, segment);
                4
            }
            LogEvent::End => 5,
        };
        let digest = digest::crc64(&bytes[..DIGEST_AT]);
        put_u64(&mut bytes, DIGEST_AT, digest);
        bytes
    }

    /// Reads what should be record `number` of the log of `writer`. An event of a kind that a newer version may have added
    /// reads as `Ok(None)`.
    ///
    /// # Errors
    /// What is wrong with it; at the end of a log that is being written this is nothing unusual.
    pub fn parse(bytes: &[u8], writer: WriterId, number: u64) -> Result<Option<Self>, Damage> {
        let bytes = bytes.get(..LOG_RECORD_BYTES).ok_or(Damage::Short)?;
        if digest::crc64(&bytes[..DIGEST_AT]) != get_u64(bytes, DIGEST_AT) {
            return Err(Damage::Digest);
        }
        if (WriterId(get(bytes, 8)), get_u64(bytes, 24)) != (writer, number) {
            return Err(Damage::Misplaced);
        }
        let (id, sequence, segment) =
            (BlockId::from_bytes(get(bytes, 32)), get_u64(bytes, 64), get_u64(bytes, 72));
        let event = match bytes[0] {
            1 => LogEvent::Put(parse_put(bytes, writer)?),
            2 => LogEvent::Forget { id, sequence },
            3 => LogEvent::Drop { writer: WriterId(get(bytes, 32)), segment },
            4 => LogEvent::Close { segment },
            5 => LogEvent::End,
            _ => return Ok(None),
        };
        Ok(Some(Self { number, event }))
    }
}

fn parse_put(bytes: &[u8], writer: WriterId) -> Result<Record, Damage> {
    let record = Record {
        writer,
        segment: get_u64(bytes, 72),
        offset: get_u64(bytes, 80),
        sequence: get_u64(bytes, 64),
        id: BlockId::from_bytes(get(bytes, 32)),
        meta: BlockMeta {
            len: get_u64(bytes, 88),
            digest: get_u64(bytes, 96),
            class: Class::from_bits(bytes[106]),
            tenant: u16::from_le_bytes(get(bytes, 104)),
        },
    };
    let end = record_bytes(record.meta.len).and_then(|bytes| record.offset.checked_add(bytes));
    let aligned = record.offset.is_multiple_of(PAGE_BYTES as u64) && record.offset >= PAGE_BYTES as u64;
    if end.is_some() && aligned { Ok(record) } else { Err(Damage::Field("place")) }
}
