//! Child processes: shown before they start, and named in the error when they fail.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that runs in the workspace root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    // `cargo run` describes this very package in the environment; build scripts of others must not see it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(&name);
        }
    }
    command
}

/// The cargo that started this program, running in the workspace root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Shows the command line, runs it with this terminal, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("  $ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Standard output of a command, as text; its standard error goes to this terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// Whether a command can be run and succeeds; prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The command as it would be typed in its folder, with the environment that was set for it.
pub(crate) fn line(command: &Command) -> String {
    // The search path of a virtual environment would fill the screen.
    let set = command.get_envs().filter(|(name, _)| *name != "PATH");
    let set = set.filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let here = command.get_current_dir();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.enumerate().map(|(index, word)| {
        let path = Path::new(word);
        match path.file_name() {
            Some(name) if index == 0 && name == "cargo" => "cargo".into(),
            _ => quoted(here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).as_os_str()),
        }
    });
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    if text.is_empty() || text.contains([' ', '\'', '"', '*', '$']) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_typed_again() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.env("RUSTFLAGS", "--cfg loom").args(["test", "--test", "loom*"]);
        assert_eq!(line(&command), "RUSTFLAGS='--cfg loom' cargo test --test 'loom*'");
        let mut command = Command::new("/base/bin/python");
        command.current_dir("/base").args(["/base/a.py", "/elsewhere/b", ""]);
        assert_eq!(line(&command), "bin/python a.py /elsewhere/b ''");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("`false` failed"), "{error}");
        assert!(!succeeds(&mut Command::new("no-such-program-of-cascade")));
    }
}
