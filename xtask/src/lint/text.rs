//! Rules over the text of every file: nothing unfinished, nothing of one machine.

use crate::lint::Violation;
use crate::workspace::TextFile;

/// Words of unfinished work. Written in halves, so that this file does not break its own rule.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];

/// Folders that exist on one machine only.
const MACHINE_FOLDERS: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/m", "nt/"),
];

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, index + 1);
            if let Some(word) = UNFINISHED.into_iter().find(|word| line.contains(word)) {
                found.push(Violation::new(place(), format!("`{word}` marks unfinished work")));
            }
            if let Some(folder) = MACHINE_FOLDERS.into_iter().find(|folder| names_folder(line, folder)) {
                found.push(Violation::new(place(), format!("`{folder}...` is a path of one machine")));
            }
        }
    }
    found
}

/// Whether an absolute path below `folder` stands in the line; `docs/work/x` and `https://host/home/` are none.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| {
            c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')' | '>' | '*' | '/')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(line: &str) -> usize {
        check(&[TextFile { path: "a.md".into(), text: format!("fine\n{line}\n") }]).len()
    }

    #[test]
    fn planted_unfinished_work_is_found_at_its_line() {
        for word in UNFINISHED {
            let text = format!("fine\n// {word} later\n");
            let found = check(&[TextFile { path: "a.rs".into(), text }]);
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!(found[0].place, "a.rs:2");
        }
    }

    #[test]
    fn planted_machine_paths_are_found() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(violations(&format!("open(\"{folder}me/x\")")), 1, "{folder}");
            assert_eq!(violations(&format!("{folder}me")), 1, "{folder}");
            assert_eq!(violations(&format!("see docs{folder}me and $HOME")), 0, "{folder}");
        }
        assert_eq!(violations("/dev/shm/x, /tmp/y and /proc/self/fd"), 0);
    }
}
