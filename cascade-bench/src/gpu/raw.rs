//! The ceiling: the driver's own copy, without anything of ours.

use cascade_core::memory::Piece;
use cascade_gpu::device::{Device, Fault, Run, Stream};

/// A registration ends after so many bytes, and the driver refuses a copy that crosses its end.
const REGISTERED_BYTES: u64 = 256 << 20;

/// Copies `src` to `dst`, which is as long, by a call of the driver on `stream` for each registration, and waits. Both sides
/// begin where a registration does or lie within one; they are kept by the pieces.
pub(super) fn plain(device: &dyn Device, stream: Stream, dst: &Piece, src: &Piece) -> Result<(), Fault> {
    let len = dst.len().min(src.len()) as u64;
    let cut = |from: u64| {
        let len = (len - from).min(REGISTERED_BYTES);
        Run { dst: dst.as_ptr() as u64 + from, src: src.as_ptr() as u64 + from, len }
    };
    let runs: Vec<Run> = (0..len).step_by(REGISTERED_BYTES as usize).map(cut).collect();
    // SAFETY: both sides are as long and outlive the call, which ends when the copy has; nobody else touches them meanwhile.
    unsafe { device.copy(stream, &runs) }?;
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
