//! Putting out of use what is damaged: by a log, as every writer has one.

use std::io::Result;
use std::path::PathBuf;

use super::{Index, QUARANTINE, Report};
use crate::core::Core;
use crate::layout::{LogEvent, Record};
use crate::names::{Name, SegmentId};
use crate::writer;

/// Forgets the blocks that are lost, says once more what a damaged log has forgotten, and moves away segments without a sound
/// block. What is logged is durable before anything is moved.
pub(super) fn repair(core: &Core, index: &Index, soundless: &[SegmentId], report: &mut Report) -> Result<()> {
    let mut events = index.unheard.clone();
    for finding in report.findings.iter().filter(|finding| finding.loses_block && !finding.is_known) {
        if let Some(Record { id, sequence, .. }) = finding.record {
            events.push(LogEvent::Forget { id, sequence: sequence.saturating_add(1) });
        }
    }
    let dropped = soundless.iter().map(|id| LogEvent::Drop { writer: id.writer, segment: id.number });
    events.extend(dropped);
    if events.is_empty() {
        return Ok(());
    }
    let mut log = writer::begin(core)?;
    events.into_iter().for_each(|event| log.note(event));
    log.note(LogEvent::End);
    log.write()?;
    log.sync(core)?;
    for finding in report.findings.iter_mut().filter(|finding| finding.record.is_some() && !finding.is_known)
    {
        finding.is_repaired = true;
    }
    for id in soundless {
        let folder = core.config.dir.join(QUARANTINE);
        core.fs.make_dir(&folder)?;
        let name = Name::Segment(*id);
        let to: PathBuf = folder.join(name.to_string());
        core.fs.rename(&core.path(name), &to)?;
        report.moved += 1;
        let file = name.to_string();
        report.findings.iter_mut().filter(|finding| finding.file == file).for_each(|f| f.is_repaired = true);
    }
    Ok(())
}
