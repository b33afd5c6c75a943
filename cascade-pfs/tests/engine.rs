//! What moves the bytes: both ways the same, chosen by what works, and neither waited for beyond a deadline.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::testing::bytes::{content, id};
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::buffer::Buffer;
use cascade_pfs::fs::RealFs;
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use cascade_pfs::{Durability, IoEngine, PfsConfig, PfsTier};
use common::*;

const STALL: Duration = Duration::from_millis(400);
const LEN: usize = 100_000;

/// The engines that work here.
fn engines() -> Vec<IoEngine> {
    if has_uring() { vec![IoEngine::Pool, IoEngine::Uring] } else { vec![IoEngine::Pool] }
}

struct Rig {
    fs: FaultFs,
    tier: PfsTier,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(engine: IoEngine, durability: Durability) -> Self {
        let (folder, fs) = (tempfile::tempdir_in("/dev/shm").unwrap(), FaultFs::new(Arc::new(RealFs)));
        let config = PfsConfig { io_engine: engine, durability, ..PfsConfig::new(folder.path(), 64 * MIB) };
        let tier = PfsTier::open_on(config, Arc::new(fs.clone())).unwrap();
        (0..3).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
        Self { fs, tier, _folder: folder }
    }

    fn once(&self, call: Call, fault: Fault) {
        self.fs.set(&[Rule { call, suffix: ".seg", first: 0, times: 1, fault }]);
    }
}

fn in_time(ops: Vec<Op>) -> Batch {
    Batch { ops, deadline: Some(Instant::now() + Duration::from_millis(30)) }
}

fn fetch(key: u64, into: Piece) -> Vec<Op> {
    vec![Op::Fetch { id: id(key), into: into.into() }]
}

const LATE: Outcome = Outcome::Miss(MissReason::Deadline);

#[test]
fn a_read_that_stalls_is_a_miss_in_time_and_others_go_on() {
    for engine in engines() {
        let rig = Rig::new(engine, Durability::None);
        rig.once(Call::Read, Fault::Stall(STALL));
        let (mut buffer, started) = (HostBuffer::zeroed(LEN), Instant::now());
        let outcome = rig.tier.submit(in_time(fetch(0, buffer.piece()))).wait(soon());
        assert_eq!(outcome, Some(vec![LATE]), "{engine:?}");
        assert!(started.elapsed() < STALL, "{engine:?}: answered before the read has ended");
        expect(&rig.tier, 1, 1, LEN);
        let stats = (rig.tier.stats().misses, rig.tier.file_stats().deadlines);
        assert_eq!(stats, (1, 1), "{engine:?}");
        // What may still be written to is out of reach until it is let go.
        while buffer.bytes_mut().is_none() {
            assert!(started.elapsed() < Duration::from_secs(30), "never let go");
            std::thread::sleep(Duration::from_millis(5));
        }
        expect(&rig.tier, 0, 1, LEN);
    }
}

/// Whether a read of lent memory that a thread is in the middle of was answered by its deadline, and what became of it in the
/// end; `None` where the deadline passed before the thread had begun.
fn lent_beyond_its_deadline(rig: &Rig, time: Duration) -> Option<(bool, Outcome)> {
    rig.fs.set(&[Rule { call: Call::Read, suffix: ".seg", first: 0, times: 9, fault: Fault::Hold }]);
    let late = rig.tier.file_stats().deadlines;
    // Never freed: where this fails, the thread still writes to it.
    let memory = Box::leak(vec![0u8; LEN].into_boxed_slice());
    // SAFETY: nobody reads or writes it otherwise.
    let piece = unsafe { Piece::host_write(memory.as_mut_ptr(), LEN) };
    // The second keeps its memory: when the deadline has answered it, it has come by the first.
    let mut ops = fetch(0, piece);
    ops.append(&mut fetch(1, HostBuffer::zeroed(LEN).piece()));
    let ticket = rig.tier.submit(Batch { ops, deadline: Some(Instant::now() + time) });
    eventually("the deadline passes", || rig.tier.file_stats().deadlines > late);
    let has_begun = rig.fs.held() > 0;
    let is_answered = ticket.poll();
    rig.fs.release();
    let outcomes = ticket.wait(soon()).unwrap();
    has_begun.then_some((is_answered, outcomes[0]))
}

#[test]
fn memory_that_is_lent_is_not_answered_for_while_it_may_be_written() {
    // A loaded machine may begin late: then with more time.
    let found = (0..6).find_map(|doubled| {
        let rig = Rig::new(IoEngine::Pool, Durability::None);
        lent_beyond_its_deadline(&rig, Duration::from_millis(50 << doubled))
    });
    let (is_answered, outcome) = found.unwrap_or_else(|| panic!("no read began within 1.6 s"));
    assert!(!is_answered && matches!(outcome, Outcome::Fetched(_)), "the thread still had it: {outcome:?}");
}

#[test]
fn lent_memory_that_the_kernel_has_not_begun_on_is_taken_back() {
    if !has_uring() {
        return;
    }
    let rig = Rig::new(IoEngine::Uring, Durability::None);
    rig.once(Call::Read, Fault::Stall(STALL));
    let mut memory = vec![0u8; LEN];
    // SAFETY: `memory` is untouched until the ticket has completed.
    let piece = unsafe { Piece::host_write(memory.as_mut_ptr(), LEN) };
    assert_eq!(rig.tier.submit(in_time(fetch(0, piece))).wait(soon()), Some(vec![LATE]));
    memory.fill(1);
}

#[test]
fn memory_that_is_lent_to_what_only_waits_is_given_back_in_time() {
    for engine in engines() {
        let (folder, fs) = (tempfile::tempdir_in("/dev/shm").unwrap(), FaultFs::new(Arc::new(RealFs)));
        // Room for one read, by one thread.
        let config = PfsConfig {
            io_engine: engine,
            read_threads: 1,
            read_in_flight_bytes: 1,
            ..PfsConfig::new(folder.path(), 64 * MIB)
        };
        let tier = PfsTier::open_on(config, Arc::new(fs.clone())).unwrap();
        (0..3).for_each(|key| assert_eq!(put(&tier, key, 1, LEN), Outcome::Stored));
        expect(&tier, 0, 1, LEN);
        fs.set(&[Rule { call: Call::Read, suffix: ".seg", first: 0, times: 1, fault: Fault::Stall(STALL) }]);
        let (stalls, started) = (HostBuffer::zeroed(LEN), Instant::now());
        let stalled = tier.submit(Batch::new(fetch(0, stalls.piece())));
        let mut memory = vec![0u8; LEN];
        // SAFETY: `memory` is untouched until the ticket has completed.
        let piece = unsafe { Piece::host_write(memory.as_mut_ptr(), LEN) };
        assert_eq!(tier.submit(in_time(fetch(1, piece))).wait(soon()), Some(vec![LATE]), "{engine:?}");
        assert!(started.elapsed() < STALL, "{engine:?}: answered while the other stalls");
        memory.fill(1);
        assert!(matches!(stalled.wait(soon()).as_deref(), Some([Outcome::Fetched(_)])), "{engine:?}");
        expect(&tier, 2, 1, LEN);
        assert!(memory.iter().all(|byte| *byte == 1), "{engine:?}: written after it was given back");
    }
}

#[test]
fn a_read_that_the_kernel_keeps_is_cancelled() {
    if !has_uring() {
        return;
    }
    let rig = Rig::new(IoEngine::Uring, Durability::None);
    assert_eq!(rig.tier.file_stats().engine, IoEngine::Uring);
    rig.once(Call::Read, Fault::Hang);
    let mut memory = vec![0u8; LEN];
    // SAFETY: `memory` is untouched until the ticket has completed.
    let piece = unsafe { Piece::host_write(memory.as_mut_ptr(), LEN) };
    let outcome = rig.tier.submit(in_time(fetch(0, piece))).wait(soon());
    assert_eq!(outcome, Some(vec![LATE]), "answered, and only when the kernel had let go");
    expect(&rig.tier, 0, 1, LEN);
    // A part of a block is read into memory of its own.
    rig.once(Call::Read, Fault::Hang);
    let into = SgList::from(HostBuffer::zeroed(10).piece());
    let deadline = Some(Instant::now() + Duration::from_millis(30));
    assert_eq!(rig.tier.fetch_part_until(&id(0), 70_000, &into, deadline), LATE);
    assert!(matches!(rig.tier.fetch_part(&id(0), 70_000, &into), Outcome::Fetched(_)));
    // The tier can be closed while the kernel keeps a read that nobody set a deadline for: the memory stays with the queue.
    rig.once(Call::Read, Fault::Hang);
    let buffer = HostBuffer::zeroed(LEN);
    let ticket = rig.tier.submit(Batch::new(fetch(0, buffer.piece())));
    assert!(ticket.wait(Instant::now() + Duration::from_millis(50)).is_none());
}

#[test]
fn writes_and_syncs_that_stall_are_refused_in_time() {
    for engine in engines() {
        for (call, durability) in [(Call::Write, Durability::None), (Call::Sync, Durability::Block)] {
            let rig = Rig::new(engine, durability);
            rig.once(call, Fault::Stall(STALL));
            let (from, started) = (Piece::shared(content(7, 1, LEN)).into(), Instant::now());
            let late = rig.tier.submit(in_time(vec![Op::Store { id: id(7), from, meta: KEEP }]));
            let refused = Some(vec![Outcome::Refused(Refusal::Deadline)]);
            assert_eq!(late.wait(soon()), refused, "{engine:?} {call:?}");
            // Behind it, with memory that is only lent: given back at once, unless it is written already.
            let bytes = content(8, 1, LEN);
            // SAFETY: `bytes` is not changed, and outlives the operation.
            let lent = unsafe { Piece::host_read(bytes.as_ptr(), LEN) }.into();
            let delete = rig.tier.submit(in_time(vec![Op::Delete { id: id(0) }]));
            let behind = rig.tier.submit(in_time(vec![Op::Store { id: id(8), from: lent, meta: KEEP }]));
            let outcomes = (delete.wait(soon()), behind.wait(soon()));
            if call == Call::Sync {
                assert_eq!(outcomes, (Some(vec![LATE]), refused), "{engine:?}");
                assert!(started.elapsed() < STALL, "{engine:?}: answered before the call has ended");
            }
            // Refused is refused: it does not come to be there later.
            rig.tier.flush(soon()).unwrap();
            assert_eq!(lookup(&rig.tier, 7), Lookup::Miss(MissReason::Absent), "{engine:?} {call:?}");
            assert_eq!(put(&rig.tier, 7, 1, LEN), Outcome::Stored);
            expect(&rig.tier, 7, 1, LEN);
            expect(&rig.tier, 1, 1, LEN);
        }
    }
}

#[test]
fn neighbours_are_read_together_and_fail_alone() {
    const SMALL: usize = 60_000;
    for engine in engines() {
        let rig = Rig::new(engine, Durability::None);
        let store =
            |key| Op::Store { id: id(key), from: Piece::shared(content(key, 1, SMALL)).into(), meta: KEEP };
        let outcomes = run(&rig.tier, (100..132).map(store).collect());
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        // Aligned, one too long, and one that direct I/O cannot take as it is; backwards.
        let mut places: Vec<Buffer> = (0..32).map(|_| Buffer::new(SMALL + 5000)).collect();
        let ask = |(n, place): (usize, &Buffer)| {
            let into = place.part(usize::from(n % 3 == 0), SMALL);
            Op::Fetch { id: id(131 - n as u64), into: into.into() }
        };
        for round in 0..3 {
            let before = rig.tier.file_stats();
            if round == 1 {
                rig.once(Call::Read, Fault::Errno(libc::EIO));
            }
            if round == 2 {
                rig.once(Call::Read, Fault::Flip(3_000_000));
            }
            let outcomes = run(&rig.tier, places.iter().enumerate().map(ask).collect());
            assert!(
                outcomes.iter().all(|o| matches!(o, Outcome::Fetched(_))),
                "{engine:?} {round} {outcomes:?}"
            );
            for (n, place) in places.iter_mut().enumerate() {
                let (from, key) = (usize::from(n % 3 == 0), 131 - n as u64);
                assert!(place.bytes_mut().unwrap()[from..from + SMALL] == *content(key, 1, SMALL));
                place.bytes_mut().unwrap().fill(0);
            }
            let after = rig.tier.file_stats();
            assert_eq!(after.merged - before.merged, 32, "{engine:?}");
            if round == 0 {
                assert!(after.read_transfers - before.read_transfers <= 3, "{after:?}");
            }
        }
    }
}

#[test]
fn where_direct_io_is_refused_files_go_through_the_page_cache() {
    // A file system that opens every file, and knows nothing of direct I/O.
    let tier = open(&MemFs::new(), &config(16 * MIB));
    assert_eq!(put(&tier, 0, 1, LEN), Outcome::Stored);
    assert_eq!((tier.file_stats().buffered_files, tier.file_stats().direct), (1, true));
    // One that refuses the first write, or the first read.
    for call in [Call::Write, Call::Read] {
        let memory = MemFs::new().with_direct();
        let fs = FaultFs::new(Arc::new(memory.clone()));
        let fault = Fault::Errno(libc::EINVAL);
        fs.set(&[Rule { call, suffix: ".seg", first: 0, times: 1, fault }]);
        let tier = PfsTier::open_on(config(16 * MIB), Arc::new(fs.clone())).unwrap();
        assert_eq!(put(&tier, 0, 1, LEN), Outcome::Stored);
        expect(&tier, 0, 1, LEN);
        let stats = tier.file_stats();
        assert!(!stats.direct && stats.buffered_files >= 1 && stats.io_errors == 0, "{stats:?}");
        assert_eq!(put(&tier, 1, 1, LEN), Outcome::Stored);
        expect(&tier, 1, 1, LEN);
    }
}

#[test]
fn registered_memory_is_used_like_any_other() {
    if !has_uring() {
        return;
    }
    let rig = Rig::new(IoEngine::Uring, Durability::None);
    let mut memory = Buffer::new(8 << 20);
    rig.tier.register(&memory.piece().into()).unwrap();
    assert_eq!(rig.tier.file_stats().registered_bytes, 8 << 20);
    assert!(memory.bytes_mut().is_none(), "it stays with the tier");
    let bytes = content(50, 1, 3 << 20);
    assert_eq!(put(&rig.tier, 50, 1, bytes.len()), Outcome::Stored);
    // Within, and partly without.
    for from in [4096, 6 << 20] {
        let mut into = SgList::from(memory.part(from, (3 << 20).min((8 << 20) - from)));
        let rest = Buffer::new((3 << 20) - into.len());
        into.push(rest.piece());
        let op = Op::Fetch { id: id(50), into: into.clone() };
        assert!(matches!(run(&rig.tier, vec![op])[0], Outcome::Fetched(_)));
        let copy = Op::Store { id: id(51 + from as u64), from: into, meta: KEEP };
        assert_eq!(run(&rig.tier, vec![copy]), [Outcome::Stored]);
        let mut back = HostBuffer::zeroed(3 << 20);
        let op = Op::Fetch { id: id(51 + from as u64), into: back.piece().into() };
        assert!(matches!(run(&rig.tier, vec![op])[0], Outcome::Fetched(_)));
        assert!(back.bytes_mut().unwrap() == &bytes[..]);
    }
    let read_only = SgList::from(Piece::shared(content(0, 1, 4096)));
    assert!(rig.tier.register(&read_only).is_err());
    let pool = Rig::new(IoEngine::Pool, Durability::None);
    let error = pool.tier.register(&memory.piece().into()).unwrap_err();
    assert_eq!(error.kind(), cascade_core::ErrorKind::Unsupported);
}

/// A child that may lock little: enough for a queue, which counts for its user; in a normal run of the tests there is nothing to do.
#[test]
fn limited_process() {
    let Some(folder) = std::env::var_os("CASCADE_PFS_LIMITED") else { return };
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_MEMLOCK, 1 << 20, 1 << 20).unwrap();
    if nix::unistd::geteuid().is_root() {
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
    }
    let config = PfsConfig { io_engine: IoEngine::Uring, ..PfsConfig::new(Path::new(&folder), 64 * MIB) };
    let tier = PfsTier::open(config).unwrap();
    let memory = Buffer::new(8 << 20);
    let error = tier.register(&memory.piece().into()).unwrap_err();
    assert_eq!(error.kind(), cascade_core::ErrorKind::NoSpace, "{error:?}");
    assert_eq!(tier.file_stats().registered_bytes, 0);
    assert_eq!(put(&tier, 0, 1, LEN), Outcome::Stored);
    let op = Op::Fetch { id: id(0), into: memory.part(0, LEN).into() };
    assert!(matches!(run(&tier, vec![op])[0], Outcome::Fetched(_)));
}

#[test]
fn memory_that_may_not_be_locked_works_unregistered() {
    if !has_uring() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "limited_process", "--test-threads=1"]);
    let output = child.env("CASCADE_PFS_LIMITED", folder.path().join("tier")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A child without io_uring, as in a container; in a normal run of the tests there is nothing to do.
#[test]
fn forbidden_process() {
    let Some(folder) = std::env::var_os("CASCADE_PFS_FORBIDDEN") else { return };
    forbid_uring();
    let config = |io_engine| PfsConfig { io_engine, ..PfsConfig::new(Path::new(&folder), 64 * MIB) };
    let error = PfsTier::open(config(IoEngine::Uring)).unwrap_err();
    assert_eq!(error.kind(), cascade_core::ErrorKind::Unsupported);
    let tier = PfsTier::open(config(IoEngine::Auto)).unwrap();
    let stats = tier.file_stats();
    assert_eq!(stats.engine, IoEngine::Pool);
    assert!(stats.engine_reason.contains("forbidden"), "{}", stats.engine_reason);
    assert_eq!(put(&tier, 0, 1, LEN), Outcome::Stored);
    expect(&tier, 0, 1, LEN);
}

/// Lets `io_uring_setup` fail with `EPERM`, as Docker's filter does.
fn forbid_uring() {
    let number = libc::SYS_io_uring_setup as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: both calls read their arguments only; `filter` and what it points to outlive them.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn where_io_uring_is_forbidden_threads_do_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    // The filter is for one thread and those that it starts: the tests of the child run in that one.
    child
        .args(["--exact", "forbidden_process", "--test-threads=1"])
        .env("CASCADE_PFS_FORBIDDEN", folder.path());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
