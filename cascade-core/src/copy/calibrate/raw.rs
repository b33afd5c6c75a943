//! Cache control.

/// Writes `bytes` back to memory and removes them from all caches. Does nothing where a process cannot do that.
pub(super) fn flush(bytes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: the address is that of a valid byte; every x86_64 CPU has CLFLUSH.
        unsafe { core::arch::x86_64::_mm_clflush(line.as_ptr()) };
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: MFENCE has no precondition.
    unsafe {
        core::arch::x86_64::_mm_mfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
