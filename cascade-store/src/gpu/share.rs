//! Blocks in the device memory of other processes of the node: each process publishes where its own lie, in the arena, as a small
//! block beside each. What is read there counts only when it has the digest that the arena has for the id.

use cascade_core::batch::{Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::{BlockMeta, Class, Lookup, OnExisting, PutMeta, Tier};
use cascade_gpu::device::Stream;
use cascade_gpu::share::SharedPlace;

use super::Gpu;
use crate::raw;
use crate::tiers::Tiers;

/// Under which name the place of a block is published.
fn place_of(id: &BlockId) -> BlockId {
    BlockId::named(&format!("cascade: place on a device of {id}"))
}

impl Tiers {
    /// Tells other processes where a block lies that is on a device of this one and in the arena.
    pub(crate) fn publish_place(&self, gpu: &Gpu, id: &BlockId) {
        if !gpu.is_shared {
            return;
        }
        let Some(place) = gpu.tier().share(id) else { return };
        let (name, bytes) = (place_of(id), place.to_bytes());
        let meta =
            PutMeta { class: Class::default(), on_existing: OnExisting::Replace, tenant: 0, heat: None };
        // An arena without room for it has more urgent blocks; others take this one from the arena then.
        let _outcomes = raw::store(&[(name, &bytes[..], meta)], |lists| {
            let ops = lists.into_iter().map(|(id, from, meta)| Op::Store { id, from, meta });
            raw::run(&self.arena, ops.collect())
        });
    }

    /// Copies a block from another process's device memory, if one says that it has it; `None` otherwise, and when what came is
    /// not what the arena has under this id.
    pub(crate) fn fetch_from_others(
        &self,
        gpu: &Gpu,
        id: &BlockId,
        into: &SgList,
        after: Option<Stream>,
    ) -> Option<BlockMeta> {
        let found = |id: &BlockId| {
            let mut out = [Lookup::Pending];
            self.arena.lookup(std::slice::from_ref(id), &mut out);
            if let [Lookup::Hit(meta)] = out { Some(meta) } else { None }
        };
        let meta = found(id).filter(|_| gpu.is_shared)?;
        let mut bytes = [0; SharedPlace::BYTES];
        let outcome = raw::fetch(&mut [(place_of(id), &mut bytes[..])], |lists| {
            let ops = lists.into_iter().map(|(id, into)| Op::Fetch { id, into });
            raw::single(raw::run(&self.arena, ops.collect()))
        });
        let place = SharedPlace::from_bytes(&bytes).filter(|_| matches!(outcome, Outcome::Fetched(_)))?;
        if (place.digest, place.len) != (meta.digest, meta.len) {
            return None;
        }
        gpu.tier().fetch_shared(id, &place, into.clone(), after).ok().map(|()| meta)
    }
}
