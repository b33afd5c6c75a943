//! The ceiling: the driver's own copy, without anything of ours.

use cascade_core::memory::Piece;
use cascade_gpu::device::{Device, Fault, Run, Stream};

/// Copies `src` to `dst`, which is as long, by one call of the driver on `stream`, and waits. Both sides are kept by the
/// pieces.
pub(super) fn plain(device: &dyn Device, stream: Stream, dst: &Piece, src: &Piece) -> Result<(), Fault> {
    let len = dst.len().min(src.len()) as u64;
    let run = Run { dst: dst.as_ptr() as u64, src: src.as_ptr() as u64, len };
    // SAFETY: both sides are as long and outlive the call, which ends when the copy has; nobody else touches them meanwhile.
    unsafe { device.copy(stream, &[run]) }?;
    let event = device.record(stream)?;
    let ended = loop {
        match device.is_done(event) {
            Ok(false) => std::hint::spin_loop(),
            other => break other.map(drop),
        }
    };
    device.end_event(event);
    ended
}
