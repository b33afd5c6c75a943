//! Leases for Python. The class implements the buffer protocol, which is unsafe by its nature, so all of it is in `raw`.

mod raw;

pub(crate) use raw::Lease;
