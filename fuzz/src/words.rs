//! Numbers in shared memory that have fields.

use cascade_core::policy::Heat;
use cascade_core::sync::AtomicU64;
use cascade_core::tier::Class;
use cascade_shm::ledger::Entry;
use cascade_shm::lock::Holder;
use cascade_shm::slot::{Extent, Meaning, Now, Slot, State, Word};

use crate::Input;

/// Reads each number as everything that it could be, and writes what was read.
pub fn read(data: &[u8]) {
    let mut input = Input(data);
    while !input.is_empty() {
        let number = input.number();
        state_word(number);
        ledger_entry(number);
        if let Some(holder) = Holder::of_lock(number) {
            assert_eq!(u64::from(holder.row), number >> 8 & 0xffff);
        }
        slot(number, input.number(), input.number());
    }
}

fn state_word(number: u64) {
    let word = Word(number);
    let again = Word::new(word.state(), word.class(), word.owner(), word.generation());
    assert_eq!(
        (again.state(), again.class(), again.owner(), again.generation()),
        (word.state(), word.class(), word.owner(), word.generation())
    );
    let sealed = word.with(State::Sealed, 0);
    assert_eq!((sealed.state(), sealed.owner(), sealed.generation()), (State::Sealed, 0, word.generation()));
}

fn ledger_entry(number: u64) {
    let entry = Entry::load(&AtomicU64::new(number));
    if let Some(slot) = entry.slot() {
        let again = if entry.is_pin() { Entry::pin(slot) } else { Entry::intent(slot) };
        assert_eq!((again.slot(), again.is_pin()), (Some(slot), entry.is_pin()));
    }
}

fn slot(offset: u64, len: u64, touch: u64) {
    let slot = Slot::default();
    let meaning = if offset & 1 == 0 { Meaning::Heat } else { Meaning::Count };
    slot.set_extent(Extent { offset, len }, touch as u16, touch as u32);
    slot.set_verified(offset as u8);
    for tick in [len as u32, touch as u32] {
        slot.touch(Now::at(tick, meaning));
        slot.touch(Now::at(tick, meaning).counting());
        slot.note(Heat::from_bits(tick));
    }
    if let Some(extent) = slot.steady_extent() {
        assert_eq!((extent.offset % 4096, extent.len), (0, len & ((1 << 36) - 1)));
    }
    assert_eq!(slot.tenant(), touch as u16);
    assert!(slot.past() >> 28 == 0 && slot.verified_epoch() < 64);
    slot.clear_extent();
    assert_eq!(slot.extent(), None);
}

/// One number of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let words = [
        Word::new(State::Sealed, Class::Prefix, 0, 3).0,
        Word::new(State::Reserved, Class::Ordinary, 0xffff, (1 << 40) - 1).0,
        1 << 63 | 5,
        3 << 62 | 9,
        u64::MAX,
        0xf,
    ];
    words
        .iter()
        .map(|word| [word.to_le_bytes(), 4096_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat())
        .collect()
}
