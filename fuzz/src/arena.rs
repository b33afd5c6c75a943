//! An arena whose areas hold what the input says, attached and used as a program would.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{Addressable, Lookup, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

use crate::Input;

/// The areas of an arena that a target can change.
pub const AREAS: [&str; 11] = [
    "control",
    "owners",
    "ledgers",
    "tags",
    "slots",
    "summaries",
    "locks",
    "bitmaps",
    "residents",
    "digests",
    "data",
];
/// Blocks that the arena holds at first.
const BLOCKS: u64 = 8;
/// Blocks that the input can name.
const NAMES: u64 = 16;
/// No operation may take longer. A put into an arena whose blocks are all leased waits, but not for so long.
const PATIENCE: Duration = Duration::from_secs(5);
const ROOM: usize = 256 << 10;

struct Bench {
    _folder: tempfile::TempDir,
    config: ArenaConfig,
    file: File,
    /// The arena with its blocks, after everyone has left it.
    sound: Vec<u8>,
    /// What is made of it.
    bytes: Mutex<Vec<u8>>,
    /// Start and length of each area.
    areas: Vec<(&'static str, usize, usize)>,
}

/// Changes `areas` as the input says, attaches, and uses the arena as the rest of the input says: it may be refused, and
/// it may forget blocks, but every byte that it gives out must be right.
pub fn open_and_use(areas: &[&str], data: &[u8]) {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(Bench::new);
    let mut input = Input(data);
    let mut bytes = bench.bytes.lock().expect("one thread fuzzes");
    bytes.copy_from_slice(&bench.sound);
    let own: Vec<_> = bench.areas.iter().filter(|(name, ..)| areas.contains(name)).collect();
    for _ in 0..input.byte() % 32 {
        let (_, start, len) = own[usize::from(input.byte()) % own.len()];
        change(&mut bytes[*start..start + len], &mut input);
    }
    bench.file.write_all_at(&bytes, 0).expect("shared memory");
    // Without background work, which would be most of the time. What is refused was not trusted.
    if let Ok(Some(arena)) = Arena::attach(&bench.config) {
        use_it(&arena, &mut input);
    }
}

fn change(area: &mut [u8], input: &mut Input<'_>) {
    let kind = input.byte();
    let offset = u64::from_le_bytes({
        let [a, b, c] = input.bytes();
        [a, b, c, 0, 0, 0, 0, 0]
    }) as usize
        % area.len();
    // Most fields are words.
    let at = if kind & 8 == 0 { offset & !7 } else { offset };
    let end = |len: usize| (at + len).min(area.len());
    match kind % 4 {
        0 => area[at] ^= input.byte(),
        1 => {
            let word = input.bytes::<8>();
            let end = end(8);
            area[at..end].copy_from_slice(&word[..end - at]);
        }
        2 => {
            let end = end(64 << (kind >> 4 & 7));
            area[at..end].fill(input.byte());
        }
        _ => {
            let len = (8 << (kind >> 4 & 7)).min(area.len() / 2);
            let from = usize::from(input.byte()) * len % (area.len() - len + 1);
            let to = at.min(area.len() - len);
            area.copy_within(from..from + len, to);
        }
    }
}

fn use_it(arena: &Arena, input: &mut Input<'_>) {
    let mut leases: Vec<(u64, Lease)> = Vec::new();
    let ids: Vec<BlockId> = (0..NAMES).map(id).collect();
    let mut found = vec![Lookup::Pending; ids.len()];
    arena.lookup(&ids, &mut found);
    (0..BLOCKS).for_each(|number| get(arena, number));
    for _ in 0..48 {
        if input.is_empty() {
            break;
        }
        let number = u64::from(input.byte()) % NAMES;
        let start = Instant::now();
        match input.byte() % 8 {
            0 | 1 => get(arena, number),
            2 => leases.extend(arena.lease(&id(number)).ok().map(|lease| (number, lease))),
            3 | 4 => {
                put(arena, number);
                leases.iter().for_each(|(number, lease)| check(*number, lease));
            }
            5 => drop(arena.submit(Batch::new(vec![Op::Delete { id: id(number) }]))),
            6 => arena.recover(),
            _ => leases.clear(),
        }
        assert!(start.elapsed() < PATIENCE, "an operation on block {number} took {:?}", start.elapsed());
    }
    leases.iter().for_each(|(number, lease)| check(*number, lease));
    let audit = arena.audit();
    assert!(audit.is_some(), "this process has joined");
    drop(leases);
    arena.clear();
}

fn id(number: u64) -> BlockId {
    BlockId::named(&number.to_string())
}

/// The content of block `number`: small and large ones.
fn block(number: u64) -> &'static [u8] {
    static BLOCKS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let all = BLOCKS.get_or_init(|| {
        let lens = [100, 5000, 65_536, 70_000, 200_000];
        let byte = |number: u64, at: usize| {
            (number as u8).wrapping_mul(31) ^ (at as u8).wrapping_mul(7) ^ (at >> 8) as u8
        };
        let one = |number| (0..lens[number as usize % lens.len()]).map(|at| byte(number, at)).collect();
        (0..NAMES).map(one).collect()
    });
    &all[number as usize]
}

fn put(arena: &Arena, number: u64) {
    let from = Piece::shared(Arc::from(block(number))).into();
    let op = Op::Store { id: id(number), from, meta: PutMeta::default() };
    drop(arena.submit(Batch::new(vec![op])));
}

fn get(arena: &Arena, number: u64) {
    let mut buffer = HostBuffer::zeroed(ROOM);
    let op = Op::Fetch { id: id(number), into: buffer.piece().into() };
    let outcomes = arena.submit(Batch::new(vec![op])).wait(Instant::now());
    if let Some(Some(Outcome::Fetched(meta))) = outcomes.map(|outcomes| outcomes.first().copied()) {
        let bytes = buffer.bytes_mut().expect("nobody else has the buffer");
        assert!(&bytes[..meta.len as usize] == block(number), "block {number} is wrong");
    }
}

fn check(number: u64, lease: &Lease) {
    let mut out = vec![0; lease.len()];
    assert!(lease.read_at(0, &mut out) && out == block(number), "the lease on block {number} is wrong");
}

impl Bench {
    fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("cascade-fuzz-").tempdir_in(crate::memory()).expect("/dev/shm");
        let config = ArenaConfig::new(folder.path().join("arena")).capacity(4 << 20);
        let config = ArenaConfig { owners: Some(2), leases: Some(56), node: Some("fuzz".into()), ..config };
        let arena = Arena::open(&config).expect("an arena of 4 MiB");
        assert!(arena.wait_ready(Instant::now() + Duration::from_secs(10)));
        (0..BLOCKS).for_each(|number| put(&arena, number));
        let geometry = arena.superblock().geometry;
        let path = arena.path().to_owned();
        drop(arena);
        let o = geometry.offsets();
        let lens = [
            ("control", o.control, 384),
            ("owners", o.owners, geometry.owners * 128),
            ("ledgers", o.ledgers, geometry.owners * geometry.ledger_entries * 8),
            ("tags", o.tags, geometry.buckets * 8),
            ("slots", o.slots, geometry.buckets * 8 * 64),
            ("summaries", o.summaries, geometry.regions() as u64 * 8),
            ("locks", o.regions, geometry.regions() as u64 * 64),
            ("bitmaps", o.bitmaps, geometry.data_bytes / 4096 / 8),
            ("residents", o.residents, geometry.data_bytes / 4096 * 4),
            ("digests", o.digests, geometry.data_bytes / 65_536 * 8),
            ("data", o.data, geometry.data_bytes),
        ];
        let sound = std::fs::read(&path).expect("the arena's file");
        let file = File::options().write(true).open(&path).expect("the arena's file");
        let areas = lens.into_iter().map(|(name, start, len)| (name, start as usize, len as usize)).collect();
        Self { _folder: folder, config, file, bytes: Mutex::new(sound.clone()), sound, areas }
    }
}

/// Nothing changed, then changes of each kind, each followed by uses of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let uses: Vec<u8> = (0..32).flat_map(|step: u8| [step, step / 2]).collect();
    let with = |changes: &[u8]| [changes, &uses].concat();
    vec![
        with(&[0]),
        with(&[1, 0, 0, 0, 0, 0, 1]),
        with(&[1, 0, 1, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        with(&[2, 0, 2, 0, 1, 0, 0, 1, 0x42, 64, 0, 0, 0xff]),
        with(&[1, 0, 0x33, 0, 2, 0, 3]),
    ]
}
