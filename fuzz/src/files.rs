//! The bytes of segments, footers and logs.

use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};
use cascade_pfs::layout::{
    FOOTER_ENTRY_BYTES, Identity, LOG_RECORD_BYTES, LogEvent, LogHeader, LogRecord, PAGE_BYTES, PREFIX_BYTES,
    Record, SegmentHeader, Trailer, WriterId, footer_bytes, header_bytes, index_digest, parse_index,
    record_bytes, write_footer,
};

use crate::Input;

const WRITER: WriterId = WriterId([7; 16]);
const SEGMENT: u64 = 3;

/// A page with this magic whose writer has signed it, with the input as its fields.
fn signed(magic: &[u8; 8], data: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page[..8].copy_from_slice(magic);
    page[8..16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    let len = data.len().min(PAGE_BYTES - 48);
    page[40..40 + len].copy_from_slice(&data[..len]);
    page[24..40].copy_from_slice(&WRITER.0);
    let sum = digest::crc64(&page[..PAGE_BYTES - 8]);
    page[PAGE_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    page
}

/// What must hold of a record that was believed.
fn check(record: &Record) {
    let bytes = record_bytes(record.meta.len).expect("a length that the format takes");
    assert_eq!(record.bytes(), bytes);
    assert!(header_bytes(record.meta.len) < bytes && record.payload_at() > record.offset);
}

/// Parses the input as pages, header and footer of a segment: as it is, and as if its writer had signed it.
pub fn segment(data: &[u8]) {
    let _ = SegmentHeader::parse(data, WRITER, SEGMENT);
    let _ = Identity::parse(data);
    if let Ok(header) = SegmentHeader::parse(&signed(b"CASCSEGM", data), WRITER, SEGMENT) {
        assert_eq!(SegmentHeader::parse(&header.to_page(), WRITER, SEGMENT), Ok(header));
    }
    if let Ok(identity) = Identity::parse(&signed(b"CASCWRTR", data)) {
        assert_eq!(Identity::parse(&identity.to_page()), Ok(identity));
    }
    header(data);
    footer(data);
}

fn header(data: &[u8]) {
    if let Ok((record, digests)) = Record::parse(data, WRITER, SEGMENT, 0) {
        check(&record);
        assert_eq!(digests.len() as u64, record.meta.len.div_ceil(65_536));
    }
    let mut prefix = data.to_vec();
    prefix.resize(PREFIX_BYTES, 0);
    prefix[..16].copy_from_slice(b"CASCBLOK\x01\0\0\0\x01\0\0\0");
    if let Ok(bytes) = Record::announced(&prefix) {
        assert!(bytes > 0 && bytes % PAGE_BYTES as u64 == 0);
    }
}

/// The input as entries under a trailer that fits them, of a file that is as long as the trailer says.
fn footer(data: &[u8]) {
    let entries = data.len() / FOOTER_ENTRY_BYTES;
    let mut index = data[..entries * FOOTER_ENTRY_BYTES].to_vec();
    index.resize(usize::try_from(footer_bytes(entries)).expect("of an input") - PAGE_BYTES, 0);
    let last = data.len().min(8);
    let mut at = [0; 8];
    at[..last].copy_from_slice(&data[data.len() - last..]);
    let index_at = u64::from_le_bytes(at) % (1 << 40) / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    let mut fields = SEGMENT.to_le_bytes().to_vec();
    for word in [index_at, entries as u64, index_digest(&index)] {
        fields.extend(word.to_le_bytes());
    }
    let file_bytes = index_at + index.len() as u64 + PAGE_BYTES as u64;
    let page = signed(b"CASCFOOT", &fields);
    let trailer = Trailer::parse(&page, WRITER, SEGMENT, file_bytes).expect("a trailer that fits");
    if let Ok(found) = parse_index(&index, &trailer, WRITER, SEGMENT) {
        assert_eq!(found.len(), entries);
        found.iter().for_each(check);
        let ends = found.iter().map(|record| record.offset + record.bytes());
        assert!(ends.zip(found.iter().skip(1)).all(|(end, next)| end <= next.offset));
        assert!(found.last().is_none_or(|record| record.offset + record.bytes() <= index_at));
    }
    // Another length of the file, and fields of any value.
    let _ = Trailer::parse(&page, WRITER, SEGMENT, file_bytes + PAGE_BYTES as u64);
    if let Ok(trailer) = Trailer::parse(&signed(b"CASCFOOT", data), WRITER, SEGMENT, 1 << 30) {
        let _ = parse_index(data, &trailer, WRITER, SEGMENT);
    }
}

/// Parses the input as a log, as a record that is signed, and as a name.
pub fn log(data: &[u8]) {
    let _ = LogHeader::parse(data, WRITER);
    for (number, bytes) in (0..).zip(data.chunks(LOG_RECORD_BYTES)) {
        let _ = LogRecord::parse(bytes, WRITER, number);
    }
    let mut bytes = data.to_vec();
    bytes.resize(LOG_RECORD_BYTES, 0);
    bytes[8..24].copy_from_slice(&WRITER.0);
    bytes[24..32].copy_from_slice(&5_u64.to_le_bytes());
    let sum = digest::crc64(&bytes[..LOG_RECORD_BYTES - 8]);
    bytes[LOG_RECORD_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    if let Ok(Some(record)) = LogRecord::parse(&bytes, WRITER, 5) {
        if let LogEvent::Put(record) = &record.event {
            check(record);
        }
        assert_eq!(LogRecord::parse(&record.to_bytes(WRITER), WRITER, 5), Ok(Some(record)));
    }
    let text = Input(data).text();
    if let Ok(writer) = text.parse::<WriterId>() {
        assert_eq!(writer.to_string(), text);
    }
}

fn record(offset: u64, len: u64) -> (Record, Vec<u64>) {
    let id = BlockId::named("block");
    let digests: Vec<u64> = (0..len.div_ceil(65_536)).collect();
    let digest = digest::root(id.as_bytes(), len, digests.iter().copied());
    let meta = BlockMeta { len, digest, class: Class::Prefix, tenant: 5 };
    (Record { writer: WRITER, segment: SEGMENT, offset, sequence: 9, id, meta }, digests)
}

/// A header, a segment's page, an identity, a footer.
#[must_use]
pub fn segment_seeds() -> Vec<Vec<u8>> {
    let (first, digests) = record(0, 100_000);
    let mut header = vec![0; usize::try_from(header_bytes(first.meta.len)).expect("a small header")];
    first.write(&digests, &mut header);
    let entries: Vec<Record> = [4096, 4096 + 8192].map(|at| record(at, 4096).0).to_vec();
    let mut footer = vec![0; usize::try_from(footer_bytes(2)).expect("a small footer")];
    write_footer(WRITER, SEGMENT, 4096 + 2 * 8192, &entries, &mut footer);
    let page =
        SegmentHeader { writer: WRITER, number: SEGMENT, sequence: 1, target_bytes: 1 << 28 }.to_page();
    let mut index = footer[..2 * FOOTER_ENTRY_BYTES].to_vec();
    index.extend((4096 + 2 * 8192_u64).to_le_bytes());
    vec![header, footer, page.to_vec(), page[40..200].to_vec(), index]
}

/// A log with one record of each kind.
#[must_use]
pub fn log_seeds() -> Vec<Vec<u8>> {
    let events = [
        LogEvent::Put(record(4096, 70_000).0),
        LogEvent::Forget { id: BlockId::named("x"), sequence: 9 },
        LogEvent::Drop { writer: WRITER, segment: 4 },
        LogEvent::Close { segment: 3 },
        LogEvent::End,
    ];
    let mut seeds = vec![LogHeader { writer: WRITER }.to_page().to_vec(), format!(" {WRITER}").into_bytes()];
    seeds.extend(
        (0..).zip(events).map(|(number, event)| LogRecord { number, event }.to_bytes(WRITER).to_vec()),
    );
    seeds
}
