//! Whether what is put in the node's arena is ever found.

use std::time::{SystemTime, UNIX_EPOCH};

use cascade_shm::ArenaConfig;
use cascade_shm::inspect::Inspection;

use super::Finding;
use crate::cli::stat;
use crate::cli::text::{count, of};
use crate::counters;

/// Nothing where there is no arena, or nobody has counted.
pub(super) fn check(config: &ArenaConfig) -> Option<Finding> {
    const NAME: &str = "store.hits";
    let path = config.path();
    let incarnation = Inspection::open(&path).ok()??.superblock().incarnation;
    let totals = counters::look(&path, incarnation).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let source = counters::path_of(&path).display().to_string();
    let found = format!("{} put, {} hits", of(totals.get("puts"), "block"), count(totals.all_hits()));
    Some(match stat::fruitless(&totals, now) {
        None => Finding::ok(NAME, source, found),
        Some(warning) => Finding::note(
            NAME,
            source,
            warning,
            "compare the key spaces of who puts and who asks: model, weights fingerprint, dtype, layout, tokens of a block, adapter \
             and tenant must be the same; `cascade why` says of ids, or of a key space and tokens, why they are no hits",
        ),
    })
}
