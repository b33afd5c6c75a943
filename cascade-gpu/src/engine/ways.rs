//! Which way runs of which length take.

use std::fmt;

/// How the bytes of a transfer move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The device's copy engine, one call for each run.
    Dma,
    /// The device's copy engine, one call for many runs.
    Batch,
    /// A kernel that reads and writes host memory where it lies.
    Kernel {
        /// Thread blocks.
        ctas: u32,
    },
    /// A kernel that copies by pages and digests in the same pass. Lists that it cannot walk go by the other kernel, or, in one
    /// run, by the copy engine.
    Move {
        /// Thread blocks.
        ctas: u32,
    },
    /// One run by the copy engine, but its end: that is copied and digested by the kernel, while the digests of the rest are
    /// computed, so that no digest is left to compute when the last byte has come. To the device only; else as `Dma`.
    Tail {
        /// Thread blocks.
        ctas: u32,
    },
    /// The copy engine between the host and a buffer on the device, and the kernel that copies by pages between that and the pages.
    /// Lists that do not suit it go by that kernel alone.
    Relay {
        /// Thread blocks.
        ctas: u32,
    },
}

impl Way {
    /// The way for lists of `pieces` that the kernel by pages cannot walk.
    pub(super) fn by_runs(self, pieces: usize) -> Self {
        match self {
            Self::Tail { .. } => Self::Dma,
            Self::Move { .. } | Self::Relay { .. } if pieces <= 1 => Self::Dma,
            Self::Move { ctas } | Self::Relay { ctas } => Self::Kernel { ctas },
            other => other,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dma => f.write_str("dma"),
            Self::Batch => f.write_str("batch"),
            Self::Kernel { ctas } => write!(f, "kernel{ctas}"),
            Self::Move { ctas } => write!(f, "move{ctas}"),
            Self::Tail { ctas } => write!(f, "tail{ctas}"),
            Self::Relay { ctas } => write!(f, "relay{ctas}"),
        }
    }
}

/// Between which memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From the host to the device.
    In,
    /// From the device to the host.
    Out,
    /// Within the device.
    Within,
}

impl Path {
    pub(super) const ALL: [Self; 3] = [Self::In, Self::Out, Self::Within];

    fn index(self) -> usize {
        match self {
            Self::In => 0,
            Self::Out => 1,
            Self::Within => 2,
        }
    }
}

/// Classes of run lengths: below 8 KiB, below 16 KiB, and so on; the last has no bound.
pub(super) const CLASSES: usize = 15;

/// Shortest runs of the first class that is told apart from the ones below.
pub(super) const SHORTEST: usize = 4096;

/// Transfers of many runs are long from this many bytes on.
pub(super) const LONG_BYTES: usize = 8 << 20;

/// What a transfer is, besides its path and the length of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One run.
    Single,
    /// Many runs, few bytes in all.
    Short,
    /// Many runs, many bytes in all.
    Long,
}

type Table = [[Way; CLASSES]; 3];

/// A way for each path and each length of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// By kind, path and length of runs.
    tables: [Table; 3],
    forced: Option<Way>,
}

impl Ways {
    /// What an H200 does best: its copy engine for one run, and from 2 MiB on for many; a kernel below, by way of a relay where
    /// there is much.
    pub(super) fn new(ctas: u32) -> Self {
        let by = |way: Way| {
            let of_class = |class| if class_bytes(class) >= 2 << 20 { Way::Dma } else { way };
            [std::array::from_fn(of_class); 3]
        };
        let tables = [[[Way::Dma; CLASSES]; 3], by(Way::Move { ctas }), by(Way::Relay { ctas })];
        Self { tables, forced: None }
    }

    /// The way of `runs` runs of `run_bytes` on average.
    #[must_use]
    pub fn choose(&self, path: Path, runs: usize, run_bytes: usize) -> Way {
        let kind = match runs {
            0 | 1 => Kind::Single,
            _ if runs.saturating_mul(run_bytes) < LONG_BYTES => Kind::Short,
            _ => Kind::Long,
        };
        self.forced.unwrap_or(self.tables[kind as usize][path.index()][class_of(run_bytes)])
    }

    pub(super) fn force(&mut self, way: Option<Way>) {
        self.forced = way;
    }

    pub(super) fn set(&mut self, path: Path, class: usize, way: Way, kind: Kind) {
        if let Some(entry) = self.tables[kind as usize][path.index()].get_mut(class) {
            *entry = way;
        }
    }
}

/// Class of runs of so many bytes.
fn class_of(run_bytes: usize) -> usize {
    let class = (run_bytes / SHORTEST).max(1).ilog2() as usize;
    class.min(CLASSES - 1)
}

/// Least length of the runs of a class.
pub(super) fn class_bytes(class: usize) -> usize {
    SHORTEST << class
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for path in Path::ALL {
            for (name, table) in [" in one run", " of few", " of many"].into_iter().zip(&self.tables) {
                write!(f, "{path:?}{name}:")?;
                for (class, way) in table[path.index()].iter().enumerate() {
                    write!(f, " {}K={way}", class_bytes(class) >> 10)?;
                }
                f.write_str("; ")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fall_into_their_classes() {
        let all = [1, 4096, 8191, 8192, 1 << 20, 8 << 20, 1 << 30];
        assert_eq!(all.map(class_of), [0, 0, 0, 1, 8, 11, 14]);
        let ways = Ways::new(16);
        assert_eq!(ways.choose(Path::In, 1, 4096), Way::Dma);
        assert_eq!(ways.choose(Path::In, 9, 4096), Way::Move { ctas: 16 });
        assert_eq!(ways.choose(Path::In, 2048, 4096), Way::Relay { ctas: 16 });
        assert_eq!(ways.choose(Path::Out, 9, 4 << 20), Way::Dma);
    }
}
