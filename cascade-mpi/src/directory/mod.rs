//! The directory: which ranks hold a block, and where. Each rank keeps the buckets that [`Route`](crate::route::Route) gives it, in
//! memory that the others read one-sided, one bucket with one get.
//!
//! It is a hint. A stale or missing entry costs a miss; what an owner's memory says, under its digests, is the truth.

mod bucket;
mod table;

pub use bucket::{BUCKET_BYTES, Bucket, Damage, ENTRIES, Entry, OWNERS, Owner};
pub use table::{Table, TableStats};

pub(crate) use bucket::{ID_BYTES, OWNER_BYTES, get_owner, get_what, put_owner, put_what};

#[cfg(test)]
mod tests;
