//! What the tests of a tier crate share, behind the feature `testing`.
//!
//! * [`conformance`]: one suite of named checks that every tier passes;
//! * [`bytes`]: contents that say of themselves which block and version they are.
//!
//! The contract and the invariants I1-I5 that the messages name: a tier may forget any block at any time, and never
//! returns bytes other than those put under that key. I1: bytes returned are the bytes put. I2: no hit through an old
//! handle after evict, delete or replace. I3: each put acknowledged as stored is later a hit or a counted eviction.
//! I4: capacity is never exceeded. I5: nothing leaks: no pin, slot or byte.

pub mod bytes;
pub mod conformance;
