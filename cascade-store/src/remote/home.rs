//! The arena as the home of a rank.

use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::tier::Addressable;
use cascade_mpi::directory::Owner;
use cascade_mpi::{HEAD_BYTES, Home, Place, Window};
use cascade_shm::{Arena, ArenaConfig, Exposed, is_visible};

use crate::raw;

/// An arena that other ranks read. Their windows need all its pages: wait for [`Arena::wait_ready`] before the fabric is started.
#[derive(Clone, Debug)]
pub struct ArenaHome {
    arena: Arena,
    node: String,
}

impl ArenaHome {
    /// The arena's home on the node called `node`: ranks that say the same map each other's arenas.
    #[must_use]
    pub fn new(arena: Arena, node: impl Into<String>) -> Self {
        Self { arena, node: node.into() }
    }
}

fn place(exposed: Exposed) -> Place {
    let Exposed { meta, slot, generation, offset } = exposed;
    Place { meta, slot, generation, offset }
}

impl Home for ArenaHome {
    fn node(&self) -> String {
        self.node.clone()
    }

    /// Its path, and the node that it was made for.
    fn share(&self) -> String {
        format!("{}\n{}", self.arena.superblock().node, self.arena.path().display())
    }

    fn incarnation(&self) -> u64 {
        self.arena.superblock().incarnation
    }

    fn window(&self) -> Window {
        raw::window(&self.arena)
    }

    fn heads_at(&self) -> u64 {
        self.arena.slots_at()
    }

    fn tier(&self) -> &dyn Addressable {
        &self.arena
    }

    fn place(&self, id: &BlockId) -> Option<Place> {
        self.arena.exposed(id).map(place)
    }

    fn judge(&self, head: &[u8; HEAD_BYTES], id: &BlockId, owner: &Owner) -> bool {
        is_visible(head, id, owner.generation)
    }

    fn news(&self, seen: &mut Vec<u64>, found: &mut dyn FnMut(BlockId, Place)) {
        self.arena.news(seen, &mut |id, exposed| found(id, place(exposed)));
    }

    fn neighbour(&self, share: &str) -> Option<Arc<dyn Addressable>> {
        let (node, path) = share.split_once('\n')?;
        let path = std::path::Path::new(path);
        if path == self.arena.path() {
            // What is not here is not there: it is the same.
            return None;
        }
        let config =
            ArenaConfig { node: Some(node.to_owned()), janitor: false, ..ArenaConfig::new(path.parent()?) };
        // One that was named otherwise, by settings of its own, is read like that of another node.
        let arena = Arena::attach(&config).ok().flatten()?;
        (arena.path() == path).then(|| Arc::new(arena) as Arc<dyn Addressable>)
    }
}
