//! Rules over Cargo.toml files: every external dependency is declared once, in the root, with its reason.

use crate::lint::Violation;
use crate::workspace::TextFile;

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let manifests =
        files.iter().filter(|file| file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml"));
    manifests.flat_map(|file| if is_root(file) { check_root(file) } else { check_member(file) }).collect()
}

/// The root, or that of a workspace of its own, such as the fuzz targets.
fn is_root(file: &TextFile) -> bool {
    file.path == "Cargo.toml" || file.text.lines().any(|line| line == "[workspace]")
}

/// A dependency needs a comment on the line above; crates of the workspace explain themselves.
fn check_root(file: &TextFile) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut above = "";
    for (place, section, line) in entries(file) {
        if section == "workspace.dependencies"
            && !line.contains("path =")
            && is_entry(line)
            && !above.starts_with('#')
        {
            found.push(Violation::new(place, "say in a comment above why this dependency is needed"));
        }
        above = line;
    }
    found
}

/// A member takes the version from the root.
fn check_member(file: &TextFile) -> Vec<Violation> {
    let own = entries(file).filter(|(_, section, line)| {
        section.ends_with("dependencies")
            && is_entry(line)
            && !line.contains("workspace = true")
            && !line.contains("path =")
    });
    own.map(|(place, ..)| {
        Violation::new(
            place,
            "declare the version in the root Cargo.toml and write `NAME.workspace = true` here",
        )
    })
    .collect()
}

/// Every line with its place and the section it stands in.
fn entries(file: &TextFile) -> impl Iterator<Item = (String, &str, &str)> {
    let mut section = "";
    file.text.lines().enumerate().map(move |(index, line)| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        (format!("{}:{}", file.path, index + 1), section, line)
    })
}

fn is_entry(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_alphanumeric()) && line.contains('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        check(&[TextFile { path: path.into(), text: text.into() }]).into_iter().map(|v| v.place).collect()
    }

    #[test]
    fn a_planted_dependency_without_a_reason_is_found() {
        let text = "[workspace.dependencies]\nours = { path = \"ours\" }\n# Why.\na = \"1\"\nb = \"1\"\n[profile.dev]\nopt-level = 1\n";
        assert_eq!(places("Cargo.toml", text), ["Cargo.toml:5"]);
    }

    #[test]
    fn a_planted_version_in_a_member_is_found() {
        let text = "[package]\nversion.workspace = true\n[dependencies]\na.workspace = true\nb = \"1\"\n\
                    [target.'cfg(loom)'.dependencies]\nc = { version = \"1\" }\n[dev-dependencies]\nd = { workspace = true }\n";
        assert_eq!(places("a/Cargo.toml", text), ["a/Cargo.toml:5", "a/Cargo.toml:7"]);
    }
}
