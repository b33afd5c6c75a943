//! Huge pages: what the file system of an arena gives, and what it asks for that.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cascade_core::{Error, ErrorKind, Result};
use nix::sys::statfs::{HUGETLBFS_MAGIC, Statfs, fstatfs, statfs};

/// The largest page that the data area, which begins at a multiple of it, can be made of.
const MOST_PAGE_BYTES: u64 = 2 << 20;
const POOLS: &str = "/sys/kernel/mm/hugepages";

/// Where the pages of an arena come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Huge {
    /// Pages of the system's ordinary size.
    None,
    /// A tmpfs mounted with `huge=`: the system uses huge pages where it finds them.
    Tmpfs,
    /// hugetlbfs: every page is a huge one, from a pool set up beforehand.
    Hugetlbfs,
}

/// What an arena is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Where its pages come from.
    pub huge: Huge,
    /// Bytes of a page; where huge pages are not certain, of the largest.
    pub page_bytes: u64,
    /// Whether huge pages have to be asked for.
    pub is_asked: bool,
}

impl Medium {
    /// That of a directory.
    ///
    /// # Errors
    /// `System` when the directory cannot be looked at.
    pub fn of_dir(dir: &Path) -> Result<Self> {
        let system = |error| {
            Error::new(ErrorKind::System, format!("cannot stat {}", dir.display())).with_source(error)
        };
        let device = std::fs::metadata(dir).map_err(system)?.dev();
        Ok(Self::of(&statfs(dir).map_err(|error| system(error.into()))?, device))
    }

    /// That of an arena's file; ordinary pages when the system does not say.
    #[must_use]
    pub fn of_file(file: &File) -> Self {
        let device = file.metadata().map(|metadata| metadata.dev());
        match (fstatfs(file), device) {
            (Ok(stat), Ok(device)) => Self::of(&stat, device),
            _ => Self { huge: Huge::None, page_bytes: 4096, is_asked: false },
        }
    }

    fn of(stat: &Statfs, device: u64) -> Self {
        let page_bytes = u64::try_from(stat.block_size()).unwrap_or(4096);
        if stat.filesystem_type() == HUGETLBFS_MAGIC {
            return Self { huge: Huge::Hugetlbfs, page_bytes, is_asked: false };
        }
        let read = |name: &str| {
            std::fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}")).unwrap_or_default()
        };
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let option = option_of(&mounts, nix::sys::stat::major(device), nix::sys::stat::minor(device));
        match (option, read("hpage_pmd_size").trim().parse()) {
            (Some(option), Ok(huge_bytes))
                if option != "never" && !read("shmem_enabled").contains("[deny]") =>
            {
                Self { huge: Huge::Tmpfs, page_bytes: huge_bytes, is_asked: option == "advise" }
            }
            _ => Self { huge: Huge::None, page_bytes, is_asked: false },
        }
    }

    /// Whether each page comes from a pool.
    #[must_use]
    pub fn is_pool(&self) -> bool {
        self.huge == Huge::Hugetlbfs
    }

    /// Bytes that the pool has free and nobody has reserved; `None` where there is no pool.
    #[must_use]
    pub fn pool_free(&self) -> Option<u64> {
        if !self.is_pool() {
            return None;
        }
        let read = |name: &str| {
            let path = format!("{POOLS}/hugepages-{}kB/{name}_hugepages", self.page_bytes / 1024);
            std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        let spare = read("nr_overcommit")?.saturating_sub(read("surplus")?);
        Some((read("free")? + spare).saturating_sub(read("resv")?) * self.page_bytes)
    }

    /// Checks that an arena with regions of `region_bytes` can be made of these pages.
    ///
    /// # Errors
    /// `Config`, saying what can be done.
    pub fn check(&self, region_bytes: u64) -> Result<()> {
        if !self.is_pool() {
            return Ok(());
        }
        let size = cascade_core::units::format_size;
        let page = size(self.page_bytes);
        if self.page_bytes > MOST_PAGE_BYTES {
            let most = size(MOST_PAGE_BYTES);
            let what = format!(
                "the directory's file system has huge pages of {page}, and an arena is made of pages of at most {most}: \
                 mount hugetlbfs with `pagesize=2M`"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        if !region_bytes.is_multiple_of(self.page_bytes) {
            let what = format!(
                "regions of {} are not made of huge pages of {page}: ask for larger ones",
                size(region_bytes)
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        Ok(())
    }

    /// The error for an arena of `need` bytes where the pool has `free`.
    #[must_use]
    pub fn too_few(&self, need: u64, free: u64) -> Error {
        let (page, needed, free) = (self.page_bytes, need.div_ceil(self.page_bytes), free / self.page_bytes);
        let pool = format!("{POOLS}/hugepages-{}kB/nr_hugepages", page / 1024);
        let total = std::fs::read_to_string(&pool).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let what = format!(
            "{free} huge pages of {} are free, and the arena needs {needed}: `echo {} > {pool}` as root, or ask for less",
            cascade_core::units::format_size(page),
            total.unwrap_or(0) + needed - free.min(needed)
        );
        Error::new(ErrorKind::NoSpace, what)
    }
}

/// The option `huge=` of the tmpfs on this device, from the text of `mountinfo`.
fn option_of(mounts: &str, major: u64, minor: u64) -> Option<&str> {
    let device = format!("{major}:{minor}");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device.as_str()))?;
    let (_, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    let options = fields.next().filter(|kind| *kind == "tmpfs").and_then(|_| fields.nth(1))?;
    options.split(',').find_map(|option| option.strip_prefix("huge="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_that_of_the_right_mount() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      25 24 0:23 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=24G\n\
                      26 24 0:24 / /srv/a\\040b rw shared:7 - tmpfs huge=lie rw,size=1G,huge=within_size,inode64\n";
        assert_eq!(option_of(mounts, 0, 24), Some("within_size"));
        assert_eq!(option_of(mounts, 0, 23), None);
        assert_eq!(option_of(mounts, 0, 20), None);
        assert_eq!(option_of(mounts, 9, 9), None);
    }

    #[test]
    fn pages_of_a_pool_must_fit_the_arena() {
        let medium = |page_bytes| Medium { huge: Huge::Hugetlbfs, page_bytes, is_asked: false };
        assert!(medium(2 << 20).check(2 << 20).is_ok());
        let error = medium(2 << 20).check(1 << 20).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("2MiB"), "{error}");
        let error = medium(1 << 30).check(1 << 30).unwrap_err();
        assert!(error.to_string().contains("pagesize=2M"), "{error}");
        let error = medium(2 << 20).too_few(9 << 20, 4 << 20);
        let text = error.to_string();
        assert!(error.kind() == ErrorKind::NoSpace && text.contains("2 huge pages of 2MiB"), "{text}");
        assert!(text.contains("needs 5: `echo "), "{text}");
    }
}
