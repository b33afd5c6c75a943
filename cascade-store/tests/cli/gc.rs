//! `cascade gc`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cascade_core::id::BlockId;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::child::child;
use crate::rig::{Place, close, put, text};

/// What became of each arena, by node.
fn outcomes(document: &Value) -> Vec<(String, String, String)> {
    let of = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    let entries = document["entries"].as_array().unwrap();
    entries.iter().map(|entry| (of(entry, "node"), of(entry, "status"), of(entry, "outcome"))).collect()
}

fn outcome(document: &Value, node: &str) -> (String, String) {
    let found = outcomes(document).into_iter().find(|(of, ..)| of == node);
    found.map(|(_, status, outcome)| (status, outcome)).unwrap_or_else(|| panic!("{node} in {document}"))
}

fn pair(status: &str, outcome: &str) -> (String, String) {
    (status.into(), outcome.into())
}

fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_warm_arena_stays_and_goes_only_when_old_and_confirmed() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 9999]);
    close(store);
    let (code, document) = place.json(&["gc", "--yes"]);
    assert_eq!((code, outcome(&document, "n1")), (0, pair("usable", "kept")));
    let (_, document) = place.json(&["gc", "--older-than", "1h", "--yes"]);
    assert_eq!(outcome(&document, "n1"), pair("usable", "kept"));
    let (_, document) = place.json(&["gc", "--older-than", "0s"]);
    assert_eq!(
        (outcome(&document, "n1"), &document["unconfirmed"]),
        (pair("usable", "needs_yes"), &json!(1))
    );
    let (_, document) = place.json(&["gc", "--older-than", "0s", "--yes", "--dry-run"]);
    assert_eq!(outcome(&document, "n1"), pair("usable", "would_remove"));
    assert!(place.path("n1").exists());
    let (_, document) = place.json(&["gc", "--older-than", "0s", "--yes"]);
    assert_eq!(outcome(&document, "n1"), pair("usable", "removed"));
    assert!(document["freed_bytes"].as_u64().unwrap() >= 32 << 20);
    assert!(!place.path("n1").exists());
}

#[test]
fn a_living_arena_is_never_removed_whatever_is_said() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 9999]);
    // Not even when its superblock is damaged under its owner.
    let file = std::fs::File::options().write(true).open(place.path("n1")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[9], 100).unwrap();
    let (_, document) = place.json(&["gc", "--older-than", "0s", "--all-nodes", "--yes"]);
    assert_eq!(outcome(&document, "n1"), pair("living", "kept"));
    assert!(place.path("n1").exists());
    close(store);
    let (_, document) = place.json(&["gc"]);
    assert_eq!(outcome(&document, "n1"), pair("damaged", "removed"));
}

#[test]
fn the_arena_of_a_killed_process_is_warm_for_the_next_store() {
    let place = Place::new();
    assert!(!child(&place, Signal::SIGKILL).wait().unwrap().success());
    let owner = &place.json(&["stat"]).1["arenas"][0]["owners"][0];
    assert_eq!((&owner["alive"], &owner["pins"]), (&json!(false), &json!(1)), "{owner}");
    let (_, document) = place.json(&["gc", "--yes"]);
    assert_eq!(outcome(&document, "n1"), pair("usable", "kept"));
    assert!(place.store("n1").contains(&BlockId::named("block")));
}

#[test]
fn empty_damaged_and_strange_files_are_told_apart() {
    let place = Place::new();
    close(place.store("n1"));
    close(place.store("n2"));
    let sound = std::fs::read(place.path("n2")).unwrap();
    write_private(&place.path("n2"), &sound[..100_000]);
    write_private(&place.path("n3"), b"notes of somebody");
    write_private(&place.path("n4"), &sound);
    std::fs::set_permissions(place.path("n4"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path("n5")).unwrap();
    write_private(&place.path("n6"), &sound);
    let (code, document) = place.json(&["gc"]);
    assert_eq!((code, outcome(&document, "n1")), (0, pair("usable", "removed")), "no block, nobody holds it");
    assert_eq!(outcome(&document, "n2"), pair("damaged", "kept"), "another node's");
    let (_, document) = place.json(&["gc", "--all-nodes"]);
    assert_eq!(outcome(&document, "n2"), pair("damaged", "removed"));
    assert_eq!(outcome(&document, "n3"), pair("foreign", "needs_yes"));
    assert_eq!(outcome(&document, "n4"), pair("guarded", "kept"));
    assert_eq!(outcome(&document, "n5"), pair("guarded", "kept"));
    assert_eq!(outcome(&document, "n6"), pair("misnamed", "needs_yes"));
    let output = place.run(&["gc", "--all-nodes", "--yes"]);
    assert!(text(&output).contains("chmod go-rwx"), "{}", text(&output));
    let left: Vec<bool> = (1..=6).map(|n| place.path(&format!("n{n}")).symlink_metadata().is_ok()).collect();
    assert_eq!(left, [false, false, false, true, true, false]);
}

#[test]
fn a_page_says_what_went_and_what_it_gave_back() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 9999]);
    close(store);
    let page = text(&place.run(&["gc", "--older-than", "0s"]));
    assert!(page.contains("kept (--yes)") && page.contains("0 items removed"), "{page}");
    let page = text(&place.run(&["gc", "--older-than", "0s", "--yes"]));
    assert!(page.contains("1 item removed") && page.contains("MiB freed"), "{page}");
    assert!(text(&place.run(&["gc"])).contains("Nothing in"));
}

#[test]
fn folders_of_killed_benchmarks_go_and_those_of_running_ones_stay() {
    let place = Place::new();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let gone = place.root().join(format!("cascade-bench-{}", child.id()));
    child.wait().unwrap();
    let runs = place.root().join(format!("cascade-bench-{}", std::process::id()));
    for folder in [&gone, &runs] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("arena.x"), vec![1; 100_000]).unwrap();
    }
    let (code, document) = place.json(&["gc"]);
    assert_eq!((code, &document["removed"]), (0, &json!(1)));
    assert!(!gone.exists() && runs.exists());
}

#[test]
fn a_wrong_duration_says_what_is_right() {
    let output = Place::new().run(&["gc", "--older-than", "7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("such as 7d"), "{}", text(&output));
}
