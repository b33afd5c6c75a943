//! What the environment asks for.

use crate::copy::kernel::{Kernel, StoreKind};
use crate::copy::pool::MAX_HELPERS;

/// Variable that chooses kernel and stores.
const KERNEL_VARIABLE: &str = "CASCADE_COPY_KERNEL";
/// Variable that limits the threads of a copy.
const THREADS_VARIABLE: &str = "CASCADE_COPY_THREADS";

/// Wishes; `None` leaves the choice to the calibration.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) kernel: Option<Kernel>,
    pub(crate) store: Option<StoreKind>,
    pub(crate) threads: Option<usize>,
    /// What was asked for and cannot be used, with the reason.
    pub(crate) notes: Vec<String>,
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        let value = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::parse(value(KERNEL_VARIABLE).as_deref(), value(THREADS_VARIABLE).as_deref())
    }

    fn parse(kernel: Option<&str>, threads: Option<&str>) -> Self {
        let mut settings = Self::default();
        if let Some(value) = kernel {
            settings.read_kernel(value);
        }
        if let Some(value) = threads {
            match value.trim().parse() {
                Ok(threads) if (1..=MAX_HELPERS + 1).contains(&threads) => settings.threads = Some(threads),
                _ => settings.note(THREADS_VARIABLE, value, "not a number from 1 to 17"),
            }
        }
        settings
    }

    fn read_kernel(&mut self, value: &str) {
        let (name, store) = value.split_once(':').unwrap_or((value, "auto"));
        match Kernel::ALL.into_iter().find(|kernel| kernel.name() == name.trim()) {
            Some(kernel) if kernel.is_supported() => self.kernel = Some(kernel),
            Some(_) => self.note(KERNEL_VARIABLE, value, "this CPU does not have that kernel"),
            None if name.trim() == "auto" => {}
            None => {
                self.note(KERNEL_VARIABLE, value, "no such kernel: auto, avx512, avx2, sse, pmull, scalar")
            }
        }
        match store.trim() {
            "auto" => {}
            "streaming" => self.store = Some(StoreKind::Streaming),
            "plain" => self.store = Some(StoreKind::Plain),
            _ => self.note(KERNEL_VARIABLE, value, "no such kind of stores: auto, streaming, plain"),
        }
    }

    fn note(&mut self, variable: &str, value: &str, reason: &str) {
        self.notes.push(format!("{variable}={value} has no effect: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_right() {
        let settings = Settings::parse(Some("scalar:plain"), Some("3"));
        assert_eq!(settings.kernel, Some(Kernel::Scalar));
        assert_eq!(settings.store, Some(StoreKind::Plain));
        assert_eq!(settings.threads, Some(3));
        assert!(settings.notes.is_empty());
        assert_eq!(Settings::parse(Some("auto"), None), Settings::default());
    }

    #[test]
    fn names_what_is_wrong() {
        for (kernel, threads) in [
            (Some("mmx"), None),
            (Some("auto:both"), None),
            (None, Some("0")),
            (None, Some("18")),
            (None, Some("many")),
        ] {
            let settings = Settings::parse(kernel, threads);
            assert_eq!(settings.notes.len(), 1, "{kernel:?} {threads:?}");
            assert_eq!(Settings { notes: Vec::new(), ..settings }, Settings::default());
        }
        let foreign = if cfg!(target_arch = "x86_64") { "pmull" } else { "avx2" };
        assert!(Settings::parse(Some(foreign), None).notes[0].contains("CPU"));
    }
}
