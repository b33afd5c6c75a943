//! The examples of the README.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Place, close, put, text};

/// Command lines of the ```sh blocks, without their comments.
fn examples() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("cascade "));
    lines
        .map(|line| line.split('#').next().unwrap().split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn every_command_line_of_the_readme_works() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 9999]);
    close(store);
    let examples = examples();
    assert!(examples.len() >= 5, "{examples:?}");
    for words in examples {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.contains(&"--watch") {
            let mut child = place.command(&words).stdout(Stdio::piped()).spawn().unwrap();
            let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
            assert!(first.unwrap().unwrap().contains("cascade.stat/1"));
            kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
            assert!(child.wait().unwrap().success(), "{words:?}");
            continue;
        }
        let output = place.run(&words);
        // What doctor finds is this machine's.
        let is_done = output.status.success() || words[0] == "doctor" && output.status.code() == Some(1);
        assert!(is_done, "{words:?}: {}", text(&output));
    }
    assert!(place.path("n1").exists(), "nothing in the README removes a warm arena that was just used");
}
