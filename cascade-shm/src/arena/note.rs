//! What the store that uses an arena says of itself there, for the other stores of the node: a text in the control page.

use std::time::{Duration, Instant};

use cascade_core::digest;
use cascade_core::sync::Ordering;
use cascade_core::{Error, ErrorKind, Result};

use super::Arena;
use crate::file;
use crate::layout::{NOTE, NOTE_WORDS};
use crate::lock::Holder;
use crate::owner::RowState;
use crate::process;

/// Bytes of a note, at most.
pub const NOTE_MOST: usize = (NOTE_WORDS - HEAD) * 8;
/// Words before the text: a count of changes, the length, the digest.
const HEAD: usize = 3;
/// How long to wait for another process that compares: it may be stopped.
const PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(1);

/// The text of the words of a note; `None` where nobody wrote one, or one is half written or damaged.
pub fn parse(words: &[u64]) -> Option<String> {
    let (head, text) = (words.first_chunk::<HEAD>()?, words.get(HEAD..)?);
    let [count, len, sum] = *head;
    let len = usize::try_from(len).ok().filter(|len| *len <= text.len() * 8)?;
    let bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
    let is_whole = count != 0 && count.is_multiple_of(2) && digest::crc64(&bytes) == sum;
    is_whole.then(|| String::from_utf8(bytes).ok()).flatten()
}

fn encode(text: &str, count: u64) -> Vec<u64> {
    let mut words = vec![count, text.len() as u64, digest::crc64(text.as_bytes())];
    words.extend(text.as_bytes().chunks(8).map(|part| {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        u64::from_le_bytes(bytes)
    }));
    words
}

impl Arena {
    /// Compares what the arena notes of its store with what the caller would note. `decide` is given that text, and says what is to
    /// stand there from now on, if anything; nobody else compares meanwhile. An arena that was made by a program which did
    /// not know notes has none, and keeps none.
    ///
    /// # Errors
    /// What `decide` says; `InvalidArgument` for a text longer than [`NOTE_MOST`].
    pub fn agree(&self, decide: impl FnOnce(Option<String>) -> Result<Option<String>>) -> Result<()> {
        if self.inner.superblock.optional_features & NOTE == 0 {
            return Ok(());
        }
        // Its lock goes when it is closed. Where it cannot be had, the comparison is made all the same.
        let lock = file::open_again(&self.inner.path, &self.inner.file).ok();
        let until = Instant::now() + PATIENCE;
        while lock.as_ref().is_some_and(|file| !process::lock_note(file)) && Instant::now() < until {
            std::thread::sleep(NAP);
        }
        match decide(self.note())? {
            Some(text) => self.set_note(&text),
            None => Ok(()),
        }
    }

    /// What the arena notes of the store that uses it.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let words: Vec<u64> = self.inner.map.note().iter().map(|word| word.load(Ordering::Acquire)).collect();
        parse(&words)
    }

    fn set_note(&self, text: &str) -> Result<()> {
        if text.len() > NOTE_MOST {
            let what = format!("a note of {} bytes is too long: at most {NOTE_MOST}", text.len());
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let words = self.inner.map.note();
        let count = words[0].load(Ordering::Acquire) / 2 * 2 + 2;
        // Whoever dies in between leaves none.
        words[0].store(count - 1, Ordering::Release);
        for (word, value) in words.iter().zip(encode(text, count)).skip(1) {
            word.store(value, Ordering::Release);
        }
        words[0].store(count, Ordering::Release);
        Ok(())
    }

    /// Whether another handle on the arena lives, of this process or another.
    #[must_use]
    pub fn has_others(&self) -> bool {
        let Some(session) = self.session() else { return true };
        let core = session.core();
        (0_u16..).zip(core.map().owners()).filter(|(row, _)| *row != core.row()).any(|(row, owner)| {
            let (state, generation) = owner.state();
            state == RowState::Live && !core.is_dead(Holder { row, generation })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_nothing_else_does() {
        for text in ["", "a", "pfs_path = \"/scratch/me\"\n", &"x".repeat(NOTE_MOST)] {
            let mut words = encode(text, 4);
            words.resize(NOTE_WORDS, 7);
            assert_eq!(parse(&words).as_deref(), Some(text));
            for (at, value) in [(0, 0), (0, 5), (1, u64::MAX), (1, words[1] + 1), (2, words[2] ^ 1)] {
                let mut damaged = words.clone();
                damaged[at] = value;
                assert_eq!(parse(&damaged), None, "word {at} is {value}");
            }
        }
        assert_eq!(parse(&[0; NOTE_WORDS]), None);
        assert_eq!(parse(&[]), None);
    }
}
