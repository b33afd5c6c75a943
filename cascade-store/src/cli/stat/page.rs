//! The document of `cascade stat` for people.

use std::time::Duration;

use cascade_core::units::format_size;

use super::document::{Arena, Document, Rates, Usable};
use super::stores::Stores;
use crate::cli::text::{count, of, percent, span, table};

/// The whole page.
pub(super) fn render(document: &Document) -> String {
    if document.arenas.is_empty() {
        let dir = document.dir.display();
        return format!("No arena in {dir}: the first store that is opened there makes one.\n");
    }
    let pages: Vec<String> = document.arenas.iter().map(|arena| page(arena, document.time)).collect();
    pages.join("\n")
}

fn page(arena: &Arena, now: u64) -> String {
    let path = arena.path.display();
    let Some(usable) = &arena.usable else {
        let error = arena.error.as_deref().unwrap_or_default();
        let problem = arena.problem.unwrap_or_default();
        return format!("{path}  NOT USABLE ({problem})\n  {error}\n");
    };
    let format = &usable.format;
    let mut text = format!("{path}\n");
    let writer = if format.writer.is_empty() { "unknown" } else { &format.writer };
    let mut lines = vec![
        (
            "arena",
            format!(
                "node {}, format {}, made by {writer}, incarnation {}",
                usable.node, format.version, format.incarnation
            ),
        ),
        ("memory", memory(usable)),
        ("blocks", blocks(usable)),
        ("slots", slots(usable)),
        ("regions", regions(usable)),
        ("since made", since_made(usable, now)),
    ];
    let features = [&format.required_features[..], &format.optional_features[..]].concat();
    if !features.is_empty() {
        lines.insert(1, ("features", features.join(", ")));
    }
    if let Some(below) = &usable.below {
        lines.insert(1, ("below", below.to_string()));
    }
    if usable.quarantine.blocks > 0 {
        let quarantine = &usable.quarantine;
        let held = format_size(quarantine.payload_bytes);
        lines.push(("quarantine", format!("{}, {held}, kept out of use", of(quarantine.blocks, "block"))));
    }
    if let Some(rates) = &usable.rates {
        lines.push(("rates", self::rates(rates)));
        lines.extend(rates.stores.as_ref().map(|rates| ("", rates.text())));
    }
    match (&usable.stores, &usable.stores_problem) {
        (Some(stores), _) => lines.extend(stores.lines()),
        (None, Some(why)) => lines.push(("hits", format!("not known: {why}"))),
        (None, None) => {}
    }
    for (name, value) in lines {
        text.push_str(&format!("  {name:10}  {value}\n"));
    }
    text.push_str(&usable.stores.as_ref().map(Stores::table).unwrap_or_default());
    text.push_str(&owners(usable, now));
    text.push_str(&locks(usable));
    text
}

fn memory(usable: &Usable) -> String {
    let [used, limit, ready, file] =
        [usable.used_bytes, usable.limit_bytes, usable.ready_bytes, usable.file_bytes].map(format_size);
    let share = percent(usable.used_bytes, usable.limit_bytes);
    let smaller = if usable.limit_bytes < usable.capacity_bytes {
        let times = of(usable.counters.shortfalls, "time");
        format!(" (made for {}: memory ran out {times})", format_size(usable.capacity_bytes))
    } else {
        String::new()
    };
    let page = format_size(usable.pages.bytes);
    let pages = match usable.pages.kind {
        "ordinary" => format!("{page} pages{}", put_together(usable)),
        "hugetlbfs" => format!("{page} pages of hugetlbfs"),
        _ => format!("pages of up to {page}"),
    };
    format!("{used} used of {limit}{smaller} ({share}), {ready} ready, {file} taken with tables, {pages}")
}

/// How much of the file is in huge pages all the same, and why the rest is not.
fn put_together(usable: &Usable) -> String {
    let pages = &usable.pages;
    let huge = match pages.huge_bytes {
        0 => String::new(),
        bytes => format!(", {} of them put together into huge ones", percent(bytes, usable.file_bytes)),
    };
    let refused = pages
        .huge_refused_because
        .as_ref()
        .map(|why| format!(", {} refused by the system: {why}", of(pages.huge_refusals, "huge page")));
    huge + &refused.unwrap_or_default()
}

fn blocks(usable: &Usable) -> String {
    let blocks = &usable.blocks;
    format!(
        "{} ({}): {} prefix ({}), {} ordinary ({}); {} verified since a process died or opened it alone",
        of(blocks.total, "block"),
        format_size(blocks.payload_bytes),
        count(blocks.prefix.blocks),
        format_size(blocks.prefix.payload_bytes),
        count(blocks.ordinary.blocks),
        format_size(blocks.ordinary.payload_bytes),
        percent(blocks.verified, blocks.total),
    )
}

fn slots(usable: &Usable) -> String {
    let (slots, states) = (&usable.slots, &usable.slots.states);
    let filling = states.writing + states.claiming + states.reserved + states.in_flight;
    let leaving = states.evicting + states.freeing + states.reclaiming;
    format!(
        "{} used of {} ({}), {} of {} buckets full; {filling} filling, {leaving} leaving, {} retired",
        count(slots.used),
        count(slots.total),
        percent(slots.used, slots.total),
        count(slots.full_buckets),
        count(slots.buckets),
        states.retired,
    )
}

fn regions(usable: &Usable) -> String {
    let regions = &usable.regions;
    format!(
        "{} of {}: {} small blocks, {} large blocks, {} empty, {} not ready",
        count(regions.total),
        format_size(regions.bytes),
        count(regions.small),
        count(regions.large),
        count(regions.empty),
        count(regions.not_ready),
    )
}

fn since_made(usable: &Usable, now: u64) -> String {
    let counters = &usable.counters;
    let used = usable.last_used.map_or_else(|| "unknown".into(), |then| ago(now, then));
    format!(
        "{} put, {} evicted, {}; last opened or closed {used}",
        format_size(counters.put_bytes),
        of(counters.evictions, "block"),
        of(counters.unclean_deaths, "unclean death"),
    )
}

fn ago(now: u64, then: u64) -> String {
    format!("{} ago", span(Duration::from_secs(now.saturating_sub(then))))
}

fn rates(rates: &Rates) -> String {
    let mut text =
        format!("{:.2} GB/s put, {:.0} blocks/s evicted", rates.put_bytes_per_s / 1e9, rates.evictions_per_s);
    if rates.ready_bytes_per_s > 0.0 {
        text.push_str(&format!(", growing at {:.2} GB/s", rates.ready_bytes_per_s / 1e9));
    }
    text
}

fn owners(usable: &Usable, now: u64) -> String {
    let title = format!("  owners      {} of {} rows\n", usable.owners.len(), count(usable.owner_rows));
    if usable.owners.is_empty() {
        return title;
    }
    let head = ["row", "pid", "command", "state", "started", "stripes", "pins", "working on"];
    let rows = usable.owners.iter().map(|owner| {
        vec![
            owner.row.to_string(),
            owner.pid.to_string(),
            owner.command.clone().unwrap_or_else(|| "-".into()),
            if owner.alive { "alive" } else { "dead" }.into(),
            owner.since.map_or_else(|| "-".into(), |then| ago(now, then)),
            owner.stripes.to_string(),
            count(owner.pins),
            count(owner.intents),
        ]
    });
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    title + &table(&rows, "    ")
}

fn locks(usable: &Usable) -> String {
    let (roles, locks): (Vec<_>, Vec<_>) = usable.locks.iter().partition(|lock| lock.what == "janitor");
    let roles = roles.iter().map(|role| format!("  janitor     row {}\n", role.row));
    let held = locks.iter().map(|lock| {
        let what = lock.region.map_or_else(|| lock.what.to_owned(), |number| format!("region {number}"));
        format!("  lock        {what}, held by row {}\n", lock.row)
    });
    // A moment's work holds one or two; more is a sign of a process that was stopped.
    const MOST: usize = 8;
    let mut text: String = roles.chain(held.take(MOST)).collect();
    if locks.len() > MOST {
        text.push_str(&format!("  lock        and {} more\n", locks.len() - MOST));
    }
    text
}
