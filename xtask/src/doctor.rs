//! `cargo xtask doctor`: what this machine has and lacks for working on Cascade, then `cascade doctor` for running it.

mod tools;

use anyhow::{Result, bail};

use crate::process::{cargo, command, run};
use crate::venv;
use tools::{Need, TOOLS, Tool};

/// What was found of a tool: what it says of itself, or nothing.
type Look<'a> = &'a dyn Fn(&Tool) -> Option<String>;

pub(crate) fn command_line() -> Result<()> {
    println!("For working on Cascade:");
    let (lines, missing) = report(&look);
    lines.iter().for_each(|line| println!("{line}"));
    println!("\nFor running it (`cascade doctor`):");
    let doctor = ["run", "--quiet", "--package", "cascade-store", "--bin", "cascade", "--", "doctor"];
    let machine = run(&mut cargo(&doctor));
    match (missing, machine) {
        (0, Ok(())) => Ok(()),
        (0, Err(_)) => {
            bail!("this machine has problems for running Cascade: shown above, each with its cure")
        }
        (missing, _) => bail!(
            "{missing} of the tools that every change needs are missing: shown above, each with its cure"
        ),
    }
}

/// A line or two for each tool, and how many are missing that every change needs.
fn report(look: Look<'_>) -> (Vec<String>, usize) {
    let mut missing = 0;
    let mut lines = Vec::new();
    for tool in &TOOLS {
        let word = match (look(tool), tool.need) {
            (Some(version), _) => {
                lines.push(format!("ok       {:14} {version}", tool.name));
                continue;
            }
            (None, Need::Always) => {
                missing += 1;
                "PROBLEM"
            }
            (None, Need::Sometimes) => "note",
        };
        lines.push(format!("{word:8} {:14} not found; {}", tool.name, tool.purpose));
        lines.push(format!("{:23} cure: {}", "", tool.cure));
    }
    (lines, missing)
}

/// The first line that the tool's own program prints.
fn look(tool: &Tool) -> Option<String> {
    if tool.name == "Python" {
        return venv::find_python()
            .ok()
            .and_then(|python| first_line(&python.to_string_lossy(), &["--version"]));
    }
    tool.probes.iter().find_map(|probe| {
        let (program, arguments) = probe.split_first()?;
        first_line(program, arguments)
    })
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = command(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().find(|line| !line.trim().is_empty()).unwrap_or("found").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_change_needs_is_a_problem_and_the_rest_a_note_each_with_a_cure() {
        let (lines, missing) = report(&|_| None);
        let always = TOOLS.iter().filter(|tool| tool.need == Need::Always).count();
        assert_eq!(missing, always);
        assert_eq!(lines.iter().filter(|line| line.starts_with("PROBLEM")).count(), always);
        assert_eq!(lines.iter().filter(|line| line.starts_with("note")).count(), TOOLS.len() - always);
        assert_eq!(lines.iter().filter(|line| line.contains("cure: ")).count(), TOOLS.len());
    }

    #[test]
    fn a_machine_that_has_all_has_nothing_to_cure() {
        let (lines, missing) = report(&|_| Some("1.0".into()));
        assert_eq!(missing, 0);
        assert!(lines.len() == TOOLS.len() && lines.iter().all(|line| line.starts_with("ok ")), "{lines:?}");
    }

    #[test]
    fn a_tool_is_found_by_what_its_program_prints() {
        assert!(first_line("rustc", &["--version"]).is_some_and(|line| line.starts_with("rustc 1.")));
        assert_eq!(first_line("false", &[]), None);
        assert_eq!(first_line("no-such-program-of-cascade", &["--version"]), None);
        let none = Tool { probes: &[&["no-such-program-of-cascade"], &["false"]], ..TOOLS[0] };
        assert_eq!(look(&none), None);
    }
}
