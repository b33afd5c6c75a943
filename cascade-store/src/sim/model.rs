//! What may be read of each key: versions with the times at which their puts began and ended.

use std::collections::BTreeMap;

/// A put, replacement or deletion of a key.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The process that does it.
    who: usize,
    /// 0: deleted.
    version: u64,
    begun: u64,
    /// When it was answered.
    ended: Option<u64>,
    /// Whether it was acknowledged; else it may have been done or not.
    is_done: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    changes: BTreeMap<u64, Vec<Change>>,
    time: u64,
    next: u64,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    pub(super) fn version(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A change begins; gives its place.
    pub(super) fn begin(&mut self, who: usize, key: u64, version: u64) -> usize {
        let begun = self.tick();
        let of_key = self.changes.entry(key).or_default();
        of_key.push(Change { who, version, begun, ended: None, is_done: false });
        of_key.len() - 1
    }

    /// A change ended: acknowledged, or perhaps not done.
    pub(super) fn end(&mut self, key: u64, place: usize, is_done: bool) {
        let ended = self.tick();
        let change = &mut self.changes.get_mut(&key).unwrap()[place];
        change.ended = Some(ended);
        change.is_done |= is_done;
    }

    /// A version of a name was read: whatever came of its put, it was done, and what was there before does not come back.
    pub(super) fn saw(&mut self, key: u64, version: u64) {
        let changes = self.changes.get_mut(&key).into_iter().flatten();
        changes.filter(|change| change.version == version).for_each(|change| change.is_done = true);
    }

    /// A process was killed: what it had begun may or may not be done, and nothing more comes of it.
    pub(super) fn killed(&mut self, who: usize) {
        let now = self.tick();
        let own = |change: &&mut Change| change.who == who && change.ended.is_none();
        for change in self.changes.values_mut().flatten().filter(own) {
            change.ended = Some(now);
        }
    }

    /// The time of a read that begins now.
    pub(super) fn reading(&mut self) -> u64 {
        self.tick()
    }

    /// Versions that a read which began at `since` and ends now may see; 0 among them: it may find nothing, without an excuse.
    pub(super) fn may_see(&self, key: u64, since: u64) -> Vec<u64> {
        let Some(changes) = self.changes.get(&key) else { return vec![0] };
        let is_over = |one: &Change| {
            let end = one.ended.unwrap_or(u64::MAX);
            changes.iter().any(|other| {
                other.is_done && other.begun > end && other.ended.is_some_and(|ended| ended < since)
            })
        };
        let mut may: Vec<u64> = changes.iter().filter(|one| !is_over(one)).map(|one| one.version).collect();
        let is_settled =
            changes.iter().any(|one| one.is_done && one.ended.is_some_and(|ended| ended < since));
        // What was not answered as done may have removed the older block on its way.
        let is_interrupted = changes.iter().filter(|one| !is_over(one)).any(|one| !one.is_done);
        // A reader that asks the tiers one after the other passes a block that moves up between its questions.
        let is_changing = changes.iter().any(|one| one.ended.is_none_or(|ended| ended >= since));
        if !is_settled || is_interrupted || is_changing {
            may.push(0);
        }
        may
    }

    /// Versions that were ever put under a key.
    pub(super) fn ever(&self, key: u64) -> Vec<u64> {
        self.changes.get(&key).into_iter().flatten().map(|change| change.version).collect()
    }
}
