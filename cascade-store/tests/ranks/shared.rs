//! The stores of all ranks: one puts a prompt, the others have it from there, and then here.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::Class;
use cascade_store::{Level, Put};

use crate::content::{bytes_of, id_of, len_of};
use crate::job::Job;

const BLOCKS: u64 = 20;
/// What is put besides by each rank: twice what its arena holds.
const PRESSURE: u64 = 260;

pub(crate) fn all_ranks_share_a_system_prompt(job: &Job) {
    let numbers: Vec<u64> = (0..BLOCKS).map(|number| 0x5e57_0000_0000 | number).collect();
    let ids: Vec<BlockId> = numbers.iter().map(|number| id_of(*number)).collect();
    let store = job.store();
    if job.rank() == 0 {
        for number in &numbers {
            let put = store.put(
                &id_of(*number),
                &bytes_of(*number),
                Put { class: Class::Prefix, ..Put::default() },
            );
            assert_eq!(put, Outcome::Stored);
        }
        job.flush();
    }
    job.meet("prompt put");
    let own = if job.rank() == 0 { Level::Arena } else { Level::Remote };
    assert!(store.locate(&ids).iter().all(|found| found.level == Some(own)), "{:?}", store.locate(&ids));
    let hits_of_a_round = || {
        let before = store.stats();
        get_all(job, &numbers);
        let after = store.stats();
        [Level::Remote, Level::Arena].map(|level| after.hits(level) - before.hits(level))
    };
    let first = hits_of_a_round();
    assert_eq!(first, if job.rank() == 0 { [0, BLOCKS] } else { [BLOCKS, 0] });
    let [again, here] = hits_of_a_round();
    // The arena is full of ordinary blocks, which go before the prompt's.
    assert_eq!([again, here], [0, BLOCKS], "{again} of {BLOCKS} blocks came from afar again");
    println!(
        "ranks: rank {}: the prompt came from {first:?}, then from {:?} (remote, arena)",
        job.rank(),
        [again, here]
    );
    let after = store.stats();
    job.meet("prompt shared");
    for number in 0..PRESSURE {
        let number = 0xf111_0000_0000 | u64::from(job.rank()) << 16 | number;
        let put = store.put(&id_of(number), &bytes_of(number), Put::default());
        assert!(matches!(put, Outcome::Stored | Outcome::Refused(_)), "{put:?}");
    }
    get_all(job, &numbers);
    let here = store.stats().hits(Level::Arena) - after.hits(Level::Arena);
    println!("ranks: rank {}: the prompt survived, {here} of {BLOCKS} blocks of it here", job.rank());
    job.meet("prompt survived");
}

fn get_all(job: &Job, numbers: &[u64]) {
    for number in numbers {
        let mut out = vec![0; len_of(*number)];
        let got = job.store().get(&id_of(*number), &mut out);
        assert!(got.is_ok(), "{number:x} on rank {}: {got:?}", job.rank());
        assert!(out == bytes_of(*number), "wrong bytes for {number:x} on rank {}", job.rank());
    }
}
