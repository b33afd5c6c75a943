//! What is garbage. A pure function of what was found, so that every case has a test.

use std::time::Duration;

use super::find::{Entry, Status};
use crate::cli::text::{of, span};

/// What the user asked for.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) node: String,
    pub(super) older_than: Option<Duration>,
    pub(super) all_nodes: bool,
}

/// What is to become of an entry, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is lost with it.
    Remove(String),
    /// It may be of use: only when the user says so.
    Ask(String),
    Keep(String),
}

impl Verdict {
    pub(super) fn removes(&self, confirmed: bool) -> bool {
        matches!(self, Self::Remove(_)) || confirmed && self.is_asked()
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Self::Ask(_))
    }

    pub(super) fn why(&self) -> &str {
        let (Self::Remove(why) | Self::Ask(why) | Self::Keep(why)) = self;
        why
    }
}

impl Rule {
    pub(super) fn judge(&self, entry: &Entry) -> Verdict {
        let foreign_node = entry.node.as_ref().filter(|node| **node != self.node && !self.all_nodes);
        match &entry.status {
            Status::Living => Verdict::Keep("a process holds it".into()),
            Status::Guarded(why) => Verdict::Keep(why.clone()),
            _ if foreign_node.is_some() => {
                Verdict::Keep("another node's: --all-nodes looks at it too".into())
            }
            Status::Damaged => Verdict::Remove("damaged: no store can use it".into()),
            Status::Scratch => Verdict::Remove("left by a benchmark that was killed".into()),
            Status::OtherFormat => {
                Verdict::Ask("in the format of another Cascade, which could use it".into())
            }
            Status::Foreign => Verdict::Ask("not an arena, and in an arena's place".into()),
            Status::Misnamed => {
                Verdict::Ask("made under another node's name: no store can use it here".into())
            }
            Status::Usable if entry.blocks == Some(0) => {
                Verdict::Remove("nobody holds it and it has no block".into())
            }
            Status::Usable => self.judge_warm(entry),
        }
    }

    fn judge_warm(&self, entry: &Entry) -> Verdict {
        let blocks = of(entry.blocks.unwrap_or(0), "block");
        let Some(limit) = self.older_than else {
            return Verdict::Keep(format!(
                "warm: the next store finds its {blocks}; --older-than removes it"
            ));
        };
        match entry.idle {
            Some(idle) if idle >= limit => {
                Verdict::Ask(format!("its {blocks} were not used for {} or longer", span(limit)))
            }
            _ => Verdict::Keep(format!("warm, and used within {}", span(limit))),
        }
    }
}

/// A duration such as `90s`, `30m`, `12h`, `7d` or `2w`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text[..text.len() - unit.len()].parse::<u64>().ok();
    let seconds = match unit {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    let total = number.zip(seconds).and_then(|(number, seconds)| number.checked_mul(seconds));
    total
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not a duration: a whole number with s, m, h, d or w, such as 7d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: Status) -> Entry {
        Entry {
            path: "/x/arena.n1".into(),
            status,
            node: Some("n1".into()),
            blocks: None,
            file_bytes: 1 << 20,
            idle: Some(Duration::from_secs(3600)),
        }
    }

    fn rule() -> Rule {
        Rule { node: "n1".into(), older_than: None, all_nodes: false }
    }

    fn warm() -> Entry {
        Entry { blocks: Some(9), ..entry(Status::Usable) }
    }

    #[test]
    fn what_is_held_or_guarded_is_never_removed() {
        let boldest = Rule { older_than: Some(Duration::ZERO), all_nodes: true, ..rule() };
        for status in [Status::Living, Status::Guarded("not yours".into())] {
            for node in ["n1", "n2"] {
                let entry = Entry { node: Some(node.into()), ..entry(status.clone()) };
                assert!(!boldest.judge(&entry).removes(true), "{entry:?}");
            }
        }
    }

    #[test]
    fn warm_arenas_stay_unless_they_are_old_and_it_is_confirmed() {
        assert!(!rule().judge(&warm()).removes(true));
        let old = |seconds| Rule { older_than: Some(Duration::from_secs(seconds)), ..rule() };
        assert!(!old(3601).judge(&warm()).removes(true));
        assert!(old(3600).judge(&warm()).removes(true));
        assert!(!old(3600).judge(&warm()).removes(false));
        let unknown = Entry { idle: None, ..warm() };
        assert!(!old(0).judge(&unknown).removes(true), "a time that cannot be read is no reason");
    }

    #[test]
    fn what_holds_nothing_goes_at_once_and_what_may_hold_something_when_confirmed() {
        let empty = Entry { blocks: Some(0), ..entry(Status::Usable) };
        for entry in [empty, entry(Status::Damaged), entry(Status::Scratch)] {
            assert!(rule().judge(&entry).removes(false), "{entry:?}");
        }
        for status in [Status::OtherFormat, Status::Foreign, Status::Misnamed] {
            let verdict = rule().judge(&entry(status));
            assert!(!verdict.removes(false) && verdict.removes(true), "{verdict:?}");
        }
    }

    #[test]
    fn other_nodes_arenas_are_left_alone_unless_named() {
        let other = Entry { node: Some("n2".into()), ..entry(Status::Damaged) };
        assert!(!rule().judge(&other).removes(true));
        assert!(Rule { all_nodes: true, ..rule() }.judge(&other).removes(false));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for wrong in ["", "7", "d", "-1d", "1.5h", "1y", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
