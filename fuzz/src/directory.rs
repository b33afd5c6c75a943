//! Buckets of the directory between ranks, and their messages.

use cascade_core::digest;
use cascade_mpi::directory::{BUCKET_BYTES, Bucket};
use cascade_mpi::message::{Area, MESSAGE_BYTES, Message};
use cascade_mpi::route::BucketAt;

const AT: BucketAt = BucketAt { rank: 1, bucket: 2 };

/// Parses the input as a bucket and as a message, as it is and as if its writer had signed it. What is accepted is written and read
/// again as the same.
pub fn parse(data: &[u8]) {
    let mut bytes = [0; BUCKET_BYTES];
    let taken = data.len().min(BUCKET_BYTES);
    bytes[..taken].copy_from_slice(&data[..taken]);
    let _ = Bucket::parse(&bytes, AT);
    let sum = digest::crc64(&bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
    if let Ok(bucket) = Bucket::parse(&bytes, AT) {
        assert_eq!(Bucket::parse(&bucket.encode(AT), AT), Ok(bucket));
    }
    let _ = Message::parse(data);
    let mut signed = data[..data.len().min(MESSAGE_BYTES - 8)].to_vec();
    let sum = digest::crc64(&signed);
    signed.extend_from_slice(&sum.to_le_bytes());
    if let Some(message) = Message::parse(&signed) {
        assert_eq!(Message::parse(&message.encode()), Some(message));
    }
}

/// A bucket and messages of each kind, without their digests.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let read = Message::Read { tag: 7, area: Area::Arena, offset: 4096, len: 65536 };
    let messages = [Message::Ping(1), Message::Publish(Vec::new()), Message::Retract(Vec::new()), read, Message::Bye];
    let unsigned = |message: &Message| {
        let mut bytes = message.encode();
        bytes.truncate(bytes.len() - 8);
        bytes
    };
    let mut seeds: Vec<_> = messages.iter().map(unsigned).collect();
    seeds.push(Bucket { changes: 9, entries: Vec::new() }.encode(AT).to_vec());
    seeds
}
