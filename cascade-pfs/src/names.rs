//! Names of the files in a tier's directory.

use crate::layout::WriterId;

/// A segment among all of all writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    pub(crate) writer: WriterId,
    pub(crate) number: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Writer(WriterId),
    Log(WriterId),
    Segment(SegmentId),
    Claim(WriterId, u32),
}

impl Name {
    /// Whose file it is.
    pub(crate) fn writer(&self) -> WriterId {
        match self {
            Self::Writer(writer) | Self::Log(writer) | Self::Claim(writer, _) => *writer,
            Self::Segment(id) => id.writer,
        }
    }

    /// Reads a name; `None` for files that are none of the tier's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (writer, rest) = text.split_once('.')?;
        let writer = writer.parse().ok()?;
        let name = match rest.split_once('.') {
            None if rest == "writer" => Self::Writer(writer),
            None if rest == "log" => Self::Log(writer),
            Some((number, "seg")) => {
                Self::Segment(SegmentId { writer, number: u64::from_str_radix(number, 16).ok()? })
            }
            Some((number, "claim")) => Self::Claim(writer, u32::from_str_radix(number, 16).ok()?),
            _ => return None,
        };
        // One file has one spelling.
        (name.to_string() == text).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Writer(writer) => write!(f, "{writer}.writer"),
            Self::Log(writer) => write!(f, "{writer}.log"),
            Self::Segment(id) => write!(f, "{}.{:016x}.seg", id.writer, id.number),
            Self::Claim(writer, number) => write!(f, "{writer}.{number:08x}.claim"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_left_alone() {
        let writer = WriterId([0xAB; 16]);
        let segment = SegmentId { writer, number: 31 };
        for name in [Name::Writer(writer), Name::Log(writer), Name::Segment(segment), Name::Claim(writer, 2)]
        {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for text in ["", "a.seg", "README.md", &format!("{writer}.1f.seg"), &format!("{writer}.log.bak")] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
