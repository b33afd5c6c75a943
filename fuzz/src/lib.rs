//! What the fuzz targets do with their input. A target fails by a panic, by a signal, or by an operation that takes longer
//! than five seconds; each also checks what must hold of whatever was read. Rings get theirs with the
//! agent.

pub mod arena;
pub mod config;
pub mod counters;
pub mod directory;
pub mod files;
pub mod identity;
pub mod superblock;
pub mod words;

/// Every target with its first inputs.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("superblock", superblock::seeds()),
        ("words", words::seeds()),
        ("slot", arena::seeds()),
        ("ledger", arena::seeds()),
        ("owner", arena::seeds()),
        ("region", arena::seeds()),
        ("control", arena::seeds()),
        ("arena", arena::seeds()),
        ("config", config::seeds()),
        ("counters", counters::seeds()),
        ("identity", identity::seeds()),
        ("segment", files::segment_seeds()),
        ("filelog", files::log_seeds()),
        ("directory", directory::seeds()),
    ]
}

/// Where targets make their folders. libFuzzer ends a process without destructors, so whoever runs a target gives it a folder
/// in `CASCADE_FUZZ_FOLDER`, and removes that.
pub(crate) fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_FUZZ_FOLDER").map_or_else(|| "/dev/shm".into(), Into::into)
}

/// The input, taken from the front in pieces; zeros after its end.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        out[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        out
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A text whose length stands before it.
    pub(crate) fn text(&mut self) -> String {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(taken).into_owned()
    }
}
