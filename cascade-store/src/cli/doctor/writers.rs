//! Who writes in a directory of files, and what there is of versions of the format that this program does not read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cascade_core::units::format_size;
use cascade_pfs::fs::{Fs, RealFs};
use cascade_pfs::inspect::{Inspection, Life, WriterView, inspect};

use super::Finding;
use crate::cli::text::{of, span};

/// What the files in `dir` say; nothing where there is no directory yet.
pub(super) fn check(dir: &Path) -> Vec<Finding> {
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    match inspect(dir, &fs) {
        Ok(seen) => findings(dir, &seen),
        // Whether it can be made is what the other checks ask.
        Err(_) => Vec::new(),
    }
}

fn findings(dir: &Path, seen: &Inspection) -> Vec<Finding> {
    let mut found = vec![writers(dir, seen)];
    found.extend(format(dir, seen));
    found
}

fn writers(dir: &Path, seen: &Inspection) -> Finding {
    const NAME: &str = "pfs.writers";
    let source = format!("identity files, locks and logs in {}", dir.display());
    let count = |is: fn(&&WriterView) -> bool| seen.writers.iter().filter(is).count() as u64;
    let lives = count(|writer| writer.life == Life::Lives);
    let silent: Vec<Duration> = seen
        .writers
        .iter()
        .filter_map(|writer| match writer.life {
            Life::Silent(time) => Some(time),
            _ => None,
        })
        .collect();
    let ended = count(|writer| writer.life == Life::Ended);
    let over: Vec<&WriterView> =
        seen.writers.iter().filter(|writer| matches!(writer.life, Life::Dead)).collect();
    let left: Vec<&&WriterView> = over.iter().filter(|writer| writer.claimed_by.is_none()).collect();
    let mut told = format!(
        "{}: {lives} alive, {ended} ended, {} dead",
        of(seen.writers.len() as u64, "writer"),
        over.len()
    );
    if let Some(longest) = silent.iter().max() {
        let silence = span(*longest);
        told = format!("{told}, {} of other nodes not heard of, for up to {silence}", silent.len());
    }
    if left.is_empty() {
        return Finding::ok(NAME, source, told);
    }
    let bytes: u64 = left.iter().map(|writer| writer.file_bytes).sum();
    let told = format!("{told}, of whom {} left {} that nobody has adopted", left.len(), format_size(bytes));
    let cure =
        "the next store that is opened there adopts them; cascade gc --pfs removes what holds no block";
    Finding::note(NAME, source, told, cure)
}

fn format(dir: &Path, seen: &Inspection) -> Option<Finding> {
    let (name, other) = seen.others.first_key_value()?;
    let others = seen.others.len() as u64;
    let found = format!(
        "{} of {} {} not read, and left alone: {name} is {other}",
        others,
        of(seen.files, "file"),
        if others == 1 { "is" } else { "are" }
    );
    let cure = "have all jobs that share the directory use one version of Cascade, or set another pfs_path";
    Some(Finding::note("pfs.format", format!("first pages in {}", dir.display()), found, cure))
}

#[cfg(test)]
mod tests {
    use cascade_core::digest;
    use cascade_pfs::{PfsConfig, PfsTier};

    use super::super::Severity;
    use super::*;

    #[test]
    fn writers_and_other_versions_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("tier");
        assert!(check(&dir).is_empty(), "there is nothing to look at");
        let tier = PfsTier::open(PfsConfig::new(&dir, 1 << 30)).unwrap();
        let found = check(&dir);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].severity == Severity::Ok && found[0].found.contains("1 writer: 1 alive"),
            "{found:?}"
        );
        drop(tier);
        // One that was killed says nothing in its log, and holds no lock.
        let named = |end: &str| {
            let all = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
            all.into_iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap()
        };
        let (log, mut bytes) = (named(".log"), std::fs::read(named(".log")).unwrap());
        bytes.truncate(4096);
        std::fs::write(&log, &bytes).unwrap();
        let found = check(&dir);
        assert!(
            found[0].severity == Severity::Note && found[0].found.contains("1 dead, of whom 1"),
            "{found:?}"
        );
        bytes[8..16].copy_from_slice(&[7, 0, 0, 0, 7, 0, 0, 0]);
        let sum = digest::crc64(&bytes[..4088]);
        bytes[4088..4096].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&log, &bytes).unwrap();
        let found = check(&dir);
        let told = &found[1];
        assert!(told.check == "pfs.format" && told.severity == Severity::Note && told.cure.is_some());
        assert!(told.found.contains("format version 7") && told.found.contains(".log is"), "{told:?}");
    }
}
