//! Stripes: on Lustre a file can be spread over several storage targets.
//!
//! Where stripes are configured and the file system is Lustre, `lfs setstripe` sets them once on the directory, and every file
//! made there has them. Without that program each segment gets them as it is made, by the ioctl that the program itself uses.
//! Where neither works the files are not striped, and [`PfsTier::warning`](crate::PfsTier::warning) says why.
//!
//! The program's arguments are tested with one that takes its place; the ioctl follows Lustre's headers. Neither was ever run
//! on Lustre.

use std::io::{Error, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::PfsConfig;
use crate::filesystem::Kind;
use crate::fs::Fs;

const DEFAULT_BYTES: u32 = 4 << 20;
/// The count that stands for all targets.
pub const ALL_TARGETS: u16 = u16::MAX;
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of what a failed program says that are told on.
const TOLD_BYTES: u64 = 500;

/// How a file is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripes {
    /// Number of storage targets, [`ALL_TARGETS`] for all.
    pub count: u16,
    /// Bytes that go to one target before the next has its turn.
    pub bytes: u32,
}

/// What was arranged for the files of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Striping {
    /// As the file system likes.
    #[default]
    Free,
    /// New files have these stripes by themselves.
    Inherited(Stripes),
    /// Each segment gets these when it is made.
    Each(Stripes),
}

impl Striping {
    pub(crate) fn stripes(&self) -> Option<Stripes> {
        match self {
            Self::Free => None,
            Self::Inherited(stripes) | Self::Each(stripes) => Some(*stripes),
        }
    }
}

/// Arranges the configured stripes for new files of the directory. With it the reason why they are not striped.
pub(crate) fn arrange(config: &PfsConfig, fs: &dyn Fs) -> (Striping, Option<String>) {
    if config.stripe_count.is_none() && config.stripe_bytes.is_none() {
        return (Striping::Free, None);
    }
    if !fs.probe(&config.dir).is_ok_and(|found| found.kind == Kind::Lustre) {
        return (Striping::Free, None);
    }
    let stripes = Stripes {
        count: config.stripe_count.unwrap_or(1),
        bytes: config.stripe_bytes.unwrap_or(DEFAULT_BYTES),
    };
    let program = config.lfs.clone().or_else(|| std::env::var_os("CASCADE_LFS").map(PathBuf::from));
    let program = program.unwrap_or_else(|| "lfs".into());
    match set_on(&program, &config.dir, stripes) {
        Ok(()) => (Striping::Inherited(stripes), None),
        Err(error) if error.kind() == ErrorKind::NotFound => (Striping::Each(stripes), None),
        Err(error) => (Striping::Free, Some(unstriped(&config.dir, &error))),
    }
}

/// Why the files of a directory are not striped.
pub(crate) fn unstriped(dir: &Path, error: &Error) -> String {
    format!("files in {} are not striped: {error}", dir.display())
}

/// Runs `lfs setstripe -c COUNT -S BYTES DIR`: new files in the directory have these stripes then.
///
/// # Errors
/// `NotFound` when there is no such program; what it said when it failed; `TimedOut` after ten seconds.
pub fn set_on(program: &Path, dir: &Path, stripes: Stripes) -> Result<()> {
    let count = if stripes.count == ALL_TARGETS { "-1".into() } else { stripes.count.to_string() };
    let (status, told) = run(program, &["setstripe", "-c", &count, "-S", &stripes.bytes.to_string()], dir)?;
    if status { Ok(()) } else { Err(Error::other(format!("lfs setstripe: {told}"))) }
}

/// Runs `lfs getstripe -d DIR`: what the program says of the stripes that new files in the directory get.
///
/// # Errors
/// As [`set_on`].
pub fn of(program: &Path, dir: &Path) -> Result<String> {
    let (status, told) = run(program, &["getstripe", "-d"], dir)?;
    if status { Ok(told) } else { Err(Error::other(format!("lfs getstripe: {told}"))) }
}

/// Whether the program ended well, and what it printed.
fn run(program: &Path, arguments: &[&str], dir: &Path) -> Result<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let good = wait(&mut child)?;
    let mut told = String::new();
    // What it prints is short, so that it never waits for us to read.
    let pipes: [Option<Box<dyn Read>>; 2] = [
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
    ];
    for pipe in pipes.into_iter().flatten() {
        let _ = pipe.take(TOLD_BYTES).read_to_string(&mut told);
    }
    Ok((good, told.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn wait(child: &mut Child) -> Result<bool> {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(ErrorKind::TimedOut, "lfs does not answer"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
