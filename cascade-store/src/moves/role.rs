//! Who of a node sweeps the arena for blocks that are not in files yet: one process, by a lock that the system takes back when it
//! ends, however it ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, fcntl};

/// The role as one store sees it.
#[derive(Debug)]
pub(crate) struct Role {
    path: PathBuf,
    held: Option<File>,
}

impl Role {
    /// The role for the arena at `arena`, not held yet.
    pub(crate) fn new(arena: &std::path::Path) -> Self {
        let name = arena.file_name().map(|name| name.to_string_lossy().replacen("arena.", "demoter.", 1));
        Self { path: arena.with_file_name(name.unwrap_or_else(|| "demoter".into())), held: None }
    }

    /// Takes the role if nobody else has it; whether it is ours. Record locks are the process's and not the file's, so a forked
    /// child does not keep the role of a parent that died. Two stores of one process may both have it: then both sweep, and
    /// the files store each block once.
    pub(crate) fn tend(&mut self) -> bool {
        if self.held.is_none() {
            let opened =
                OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.path);
            self.held = opened.ok().filter(|file| fcntl(file, FcntlArg::F_SETLK(&whole())).is_ok());
        }
        self.held.is_some()
    }
}

fn whole() -> nix::libc::flock {
    nix::libc::flock {
        l_type: nix::libc::F_WRLCK as _,
        l_whence: nix::libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
