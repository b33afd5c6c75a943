//! What every rank tells the others of itself, once, at the start.

use cascade_core::{Error, ErrorKind, Result};

use crate::home::Home;

/// Bytes of a card.
pub(super) const CARD_BYTES: usize = 1024;
const TEXT_BYTES: usize = 480;
const VERSION: u64 = 1;

/// One rank's card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) incarnation: u64,
    pub(crate) window_bytes: u64,
    pub(crate) heads_at: u64,
    pub(crate) buckets: u64,
    pub(crate) node: String,
    pub(crate) share: String,
}

impl Card {
    pub(super) fn of(home: &dyn Home, buckets: u64) -> Self {
        Self {
            incarnation: home.incarnation(),
            window_bytes: home.window().len() as u64,
            heads_at: home.heads_at(),
            buckets,
            node: home.node(),
            share: home.share(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CARD_BYTES);
        for number in [VERSION, self.incarnation, self.window_bytes, self.heads_at, self.buckets] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for text in [&self.node, &self.share] {
            // One that is too long is found by nobody: what is cut off is not said at all.
            let text = if text.len() <= TEXT_BYTES { text.as_bytes() } else { &[] };
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
            bytes.resize(bytes.len() + TEXT_BYTES - text.len(), 0);
        }
        bytes.resize(CARD_BYTES, 0);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let text = |at: usize| {
            let len = usize::try_from(number(at)?).ok().filter(|len| *len <= TEXT_BYTES)?;
            String::from_utf8(bytes.get(at + 8..at + 8 + len)?.to_vec()).ok()
        };
        (number(0)? == VERSION).then_some(())?;
        Some(Self {
            incarnation: number(8)?,
            window_bytes: number(16)?,
            heads_at: number(24)?,
            buckets: number(32)?,
            node: text(40)?,
            share: text(48 + TEXT_BYTES)?,
        })
    }

    /// The cards of all ranks, which must agree on what all must know of the directory.
    ///
    /// # Errors
    /// `Config`, naming the first rank that differs.
    pub(super) fn all(bytes: &[u8]) -> Result<Vec<Self>> {
        let mut cards: Vec<Self> = Vec::new();
        for (rank, bytes) in bytes.chunks_exact(CARD_BYTES).enumerate() {
            let card = Self::parse(bytes).ok_or_else(|| {
                let what =
                    format!("rank {rank} runs another version of Cascade: start all ranks from one build");
                Error::new(ErrorKind::Config, what)
            })?;
            if let Some(first) = cards.first().filter(|first| first.buckets != card.buckets) {
                let what = format!(
                    "rank {rank} has {} buckets of the directory, rank 0 has {}: give all the same settings",
                    card.buckets, first.buckets
                );
                return Err(Error::new(ErrorKind::Config, what));
            }
            cards.push(card);
        }
        Ok(cards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(node: &str) -> Card {
        Card {
            incarnation: 1,
            window_bytes: 2,
            heads_at: 3,
            buckets: 4,
            node: node.into(),
            share: "/a/b".into(),
        }
    }

    #[test]
    fn cards_are_read_as_they_were_written() {
        let (a, b) = (card("n1"), card("n2"));
        assert_eq!(Card::all(&[a.encode(), b.encode()].concat()).unwrap(), [a, b]);
        let long = card(&"x".repeat(TEXT_BYTES + 1));
        assert_eq!(Card::all(&long.encode()).unwrap()[0].node, "");
    }

    #[test]
    fn ranks_that_differ_are_named() {
        let other = Card { buckets: 5, ..card("n2") };
        let error = Card::all(&[card("n1").encode(), other.encode()].concat()).unwrap_err();
        assert!(error.to_string().contains("rank 1 has 5 buckets"), "{error}");
        assert!(Card::all(&[9; CARD_BYTES]).is_err());
    }
}
