//! Scripts against those in xtask/slurm/golden, which `cargo xtask test --lane slurm` gives to shellcheck. After a change that is meant:
//! `CASCADE_GOLDEN=write cargo test -p xtask golden`, and read the difference.

use clap::Parser;

use super::*;
use crate::workspace;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn made(line: &str) -> Result<String> {
    let words = line.split(' ').map(|word| word.replace('~', " "));
    let parsed = Line::try_parse_from(std::iter::once("slurm".to_owned()).chain(words))?;
    text(&job(&parsed.options)?)
}

const GOLDEN: [(&str, &str); 3] = [
    ("agents.sh", "--nodes 4 --ntasks-per-node 2 -- python serve.py --name it's~here"),
    (
        "perlmutter.sh",
        "--nodes 16 --ntasks-per-node 4 --site perlmutter --account m1234 --cpus-per-task 32 --time 02:00:00 \
         --dependency afterok:17 --array 0-7%2 --module python -- ./run.sh",
    ),
    (
        "embedded.sh",
        "--nodes 2 --ntasks-per-node 1 --no-agents --keep-arenas --partition debug --scratch $HOME/blocks -- python ranks.py",
    ),
];

#[test]
fn golden_scripts_are_as_they_were() {
    for (name, line) in GOLDEN {
        let path = workspace::root().join("xtask/slurm/golden").join(name);
        let script = made(line).unwrap();
        if std::env::var_os("CASCADE_GOLDEN").is_some() {
            std::fs::write(&path, &script).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(script, golden, "{name} has changed: see the head of this file");
    }
}

#[test]
fn bash_takes_every_script() {
    for (name, line) in GOLDEN {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, made(line).unwrap()).unwrap();
        let checked = std::process::Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_cure() {
    for (line, cure) in [
        ("--nodes 0 --ntasks-per-node 1 -- a", "at least one node"),
        ("--nodes 1 --ntasks-per-node 1 --site perlmutter -- a", "give --account"),
        ("--nodes 1 --ntasks-per-node 1 --stripe-count 4 -- a", "give --scratch"),
        ("--nodes 1 --ntasks-per-node 1 --scratch /x --stripe-count -2 -- a", "-1 for all"),
        ("--nodes 1 --ntasks-per-node 1 --scratch $(id) -- a", "only $NAME"),
        ("--nodes 1 --ntasks-per-node 1 --queue a~b -- a", "no spaces"),
        ("--nodes 1 --ntasks-per-node 1 --results /x/`id` -- a", "only $NAME"),
    ] {
        let error = made(line).unwrap_err().to_string();
        assert!(error.contains(cure), "{line}: {error}");
    }
    assert!(made("--nodes 1 --ntasks-per-node 1").is_err(), "there is no command");
}
