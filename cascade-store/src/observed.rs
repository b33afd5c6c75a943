//! Locks round what is only observed: a request that cannot have one goes on without.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Tries to take a lock for so long, and never parks: the table of those that park is the process's, and a forked child may find it,
/// or this lock, held for ever by a thread that it does not have.
pub(crate) fn try_for<T>(mutex: &Mutex<T>, patience: Duration) -> Option<MutexGuard<'_, T>> {
    if let Some(guard) = mutex.try_lock() {
        return Some(guard);
    }
    let until = Instant::now() + patience;
    while Instant::now() < until {
        (0..32).for_each(|_| spin_loop());
        if let Some(guard) = mutex.try_lock() {
            return Some(guard);
        }
        std::thread::yield_now();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_have_the_lock_goes_on() {
        let mutex = Mutex::new(1);
        let held = try_for(&mutex, Duration::ZERO).unwrap();
        assert!(try_for(&mutex, Duration::from_millis(1)).is_none());
        drop(held);
        assert_eq!(try_for(&mutex, Duration::ZERO).as_deref(), Some(&1));
    }
}
