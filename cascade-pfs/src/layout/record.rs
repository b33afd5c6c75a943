//! The header in front of each block.

use cascade_core::block::chunks;
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};

use super::{
    Damage, MIN_READER, PAGE_BYTES, VERSION, WriterId, get, get_u32, get_u64, put, put_u32, put_u64,
};

const MAGIC: [u8; 8] = *b"CASCBLOK";
/// Bytes in front of the chunk digests. They alone tell how long the header is.
pub const PREFIX_BYTES: usize = 128;
const DIGEST_AT: usize = 120;
/// Chunks of the largest block, 1 TiB: the header of a larger one would itself be longer than 128 MiB.
pub const MAX_CHUNKS: u64 = 1 << 24;

/// `len` rounded up to whole pages; `None` beyond 64 bits.
#[must_use]
pub fn padded(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_BYTES as u64)
}

/// Bytes of the header of a block of `len` bytes: whole pages.
#[must_use]
pub fn header_bytes(len: u64) -> u64 {
    (PREFIX_BYTES as u64 + 8 * chunks(len) as u64).next_multiple_of(PAGE_BYTES as u64)
}

/// Bytes of a whole record: header, payload, padding. `None` for a block larger than the format takes.
#[must_use]
pub fn record_bytes(len: u64) -> Option<u64> {
    if len == 0 || chunks(len) as u64 > MAX_CHUNKS {
        return None;
    }
    header_bytes(len).checked_add(padded(len)?)
}

/// One block as its header describes it. The header says where it stands, so that one which was replayed from elsewhere, or
/// written to the wrong place, is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Writer of the segment.
    pub writer: WriterId,
    /// Number of the segment.
    pub segment: u64,
    /// Where the header begins, in bytes from the start of the file.
    pub offset: u64,
    /// Order among all that is ever written of one id: the larger wins.
    pub sequence: u64,
    /// Which block.
    pub id: BlockId,
    /// Length, root digest, class and tenant.
    pub meta: BlockMeta,
}

impl Record {
    /// Bytes of the whole record. Zero for lengths that no record has; such a record is neither written nor parsed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        record_bytes(self.meta.len).unwrap_or(0)
    }

    /// Where the payload begins, in bytes from the start of the file.
    #[must_use]
    pub fn payload_at(&self) -> u64 {
        self.offset + header_bytes(self.meta.len)
    }

    /// Writes the header into `bytes`, which are as long as [`header_bytes`] says.
    ///
    /// # Panics
    /// When `bytes` or `chunk_digests` have another length than the block asks for.
    pub fn write(&self, chunk_digests: &[u64], bytes: &mut [u8]) {
        assert_eq!(bytes.len() as u64, header_bytes(self.meta.len), "the header of this block");
        assert_eq!(chunk_digests.len(), chunks(self.meta.len), "one digest for each chunk");
        bytes.fill(0);
        put(bytes, 0, &MAGIC);
        put_u32(bytes, 8, VERSION);
        put_u32(bytes, 12, MIN_READER);
        put(bytes, 16, &self.writer.0);
        put_u64(bytes, 32, self.segment);
        put_u64(bytes, 40, self.offset);
        put_u64(bytes, 48, self.sequence);
        put(bytes, 56, self.id.as_bytes());
        put_u64(bytes, 88, self.meta.len);
        put_u64(bytes, 96, self.meta.digest);
        put(bytes, 104, &self.meta.tenant.to_le_bytes());
        bytes[106] = self.meta.class.to_bits();
        for (place, digest) in bytes[PREFIX_BYTES..].chunks_exact_mut(8).zip(chunk_digests) {
            place.copy_from_slice(&digest.to_le_bytes());
        }
        let digest = own_digest(bytes);
        put_u64(bytes, DIGEST_AT, digest);
    }

    /// Bytes of the header that begins with `prefix`. Not to be believed yet: only [`Record::parse`] checks the digest.
    ///
    /// # Errors
    /// What is wrong with the first [`PREFIX_BYTES`].
    pub fn announced(prefix: &[u8]) -> Result<u64, Damage> {
        if prefix.len() < PREFIX_BYTES {
            return Err(Damage::Short);
        }
        if prefix[..8] != MAGIC {
            return Err(Damage::Magic);
        }
        if get_u32(prefix, 12) > VERSION || get_u32(prefix, 8) < MIN_READER {
            return Err(Damage::Version);
        }
        let len = get_u64(prefix, 88);
        record_bytes(len).map(|_| header_bytes(len)).ok_or(Damage::Field("length"))
    }

    /// Reads a whole header that stands at `offset` of a segment; the chunk digests come with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(
        bytes: &[u8],
        writer: WriterId,
        segment: u64,
        offset: u64,
    ) -> Result<(Self, Vec<u64>), Damage> {
        let announced = usize::try_from(Self::announced(bytes)?).map_err(|_| Damage::Field("length"))?;
        let bytes = bytes.get(..announced).ok_or(Damage::Short)?;
        if own_digest(bytes) != get_u64(bytes, DIGEST_AT) {
            return Err(Damage::Digest);
        }
        let len = get_u64(bytes, 88);
        let record = Self {
            writer: WriterId(get(bytes, 16)),
            segment: get_u64(bytes, 32),
            offset: get_u64(bytes, 40),
            sequence: get_u64(bytes, 48),
            id: BlockId::from_bytes(get(bytes, 56)),
            meta: BlockMeta {
                len,
                digest: get_u64(bytes, 96),
                class: Class::from_bits(bytes[106]),
                tenant: u16::from_le_bytes(get(bytes, 104)),
            },
        };
        if (record.writer, record.segment, record.offset) != (writer, segment, offset) {
            return Err(Damage::Misplaced);
        }
        let digests: Vec<u64> = bytes[PREFIX_BYTES..].as_chunks::<8>().0[..chunks(len)]
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect();
        let root = digest::root(record.id.as_bytes(), len, digests.iter().copied());
        if root != record.meta.digest {
            return Err(Damage::Field("root digest"));
        }
        Ok((record, digests))
    }
}

/// Digest of a header: of everything but the eight bytes that hold it.
fn own_digest(bytes: &[u8]) -> u64 {
    let rest = &bytes[PREFIX_BYTES..];
    digest::combine(digest::crc64(&bytes[..DIGEST_AT]), digest::crc64(rest), rest.len() as u64)
}
