//! A reservation: final memory for a block, filled in place and sealed. Only a sealed block can be seen.

use std::fmt::Debug;
use std::sync::Arc;

use crate::batch::Refusal;
use crate::block::BlockMemory;
use crate::memory::SgList;
use crate::tier::BlockMeta;

/// What a tier must do for the reservations that it gives. `token` names one reservation.
pub trait ReservationHome: Send + Sync + Debug {
    /// Makes the block visible. `digests` holds the CRC of each 64 KiB chunk.
    fn seal(&self, token: u64, digests: &[u64]) -> Sealed;

    /// Gives the space back; nobody can be writing there any more.
    fn abandon(&self, token: u64);

    /// Notes that hardware may write to the block from now on.
    fn transfer_started(&self, token: u64);

    /// Notes that the hardware is done.
    fn transfer_completed(&self, token: u64);

    /// Keeps the space out of use, because hardware may still write there.
    fn quarantine(&self, token: u64);
}

/// What became of a sealed reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The block is visible.
    Stored(BlockMeta),
    /// An equal block was there already; the new copy is gone.
    Exists(BlockMeta),
    /// The reservation no longer stood (the process forked, the tier was closed, its device failed); nothing was stored.
    Lost,
}

/// Answer of a tier that is asked for a reservation.
#[derive(Debug)]
pub enum Reserve {
    /// Fill it and seal it.
    Reserved(Reservation),
    /// The block is stored already; copy nothing.
    Exists(BlockMeta),
    /// No reservation, and why.
    Refused(Refusal),
}

#[derive(Debug)]
struct Core {
    memory: BlockMemory,
    home: Arc<dyn ReservationHome>,
    token: u64,
}

/// Memory reserved for one block. Dropping it gives the space back.
#[derive(Debug)]
pub struct Reservation {
    core: Option<Core>,
    digests: Option<Vec<u64>>,
}

impl Reservation {
    /// A reservation of `memory`. For tiers.
    #[must_use]
    pub fn new(memory: BlockMemory, home: Arc<dyn ReservationHome>, token: u64) -> Self {
        Self { core: Some(Core { memory, home, token }), digests: None }
    }

    /// The memory to fill; `None` never happens outside of `seal` and `start_transfer`, which consume the reservation.
    #[must_use]
    pub fn memory(&self) -> Option<BlockMemory> {
        self.core.as_ref().map(|core| core.memory)
    }

    /// Length of the block in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.as_ref().map_or(0, |core| core.memory.len())
    }

    /// Whether the block holds no byte (it never does).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `offset`; `false`, and nothing written, beyond the end.
    #[must_use]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> bool {
        self.digests = None;
        self.memory().is_some_and(|memory| memory.write_at(offset, bytes))
    }

    /// Fills the whole block from `list`, digests computed in the same pass; `false`, and nothing written, when the list
    /// is of another length or in memory that does not reach the block. `false` too when the block's device failed.
    #[must_use]
    pub fn gather(&mut self, list: &SgList) -> bool {
        let Some(memory) = self.memory() else { return false };
        if list.len() != memory.len() || !memory.reaches(list) {
            return false;
        }
        self.digests = memory.try_gather(list);
        self.digests.is_some()
    }

    /// Makes the block visible with digests that whoever filled it has computed: one for each 64 KiB chunk. With another
    /// number of them nothing is stored.
    #[must_use]
    pub fn seal_with(mut self, digests: Vec<u64>) -> Sealed {
        if digests.len() != crate::block::chunks(self.len() as u64) {
            return Sealed::Lost;
        }
        self.digests = Some(digests);
        self.seal()
    }

    /// Makes the block visible. Digests that the filling did not compute are computed now.
    #[must_use]
    pub fn seal(mut self) -> Sealed {
        let Some(core) = self.core.take() else { return Sealed::Lost };
        let Some(digests) = self.digests.take().or_else(|| core.memory.try_digests()) else {
            core.home.abandon(core.token);
            return Sealed::Lost;
        };
        core.home.seal(core.token, &digests)
    }

    /// Hands the memory to hardware: only [`InFlight::complete`] gives it back.
    #[must_use]
    pub fn start_transfer(mut self) -> Option<InFlight> {
        let core = self.core.take()?;
        core.home.transfer_started(core.token);
        Some(InFlight { core: Some(core) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.home.abandon(core.token);
        }
    }
}

/// A reservation that a copy engine, NIC or disk is filling. Dropping it puts the space into quarantine.
#[derive(Debug)]
pub struct InFlight {
    core: Option<Core>,
}

impl InFlight {
    /// The memory that the hardware fills.
    #[must_use]
    pub fn memory(&self) -> Option<BlockMemory> {
        self.core.as_ref().map(|core| core.memory)
    }

    /// The hardware is done: the reservation again, to be sealed.
    #[must_use]
    pub fn complete(mut self) -> Option<Reservation> {
        let core = self.core.take()?;
        core.home.transfer_completed(core.token);
        Some(Reservation { core: Some(core), digests: None })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.home.quarantine(core.token);
        }
    }
}
