//! A value made on first use, without a lock: a lock that another thread held during `fork` would never open again in
//! the child, which is why `OnceLock` does not serve here.

use std::sync::atomic::{AtomicPtr, Ordering};

/// A process-wide value that may be replaced, and is never freed.
pub(crate) struct Published<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> Published<T> {
    /// No value yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value, if it satisfies `is_current`; otherwise `make`'s. Threads that race may all make one, and all
    /// get the same. True: this call's value was published.
    pub(crate) fn get(
        &self,
        is_current: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> (&'static T, bool) {
        let old = self.0.load(Ordering::Acquire);
        // SAFETY: what was published came from a leaked box and is never freed or written; Acquire sees it whole.
        if let Some(value) = unsafe { old.as_ref() }.filter(|value| is_current(value)) {
            return (value, false);
        }
        let new = Box::into_raw(Box::new(make()));
        match self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as above; the box is leaked from here on.
            Ok(_) => (unsafe { &*new }, true),
            Err(winner) => {
                // SAFETY: `new` was never published, so this is its only owner; the winner's is leaked.
                unsafe {
                    drop(Box::from_raw(new));
                    (&*winner, false)
                }
            }
        }
    }
}
