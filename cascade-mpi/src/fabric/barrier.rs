//! Meeting: every rank goes on once all have come, or gives up at its deadline. In rounds: in round k a rank tells the one 2^k behind it and
//! waits for the one 2^k before it, so that 4,096 ranks need twelve messages each and nobody is asked by all.

use std::collections::BTreeSet;
use std::time::Instant;

use cascade_core::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use super::Fabric;
use crate::message::Message;

/// Words that came before they were waited for, beyond which new ones are dropped: more are sense of nobody's.
const MOST_WORDS: usize = 4096;

/// What was heard of meetings that are not over here.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    /// One at a time: the number of the next.
    next: Mutex<u32>,
    words: Mutex<BTreeSet<(u32, u32)>>,
    bell: Condvar,
}

impl Meetings {
    /// Whoever sends a round's word is the only one who can, so it need not be noted who it was.
    pub(super) fn heard(&self, meeting: u32, round: u32) {
        let mut words = self.words.lock();
        if words.len() < MOST_WORDS {
            words.insert((meeting, round));
            self.bell.notify_all();
        }
    }

    fn wait(&self, meeting: u32, round: u32, deadline: Instant) -> bool {
        let mut words = self.words.lock();
        while !words.remove(&(meeting, round)) {
            if self.bell.wait_until(&mut words, deadline).timed_out() {
                return words.remove(&(meeting, round));
            }
        }
        true
    }

    /// Late words of meetings that are over.
    fn forget_before(&self, meeting: u32) {
        self.words.lock().retain(|(of, _)| *of >= meeting);
    }
}

impl Fabric {
    /// Returns once every rank of the job has called this as often. All ranks call it; a rank that is gone makes the others give up.
    ///
    /// # Errors
    /// `Deadline`, with a rank that was not heard of, when not all have come until then; the next call is the next meeting.
    pub fn barrier(&self, deadline: Instant) -> Result<()> {
        let meetings = &self.shared.meetings;
        let mut next = meetings.next.lock();
        let meeting = *next;
        *next = next.wrapping_add(1);
        let (rank, ranks) = (self.rank(), self.ranks());
        for round in 0..u32::BITS {
            let Some(distance) = 1_u32.checked_shl(round).filter(|distance| *distance < ranks) else { break };
            self.tell((rank + distance) % ranks, Message::Met { meeting, round });
            if !meetings.wait(meeting, round, deadline) {
                let silent = (rank + ranks - distance) % ranks;
                let what = format!(
                    "barrier: rank {silent}, or one that it waits for, did not come in time; every rank of the job must call it"
                );
                return Err(Error::new(ErrorKind::Deadline, what));
            }
        }
        meetings.forget_before(meeting);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_word_counts_once_and_for_its_meeting_alone() {
        let meetings = Meetings::default();
        meetings.heard(1, 0);
        let now = Instant::now();
        assert!(!meetings.wait(0, 0, now), "of another meeting");
        assert!(meetings.wait(1, 0, now + Duration::from_secs(1)));
        assert!(!meetings.wait(1, 0, now), "it was used");
        meetings.heard(1, 1);
        meetings.forget_before(2);
        assert!(!meetings.wait(1, 1, now), "the meeting is over");
        (0..2 * MOST_WORDS as u32).for_each(|round| meetings.heard(3, round));
        assert_eq!(meetings.words.lock().len(), MOST_WORDS);
    }
}
