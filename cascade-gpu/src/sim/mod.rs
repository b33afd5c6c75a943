//! A device in host memory, for machines without a GPU: asynchronous, with a memory limit and faults on demand.
//!
//! It is strict where a real device is: its addresses are no memory of the CPU (touching one ends the process), copies from
//! or to host memory that is not registered fail, and work runs late, on a thread of its own, streams in any order. It says
//! nothing about speed.

mod queue;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::device::Info;
use queue::Queues;
use raw::Node;

/// A simulated device.
#[derive(Debug)]
pub struct SimDevice {
    info: Info,
    node: Arc<Node>,
    queues: Arc<Queues>,
    memory_bytes: u64,
    used: Mutex<u64>,
    allocations: AtomicU64,
}

impl SimDevice {
    /// A device with `memory_bytes` of memory.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Arc<Self> {
        Self::build(0, memory_bytes, Arc::new(Node::default()))
    }

    /// Several devices of one node, which can copy from and to each other's memory.
    #[must_use]
    pub fn node(devices: u32, memory_bytes: u64) -> Vec<Arc<Self>> {
        let node = Arc::new(Node::default());
        (0..devices).map(|ordinal| Self::build(ordinal, memory_bytes, Arc::clone(&node))).collect()
    }

    fn build(ordinal: u32, memory_bytes: u64, node: Arc<Node>) -> Arc<Self> {
        let info = Info {
            ordinal,
            name: "simulated".to_owned(),
            multiprocessors: 4,
            kernels_reach_host: true,
            has_batched_copies: true,
        };
        node.devices.fetch_add(1, Ordering::Relaxed);
        let queues = Queues::start(Arc::clone(&node));
        Arc::new(Self {
            info,
            node,
            queues,
            memory_bytes,
            used: Mutex::new(0),
            allocations: AtomicU64::new(0),
        })
    }

    /// Every call and all work fail from now on, as when a real device falls off the bus.
    pub fn lose(&self) {
        self.queues.lose();
    }

    /// The next `count` copies leave one bit of what they wrote wrong.
    pub fn damage(&self, count: u64) {
        self.queues.damage(count);
    }

    /// The next `count` events are refused, as when the driver has no memory left.
    pub fn refuse_events(&self, count: u64) {
        self.queues.refuse_events(count);
    }

    /// Work stops until [`SimDevice::resume`]; what is queued stays queued.
    pub fn pause(&self) {
        self.queues.pause(true);
    }

    /// Work goes on.
    pub fn resume(&self) {
        self.queues.pause(false);
    }

    /// Allocations of device memory, pinned memory and registrations that were not given back.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        self.queues.stop();
    }
}

#[cfg(test)]
mod tests;
