//! What a directory is good for, found out by trying: in a folder of its own that is removed at the end.

use std::io::{Error, Result};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Lookup, PutMeta, Tier};

use crate::buffer::Buffer;
use crate::config::{IoEngine, PfsConfig};
use crate::filesystem::FileSystem;
use crate::fs::{Access, Fs, RealFs};
use crate::{PfsTier, io, raw};

/// Beginning of the name of the folder that is used, and that a killed survey leaves.
pub const FOLDER: &str = "cascade-probe-";
/// A block of another writer that was not seen for so long will not be.
const MOST_DELAY: Duration = Duration::from_secs(70);
const BLOCK_BYTES: usize = 64 << 10;

/// Alignment that direct I/O asks for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of memory.
    pub memory: u32,
    /// Of places in a file.
    pub offset: u32,
}

/// Times until a block that one handle has stored was found by another handle, both on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Of a writer that the other knew already; each at most 70 s. In order.
    pub known_writer: Vec<Duration>,
    /// Of a writer that is new.
    pub new_writer: Option<Duration>,
    /// Blocks that were not found in time.
    pub never: u64,
}

/// What this user may have on a file system, where it keeps quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Most bytes; 0 for no bound.
    pub limit_bytes: u64,
    /// Files in use.
    pub used_files: u64,
    /// Most files; 0 for no bound.
    pub limit_files: u64,
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The directory that is there, `config.dir` or one above it.
    pub base: PathBuf,
    /// What the directory is stored on.
    pub on: FileSystem,
    /// The user's quota, where this system tells (Linux 5.14, local file systems).
    pub quota: Option<Quota>,
    /// Whether files could be made, written, made durable, given another name, and removed; or what failed.
    pub works: std::result::Result<(), String>,
    /// Duration of a write of a page and its fdatasync.
    pub sync: Option<Duration>,
    /// Whether locks work: without them the death of a writer is told by its process and by time.
    pub locks: bool,
    /// Whether direct I/O works.
    pub direct: bool,
    /// What it asks for, where the kernel tells (Linux 6.1).
    pub alignment: Option<DirectAlignment>,
    /// What would move the bytes, and why.
    pub engine: Option<(IoEngine, &'static str)>,
    /// Why files would not be striped as configured.
    pub warning: Option<String>,
    /// How soon others see a block.
    pub delay: Delay,
}

/// Removes the folder.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tries what a tier with these settings would do in `config.dir`, or in the nearest directory above it that is there.
/// `rounds` blocks are stored to measure the delay.
///
/// # Errors
/// The system's, when there is no such directory.
pub fn survey(config: &PfsConfig, rounds: u32) -> Result<Survey> {
    let base = config.dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let mut survey = Survey {
        base: base.to_owned(),
        on: RealFs.probe(base)?,
        quota: std::fs::File::open(base).ok().and_then(|file| raw::quota(file.as_fd())),
        works: Ok(()),
        sync: None,
        locks: false,
        direct: false,
        alignment: None,
        engine: None,
        warning: None,
        delay: Delay::default(),
    };
    let folder = Folder(base.join(format!("{FOLDER}{}", std::process::id())));
    let tried = std::fs::create_dir(&folder.0)
        .map_err(|error| format!("make a folder in {}: {error}", base.display()))
        .and_then(|()| try_files(&folder.0, &mut survey))
        .and_then(|()| try_tier(config, &folder.0, rounds, &mut survey));
    survey.works = tried;
    Ok(survey)
}

fn try_files(folder: &Path, survey: &mut Survey) -> std::result::Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: Error| format!("{what}: {error}")
    };
    let (one, two) = (folder.join("one"), folder.join("two"));
    let file = RealFs.open(&one, Access::Create, true).map_err(failed("make a file"))?;
    let page = Buffer::new(4096);
    let started = Instant::now();
    let written = io::write_all(file.as_ref(), &[page.piece()], 0);
    survey.direct = file.is_direct() && written.is_ok();
    if file.is_direct() && written.is_err() {
        // Some file systems open a file for direct I/O and then refuse it.
        let plain =
            RealFs.open(&folder.join("plain"), Access::Create, false).map_err(failed("make a file"))?;
        io::write_all(plain.as_ref(), &[page.piece()], 0).map_err(failed("write"))?;
    } else {
        written.map_err(failed("write"))?;
    }
    file.sync().map_err(failed("fdatasync"))?;
    survey.sync = Some(started.elapsed());
    survey.alignment = std::fs::File::open(&one).ok().and_then(|file| raw::direct_alignment(file.as_fd()));
    survey.locks = matches!(file.lock(), Ok(true));
    RealFs.rename(&one, &two).map_err(failed("give a file another name"))?;
    RealFs.sync_dir(folder).map_err(failed("fsync of a directory"))?;
    RealFs.remove(&two).map_err(failed("remove a file"))
}

fn try_tier(
    config: &PfsConfig,
    folder: &Path,
    rounds: u32,
    survey: &mut Survey,
) -> std::result::Result<(), String> {
    let config = PfsConfig {
        dir: folder.join("tier"),
        capacity_bytes: 64 << 20,
        segment_bytes: None,
        ..config.clone()
    };
    let open = || PfsTier::open(config.clone()).map_err(|error| error.to_string());
    let (writer, reader) = (open()?, open()?);
    let stats = writer.file_stats();
    survey.engine = Some((stats.engine, stats.engine_reason));
    survey.warning = writer.warning();
    for round in 0..rounds {
        match delay(&writer, &reader, &format!("survey {round}"))? {
            Some(time) => survey.delay.known_writer.push(time),
            None => survey.delay.never += 1,
        }
    }
    survey.delay.known_writer.sort_unstable();
    if rounds > 0 {
        let new = open()?;
        survey.delay.new_writer = delay(&new, &reader, "survey of a new writer")?;
        survey.delay.never += u64::from(survey.delay.new_writer.is_none());
    }
    Ok(())
}

/// How long it takes until `reader` finds what `writer` stores; `None` when it does not.
fn delay(writer: &PfsTier, reader: &PfsTier, name: &str) -> std::result::Result<Option<Duration>, String> {
    let (id, from) = (BlockId::named(name), Piece::shared(vec![1; BLOCK_BYTES].into()).into());
    let soon = Instant::now() + Duration::from_secs(60);
    let put = Op::Store { id, from, meta: PutMeta::default() };
    let outcome = writer.submit(Batch::new(vec![put])).wait(soon);
    if outcome.as_deref() != Some(&[Outcome::Stored]) {
        return Err(format!("a block could not be stored: {outcome:?}"));
    }
    let started = Instant::now();
    while started.elapsed() < MOST_DELAY {
        let mut found = [Lookup::Pending];
        reader.lookup(&[id], &mut found);
        if found[0].is_hit() {
            return Ok(Some(started.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// Folders of killed surveys in `dir`: their process is not on this node, and nothing was made in them for so long.
#[must_use]
pub fn left_folders(dir: &Path, older_than: Duration) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of_nobody = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let pid = name.strip_prefix(FOLDER).and_then(|pid| pid.parse::<u32>().ok());
        let changed = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        let gone = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        gone && path.is_dir() && age >= older_than
    };
    entries.map(|entry| entry.path()).filter(of_nobody).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let config = PfsConfig::new(folder.path().join("not/there"), 1 << 30);
        let survey = survey(&config, 2).unwrap();
        assert_eq!(survey.works, Ok(()));
        assert!(survey.locks && survey.sync.is_some() && survey.engine.is_some(), "{survey:?}");
        assert_eq!((survey.delay.known_writer.len(), survey.delay.never), (2, 0));
        assert!(survey.delay.new_writer.is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let left = folder.path().join(format!("{FOLDER}4194305"));
        std::fs::create_dir(&left).unwrap();
        std::fs::create_dir(folder.path().join(format!("{FOLDER}{}", std::process::id()))).unwrap();
        assert_eq!(left_folders(folder.path(), Duration::ZERO), [left]);
        assert!(left_folders(folder.path(), Duration::from_secs(3600)).is_empty());
    }

    #[test]
    fn a_place_that_cannot_be_written_says_what_failed() {
        let survey = survey(&PfsConfig::new("/proc/tier", 1 << 30), 1).unwrap();
        assert!(survey.works.unwrap_err().contains("make a folder in /proc"));
        assert_eq!(survey.delay, Delay::default());
    }
}
