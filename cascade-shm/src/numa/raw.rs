//! The system call that says from which node this thread's next pages come.

/// Prefer the node, take another when it is full.
const MPOL_PREFERRED: libc::c_int = 1;

/// New pages of this thread come from `node`, while it has any. `false` when the system refuses.
pub(super) fn prefer(node: u32) -> bool {
    let mut mask = [0_u64; 16];
    let Some(word) = mask.get_mut(node as usize / 64) else { return false };
    *word |= 1 << (node % 64);
    let bits = mask.len() * 64;
    // SAFETY: `mask` is valid for `bits` bits, is only read, and only during the call; what changes is this thread's own policy.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, MPOL_PREFERRED, mask.as_ptr(), bits) == 0 }
}
