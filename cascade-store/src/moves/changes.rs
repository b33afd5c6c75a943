//! How often the processes of a node have changed what is in files. Each has an index of its own of the files, which follows what the
//! others log a little later; who must not believe an old one looks here first whether there is something to be read.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use cascade_core::id::BlockId;

/// Words of the page.
pub(crate) const WORDS: usize = 512;
/// Where the words for ids begin: how many changes of a name, or deletions of any block, are under way. Who is killed leaves its own
/// there, and whoever has such an id next reads on whatever the counts say.
const NAMES: usize = 2;

/// Memory that the processes of a node share: [`WORDS`] words, zero at first.
pub(crate) trait Page: Debug + Send + Sync {
    fn words(&self) -> &[AtomicU64];
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Blocks of names, put and forgotten.
    Names = 0,
    /// Other blocks, forgotten: putting them anew changes nothing.
    Others = 1,
}

impl What {
    pub(crate) fn of(id: &BlockId) -> Self {
        if id.kind().replaceable() { Self::Names } else { Self::Others }
    }
}

/// The counts; without shared memory nothing is known, and everybody reads on always.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(Option<Arc<dyn Page>>);

impl Changes {
    pub(crate) fn on(page: Option<Arc<dyn Page>>) -> Self {
        Self(page)
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.0.as_ref().and_then(|page| page.words().get(at))
    }

    fn word_of(&self, id: &BlockId) -> Option<&AtomicU64> {
        let number = id.as_bytes().last_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        self.word(NAMES + (number % (WORDS - NAMES) as u64) as usize)
    }

    /// The count now, after everything that this thread did before.
    pub(crate) fn count(&self, what: What) -> Option<u64> {
        fence(Ordering::SeqCst);
        self.word(what as usize).map(|count| count.load(Ordering::SeqCst))
    }

    /// Something was changed; the count before. What this thread does next comes after it.
    pub(crate) fn changed(&self, what: What) -> Option<u64> {
        let before = self.word(what as usize).map(|count| count.fetch_add(1, Ordering::SeqCst));
        fence(Ordering::SeqCst);
        before
    }

    /// Somebody begins to change a name that it has, or to delete a block; whether somebody before did not end.
    pub(crate) fn begin(&self, id: &BlockId) -> bool {
        self.word_of(id).is_none_or(|under_way| under_way.fetch_add(1, Ordering::SeqCst) > 0)
    }

    pub(crate) fn end(&self, id: &BlockId) {
        if let Some(under_way) = self.word_of(id) {
            under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether somebody did not end what it began.
    pub(crate) fn is_doubtful(&self, id: &BlockId) -> bool {
        self.word_of(id).is_none_or(|under_way| under_way.load(Ordering::SeqCst) > 0)
    }
}
