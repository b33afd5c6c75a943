//! Policies with lists, to compare with: LRU, LFU with dynamic ageing, SIEVE, S3-FIFO, W-TinyLFU. They know nothing of
//! chains, pins or classes.
//!
//! Sources: LFU-DA: Arlitt, Cherkasova, Dilley, Friedrich, Jin, *Evaluating content management techniques for web proxy
//! caches*, 2000. SIEVE: Zhang and others, NSDI 2024. S3-FIFO: Yang and others, *FIFO queues are all you need for cache
//! eviction*, SOSP 2023. W-TinyLFU: Einziger, Friedman, Manes, *TinyLFU: A highly efficient cache admission policy*, 2017.

mod order;
mod s3fifo;
mod sieve;
mod tinylfu;

pub use order::{Lfu, Lru};
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;
pub use tinylfu::TinyLfu;
