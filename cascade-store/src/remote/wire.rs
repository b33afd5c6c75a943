//! What a client and its node's agent say to each other. Bytes in docs/format.md; whatever comes in is checked before it is believed.

use std::time::Duration;

use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class, Lookup, MissReason};

/// Most ids of one request.
pub(crate) const MOST_IDS: usize = 4096;
/// Bytes of the head of requests and replies.
pub(crate) const HEAD_BYTES: usize = 16;
/// Bytes of an answer.
pub(crate) const ANSWER_BYTES: usize = 24;
/// Bytes of an id.
pub(crate) const ID_BYTES: usize = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"CAGT");
const VERSION: u8 = 1;

/// What is asked, or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who has these blocks?
    Locate,
    /// Bring them here.
    Bring,
}

/// The head of a request; of its reply too, where the time means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Ids, or answers.
    pub(crate) count: usize,
    /// How long the answer may take.
    pub(crate) patience: Duration,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = if self.kind == Kind::Locate { 1 } else { 2 };
        bytes[6..8].copy_from_slice(&(self.count as u16).to_le_bytes());
        let micros = u64::try_from(self.patience.as_micros()).unwrap_or(u64::MAX);
        bytes[8..].copy_from_slice(&micros.to_le_bytes());
        bytes
    }

    /// `None` for what no request of this version begins with.
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first()?;
        let (kind, rest) = rest.split_first()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let micros = u64::from_le_bytes(*rest.first_chunk()?);
        let kind = match kind {
            1 => Kind::Locate,
            2 => Kind::Bring,
            _ => return None,
        };
        let count = usize::from(u16::from_le_bytes(*count));
        let is_ours = u32::from_le_bytes(*magic) == MAGIC && *version == VERSION && count <= MOST_IDS;
        is_ours.then_some(Self { kind, count, patience: Duration::from_micros(micros) })
    }
}

/// The ids of a request, as bytes.
pub(crate) fn encode_ids(ids: &[BlockId]) -> Vec<u8> {
    ids.iter().flat_map(BlockId::as_bytes).copied().collect()
}

/// The ids of a request.
pub(crate) fn ids(bytes: &[u8]) -> Vec<BlockId> {
    bytes.as_chunks::<ID_BYTES>().0.iter().map(|id| BlockId::from_bytes(*id)).collect()
}

/// Reasons by their number on the wire, from 1 on.
const REASONS: [MissReason; 7] = [
    MissReason::Absent,
    MissReason::Evicting,
    MissReason::Corrupt,
    MissReason::Destination,
    MissReason::Throttled,
    MissReason::Deadline,
    MissReason::Unavailable,
];

/// One answer: 0 for a hit, and the block; else the reason's number.
pub(crate) fn encode_answer(answer: Lookup) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    match answer {
        Lookup::Hit(meta) => {
            bytes[1] = u8::from(meta.class == Class::Prefix);
            bytes[2..4].copy_from_slice(&meta.tenant.to_le_bytes());
            bytes[8..16].copy_from_slice(&meta.len.to_le_bytes());
            bytes[16..].copy_from_slice(&meta.digest.to_le_bytes());
        }
        Lookup::Miss(why) => {
            bytes[0] = REASONS.iter().position(|reason| *reason == why).map_or(7, |at| at as u8 + 1);
        }
        Lookup::Pending => bytes[0] = 1,
    }
    bytes
}

/// An answer; what makes no sense is `Unavailable`.
pub(crate) fn parse_answer(bytes: &[u8; ANSWER_BYTES]) -> Lookup {
    let [code, class, a, b, _, _, _, _, rest @ ..] = *bytes;
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&rest[at..at + 8]);
        u64::from_le_bytes(word)
    };
    if code == 0 {
        let class = if class == 1 { Class::Prefix } else { Class::Ordinary };
        return Lookup::Hit(BlockMeta {
            len: word(0),
            digest: word(8),
            class,
            tenant: u16::from_le_bytes([a, b]),
        });
    }
    let reason = REASONS.get(usize::from(code) - 1).copied();
    Lookup::Miss(reason.unwrap_or(MissReason::Unavailable))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_are_read_as_they_were_written(is_locate: bool, count in 0..=MOST_IDS, micros: u32) {
            let kind = if is_locate { Kind::Locate } else { Kind::Bring };
            let head = Head { kind, count, patience: Duration::from_micros(u64::from(micros)) };
            prop_assert_eq!(Head::parse(&head.encode()), Some(head));
        }

        #[test]
        fn nothing_that_comes_in_is_believed_unless_it_is_whole(bytes: [u8; HEAD_BYTES]) {
            if let Some(head) = Head::parse(&bytes) {
                prop_assert!(head.count <= MOST_IDS);
                prop_assert_eq!(&bytes[..5], b"CAGT\x01");
            }
        }

        #[test]
        fn answers_are_read_as_they_were_written(len: u64, digest: u64, tenant: u16, is_prefix: bool, why in 0..7_usize) {
            let class = if is_prefix { Class::Prefix } else { Class::Ordinary };
            let hit = Lookup::Hit(BlockMeta { len, digest, class, tenant });
            for answer in [hit, Lookup::Miss(REASONS[why])] {
                prop_assert_eq!(parse_answer(&encode_answer(answer)), answer);
            }
        }

        #[test]
        fn any_bytes_are_some_answer(bytes: [u8; ANSWER_BYTES]) {
            let answer = parse_answer(&bytes);
            prop_assert_eq!(answer.is_hit(), bytes[0] == 0);
        }
    }
}
