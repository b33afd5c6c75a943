//! The thread that brings up what `prefetch` asked for.

use std::time::Duration;

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Lookup, MissReason};

use super::count::add;
use super::rise::{How, Wanted};
use crate::chain::Level;
use crate::files::Files;
use crate::tiers::{Answer, Tiers};

/// A round without requests.
const ROUND: Duration = Duration::from_secs(1);

/// Works until the queue is closed. Requests that wait then are answered as unavailable.
pub(crate) fn work(tiers: &Tiers, files: &Files) {
    while let Some(all) = files.rise.take(1, ROUND) {
        // A store that is closed brings nothing up; who waits is answered when the request is dropped.
        all.iter()
            .filter(|_| !files.rise.is_closed())
            .for_each(|wanted| bring_up(tiers, Some(files), wanted));
    }
}

pub(crate) fn bring_up(tiers: &Tiers, files: Option<&Files>, wanted: &Wanted) {
    let came = tiers.bring(&wanted.ids, wanted.deadline);
    let (mut places, mut below): (Vec<usize>, Vec<(BlockId, BlockMeta)>) = (Vec::new(), Vec::new());
    for (at, (id, found)) in wanted.ids.iter().zip(tiers.locate_here(&wanted.ids)).enumerate() {
        match (found.answer, found.level) {
            (Lookup::Hit(_), _) if came.has(at) => {
                add(&tiers.count.prefetched, 1);
                wanted.completer.complete(at, Outcome::Stored);
            }
            (Lookup::Hit(meta), Some(Level::Files)) => {
                places.push(at);
                below.push((*id, meta));
            }
            (Lookup::Hit(_), _) => wanted.completer.complete(at, Outcome::Exists),
            (Lookup::Pending, _) => wanted.completer.complete(at, Outcome::Miss(MissReason::Absent)),
            (Lookup::Miss(why), _) => {
                let mut answer: Answer<()> = Err(why);
                came.explain(at, &mut answer);
                wanted.completer.complete(at, Outcome::Miss(answer.err().unwrap_or(why)));
            }
        }
    }
    let Some(files) = files else { return };
    let is_cancelled = || wanted.completer.is_cancelled();
    let mut how = How { deadline: wanted.deadline, is_cancelled: Some(&is_cancelled), ..How::default() };
    tiers.rise(files, &below, &mut how, |nth, risen| {
        let outcome = match risen {
            Ok(_) => {
                add(&tiers.count.prefetched, 1);
                Outcome::Stored
            }
            Err(why) => Outcome::Miss(why),
        };
        wanted.completer.complete(places[nth], outcome);
    });
}
