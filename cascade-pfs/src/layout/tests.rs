use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};
use proptest::prelude::*;

use super::*;

const WRITER: WriterId = WriterId([7; 16]);
const OTHER: WriterId = WriterId([8; 16]);

fn record(key: u64, offset: u64, len: u64) -> (Record, Vec<u64>) {
    let id = BlockId::named(&format!("block {key}"));
    let digests: Vec<u64> = (0..cascade_core::block::chunks(len) as u64).map(|chunk| chunk ^ key).collect();
    let digest = digest::root(id.as_bytes(), len, digests.iter().copied());
    let meta = BlockMeta { len, digest, class: Class::Prefix, tenant: 513 };
    (Record { writer: WRITER, segment: 3, offset, sequence: 40 + key, id, meta }, digests)
}

fn header(record: &Record, digests: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(header_bytes(record.meta.len)).unwrap()];
    record.write(digests, &mut bytes);
    bytes
}

fn identity() -> Identity {
    Identity {
        writer: WRITER,
        pid: 17,
        started: 99,
        pid_namespace: 5,
        boot: [3; 16],
        host: "nid001".into(),
        capacity_bytes: 1 << 40,
    }
}

fn segment_header() -> SegmentHeader {
    SegmentHeader { writer: WRITER, number: 3, sequence: 12, target_bytes: 256 << 20 }
}

fn footer() -> (Vec<u8>, Vec<FooterEntry>, u64) {
    let mut at = PAGE_BYTES as u64;
    let entries: Vec<_> = (0..60)
        .map(|key| {
            let (entry, _) = record(key, at, 1 + key * 9000);
            at += entry.bytes();
            entry
        })
        .collect();
    let mut bytes = vec![0xEE; usize::try_from(footer_bytes(entries.len())).unwrap()];
    write_footer(WRITER, 3, at, &entries, &mut bytes);
    (bytes, entries, at)
}

fn parse_footer(bytes: &[u8], index_at: u64) -> Result<Vec<FooterEntry>, Damage> {
    let last = &bytes[bytes.len() - PAGE_BYTES..];
    let trailer = Trailer::parse(last, WRITER, 3, index_at + bytes.len() as u64)?;
    parse_index(&bytes[..bytes.len() - PAGE_BYTES], &trailer, WRITER, 3)
}

fn log_events() -> Vec<LogEvent> {
    vec![
        LogEvent::Put(record(1, 4096, 70_000).0),
        LogEvent::Forget { id: BlockId::named("x"), sequence: 9 },
        LogEvent::Drop { writer: OTHER, segment: 4 },
        LogEvent::Close { segment: 3 },
        LogEvent::End,
    ]
}

#[test]
fn pages_come_back_as_they_were() {
    assert_eq!(Identity::parse(&identity().to_page()), Ok(identity()));
    assert_eq!(SegmentHeader::parse(&segment_header().to_page(), WRITER, 3), Ok(segment_header()));
    assert_eq!(
        LogHeader::parse(&LogHeader { writer: WRITER }.to_page(), WRITER),
        Ok(LogHeader { writer: WRITER })
    );
    assert_eq!(WRITER.to_string().parse(), Ok(WRITER));
    let long = Identity { host: "é".repeat(40), ..identity() };
    assert_eq!(Identity::parse(&long.to_page()).unwrap().host, "é".repeat(32));
}

#[test]
fn writers_have_one_spelling() {
    for text in ["", "07", &"g".repeat(32), &"A".repeat(32), &"+".repeat(32), &"a".repeat(33)] {
        assert!(text.parse::<WriterId>().is_err(), "{text}");
    }
}

#[test]
fn headers_of_every_length_come_back() {
    for len in [1, 4095, 4096, 65_536, 65_537, 496 * 65_536, 496 * 65_536 + 1, 1 << 30] {
        let (record, digests) = record(1, 8192, len);
        let bytes = header(&record, &digests);
        assert_eq!(Record::parse(&bytes, WRITER, 3, 8192), Ok((record, digests)), "{len}");
        assert_eq!(record.payload_at() % PAGE_BYTES as u64, 0);
    }
    assert_eq!(record_bytes(0), None);
    assert_eq!(record_bytes(u64::MAX), None);
}

#[test]
fn what_stands_elsewhere_is_not_believed() {
    let (record, digests) = record(1, 8192, 5000);
    let bytes = header(&record, &digests);
    for (writer, segment, offset) in [(OTHER, 3, 8192), (WRITER, 4, 8192), (WRITER, 3, 4096)] {
        assert_eq!(Record::parse(&bytes, writer, segment, offset).unwrap_err(), Damage::Misplaced);
    }
    let page = segment_header().to_page();
    assert_eq!(SegmentHeader::parse(&page, WRITER, 4), Err(Damage::Misplaced));
    assert_eq!(LogHeader::parse(&LogHeader { writer: WRITER }.to_page(), OTHER), Err(Damage::Misplaced));
    let event = LogRecord { number: 5, event: LogEvent::End }.to_bytes(WRITER);
    assert_eq!(LogRecord::parse(&event, WRITER, 6), Err(Damage::Misplaced));
    assert_eq!(LogRecord::parse(&event, OTHER, 5), Err(Damage::Misplaced));
    let (bytes, _, at) = footer();
    let last = &bytes[bytes.len() - PAGE_BYTES..];
    assert_eq!(Trailer::parse(last, WRITER, 4, at + bytes.len() as u64), Err(Damage::Misplaced));
    assert_eq!(Trailer::parse(last, WRITER, 3, at), Err(Damage::Field("index")));
}

#[test]
fn footers_and_log_records_come_back() {
    let (bytes, entries, at) = footer();
    assert_eq!(parse_footer(&bytes, at), Ok(entries));
    for (number, event) in (0..).zip(log_events()) {
        let record = LogRecord { number, event };
        assert_eq!(LogRecord::parse(&record.to_bytes(WRITER), WRITER, number), Ok(Some(record)));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (record, digests) = record(1, 8192, 200_000);
    let (footer, _, at) = footer();
    let event = LogRecord { number: 0, event: log_events()[0] }.to_bytes(WRITER);
    type Check = Box<dyn Fn(&[u8]) -> bool>;
    let cases: Vec<(&str, Vec<u8>, Check)> = vec![
        ("header", header(&record, &digests), Box::new(|b| Record::parse(b, WRITER, 3, 8192).is_ok())),
        (
            "segment",
            segment_header().to_page().to_vec(),
            Box::new(|b| SegmentHeader::parse(b, WRITER, 3).is_ok()),
        ),
        ("identity", identity().to_page().to_vec(), Box::new(|b| Identity::parse(b).is_ok())),
        ("footer", footer, Box::new(move |b| parse_footer(b, at).is_ok())),
        ("log", event.to_vec(), Box::new(|b| LogRecord::parse(b, WRITER, 0).is_ok())),
    ];
    for (name, bytes, good) in cases {
        assert!(good(&bytes), "{name}");
        let mut damaged = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!good(&damaged), "{name}: bit {bit}");
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn newer_versions_and_unknown_features_are_refused() {
    for (at, value) in [(12, 2u32), (8, 0), (16, 1)] {
        let mut page = segment_header().to_page();
        put_u32(&mut page, at, value);
        end_page(&mut page);
        assert_eq!(SegmentHeader::parse(&page, WRITER, 3), Err(Damage::Version), "{at}");
        let other = OtherVersion::of(&page).unwrap();
        assert!(other.to_string().contains("this program reads version 1"), "{other}");
        page[100] ^= 1;
        assert_eq!(SegmentHeader::parse(&page, WRITER, 3), Err(Damage::Digest), "damage is no other version");
        assert_eq!(OtherVersion::of(&page), None);
    }
    assert_eq!(OtherVersion::of(&segment_header().to_page()), None);
}

proptest! {
    /// Any bytes are parsed without a panic, also those that carry a right magic and a right digest.
    #[test]
    fn nothing_read_ends_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..9000), sealed: bool) {
        let mut bytes = bytes;
        if sealed && bytes.len() >= PAGE_BYTES {
            for magic in [b"CASCFOOT", b"CASCWRTR", b"CASCSEGM"] {
                let mut page = begin_page(*magic);
                page[24..PAGE_DIGEST_AT].copy_from_slice(&bytes[24..PAGE_DIGEST_AT]);
                end_page(&mut page);
                let _ = Trailer::parse(&page, WRITER, 3, 1 << 20).map(|trailer| parse_index(&bytes, &trailer, WRITER, 3));
                let _ = Identity::parse(&page);
                let _ = SegmentHeader::parse(&page, WRITER, 3);
            }
            bytes[..8].copy_from_slice(b"CASCBLOK");
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            bytes[12..16].copy_from_slice(&1u32.to_le_bytes());
        }
        let _ = Record::parse(&bytes, WRITER, 3, 0);
        let _ = LogRecord::parse(&bytes, WRITER, 0);
        let _ = Identity::parse(&bytes);
    }
}
