//! The directory of files (tier 4): what it is on, and what works there. Found out by trying, in a folder that goes again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cascade_core::units::format_size;
use cascade_pfs::filesystem::Kind;
use cascade_pfs::survey::{self, Survey};
use cascade_pfs::{IoEngine, PfsConfig, stripe};

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, Mount, TABLE};

/// Blocks that are stored to measure the delay.
const ROUNDS: u32 = 8;
/// Files that a tier makes in a while: two for each opening, one for each segment.
const FILES: u64 = 1000;

/// Tries the directory of `config`.
pub(super) fn check(machine: &Machine, config: &PfsConfig, bounded: bool) -> Vec<Finding> {
    match survey::survey(config, ROUNDS) {
        Ok(survey) => {
            let mount = mounts::of(machine, TABLE, &survey.base);
            let capacity = bounded.then_some(config.capacity_bytes);
            findings(&config.dir, &survey, mount.as_ref(), capacity, &lfs(&survey))
        }
        Err(error) => {
            let found = format!("{} cannot be looked at: {error}", config.dir.display());
            vec![Finding::problem(
                "pfs.filesystem",
                "statfs",
                found,
                "set pfs_path to a directory that is there",
            )]
        }
    }
}

/// What `lfs` says of the stripes of new files.
fn lfs(survey: &Survey) -> Option<Result<String, String>> {
    let program = std::env::var_os("CASCADE_LFS").map_or_else(|| PathBuf::from("lfs"), PathBuf::from);
    let ask = || stripe::of(&program, &survey.base).map_err(|error| error.to_string());
    (survey.on.kind == Kind::Lustre).then(ask)
}

fn findings(
    dir: &Path,
    survey: &Survey,
    mount: Option<&Mount>,
    capacity: Option<u64>,
    lfs: &Option<Result<String, String>>,
) -> Vec<Finding> {
    let mut found = vec![filesystem(dir, survey), writable(dir, survey)];
    found.extend(space(survey, capacity));
    found.extend(quota(survey));
    found.extend(stripes(survey, lfs));
    found.extend(nfs(survey, mount));
    if survey.works.is_ok() {
        found.extend([direct(survey), engine(survey), locks(survey)]);
        found.extend(sync(survey));
        found.push(delay(survey));
    }
    found
}

fn filesystem(dir: &Path, survey: &Survey) -> Finding {
    const NAME: &str = "pfs.filesystem";
    let (source, kind) = (format!("statfs {}", survey.base.display()), survey.on.kind);
    let on = format!("{} is on {kind}", dir.display());
    let shared = "set pfs_path to a directory on the parallel file system";
    match kind {
        _ if kind.in_memory() => {
            Finding::note(NAME, source, format!("{on}: what is stored goes with this node"), shared)
        }
        Kind::Overlay => {
            let cure = "mount a directory of the host, and set pfs_path to it";
            Finding::note(NAME, source, format!("{on}: what is stored goes with the container"), cure)
        }
        Kind::Fuse | Kind::Other(_) => {
            let found = format!("{on}: what lies behind it cannot be seen from here");
            Finding::note(NAME, source, found, "cascade doctor --pfs on two nodes, and compare what they see")
        }
        _ if kind.shared() => Finding::ok(NAME, source, format!("{on}, which all nodes see")),
        _ => Finding::ok(NAME, source, format!("{on}: durable, and for this node alone")),
    }
}

fn writable(dir: &Path, survey: &Survey) -> Finding {
    const NAME: &str = "pfs.writable";
    let source = format!("a folder in {}", survey.base.display());
    match &survey.works {
        Ok(()) => {
            let found = "files can be made, written, made durable, given another name and removed";
            Finding::ok(NAME, source, found)
        }
        Err(what) => {
            let cure = format!("ls -ld {}; touch {}/x", survey.base.display(), survey.base.display());
            Finding::problem(NAME, source, format!("{} does not work: {what}", dir.display()), cure)
        }
    }
}

fn space(survey: &Survey, capacity: Option<u64>) -> Vec<Finding> {
    let source = format!("statfs {}", survey.base.display());
    let (free, total) = (survey.on.free_bytes, survey.on.total_bytes);
    let told = format!("{} free of {}", format_size(free), format_size(total));
    let cure = "set pfs_capacity to less, or remove what is not needed";
    let bytes = match capacity {
        Some(wanted) if free < wanted.min(total) => {
            let found = format!("{told}; the tier may take {}", format_size(wanted));
            Finding::note("pfs.space", source.clone(), found, cure)
        }
        _ if free < 1 << 30 => Finding::problem("pfs.space", source.clone(), told, cure),
        _ => Finding::ok("pfs.space", source.clone(), told),
    };
    let (free, total) = (survey.on.free_files, survey.on.total_files);
    if total == 0 {
        return vec![bytes];
    }
    let told = format!("{free} more files can be made, of {total}");
    let files = if free < FILES {
        Finding::problem("pfs.inodes", source, told, "find . -xdev -type f | wc -l; remove files")
    } else {
        Finding::ok("pfs.inodes", source, told)
    };
    vec![bytes, files]
}

fn quota(survey: &Survey) -> Option<Finding> {
    const NAME: &str = "pfs.quota";
    let source = "quotactl_fd";
    let Some(quota) = survey.quota else {
        return survey.on.kind.shared().then(|| {
            let cure = match survey.on.kind {
                Kind::Lustre => format!("lfs quota -h -u $USER {}", survey.base.display()),
                _ => "quota -s".into(),
            };
            Finding::note(NAME, source, "this kernel does not tell a quota here; there may be one", cure)
        });
    };
    let left = |used: u64, limit: u64| (limit > 0).then(|| limit.saturating_sub(used));
    let bytes = left(quota.used_bytes, quota.limit_bytes);
    let files = left(quota.used_files, quota.limit_files);
    let told = format!(
        "this user may take {} and make {}",
        bytes.map_or_else(|| "any number of bytes".into(), |bytes| format!("{} more", format_size(bytes))),
        files.map_or_else(|| "any number of files".into(), |files| format!("{files} more files")),
    );
    let scarce = bytes.is_some_and(|bytes| bytes < 1 << 30) || files.is_some_and(|files| files < FILES);
    Some(if scarce {
        Finding::problem(NAME, source, told, "ask for more quota, or remove files")
    } else {
        Finding::ok(NAME, source, told)
    })
}

fn direct(survey: &Survey) -> Finding {
    const NAME: &str = "pfs.direct_io";
    if !survey.direct {
        let found = "the file system refuses direct I/O: bytes go through the page cache, which costs a copy and memory";
        return Finding::note(NAME, "open O_DIRECT", found, "another directory, where speed counts");
    }
    let told = survey.alignment.map_or_else(String::new, |alignment| {
        format!(", aligned to {} bytes of a file and {} of memory", alignment.offset, alignment.memory)
    });
    match survey.alignment {
        Some(alignment) if alignment.offset > 4096 || alignment.memory > 4096 => {
            let found =
                format!("yes{told}: more than the 4096 that segments are made for, so it is not used");
            Finding::note(NAME, "statx", found, "pfs_direct = off, or another directory")
        }
        _ => Finding::ok(NAME, "open O_DIRECT, statx", format!("yes{told}")),
    }
}

fn engine(survey: &Survey) -> Finding {
    let (engine, why) = survey.engine.unwrap_or_default();
    let told = match engine {
        IoEngine::Uring => "io_uring",
        _ => "a pool of threads, no io_uring",
    };
    Finding::ok("pfs.io_uring", "io_uring_setup, and a transfer", format!("{told}: {why}"))
}

fn locks(survey: &Survey) -> Finding {
    const NAME: &str = "pfs.locks";
    if survey.locks {
        return Finding::ok(NAME, "fcntl F_OFD_SETLK", "work: the death of a writer is seen at once");
    }
    let found = "do not work: the death of a writer of another node is seen after ten minutes of silence";
    Finding::note(
        NAME,
        "fcntl F_OFD_SETLK",
        found,
        "mount with locks (Lustre: -o flock; NFS: without nolock)",
    )
}

fn sync(survey: &Survey) -> Option<Finding> {
    let told = format!("a page is written and durable after {:.1} ms", millis(survey.sync?));
    Some(Finding::ok("pfs.sync", "write and fdatasync", told))
}

fn stripes(survey: &Survey, lfs: &Option<Result<String, String>>) -> Option<Finding> {
    const NAME: &str = "pfs.stripes";
    let cure = "set pfs_stripe_count and pfs_stripe_size, and have lfs in PATH (or CASCADE_LFS)";
    if let Some(warning) = &survey.warning {
        return Some(Finding::note(NAME, "lfs setstripe", warning.clone(), cure));
    }
    match lfs.as_ref()? {
        Ok(told) => Some(Finding::ok(NAME, "lfs getstripe -d", told.clone())),
        Err(error) => Some(Finding::note(NAME, "lfs getstripe -d", error.clone(), cure)),
    }
}

fn nfs(survey: &Survey, mount: Option<&Mount>) -> Option<Finding> {
    const NAME: &str = "pfs.nfs";
    let mount = mount.filter(|_| survey.on.kind == Kind::Nfs)?;
    let value = |name: &str, default: &str| mount.option(name).unwrap_or(default).to_owned();
    let names = ["vers", "proto", "lookupcache"];
    let mut told: Vec<String> =
        names.iter().filter_map(|name| mount.option(name).map(|value| format!("{name}={value}"))).collect();
    let attributes = if mount.option("noac").is_some() {
        "noac".into()
    } else {
        format!(
            "attributes of files are remembered for {} to {} s, of directories for {} to {} s",
            value("acregmin", "3"),
            value("acregmax", "60"),
            value("acdirmin", "30"),
            value("acdirmax", "60")
        )
    };
    told.push(attributes);
    told.push("the tier asks the server where it matters".into());
    let told = told.join(", ");
    if mount.option("soft").is_some() {
        let found = format!("{told}; soft: a server that is slow is an I/O error");
        return Some(Finding::note(NAME, TABLE, found, "mount with hard"));
    }
    Some(Finding::ok(NAME, TABLE, told))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn delay(survey: &Survey) -> Finding {
    const NAME: &str = "pfs.delay";
    let (delay, source) = (&survey.delay, "two handles on this node");
    if delay.never > 0 {
        let found =
            format!("{} of {} blocks were not seen by another handle within 70 s", delay.never, ROUNDS + 1);
        return Finding::problem(NAME, source, found, "mount with actimeo=1, or noac");
    }
    let times = &delay.known_writer;
    let at = |place: usize| times.get(place).copied().map_or(0.0, millis);
    let told = format!(
        "another handle finds a block after {:.0} ms (median of {}, at most {:.0}), of a new writer after {:.0} ms; \
         other nodes may see it later, by what the file system promises",
        at(times.len() / 2),
        times.len(),
        at(times.len().saturating_sub(1)),
        delay.new_writer.map_or(0.0, millis)
    );
    let slow = times.last().copied().max(delay.new_writer).is_some_and(|time| time > Duration::from_secs(1));
    if slow {
        return Finding::note(NAME, source, told, "mount with actimeo=1, or noac");
    }
    Finding::ok(NAME, source, told)
}

#[cfg(test)]
mod tests {
    use cascade_pfs::filesystem::FileSystem;
    use cascade_pfs::survey::{Delay, DirectAlignment, Quota};

    use super::super::Severity;
    use super::*;

    fn sound(kind: Kind) -> Survey {
        Survey {
            base: "/scratch".into(),
            on: FileSystem::unbounded(kind),
            quota: None,
            works: Ok(()),
            sync: Some(Duration::from_millis(1)),
            locks: true,
            direct: true,
            alignment: Some(DirectAlignment { memory: 512, offset: 512 }),
            engine: Some((IoEngine::Pool, "a shared file system")),
            warning: None,
            delay: Delay {
                known_writer: vec![Duration::from_millis(200); 8],
                new_writer: Some(Duration::from_millis(300)),
                never: 0,
            },
        }
    }

    fn look(survey: &Survey, check: &str) -> Option<Finding> {
        let mount = Mount::parse(
            "9 1 0:50 / /scratch rw - nfs4 server:/x rw,vers=4.2,soft,acregmax=20,lookupcache=all",
        );
        let lfs = (survey.on.kind == Kind::Lustre).then(|| Ok("stripe_count: 4".to_owned()));
        let found = findings(Path::new("/scratch/me"), survey, mount.as_ref(), Some(1 << 40), &lfs);
        found.into_iter().find(|finding| finding.check == check)
    }

    fn is(survey: &Survey, check: &str, severity: Severity, words: &str) {
        let found = look(survey, check).unwrap_or_else(|| unreachable!("{check}"));
        assert!(found.severity == severity && found.found.contains(words), "{found:?}");
        assert_eq!(found.cure.is_some(), severity != Severity::Ok, "{found:?}");
    }

    #[test]
    fn sound_places_are_ok() {
        for kind in [Kind::Lustre, Kind::Ext, Kind::Xfs] {
            let survey = sound(kind);
            let all = findings(Path::new("/scratch/me"), &survey, None, None, &None);
            let quota = |finding: &&Finding| finding.check != "pfs.quota";
            assert!(all.iter().filter(quota).all(|finding| finding.severity == Severity::Ok), "{all:?}");
            assert!(look(&survey, "pfs.nfs").is_none());
        }
        is(&sound(Kind::Lustre), "pfs.stripes", Severity::Ok, "stripe_count: 4");
        is(&sound(Kind::Lustre), "pfs.quota", Severity::Note, "does not tell");
    }

    #[test]
    fn each_flaw_is_found_and_has_a_cure() {
        is(&sound(Kind::Tmpfs), "pfs.filesystem", Severity::Note, "goes with this node");
        is(&sound(Kind::Overlay), "pfs.filesystem", Severity::Note, "container");
        is(&sound(Kind::Nfs), "pfs.nfs", Severity::Note, "3 to 20 s");
        let broken = Survey { works: Err("make a file: no".into()), ..sound(Kind::Ext) };
        is(&broken, "pfs.writable", Severity::Problem, "make a file: no");
        assert!(look(&broken, "pfs.delay").is_none(), "nothing was measured");
        let plain = Survey { direct: false, locks: false, ..sound(Kind::Ext) };
        is(&plain, "pfs.direct_io", Severity::Note, "refuses");
        is(&plain, "pfs.locks", Severity::Note, "ten minutes");
        let coarse = DirectAlignment { memory: 4096, offset: 65_536 };
        is(&Survey { alignment: Some(coarse), ..sound(Kind::Ext) }, "pfs.direct_io", Severity::Note, "65536");
        let unstriped = Survey { warning: Some("files are not striped".into()), ..sound(Kind::Lustre) };
        is(&unstriped, "pfs.stripes", Severity::Note, "not striped");
        let mut full = sound(Kind::Ext);
        (full.on.free_bytes, full.on.free_files) = (1 << 39, 10);
        is(&full, "pfs.space", Severity::Note, "512GiB free");
        is(&full, "pfs.inodes", Severity::Problem, "10 more files");
        let quota = Quota { used_bytes: 9 << 30, limit_bytes: 9 << 30, used_files: 1, limit_files: 0 };
        is(
            &Survey { quota: Some(quota), ..sound(Kind::Ext) },
            "pfs.quota",
            Severity::Problem,
            "any number of files",
        );
    }

    #[test]
    fn the_delay_is_told_and_judged() {
        is(&sound(Kind::Nfs), "pfs.delay", Severity::Ok, "200 ms (median of 8");
        let mut slow = sound(Kind::Nfs);
        slow.delay.new_writer = Some(Duration::from_secs(30));
        is(&slow, "pfs.delay", Severity::Note, "30000 ms");
        slow.delay.never = 2;
        is(&slow, "pfs.delay", Severity::Problem, "2 of 9");
    }
}
