//! What the tests of a tier crate share, behind the feature `testing`.
//!
//! * [`conformance`]: one suite of named checks that every tier passes;
//! * [`oracle`]: a model of the contract, *may forget, never wrong*, and random sequences of steps to hold a tier against it;
//! * [`fault`]: a layer that makes chosen operations miss, fail, wait or arrive damaged;
//! * [`bytes`]: contents that say of themselves which block and version they are.
//!
//! The contract and the invariants I1-I5 that the messages name: a tier may forget any block at any time, and never
//! returns bytes other than those put under that key. I1: bytes returned are the bytes put. I2: no hit through an old
//! handle after evict, delete or replace. I3: each put acknowledged as stored is later a hit or a counted eviction.
//! I4: capacity is never exceeded. I5: nothing leaks: no pin, slot or byte.

pub mod bytes;
pub mod conformance;
pub mod fault;
pub mod oracle;
