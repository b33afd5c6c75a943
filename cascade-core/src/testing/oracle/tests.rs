use super::*;
use crate::memory_tier::MemoryTier;

struct Memory(Arc<MemoryTier>);

impl Subject for Memory {
    fn tier(&self) -> Arc<dyn Addressable> {
        Arc::clone(&self.0) as Arc<dyn Addressable>
    }

    fn reopen(&mut self) {
        self.0 = Arc::new(MemoryTier::new(1 << 20));
    }

    fn crash(&mut self, _half: &HalfPut) -> Survival {
        self.reopen();
        Survival::Unknown
    }
}

/// Says that its blocks survive, and they do not.
struct Boastful(Memory);

impl Subject for Boastful {
    fn tier(&self) -> Arc<dyn Addressable> {
        self.0.tier()
    }

    fn reopen(&mut self) {
        self.0.reopen();
    }

    fn crash(&mut self, half: &HalfPut) -> Survival {
        self.0.crash(half);
        Survival::Intact { evictions: 0 }
    }
}

fn memory() -> Memory {
    Memory(Arc::new(MemoryTier::new(1 << 20)))
}

#[test]
fn a_block_lost_in_a_crash_counts_only_where_survival_was_promised() {
    let steps = [Step::Put { key: 0, len: 100 }, Step::Crash { key: 1, len: 50 }];
    assert_eq!(run(&steps, &mut memory()), Ok(()));
    let broken = run(&steps, &mut Boastful(memory())).expect_err("a promise was broken");
    assert!(broken.contains("(I3)") && broken.contains("step 1"), "{broken}");
}

#[test]
fn forgetting_under_pressure_is_allowed_and_counted() {
    let steps = [
        Step::Put { key: 0, len: 100 },
        Step::Lease { key: 0 },
        Step::PutReplace { key: 0, len: 5000 },
        Step::Pressure { blocks: 40 },
        Step::Get { key: 0 },
        Step::Release { which: 9 },
        Step::Reopen,
        Step::PutSame { key: 0 },
    ];
    assert_eq!(run(&steps, &mut memory()), Ok(()));
}
