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
}

/// Keys and their [`Heat`], 16 bytes each. A new key displaces, of eight, the one unused for longest.
#[derive(Clone, Debug)]
pub struct Ghosts {
    entries: Vec<Entry>,
    held: usize,
}

impl Ghosts {
    /// Room for about `keys` of them, at least 64.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        let keys = keys.clamp(64, 1 << 30).next_power_of_two();
        Self { entries: vec![Entry::default(); keys], held: 0 }
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
        *entry = Entry { key, heat };
        displaced
    }

    /// The states of all keys that are remembered.
    pub fn heats(&self) -> impl Iterator<Item = Heat> {
        self.entries.iter().filter(|entry| entry.key != 0).map(|entry| entry.heat)
    }
}
