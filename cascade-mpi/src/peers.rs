//! Who answers, and who is left alone for how long: our own knowledge of the other ranks, because MPI has none in time. A call to a
//! rank that is gone may never return, so this is asked before each.

use std::time::Duration;

/// How patient a rank is with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Whoever was heard within this is asked without a question ahead.
    pub fresh: Duration,
    /// How long an answer to a ping may take.
    pub answer: Duration,
    /// How long a rank that did not answer is left alone the first time; each time after that twice as long.
    pub rest: Duration,
    /// The longest rest.
    pub longest_rest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            fresh: Duration::from_millis(500),
            answer: Duration::from_secs(1),
            rest: Duration::from_secs(1),
            longest_rest: Duration::from_secs(30),
        }
    }
}

/// What to do about a rank that something is wanted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on: it was heard a moment ago.
    Well,
    /// Send a ping, and ask again later.
    Ask,
    /// A ping is under way.
    Asked,
    /// Nothing: it does not answer.
    Out,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    heard: Option<Duration>,
    /// When a question was put that is not yet answered.
    asked: Option<Duration>,
    /// Until when it is left alone.
    rests_until: Option<Duration>,
    /// Times in a row that it did not answer.
    silences: u32,
    /// MPI said that it is gone: it is never asked again.
    is_lost: bool,
    is_leaving: bool,
    /// Others that read from it, and when it said so.
    readers: Option<(u64, Duration)>,
    /// When it last asked whether we are here, because it reads from us.
    pinged_us: Option<Duration>,
}

/// What is known of readers is forgotten after so long: they come and go within milliseconds.
const READERS_FRESH: Duration = Duration::from_millis(50);

/// What is known of every rank. Times are those of one clock, from its start.
#[derive(Debug)]
pub struct Peers {
    patience: Patience,
    all: Vec<Peer>,
}

impl Peers {
    /// Of `ranks` ranks nothing is known.
    #[must_use]
    pub fn new(ranks: u32, patience: Patience) -> Self {
        Self { patience, all: vec![Peer::default(); ranks as usize] }
    }

    /// What to do about `rank` at `now`. [`Verdict::Ask`] is said once; the caller sends the ping.
    pub fn verdict(&mut self, rank: u32, now: Duration) -> Verdict {
        let patience = self.patience;
        let Some(peer) = self.all.get_mut(rank as usize).filter(|peer| !peer.is_lost && !peer.is_leaving)
        else {
            return Verdict::Out;
        };
        if peer.rests_until.is_some_and(|until| now < until) {
            return Verdict::Out;
        }
        if let Some(asked) = peer.asked {
            if now.saturating_sub(asked) < patience.answer {
                return Verdict::Asked;
            }
            self.silent(rank, now);
            return Verdict::Out;
        }
        if peer.silences == 0 && peer.heard.is_some_and(|heard| now.saturating_sub(heard) < patience.fresh) {
            return Verdict::Well;
        }
        peer.asked = Some(now);
        Verdict::Ask
    }

    /// Something came from `rank`: it lives, and what it was asked is answered.
    pub fn heard(&mut self, rank: u32, now: Duration) {
        if let Some(peer) = self.all.get_mut(rank as usize) {
            *peer = Peer {
                heard: Some(now),
                is_lost: peer.is_lost,
                is_leaving: peer.is_leaving,
                readers: peer.readers,
                pinged_us: peer.pinged_us,
                ..Peer::default()
            };
        }
    }

    /// `rank` is about to read from us, or does so: whoever reads pings.
    pub fn pinged(&mut self, rank: u32, now: Duration) {
        if let Some(peer) = self.all.get_mut(rank as usize) {
            peer.pinged_us = Some(now);
        }
    }

    /// How many ranks but `rank` read from us at `now`.
    #[must_use]
    pub fn readers_but(&self, rank: u32, now: Duration) -> u64 {
        let is_reading =
            |peer: &Peer| peer.pinged_us.is_some_and(|at| now.saturating_sub(at) < READERS_FRESH);
        self.all
            .iter()
            .enumerate()
            .filter(|(other, peer)| *other != rank as usize && is_reading(peer))
            .count() as u64
    }

    /// `rank` says that so many others read from it.
    pub fn is_busy(&mut self, rank: u32, readers: u64, now: Duration) {
        if let Some(peer) = self.all.get_mut(rank as usize) {
            peer.readers = Some((readers, now));
        }
    }

    /// How many others are known to read from `rank` at `now`: 0 where nothing is known.
    #[must_use]
    pub fn readers(&self, rank: u32, now: Duration) -> u64 {
        let said = self.all.get(rank as usize).and_then(|peer| peer.readers);
        said.filter(|(_, at)| now.saturating_sub(*at) < READERS_FRESH).map_or(0, |(readers, _)| readers)
    }

    /// `rank` did not answer in time: it rests.
    pub fn silent(&mut self, rank: u32, now: Duration) {
        let patience = self.patience;
        if let Some(peer) = self.all.get_mut(rank as usize) {
            let rest = patience.rest.saturating_mul(1 << peer.silences.min(16)).min(patience.longest_rest);
            peer.silences += 1;
            (peer.asked, peer.rests_until) = (None, Some(now + rest));
        }
    }

    /// MPI reported an error with `rank`: what it does after that is not known, so it is never asked again.
    pub fn lost(&mut self, rank: u32) {
        if let Some(peer) = self.all.get_mut(rank as usize) {
            peer.is_lost = true;
        }
    }

    /// `rank` said that it is about to leave.
    pub fn leaves(&mut self, rank: u32) {
        if let Some(peer) = self.all.get_mut(rank as usize) {
            peer.is_leaving = true;
        }
    }

    /// Whether all ranks but `own` said that they are about to leave.
    #[must_use]
    pub fn all_leave(&self, own: u32) -> bool {
        self.all.iter().enumerate().all(|(rank, peer)| rank == own as usize || peer.is_leaving)
    }

    /// Ranks that are not asked at `now`.
    #[must_use]
    pub fn out(&self, now: Duration) -> u64 {
        let rests = |peer: &&Peer| peer.is_lost || peer.rests_until.is_some_and(|until| now < until);
        self.all.iter().filter(rests).count() as u64
    }

    /// Whether `rank` would be asked at `now`, without asking.
    #[must_use]
    pub fn is_out(&self, rank: u32, now: Duration) -> bool {
        self.all.get(rank as usize).is_none_or(|peer| {
            peer.is_lost || peer.is_leaving || peer.rests_until.is_some_and(|until| now < until)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_was_heard_is_asked_at_once_and_others_are_pinged_first() {
        let mut peers = Peers::new(2, Patience::default());
        assert_eq!(peers.verdict(1, ms(0)), Verdict::Ask);
        assert_eq!(peers.verdict(1, ms(1)), Verdict::Asked);
        peers.heard(1, ms(2));
        assert_eq!(peers.verdict(1, ms(400)), Verdict::Well);
        assert_eq!(peers.verdict(1, ms(600)), Verdict::Ask, "silence for longer than fresh");
        assert_eq!(peers.verdict(9, ms(0)), Verdict::Out, "there is no such rank");
    }

    #[test]
    fn who_is_silent_rests_longer_each_time_and_is_well_again_when_it_is_heard() {
        let mut peers = Peers::new(2, Patience::default());
        assert_eq!(peers.verdict(1, ms(0)), Verdict::Ask);
        assert_eq!(peers.verdict(1, ms(1000)), Verdict::Out);
        assert_eq!((peers.out(ms(1001)), peers.is_out(1, ms(1001))), (1, true));
        assert_eq!(peers.verdict(1, ms(1999)), Verdict::Out);
        assert_eq!(peers.verdict(1, ms(2000)), Verdict::Ask, "the first rest is one second");
        assert_eq!(peers.verdict(1, ms(3000)), Verdict::Out);
        assert_eq!(peers.verdict(1, ms(4999)), Verdict::Out, "the second is two");
        assert_eq!(peers.verdict(1, ms(5000)), Verdict::Ask);
        peers.heard(1, ms(5001));
        assert_eq!((peers.verdict(1, ms(5002)), peers.out(ms(5002))), (Verdict::Well, 0));
        for at in 0..40 {
            peers.silent(1, ms(at));
        }
        assert_eq!(peers.verdict(1, ms(30_038)), Verdict::Out);
        assert_eq!(peers.verdict(1, ms(30_039)), Verdict::Ask, "never longer than the longest");
    }

    #[test]
    fn a_read_that_failed_is_forgiven_only_after_an_answer() {
        let mut peers = Peers::new(2, Patience::default());
        peers.heard(1, ms(0));
        peers.silent(1, ms(10));
        assert_eq!(peers.verdict(1, ms(1010)), Verdict::Ask, "although it was heard a second ago");
    }

    #[test]
    fn readers_are_counted_while_they_ping_and_what_others_say_of_theirs_is_soon_forgotten() {
        let mut peers = Peers::new(4, Patience::default());
        peers.pinged(1, ms(0));
        peers.pinged(2, ms(10));
        peers.heard(2, ms(10));
        assert_eq!([peers.readers_but(1, ms(20)), peers.readers_but(3, ms(20))], [1, 2]);
        assert_eq!(peers.readers_but(3, ms(55)), 1, "the first has gone");
        peers.is_busy(3, 7, ms(20));
        peers.heard(3, ms(21));
        assert_eq!([peers.readers(3, ms(30)), peers.readers(3, ms(80)), peers.readers(9, ms(30))], [7, 0, 0]);
    }

    #[test]
    fn who_is_lost_or_leaves_is_never_asked() {
        let mut peers = Peers::new(3, Patience::default());
        peers.lost(1);
        peers.heard(1, ms(5));
        peers.leaves(2);
        assert_eq!([peers.verdict(1, ms(6)), peers.verdict(2, ms(6))], [Verdict::Out; 2]);
        assert!(!peers.all_leave(0), "rank 1 said nothing");
        peers.leaves(1);
        assert!(peers.all_leave(0));
    }
}
