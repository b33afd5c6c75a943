//! `cargo xtask bench --tier mpi` and `--suite scaling`: MPI found or set up, the benchmark built with it, one job for each number
//! of ranks.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::value;
use crate::mpi::{Kind, Mpi};
use crate::process::{output, run};

/// Ranks where none are named.
const RANKS: &str = "2";
const RANKS_OF_SCALING: &str = "1,2,4";

fn words(arguments: &[OsString]) -> Vec<String> {
    arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Whether the options ask for ranks.
pub(super) fn is_wanted(arguments: &[OsString]) -> bool {
    let words = words(arguments);
    value(&words, "--tier").as_deref() == Some("mpi") || is_scaling(&words)
}

fn is_scaling(words: &[String]) -> bool {
    value(words, "--suite").as_deref() == Some("scaling")
}

/// Which MPI is asked for.
fn kind(words: &[String]) -> Result<Kind> {
    match value(words, "--mpi").as_deref() {
        None | Some("mpich") => Ok(Kind::Mpich),
        Some("openmpi") => Ok(Kind::Openmpi),
        Some(other) => bail!("there is no MPI {other:?}: --mpi is mpich or openmpi"),
    }
}

/// One job for each number of ranks.
fn jobs(words: &[String]) -> Result<Vec<u32>> {
    let default = if is_scaling(words) { RANKS_OF_SCALING } else { RANKS };
    let text = value(words, "--ranks").unwrap_or_else(|| default.to_owned());
    let number = |word: &str| word.trim().parse().ok().filter(|ranks| (1..=1024).contains(ranks));
    let jobs = text
        .split(',')
        .map(|word| number(word).with_context(|| format!("--ranks {text}: {word:?} is no number of ranks")));
    jobs.collect()
}

/// The options as the ranks get them: without those that say which job it is.
fn handed_on(words: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut all = words.iter();
    while let Some(word) = all.next() {
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--ranks" | "--mpi" => {
                if !word.contains('=') {
                    all.next();
                }
            }
            _ => kept.push(word.clone()),
        }
    }
    kept
}

pub(super) fn command(arguments: &[OsString]) -> Result<()> {
    let words = words(arguments);
    let mpi = Mpi::get(kind(&words)?)?;
    let program = build(&mpi)?;
    let is_help = words.iter().any(|word| word == "--help" || word == "-h");
    if is_help {
        let mut help = crate::process::command(&program);
        return run(help.args(&words));
    }
    for (number, ranks) in jobs(&words)?.into_iter().enumerate() {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let mut launch = mpi.launch(ranks, &program);
        launch.args(handed_on(&words)).args(["--ranks", &ranks.to_string()]).arg("--meet").arg(folder.path());
        if number > 0 && value(&words, "--json").is_some() {
            launch.arg("--append");
        }
        // Files are named from where the command was typed.
        launch.current_dir(std::env::current_dir().context("no current folder")?);
        run(&mut launch)?;
    }
    Ok(())
}

fn build(mpi: &Mpi) -> Result<PathBuf> {
    if mpi.kind() == Kind::Mpich {
        mpi.forget_others()?;
    }
    let build =
        ["build", "--release", "--package", "cascade-bench", "--features", "mpi", "--message-format", "json"];
    let messages = output(&mut mpi.cargo(&build))?;
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = parsed.filter(|message| message["target"]["name"] == "cascade-bench");
    let program = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo built no cascade-bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn jobs_follow_from_the_options() {
        assert_eq!(jobs(&typed("--tier mpi")).unwrap(), [2]);
        assert_eq!(jobs(&typed("--suite scaling")).unwrap(), [1, 2, 4]);
        assert_eq!(jobs(&typed("--suite scaling --ranks=2,8")).unwrap(), [2, 8]);
        assert!(jobs(&typed("--tier mpi --ranks 0")).is_err() && jobs(&typed("--ranks two")).is_err());
        assert!(
            kind(&typed("--mpi openmpi")).unwrap() == Kind::Openmpi && kind(&typed("--mpi other")).is_err()
        );
    }

    #[test]
    fn ranks_get_what_was_typed_but_for_the_job() {
        let line = typed("--tier mpi --ranks 4 --path rma --mpi=openmpi --json a.json");
        assert_eq!(handed_on(&line), typed("--tier mpi --path rma --json a.json"));
    }

    #[test]
    fn other_benchmarks_are_no_jobs() {
        let is = |line: &str| is_wanted(&typed(line).into_iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is("--tier mpi") && is("--tier=mpi --help") && is("--suite scaling"));
        assert!(!is("--tier shm --ranks 2") && !is("--suite trace"));
    }
}
