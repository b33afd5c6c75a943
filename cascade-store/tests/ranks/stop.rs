//! One rank is stopped (SIGSTOP): what only it has is a miss with a reason, in time, and a hit when it goes on.

use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{MissReason, Tier};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::content::{bytes_of, id_of, len_of};
use crate::job::Job;

const BLOCKS: u64 = 16;
const DEADLINE: Duration = Duration::from_millis(300);
/// Beyond the deadline: other ranks, and builds, want the cores too.
const SLACK: Duration = Duration::from_secs(10);

pub(crate) fn a_stopped_rank_makes_misses_and_nothing_else(job: &Job) {
    assert!(job.ranks() > 1, "one rank asks another");
    let last = job.ranks() - 1;
    if job.rank() == last {
        std::fs::write(job.shared("process"), std::process::id().to_string()).unwrap();
        for number in 0..BLOCKS {
            assert_eq!(job.put(number), Outcome::Stored);
        }
        job.flush();
    }
    job.meet("put");
    if job.rank() == 0 {
        let process = std::fs::read_to_string(job.shared("process")).unwrap().parse().unwrap();
        kill(Pid::from_raw(process), Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let answers: Vec<_> = (0..BLOCKS / 2).map(|number| within(job, number)).collect();
        let own = 0x0000_0e0e_0000;
        assert_eq!(job.put(own), Outcome::Stored);
        assert_eq!(job.fetch(own).as_deref(), Ok(&bytes_of(own)[..]), "what is here is served");
        kill(Pid::from_raw(process), Signal::SIGCONT).unwrap();
        let misses = answers.iter().filter(|answer| answer.is_err()).count();
        println!("ranks: of {} blocks of a stopped rank {misses} were misses: {answers:?}", answers.len());
        let until = Instant::now() + Duration::from_secs(60);
        for number in 0..BLOCKS {
            while within(job, number).is_err() {
                assert!(Instant::now() < until, "hits return when the rank goes on");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    job.meet("went on");
}

/// Fetches with a deadline, which must be kept; whatever comes must be right.
fn within(job: &Job, number: u64) -> Result<(), MissReason> {
    let mut buffer = HostBuffer::zeroed(len_of(number));
    let op = Op::Fetch { id: id_of(number), into: Piece::into(buffer.piece()) };
    let began = Instant::now();
    let batch = Batch { ops: vec![op], deadline: Some(began + DEADLINE) };
    let outcome =
        job.tier.submit(batch).wait(began + DEADLINE + SLACK).expect("answered about at the deadline")[0];
    assert!(began.elapsed() < DEADLINE + SLACK, "a fetch took {:?}", began.elapsed());
    match outcome {
        Outcome::Fetched(_) => {
            assert!(buffer.bytes_mut().unwrap() == bytes_of(number), "wrong bytes for {number}");
            Ok(())
        }
        Outcome::Miss(why) => Err(why),
        other => panic!("a fetch ended with {other:?}"),
    }
}
