//! Memory to copy from and to: touched, page-aligned, private or shared, handed out in disjoint parts.

mod raw;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cascade_core::{Error, ErrorKind, Result};
use nix::fcntl::posix_fallocate;

pub(crate) use raw::{Method, Part, Region, copy, fetch, fetch_all, store, store_all, store_run};

static FILES: AtomicU64 = AtomicU64::new(0);

/// Touched memory of this process alone, filled with random bytes of `seed`.
pub(crate) fn random(bytes: usize, seed: u64) -> Result<Region> {
    let mut region = Region::anonymous(bytes).map_err(|error| no_memory(bytes, error))?;
    region.split(1).iter_mut().for_each(|part| part.fill_random(seed));
    Ok(region)
}

/// Touched memory of this process alone.
pub(crate) fn private(bytes: usize) -> Result<Region> {
    let mut region = Region::anonymous(bytes).map_err(|error| no_memory(bytes, error))?;
    region.split(1).iter_mut().for_each(|part| part.fill(1));
    Ok(region)
}

/// A shared mapping of a nameless file in `folder`. Every page is touched, unless a `fresh` one is asked for: that has
/// no page yet, so the caller makes sure before that there is room, because the kernel kills who writes without.
pub(crate) fn shared(folder: &Path, bytes: usize, fresh: bool) -> Result<Region> {
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("ceiling-{}-{number}", std::process::id()));
    let failed = |error: std::io::Error| {
        let context = format!("cannot map {bytes} bytes of {}", path.display());
        Error::new(ErrorKind::System, context).with_source(error)
    };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    match fresh {
        true => file.set_len(bytes as u64).map_err(failed)?,
        false => posix_fallocate(&file, 0, length).map_err(|errno| failed(errno.into()))?,
    }
    let mut region = Region::of_file(&file, bytes).map_err(failed)?;
    if !fresh {
        region.split(1).iter_mut().for_each(|part| part.fill(2));
    }
    Ok(region)
}

fn no_memory(bytes: usize, error: std::io::Error) -> Error {
    Error::new(ErrorKind::NoSpace, format!("no memory for {bytes} bytes of buffers")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_copies_between_private_and_shared_memory() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = 70_000;
        let mut source = random(bytes, 7).unwrap();
        let source = source.split(1);
        for method in Method::available() {
            let mut target = shared(folder.path(), bytes, false).unwrap();
            let mut target = target.split(1);
            assert!(!target[0].equals(0, &source[0], 0, bytes));
            copy(method, &mut target[0], 0, &source[0], 0, bytes);
            assert!(target[0].equals(0, &source[0], 0, bytes), "{method}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the files have no name left");
    }

    #[test]
    fn parts_share_nothing_and_random_bytes_differ_everywhere() {
        let mut region = random(3 * 4096, 1).unwrap();
        let mut parts = region.split(3);
        assert!(!parts[0].equals(0, &parts[1], 0, 4096));
        parts[1].fill(9);
        assert!(!parts[1].equals(0, &parts[2], 0, 4096));
    }

    #[test]
    #[should_panic(expected = "within its part")]
    fn no_copy_leaves_its_part() {
        let (mut a, mut b) = (private(4096).unwrap(), private(4096).unwrap());
        copy(Method::Libc, &mut a.split(1)[0], 1, &b.split(1)[0], 0, 4096);
    }
}
