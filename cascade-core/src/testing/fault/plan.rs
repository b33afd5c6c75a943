//! Which operation meets which fault: a pure function of the seed, the rules and the operation's number.

use super::Fault;
use crate::batch::Op;
use crate::testing::bytes::mix;

#[derive(Clone, Copy, Debug)]
enum When {
    At(u64),
    PerMille(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    seed: u64,
    rules: Vec<(When, Fault)>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, rules: Vec::new() }
    }

    pub(super) fn at(&mut self, n: u64, fault: Fault) {
        self.rules.push((When::At(n), fault));
    }

    pub(super) fn often(&mut self, per_mille: u32, fault: Fault) {
        self.rules.push((When::PerMille(per_mille), fault));
    }

    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The first rule that applies to operation `n`.
    pub(super) fn fault(&self, n: u64, op: &Op) -> Option<Fault> {
        let hit = |rule: usize, when: When| match when {
            When::At(at) => at == n,
            When::PerMille(rate) => self.dice(n, rule as u64 + 1) % 1000 < u64::from(rate),
        };
        let mut rules = self.rules.iter().enumerate();
        rules
            .find(|(rule, (when, fault))| applies(*fault, op) && hit(*rule, *when))
            .map(|(_, (_, fault))| *fault)
    }

    /// A number drawn for operation `n`, the same each time.
    pub(super) fn dice(&self, n: u64, stream: u64) -> u64 {
        mix(mix(self.seed ^ mix(stream)).wrapping_add(n))
    }
}

fn applies(fault: Fault, op: &Op) -> bool {
    match fault {
        Fault::Miss(_) => matches!(op, Op::Fetch { .. } | Op::Delete { .. }),
        Fault::Refuse(_) => matches!(op, Op::Store { .. }),
        Fault::Delay(_) => true,
        Fault::FlipBit => matches!(op, Op::Fetch { .. }),
    }
}
