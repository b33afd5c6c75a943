//! The role itself: a lock whose holder is whoever got there first, handed on by leaving or by death.

use crate::lock::{Guard, Holder, Lock};

/// The role as one owner sees it; given up when dropped.
#[derive(Debug)]
pub struct Role<'a> {
    lock: &'a Lock,
    me: Holder,
    held: Option<Guard<'a>>,
}

/// Who has the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// We do. `true`: since this call only, and the one before us died with it.
    Held(bool),
    /// Another owner, who lives.
    Elsewhere(Holder),
}

impl<'a> Role<'a> {
    /// The role that `lock` stands for, not held yet.
    #[must_use]
    pub fn new(lock: &'a Lock, me: Holder) -> Self {
        Self { lock, me, held: None }
    }

    /// Takes the role if nobody living has it.
    pub fn tend(&mut self, is_dead: &dyn Fn(Holder) -> bool) -> Standing {
        if self.held.is_some() {
            return Standing::Held(false);
        }
        match self.lock.try_take(self.me, is_dead) {
            Ok(guard) => {
                let inherited = guard.recovered();
                self.held = Some(guard);
                Standing::Held(inherited)
            }
            Err(holder) => Standing::Elsewhere(holder),
        }
    }
}
