//! Damage to an arena's bytes.

use cascade_shm::layout::Geometry;

/// A generator of numbers for choosing (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (u128::from(self.next()) * u128::from(end) >> 64) as u64
    }
}

/// Where each area lies, as (name, start, length).
pub(crate) struct Areas(Vec<(&'static str, usize, usize)>);

/// What was done.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) area: &'static str,
    pub(crate) kind: &'static str,
    /// Places that were changed.
    pub(crate) count: u64,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} in {}", self.count, self.kind, self.area)
    }
}

impl Areas {
    pub(crate) fn of(geometry: &Geometry) -> Self {
        let o = geometry.offsets();
        let regions = geometry.regions() as u64;
        let all = [
            ("superblock", 0, 4096),
            ("control", o.control, 384),
            ("owners", o.owners, geometry.owners * 128),
            ("ledgers", o.ledgers, geometry.owners * geometry.ledger_entries * 8),
            ("tags", o.tags, geometry.buckets * 8),
            ("slots", o.slots, geometry.buckets * 8 * 64),
            ("summaries", o.summaries, regions * 8),
            ("locks", o.regions, regions * 64),
            ("bitmaps", o.bitmaps, geometry.data_bytes / 4096 / 8),
            ("residents", o.residents, geometry.data_bytes / 4096 * 4),
            ("digests", o.digests, geometry.data_bytes / 65_536 * 8),
            ("data", o.data, geometry.data_bytes),
        ];
        Self(all.into_iter().map(|(name, start, len)| (name, start as usize, len as usize)).collect())
    }

    /// Where `area` begins, and how long it is.
    pub(crate) fn find(&self, area: &str) -> (usize, usize) {
        self.0.iter().find(|(name, ..)| *name == area).map(|(_, start, len)| (*start, *len)).unwrap()
    }

    /// Damages one area, each in its turn.
    pub(crate) fn damage(&self, bytes: &mut [u8], random: &mut Random, round: u64) -> Damage {
        let (area, start, len) = self.0[round as usize % self.0.len()];
        let part = &mut bytes[start..start + len];
        match random.below(5) {
            0 | 1 => Damage { area, kind: "flips", count: flip(part, random) },
            2 => Damage { area, kind: "zeros", count: fill(part, random, |_| 0) },
            3 => Damage { area, kind: "noise", count: fill(part, random, |random| random.next() as u8) },
            _ => Damage { area, kind: "swap", count: swap(part, random) },
        }
    }
}

/// Flips up to 64 bits; half of them near bytes that are in use, where they matter.
fn flip(part: &mut [u8], random: &mut Random) -> u64 {
    let count = 1 << random.below(7);
    let used: Vec<usize> = (0..part.len()).filter(|at| part[*at] != 0).collect();
    for number in 0..count {
        let at = match used.get(random.below(used.len().max(1) as u64) as usize) {
            Some(at) if number % 2 == 0 => (at & !7) + random.below(8) as usize,
            _ => random.below(part.len() as u64) as usize,
        };
        let last = part.len() - 1;
        part[at.min(last)] ^= 1 << random.below(8);
    }
    count
}

/// Writes over a page, or over a cache line.
fn fill(part: &mut [u8], random: &mut Random, value: impl Fn(&mut Random) -> u8) -> u64 {
    let size = if random.below(2) == 0 { 4096 } else { 64 };
    let at = random.below(part.len() as u64) as usize / size * size;
    let end = part.len().min(at + size);
    part[at..end].fill_with(|| value(random));
    1
}

/// Exchanges two ranges of one size.
fn swap(part: &mut [u8], random: &mut Random) -> u64 {
    let size = [8, 64, 4096][random.below(3) as usize].min(part.len() / 2);
    let places = part.len() / size;
    let (a, b) = (random.below(places as u64) as usize * size, random.below(places as u64) as usize * size);
    for at in 0..size {
        part.swap(a + at, b + at);
    }
    2
}
