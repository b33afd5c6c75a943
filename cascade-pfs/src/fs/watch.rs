//! inotify on a directory.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};

use super::{Changes, Watch};

#[derive(Debug)]
pub(super) struct DirWatch(Inotify);

impl DirWatch {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let names = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(dir, names | gone | AddWatchFlags::IN_MODIFY)?;
        Ok(Self(inotify))
    }
}

/// Adds what an event says.
fn note(event: InotifyEvent, changes: &mut Changes) {
    let name = event.name.and_then(|name| name.into_string().ok());
    match name {
        Some(name) if event.mask.contains(AddWatchFlags::IN_MODIFY) => {
            if !changes.written.contains(&name) {
                changes.written.push(name);
            }
        }
        // Names, or that events were lost.
        _ => changes.names = true,
    }
}

impl Watch for DirWatch {
    fn changes(&mut self) -> Result<Changes> {
        let mut changes = Changes::default();
        loop {
            match self.0.read_events() {
                Ok(events) => {
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                            return Err(Error::from(ErrorKind::NotFound));
                        }
                        note(event, &mut changes);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(changes),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_writes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(folder.path()).unwrap();
        assert_eq!(watch.changes().unwrap(), Changes::default());
        std::fs::write(folder.path().join("a"), "1").unwrap();
        let told = watch.changes().unwrap();
        assert_eq!(told, Changes { names: true, written: vec!["a".into()] });
        std::fs::write(folder.path().join("a"), "2").unwrap();
        assert_eq!(watch.changes().unwrap(), Changes { names: false, written: vec!["a".into()] });
        std::fs::remove_file(folder.path().join("a")).unwrap();
        assert_eq!(watch.changes().unwrap(), Changes { names: true, written: Vec::new() });
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(watch.changes().is_err(), "nothing more will be told");
    }
}
