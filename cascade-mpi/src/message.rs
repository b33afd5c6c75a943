//! What ranks tell each other. Bytes in docs/format.md; read from a private copy, whoever sent it.

use cascade_core::digest::crc64;
use cascade_core::id::BlockId;
use cascade_core::tier::BlockMeta;

use crate::directory::{ID_BYTES, OWNER_BYTES, Owner, get_owner, get_what, put_owner, put_what};

/// Most bytes of a message. MPI libraries send so few without waiting for the receiver.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Most records of a [`Message::Publish`].
pub const PUBLISHED: usize = (MESSAGE_BYTES - HEAD_BYTES - 8) / PUBLISH_BYTES;
/// Most records of a [`Message::Retract`].
pub const RETRACTED: usize = (MESSAGE_BYTES - HEAD_BYTES - 8) / RETRACT_BYTES;

const HEAD_BYTES: usize = 16;
const PUBLISH_BYTES: usize = ID_BYTES + 16 + OWNER_BYTES;
const RETRACT_BYTES: usize = ID_BYTES + OWNER_BYTES;
const MAGIC: u32 = u32::from_le_bytes(*b"CMSG");
const VERSION: u8 = 1;

/// Memory that a rank offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// Its part of the directory.
    Directory,
    /// Its arena.
    Arena,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there? Whoever gets it stays awake for a moment, because reads follow.
    Ping(u64),
    /// Yes, and so many other ranks read from here now.
    Pong(u64),
    /// These owners have these blocks. Goes to the rank that keeps their entries.
    Publish(Vec<(BlockId, BlockMeta, Owner)>),
    /// These owners have them no longer.
    Retract(Vec<(BlockId, Owner)>),
    /// Send me bytes of your memory, as a message of that length with this tag: where no window can be made.
    Read {
        /// Tag of the answer.
        tag: u32,
        /// Which memory.
        area: Area,
        /// Bytes from its start.
        offset: u64,
        /// How many.
        len: u32,
    },
    /// A [`Message::Read`] with this tag asked for what there is not; nothing follows.
    Refused(u32),
    /// This rank is about to leave: it asks for nothing any more, and serves until all have said so.
    Bye,
    /// This rank has come so far to a meeting of all.
    Met {
        /// Which one, counted from the start of the job.
        meeting: u32,
        /// Its round.
        round: u32,
    },
}

impl Message {
    /// The bytes of this message. Records beyond [`PUBLISHED`] or [`RETRACTED`] are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, argument, count) = match self {
            Self::Ping(number) => (1, *number, 0),
            Self::Pong(number) => (2, *number, 0),
            Self::Publish(records) => (3, 0, records.len().min(PUBLISHED)),
            Self::Retract(records) => (4, 0, records.len().min(RETRACTED)),
            Self::Read { tag, area, .. } => (5, u64::from(*tag) | u64::from(*area == Area::Arena) << 32, 1),
            Self::Refused(tag) => (6, u64::from(*tag), 0),
            Self::Bye => (7, 0, 0),
            Self::Met { meeting, round } => (8, u64::from(*meeting) << 32 | u64::from(*round), 0),
        };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(&(count as u16).to_le_bytes());
        bytes.extend_from_slice(&argument.to_le_bytes());
        match self {
            Self::Publish(records) => records.iter().take(count).for_each(|(id, meta, owner)| {
                let mut record = [0; PUBLISH_BYTES];
                record[..ID_BYTES].copy_from_slice(id.as_bytes());
                put_what(meta, 1, &mut record[ID_BYTES..ID_BYTES + 16]);
                put_owner(owner, &mut record[ID_BYTES + 16..]);
                bytes.extend_from_slice(&record);
            }),
            Self::Retract(records) => records.iter().take(count).for_each(|(id, owner)| {
                let mut record = [0; RETRACT_BYTES];
                record[..ID_BYTES].copy_from_slice(id.as_bytes());
                put_owner(owner, &mut record[ID_BYTES..]);
                bytes.extend_from_slice(&record);
            }),
            Self::Read { offset, len, .. } => {
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&u64::from(*len).to_le_bytes());
            }
            Self::Ping(_) | Self::Pong(_) | Self::Refused(_) | Self::Bye | Self::Met { .. } => {}
        }
        let sum = crc64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a message; `None` for anything else, which its receiver drops and counts.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        if bytes.len() > MESSAGE_BYTES || crc64(content) != word(sum, 0)? {
            return None;
        }
        let (head, records) = content.split_at_checked(HEAD_BYTES)?;
        let (first, argument) = (word(head, 0)?, word(head, 8)?);
        if first as u32 != MAGIC || (first >> 32) as u8 != VERSION {
            return None;
        }
        let (kind, count) = ((first >> 40) as u8, (first >> 48) as usize);
        let has = |bytes: usize| records.len() == count * bytes;
        let tag = u32::try_from(argument & 0xffff_ffff).ok()?;
        match kind {
            1 if has(0) => Some(Self::Ping(argument)),
            2 if has(0) => Some(Self::Pong(argument)),
            3 if has(PUBLISH_BYTES) => {
                let all = records.chunks_exact(PUBLISH_BYTES).map(published);
                all.collect::<Option<_>>().map(Self::Publish)
            }
            4 if has(RETRACT_BYTES) => {
                let all = records.chunks_exact(RETRACT_BYTES).map(retracted);
                all.collect::<Option<_>>().map(Self::Retract)
            }
            5 if count == 1 && has(16) && argument >> 33 == 0 => {
                let area = if argument >> 32 == 1 { Area::Arena } else { Area::Directory };
                let len = u32::try_from(word(records, 8)?).ok()?;
                Some(Self::Read { tag, area, offset: word(records, 0)?, len })
            }
            6 if has(0) && argument >> 32 == 0 => Some(Self::Refused(tag)),
            7 if has(0) => Some(Self::Bye),
            8 if has(0) => Some(Self::Met { meeting: (argument >> 32) as u32, round: tag }),
            _ => None,
        }
    }
}

fn published(record: &[u8]) -> Option<(BlockId, BlockMeta, Owner)> {
    let id = BlockId::from_bytes(record.get(..ID_BYTES)?.try_into().ok()?);
    let (meta, _) = get_what(record.get(ID_BYTES..ID_BYTES + 16)?)?;
    Some((id, meta, get_owner(record.get(ID_BYTES + 16..)?)?))
}

fn retracted(record: &[u8]) -> Option<(BlockId, Owner)> {
    let id = BlockId::from_bytes(record.get(..ID_BYTES)?.try_into().ok()?);
    Some((id, get_owner(record.get(ID_BYTES..)?)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use cascade_core::tier::Class;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record(number: u64) -> (BlockId, BlockMeta, Owner) {
        let owner = Owner {
            rank: number as u32 & 0xff_ffff,
            slot: (number >> 7) as u32,
            generation: number & 0xff_ffff_ffff,
            incarnation: (number >> 32) as u32,
            offset: (number & 0xffff) * 4096,
        };
        let meta = BlockMeta {
            len: (number & 0xff_ffff_ffff).max(1),
            digest: !number,
            class: Class::Prefix,
            tenant: number as u16,
        };
        (BlockId::from_words([number, !number, 3, number << 9]), meta, owner)
    }

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<u64>().prop_map(Message::Ping),
            any::<u64>().prop_map(Message::Pong),
            vec(any::<u64>().prop_map(record), 0..=PUBLISHED).prop_map(Message::Publish),
            vec(any::<u64>().prop_map(|n| (record(n).0, record(n).2)), 0..=RETRACTED)
                .prop_map(Message::Retract),
            (any::<u32>(), any::<bool>(), any::<u64>(), any::<u32>()).prop_map(
                |(tag, arena, offset, len)| {
                    let area = if arena { Area::Arena } else { Area::Directory };
                    Message::Read { tag, area, offset, len }
                }
            ),
            any::<u32>().prop_map(Message::Refused),
            Just(Message::Bye),
            (any::<u32>(), any::<u32>()).prop_map(|(meeting, round)| Message::Met { meeting, round }),
        ]
    }

    proptest! {
        #[test]
        fn a_message_arrives_as_it_was_sent(message in any_message()) {
            let bytes = message.encode();
            prop_assert!(bytes.len() <= MESSAGE_BYTES);
            prop_assert_eq!(Message::parse(&bytes), Some(message));
        }

        #[test]
        fn a_changed_or_shortened_message_is_dropped(message in any_message(), at: prop::sample::Index, flip in 1..=255_u8) {
            let bytes = message.encode();
            prop_assert_eq!(Message::parse(&bytes[..at.index(bytes.len())]), None);
            let mut bytes = bytes;
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(Message::parse(&bytes), None);
        }

        #[test]
        fn signed_nonsense_is_no_message_or_one_that_can_be_sent_again(mut bytes in vec(any::<u8>(), 16..100), kind in 0..10_u8) {
            bytes[..6].copy_from_slice(&[b'C', b'M', b'S', b'G', VERSION, kind]);
            let sum = crc64(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            if let Some(message) = Message::parse(&bytes) {
                prop_assert_eq!(Message::parse(&message.encode()), Some(message));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many: Vec<_> = (1..1000).map(record).collect();
        let bytes = Message::Publish(many.clone()).encode();
        assert!(bytes.len() <= MESSAGE_BYTES);
        assert_eq!(Message::parse(&bytes), Some(Message::Publish(many[..PUBLISHED].to_vec())));
    }
}
