//! A bounded memory of keys seen, in the tier or no longer.

use super::Tick;
use super::heat::Heat;

/// Entries that one key may take.
const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0: free.
    key: u64,
    heat: Heat,
    /// Whether a look-up named it, and what that was for is still to come.
    is_named: bool,
}

/// Keys and their [`Heat`], 16 bytes each. A new key displaces, of eight, the one unused for longest.
#[derive(Clone, Debug)]
pub struct Ghosts {
    entries: Vec<Entry>,
    held: usize,
    /// Keys that there may be room for.
    most: usize,
}

impl Ghosts {
    /// Room for about `keys` of them, at least 64.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        let keys = keys.clamp(64, 1 << 30).next_power_of_two();
        Self { entries: vec![Entry::default(); keys], held: 0, most: keys }
    }

    /// Lets the memory grow until there is room for `keys` keys.
    pub fn allow(&mut self, keys: usize) {
        self.most = self.most.max(keys.min(1 << 30).next_power_of_two());
    }

    /// Twice the room, when little is left and more is allowed.
    fn grow(&mut self) {
        let mut larger = Self::new(self.entries.len() * 2);
        for entry in self.entries.iter().filter(|entry| entry.key != 0) {
            let set = larger.set(entry.key);
            // There is room: what shared a set of the old memory is spread over two of the new.
            if let Some(free) = larger.entries[set..set + WAYS].iter_mut().find(|free| free.key == 0) {
                *free = *entry;
                larger.held += 1;
            }
        }
        larger.most = self.most;
        *self = larger;
    }

    /// Keys that there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    fn set(&self, key: u64) -> usize {
        // Keys should be uniform; where they are not, this makes them so.
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        (mixed as usize * WAYS) & (self.entries.len() - 1)
    }

    /// What is remembered of `key`.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<Heat> {
        let (key, set) = (key.max(1), self.set(key.max(1)));
        self.entries[set..set + WAYS].iter().find(|entry| entry.key == key).map(|entry| entry.heat)
    }

    /// Remembers `key`; gives the state of the key that it displaced.
    pub fn put(&mut self, key: u64, heat: Heat, now: Tick) -> Option<Heat> {
        if self.entries.len() < self.most && self.held > self.entries.len() / 2 {
            self.grow();
        }
        let (key, set) = (key.max(1), self.set(key.max(1)));
        let set = &mut self.entries[set..set + WAYS];
        let rank = |entry: &Entry| match entry.key {
            same if same == key => u64::MAX,
            0 => u64::MAX - 1,
            _ => u64::from(entry.heat.age(now)),
        };
        let entry = set.iter_mut().max_by_key(|entry| rank(entry))?;
        let displaced = (entry.key != 0 && entry.key != key).then_some(entry.heat);
        self.held += usize::from(entry.key == 0);
        *entry = Entry { key, heat, is_named: false };
        displaced
    }

    fn entry_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let (key, set) = (key.max(1), self.set(key.max(1)));
        self.entries[set..set + WAYS].iter_mut().find(|entry| entry.key == key)
    }

    /// Notes that `key` was looked up, and that what this was for is still to come.
    pub fn name(&mut self, key: u64) {
        if let Some(entry) = self.entry_mut(key) {
            entry.is_named = true;
        }
    }

    /// What is remembered of `key` if it was looked up, and nothing came of that yet.
    #[must_use]
    pub fn named(&self, key: u64) -> Option<Heat> {
        let (key, set) = (key.max(1), self.set(key.max(1)));
        let entry = self.entries[set..set + WAYS].iter().find(|entry| entry.key == key)?;
        entry.is_named.then_some(entry.heat)
    }

    /// Ends what a look-up of `key` was for: touched at `now`, and gives its state then; `None` where no look-up named it.
    pub fn answer(&mut self, key: u64, now: Tick) -> Option<Heat> {
        let entry = self.entry_mut(key).filter(|entry| entry.is_named)?;
        entry.is_named = false;
        entry.heat = entry.heat.at(now);
        Some(entry.heat)
    }

    /// The states of some keys that are remembered, at most `most`, and how many each stands for.
    pub fn heats(&self, most: usize) -> (impl Iterator<Item = Heat>, f64) {
        let step = self.entries.len().div_ceil(most.max(1)).max(1);
        // Which set a key is in has nothing to do with what it was used for; where in the set it is has to do with when it came.
        let sets = self.entries.chunks(WAYS).step_by(step).flatten();
        (sets.filter(|entry| entry.key != 0).map(|entry| entry.heat), step as f64)
    }
}
