use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::buffer::Buffer;
use crate::fs::{Access, File, Fs};
use crate::io;

fn write(file: &Arc<dyn File>, byte: u8, pages: usize, offset: u64) {
    io::write_all(file.as_ref(), &[Buffer::of(&vec![byte; pages * 4096]).piece()], offset).unwrap();
}

#[test]
fn a_crash_keeps_what_was_synced_and_gambles_with_the_rest() {
    let (fs, path) = (MemFs::new(), Path::new("/d/a"));
    let file = fs.open(path, Access::Create, false).unwrap();
    write(&file, 1, 1, 0);
    file.sync().unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    write(&file, 2, 2, 4096);
    fs.open(Path::new("/d/b"), Access::Create, false).unwrap();
    let (mut whole, mut gone, mut torn, mut named) = (0, 0, 0, 0);
    for seed in 0..200 {
        let image = fs.crash(seed);
        let bytes = image.contents(path).unwrap();
        assert_eq!(bytes[..4096], [1; 4096]);
        match bytes[4096..].iter().filter(|byte| **byte == 2).count() {
            0 => gone += 1,
            8192 => whole += 1,
            _ => torn += 1,
        }
        named += u32::from(image.contents(Path::new("/d/b")).is_some());
    }
    assert!(
        whole > 20 && gone > 20 && torn > 20 && named > 50 && named < 150,
        "{whole} {gone} {torn} {named}"
    );
    assert_eq!(fs.image().contents(path).unwrap().len(), 3 * 4096);
}

#[test]
fn faults_hit_the_calls_they_are_meant_for() {
    let fs = FaultFs::new(Arc::new(MemFs::new().with_direct()));
    let file = fs.open(Path::new("/d/a.seg"), Access::Create, true).unwrap();
    let fault = |call, first, fault| Rule { call, suffix: ".seg", first, times: 1, fault };
    fs.set(&[
        fault(Call::Write, 0, Fault::Errno(libc::EINTR)),
        fault(Call::Write, 1, Fault::Short(5000)),
        fault(Call::Read, 0, Fault::Short(5000)),
        fault(Call::Sync, 1, Fault::Errno(libc::EIO)),
        fault(Call::Read, 3, Fault::Flip(9)),
    ]);
    // Interrupted, then cut to one page, then the rest.
    write(&file, 7, 3, 0);
    assert_eq!(fs.counts()[&(Call::Write, "seg".into())], 3);
    assert!(io::read_bytes(file.as_ref(), 0, 3 * 4096).unwrap().bytes() == [7; 3 * 4096]);
    assert!(file.sync().is_ok() && file.sync().is_err() && file.sync().is_ok());
    let ends = [io::read_bytes(file.as_ref(), 8192, 4096), io::read_bytes(file.as_ref(), 8192, 4096)];
    let flipped = ends.into_iter().map(|end| end.unwrap().bytes()[1]).collect::<Vec<_>>();
    assert_eq!((flipped, fs.injected()), (vec![7, 5], 5));
    let beyond = io::read_bytes(file.as_ref(), 8192, 8192);
    assert_eq!(beyond.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(file.write_at(&[Buffer::new(8192).part(1, 4096)], 0).is_err(), "direct I/O is aligned");
    fs.set(&[Rule { times: u64::MAX, ..fault(Call::Write, 0, Fault::Errno(libc::EINTR)) }]);
    let endless = io::write_all(file.as_ref(), &[Buffer::new(4096).piece()], 0);
    assert_eq!(endless.unwrap_err().raw_os_error(), Some(libc::EINTR));
}
