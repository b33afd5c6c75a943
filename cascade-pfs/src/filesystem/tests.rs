use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// Mount points and the kernel's own names of their file systems, from a source other than statfs.
fn mounts() -> Vec<(PathBuf, String)> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.map(|fields| (PathBuf::from(fields[1]), fields[2].to_owned())).collect()
}

fn kind_by_name(name: &str) -> Option<Kind> {
    Some(match name {
        "lustre" => Kind::Lustre,
        "gpfs" => Kind::Gpfs,
        "beegfs" => Kind::BeeGfs,
        "ceph" => Kind::Ceph,
        "nfs" | "nfs4" => Kind::Nfs,
        "tmpfs" => Kind::Tmpfs,
        "ramfs" | "hugetlbfs" => Kind::Ram,
        "ext2" | "ext3" | "ext4" => Kind::Ext,
        "xfs" => Kind::Xfs,
        "btrfs" => Kind::Btrfs,
        "zfs" => Kind::Zfs,
        "overlay" => Kind::Overlay,
        "fuseblk" | "fuse" => Kind::Fuse,
        _ => return None,
    })
}

#[test]
fn the_kind_is_what_the_mount_table_says() {
    let mut checked = Vec::new();
    let mounts = mounts();
    for (point, name) in &mounts {
        // A later mount on the same point hides this one.
        let visible = mounts.iter().rev().find(|(other, _)| other == point).unwrap();
        let (Some(expected), Ok(found)) = (kind_by_name(&visible.1), probe(point)) else { continue };
        assert_eq!(found.kind, expected, "{} is {name}", point.display());
        checked.push(expected);
    }
    assert!(!checked.is_empty(), "no mount of a known kind among {mounts:?}");
}

#[test]
fn shared_memory_is_memory() {
    let shm = probe(Path::new("/dev/shm")).unwrap();
    assert_eq!((shm.kind, shm.kind.in_memory(), shm.kind.shared()), (Kind::Tmpfs, true, false));
    assert!(shm.block_bytes >= 4096 && shm.free_bytes <= shm.total_bytes, "{shm:?}");
}

#[test]
fn a_pseudo_file_system_is_told_by_its_magic() {
    assert_eq!(probe(Path::new("/proc")).unwrap().kind, Kind::Other(0x9FA0));
    assert_eq!(Kind::Other(0x9FA0).to_string(), "unknown file system 0x00009fa0");
}

#[test]
fn sizes_agree_with_df() {
    let df = Command::new("df").args(["-B1", "--output=size", "/"]).output().unwrap();
    let size: u64 = String::from_utf8(df.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
    let root = probe(Path::new("/")).unwrap();
    assert_eq!(root.total_bytes, size);
    assert!(root.free_bytes <= size);
}

#[test]
fn parallel_file_systems_by_their_magic() {
    // None of them can be mounted here; the numbers are those of their headers.
    assert_eq!(Kind::from_magic(0x0BD0_0BD0), Kind::Lustre);
    assert_eq!(Kind::from_magic(0x4750_4653), Kind::Gpfs);
    assert_eq!(Kind::from_magic(0x6969), Kind::Nfs);
    assert!([Kind::Lustre, Kind::Gpfs, Kind::BeeGfs, Kind::Ceph, Kind::Nfs].iter().all(|kind| kind.shared()));
    // Sign extension of a 32-bit f_type must not lose hugetlbfs and Btrfs, whose top bit is set.
    assert_eq!(Kind::from_magic(magic(i64::from(0x9584_58F6_u32.cast_signed()))), Kind::Ram);
    assert_eq!(Kind::from_magic(magic(0x9123_683E)), Kind::Btrfs);
}

#[test]
fn no_two_entries_share_a_magic() {
    for (i, (magic, kind)) in KINDS.iter().enumerate() {
        assert!(KINDS[i + 1..].iter().all(|(other, _)| other != magic), "{kind:?}");
    }
}

#[test]
fn a_path_that_is_not_there_is_an_error_that_names_it() {
    let kind_of = |path: &Path| probe(path).unwrap_err().kind();
    let error = probe(Path::new("/no/such/directory")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("/no/such/directory") && error.to_string().contains("create"),
        "{error}"
    );
    assert_eq!(kind_of(Path::new("")), ErrorKind::NotFound);
    assert_eq!(kind_of(Path::new("/proc/self/mounts/below")), ErrorKind::NotFound);
    assert_eq!(kind_of(Path::new(&"x".repeat(5000))), ErrorKind::InvalidArgument);
    assert_eq!(kind_of(Path::new(OsStr::from_bytes(b"nul\0inside"))), ErrorKind::InvalidArgument);
}
