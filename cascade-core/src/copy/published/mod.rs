//! Process-wide values that are safe to make in a forked child.

mod raw;

pub(crate) use raw::Published;
