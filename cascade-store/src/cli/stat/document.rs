//! The JSON document of `cascade stat`. Names and meanings are stable within a schema number; docs/cli.md lists them.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cascade_core::{Error, ErrorKind};
use cascade_shm::inspect::{ClassCount, Fault, HeldLock, Inspection, Snapshot, fault};
use cascade_shm::layout::{KNOWN_FEATURES, Superblock};
use cascade_shm::slot::State;
use cascade_shm::{ArenaConfig, Huge, HugePages, remove};
use serde::Serialize;

use super::stores::{self, StoreRates, Stores};
use crate::config::Recorded;
use crate::counters::Totals;

/// Times are seconds since 1970, sizes bytes.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    schema: &'static str,
    pub(super) time: u64,
    pub(super) dir: PathBuf,
    pub(super) node: String,
    pub(super) arenas: Vec<Arena>,
}

#[derive(Debug, Serialize)]
pub(super) struct Arena {
    pub(super) path: PathBuf,
    /// Whether this program can use it; else `problem` and `error` say why not.
    is_usable: bool,
    pub(super) problem: Option<&'static str>,
    pub(super) error: Option<String>,
    pub(super) in_use: bool,
    #[serde(flatten)]
    pub(super) usable: Option<Usable>,
}

#[derive(Debug, Serialize)]
pub(super) struct Usable {
    pub(super) node: String,
    pub(super) format: Format,
    pub(super) capacity_bytes: u64,
    pub(super) limit_bytes: u64,
    pub(super) ready_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) last_used: Option<u64>,
    pub(super) pages: Pages,
    /// What the stores that use it have below it; `null` where none said.
    pub(super) below: Option<Recorded>,
    pub(super) blocks: Blocks,
    pub(super) slots: Slots,
    pub(super) regions: Regions,
    pub(super) quarantine: Quarantine,
    pub(super) counters: Counters,
    /// What the stores over it have counted; `null` where that cannot be said, and `stores_problem` says why.
    pub(super) stores: Option<Stores>,
    pub(super) stores_problem: Option<String>,
    #[serde(skip)]
    pub(super) totals: Option<Totals>,
    pub(super) owner_rows: u64,
    pub(super) owners: Vec<Owner>,
    pub(super) locks: Vec<Lock>,
    pub(super) rates: Option<Rates>,
}

#[derive(Debug, Serialize)]
pub(super) struct Format {
    pub(super) version: u32,
    pub(super) required_features: Vec<String>,
    pub(super) optional_features: Vec<String>,
    pub(super) writer: String,
    /// 16 hexadecimal digits: a number of 64 bits is more than JSON readers keep.
    pub(super) incarnation: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Pages {
    /// `ordinary`, `tmpfs_huge` or `hugetlbfs`.
    pub(super) kind: &'static str,
    pub(super) bytes: u64,
    /// Bytes of the file that were put together into huge pages where `kind` gives ordinary ones.
    pub(super) huge_bytes: u64,
    /// Huge pages that the system refused to make, each attempt counted; and its last reason.
    pub(super) huge_refusals: u64,
    pub(super) huge_refused_because: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Blocks {
    pub(super) total: u64,
    pub(super) payload_bytes: u64,
    pub(super) ordinary: Class,
    pub(super) prefix: Class,
    /// Blocks whose bytes were compared with their digests since a process died over the arena, or nobody had it open.
    pub(super) verified: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Class {
    pub(super) blocks: u64,
    pub(super) payload_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Slots {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) buckets: u64,
    pub(super) full_buckets: u64,
    pub(super) states: States,
}

#[derive(Debug, Serialize)]
pub(super) struct States {
    pub(super) free: u64,
    pub(super) writing: u64,
    pub(super) claiming: u64,
    pub(super) reserved: u64,
    pub(super) in_flight: u64,
    pub(super) sealed: u64,
    pub(super) evicting: u64,
    pub(super) freeing: u64,
    pub(super) retired: u64,
    pub(super) reclaiming: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Regions {
    pub(super) bytes: u64,
    pub(super) total: u64,
    pub(super) not_ready: u64,
    pub(super) empty: u64,
    pub(super) small: u64,
    pub(super) large: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Quarantine {
    pub(super) blocks: u64,
    pub(super) payload_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Counters {
    pub(super) put_bytes: u64,
    pub(super) evictions: u64,
    pub(super) unclean_deaths: u64,
    pub(super) shortfalls: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Owner {
    pub(super) row: u16,
    pub(super) generation: u32,
    pub(super) pid: u64,
    pub(super) pid_namespace: u64,
    pub(super) command: Option<String>,
    pub(super) alive: bool,
    /// When the process started.
    pub(super) since: Option<u64>,
    pub(super) stripes: u64,
    pub(super) pins: u64,
    pub(super) intents: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Lock {
    /// `growth`, `recovery`, `janitor` or `region`.
    pub(super) what: &'static str,
    pub(super) region: Option<usize>,
    pub(super) row: u16,
    pub(super) generation: u32,
}

/// Since the tick before.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    pub(super) seconds: f64,
    pub(super) put_bytes_per_s: f64,
    pub(super) evictions_per_s: f64,
    pub(super) ready_bytes_per_s: f64,
    /// `null` where nobody counted at this tick or the one before.
    pub(super) stores: Option<StoreRates>,
}

fn unix(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

impl Document {
    pub(super) fn new(config: &ArenaConfig) -> Self {
        Self {
            schema: "cascade.stat/1",
            time: unix(SystemTime::now()).unwrap_or(0),
            dir: config.dir.clone(),
            node: config.node_name(),
            arenas: Vec::new(),
        }
    }
}

impl Arena {
    /// What there is at `path`; `None` when it has gone.
    pub(super) fn look(path: &Path) -> Option<Self> {
        let seen = Inspection::open(path).and_then(|seen| match seen {
            Some(seen) => {
                seen.snapshot().map(|snapshot| Some(Usable::new(path, seen.superblock(), snapshot)))
            }
            None => Ok(None),
        });
        let in_use = remove::is_in_use(path).ok().flatten().unwrap_or(false);
        let arena = |usable, problem: Option<&'static str>, error| Self {
            path: path.to_owned(),
            is_usable: problem.is_none(),
            problem,
            error,
            in_use,
            usable,
        };
        match seen {
            Ok(None) => None,
            Ok(usable) => {
                let misnamed = usable.as_ref().and_then(|usable| misnamed(path, &usable.node));
                Some(match misnamed {
                    None => arena(usable, None, None),
                    error => arena(None, Some("misnamed"), error),
                })
            }
            Err(error) => Some(arena(None, Some(problem(path, &error)), Some(error.to_string()))),
        }
    }
}

/// Why no store uses the arena of `node` at `path`, where that is not its place.
fn misnamed(path: &Path, node: &str) -> Option<String> {
    let name = format!("arena.{node}");
    (path.file_name()?.to_str() != Some(&name)).then(|| {
        format!("the arena {} was made by node {node:?}, and is no arena of another: name it {name}, or remove it", path.display())
    })
}

/// A word for what is wrong with the file that was refused with `error`.
fn problem(path: &Path, error: &Error) -> &'static str {
    match (error.kind(), fault(path)) {
        (ErrorKind::Permission, _) => "permission",
        (ErrorKind::Format, Ok(Some(Fault::OtherFormat))) => "other_format",
        (ErrorKind::Format, Ok(Some(Fault::Foreign))) => "foreign",
        (ErrorKind::Format, _) => "damaged",
        _ => "unreadable",
    }
}

fn features(bits: u64) -> Vec<String> {
    let name = |bit: u32| {
        let known = KNOWN_FEATURES.iter().find(|(known, _)| *known == 1 << bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

impl Usable {
    fn new(path: &Path, superblock: &Superblock, seen: Snapshot) -> Self {
        let geometry = superblock.geometry;
        let now = unix(SystemTime::now()).unwrap_or(0);
        let (totals, stores_problem) = match stores::look(path, superblock.incarnation) {
            Ok(totals) => (Some(totals), None),
            Err(why) => (None, Some(why)),
        };
        let class = |count: ClassCount| Class { blocks: count.blocks, payload_bytes: count.payload_bytes };
        let (ordinary, prefix) = (class(seen.slots.ordinary), class(seen.slots.prefix));
        let owners = seen.owners.into_iter().map(|owner| Owner {
            row: owner.holder.row,
            generation: owner.holder.generation,
            pid: owner.process.pid,
            pid_namespace: owner.process.pid_namespace,
            command: owner.command,
            alive: owner.alive,
            since: owner.since.and_then(unix),
            stripes: owner.stripes,
            pins: owner.pins,
            intents: owner.intents,
        });
        Self {
            node: superblock.node.clone(),
            format: Format {
                version: superblock.version,
                required_features: features(superblock.required_features),
                optional_features: features(superblock.optional_features),
                writer: superblock.writer.clone(),
                incarnation: format!("{:016x}", superblock.incarnation),
            },
            capacity_bytes: geometry.data_bytes,
            limit_bytes: seen.limit_bytes,
            ready_bytes: seen.ready_bytes,
            used_bytes: seen.used_bytes,
            file_bytes: seen.allocated_bytes,
            last_used: seen.last_used.and_then(unix),
            pages: pages(seen.huge, seen.page_bytes, seen.huge_pages),
            below: seen.note.as_deref().and_then(Recorded::parse),
            blocks: Blocks {
                total: ordinary.blocks + prefix.blocks,
                payload_bytes: ordinary.payload_bytes + prefix.payload_bytes,
                ordinary,
                prefix,
                verified: seen.slots.verified,
            },
            slots: Slots {
                total: seen.slots.total,
                used: seen.slots.total - seen.slots.state(State::Free),
                buckets: geometry.buckets,
                full_buckets: seen.slots.full_buckets,
                states: states(&seen.slots),
            },
            regions: Regions {
                bytes: geometry.region_bytes,
                total: geometry.regions() as u64,
                not_ready: seen.regions.not_ready,
                empty: seen.regions.empty,
                small: seen.regions.small,
                large: seen.regions.large,
            },
            quarantine: Quarantine {
                blocks: seen.slots.state(State::Freeing),
                payload_bytes: seen.slots.quarantined_bytes,
            },
            counters: Counters {
                put_bytes: seen.put_bytes,
                evictions: seen.evictions,
                unclean_deaths: seen.unclean_deaths,
                shortfalls: seen.shortfalls,
            },
            stores: totals.as_ref().map(|totals| Stores::new(totals, seen.evictions, now)),
            stores_problem,
            totals,
            // The last row is for recovery only.
            owner_rows: geometry.owners - 1,
            owners: owners.collect(),
            locks: seen.locks.into_iter().map(lock).collect(),
            rates: None,
        }
    }
}

fn pages(huge: Huge, bytes: u64, made: HugePages) -> Pages {
    let kind = match huge {
        Huge::None => "ordinary",
        Huge::Tmpfs => "tmpfs_huge",
        Huge::Hugetlbfs => "hugetlbfs",
    };
    let huge_refused_because = made.reason();
    Pages { kind, bytes, huge_bytes: made.bytes, huge_refusals: made.refusals, huge_refused_because }
}

fn states(slots: &cascade_shm::inspect::SlotCount) -> States {
    States {
        free: slots.state(State::Free),
        writing: slots.state(State::Writing),
        claiming: slots.state(State::Claiming),
        reserved: slots.state(State::Reserved),
        in_flight: slots.state(State::InFlight),
        sealed: slots.state(State::Sealed),
        evicting: slots.state(State::Evicting),
        freeing: slots.state(State::Freeing),
        retired: slots.state(State::Retired),
        reclaiming: slots.state(State::Reclaiming),
    }
}

fn lock((what, holder): (HeldLock, cascade_shm::lock::Holder)) -> Lock {
    let (what, region) = match what {
        HeldLock::Growth => ("growth", None),
        HeldLock::Recovery => ("recovery", None),
        HeldLock::Janitor => ("janitor", None),
        HeldLock::Region(number) => ("region", Some(number)),
    };
    Lock { what, region, row: holder.row, generation: holder.generation }
}
