//! Words of a script: what goes into it is checked or quoted, so that no value becomes another command.

use anyhow::{Result, ensure};

/// A value after `--name=` in a directive, where nothing can be quoted.
pub(super) fn plain<'a>(what: &str, value: &'a str) -> Result<&'a str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.,:;=+%@/&|*()[]?".contains(letter);
    ensure!(
        !value.is_empty() && value.chars().all(is_plain),
        "{what} = {value:?}: SLURM takes letters, digits and _-.,:;=+%@/&|*()[] there, no spaces or quotes"
    );
    Ok(value)
}

/// A word as it is.
pub(super) fn quoted(word: &str) -> String {
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || "_-.,:=+%@/".contains(letter);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A word in which the job puts in variables: `$NAME` and `${NAME}`, and nothing else.
pub(super) fn expanded(what: &str, word: &str) -> Result<String> {
    let wrong =
        || format!("{what} = {word:?}: only $NAME and ${{NAME}} are put in; no quotes, backslashes or $(..)");
    ensure!(!word.is_empty() && !word.contains(['"', '`', '\\', '\n']), wrong());
    for (at, _) in word.match_indices('$') {
        let rest = &word[at + 1..];
        let name = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').map(|(name, _)| name),
            None => rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next(),
        };
        ensure!(name.is_some_and(is_name), wrong());
    }
    Ok(format!("\"{word}\""))
}

/// A name of the environment.
pub(super) fn name(value: &str) -> Result<&str> {
    ensure!(is_name(value), "{value:?} is no name of an environment variable");
    Ok(value)
}

fn is_name(value: &str) -> bool {
    value.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && value.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_a_command() {
        assert_eq!(quoted("it's $HOME; rm"), r"'it'\''s $HOME; rm'");
        assert_eq!((quoted("--tier=mpi"), quoted("")), ("--tier=mpi".into(), "''".into()));
        for bad in ["$(id)", "`id`", "a\"b", "a\\b", "${x:-$(id)}", "${x", "$1", "$", "a\nb"] {
            assert!(expanded("scratch", bad).is_err(), "{bad}");
        }
        assert_eq!(expanded("scratch", "$SCRATCH/a ${B}c").unwrap(), "\"$SCRATCH/a ${B}c\"");
        assert!(plain("queue", "debug\n#SBATCH --x").is_err() && plain("queue", "a b").is_err());
        assert_eq!(plain("constraint", "gpu&hbm80g").unwrap(), "gpu&hbm80g");
        assert!(name("1A").is_err() && name("A-B").is_err() && name("A_1").is_ok());
    }
}
