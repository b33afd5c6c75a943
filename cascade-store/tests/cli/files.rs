//! The commands with `--pfs`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Lookup, PutMeta, Tier};
use cascade_pfs::{PfsConfig, PfsTier};
use serde_json::json;

use crate::rig::{Place, damage, text};

fn id(number: u8) -> BlockId {
    BlockId::named(&format!("block {number}"))
}

/// A tier with ten blocks of 50,000 bytes.
fn tier(dir: &Path) -> PfsTier {
    let tier = PfsTier::open(PfsConfig::new(dir, 64 << 20)).unwrap();
    let store = |number: u8| {
        let mut bytes = vec![number; 50_000];
        bytes[30_000..30_008].copy_from_slice(format!("planted{number}").as_bytes());
        Op::Store { id: id(number), from: Piece::shared(bytes.into()).into(), meta: PutMeta::default() }
    };
    let outcomes = tier.submit(Batch::new((0..10).map(store).collect()));
    let outcomes = outcomes.wait(Instant::now() + Duration::from_secs(30)).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    tier
}

fn is_there(tier: &PfsTier, number: u8) -> bool {
    let mut found = [Lookup::Pending];
    tier.lookup(&[id(number)], &mut found);
    found[0].is_hit()
}

fn named(dir: &Path, end: &str) -> PathBuf {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(end)).min().unwrap()
}

#[test]
fn files_are_verified_and_damage_is_put_out_of_use_when_told() {
    let place = Place::new();
    let dir = place.root().join("files");
    let files = dir.to_str().unwrap();
    let held = tier(&dir);
    let (code, document) = place.json(&["verify", "--pfs", files]);
    assert_eq!((code, &document["sound"], &document["damages"]), (0, &json!(10), &json!(0)), "{document}");
    assert_eq!((&document["schema"], &document["segments"]), (&json!("cascade.verify.pfs/1"), &json!(1)));
    damage(&named(&dir, ".seg"), b"planted3");
    let (code, document) = place.json(&["verify", "--pfs", files]);
    assert_eq!((code, &document["sound"], &document["lost"]), (1, &json!(9), &json!(1)), "{document}");
    assert_eq!(document["findings"][0]["id"], json!(id(3).to_string()));
    assert!(is_there(&held, 3), "nothing is done unless told");
    let output = place.run(&["verify", "--pfs", files, "--repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("put out of use") && text(&output).contains("GB/s"), "{}", text(&output));
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_there(&held, 3) {
        assert!(Instant::now() < deadline, "who follows logs still offers it");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!((0..10).filter(|number| *number != 3).all(|number| is_there(&held, number)));
    let (code, document) = place.json(&["verify", "--pfs", files]);
    assert_eq!((code, &document["lost"], &document["findings"][0]["is_known"]), (0, &json!(0), &json!(true)));
    let output = place.run(&["verify", "--pfs", "/no/such/place"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("/no/such/place"));
}

#[test]
fn writers_are_shown_and_what_nobody_needs_goes() {
    let place = Place::new();
    let dir = place.root().join("files");
    let files = dir.to_str().unwrap();
    let held = tier(&dir);
    let (code, document) = place.json(&["stat", "--pfs", files]);
    let writer = &document["writers"][0];
    assert_eq!((code, &document["blocks"], &writer["life"]), (0, &json!(10), &json!("lives")), "{document}");
    assert_eq!((&writer["capacity_bytes"], &writer["segments"]), (&json!(64 << 20), &json!(1)));
    drop(held);
    let page = text(&place.run(&["stat", "--pfs", files]));
    assert!(page.contains("ended") && page.contains("10 blocks in 1 segment"), "{page}");
    let (code, document) = place.json(&["gc", "--pfs", files]);
    assert_eq!((code, &document["removed"]), (0, &json!(0)), "{document}");
    std::fs::remove_file(named(&dir, ".seg")).unwrap();
    let (_, document) = place.json(&["gc", "--pfs", files, "--dry-run"]);
    assert_eq!(document["removed"], json!(2));
    assert!(named(&dir, ".log").exists());
    let output = place.command(&["gc", "--pfs"]).env("CASCADE_PFS_PATH", &dir).output().unwrap();
    assert!(output.status.success() && text(&output).contains("2 files removed"), "{}", text(&output));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn the_doctor_tries_a_directory_and_leaves_nothing() {
    let place = Place::new();
    let dir = place.root().join("files");
    std::fs::create_dir(&dir).unwrap();
    let (_, document) = place.json(&["doctor", "--pfs", dir.to_str().unwrap()]);
    let findings = document["findings"].as_array().unwrap();
    let of = |check: &str| findings.iter().find(|finding| finding["check"] == check).unwrap();
    assert_eq!(of("pfs.filesystem")["severity"], json!("note"), "memory goes with the node");
    assert_eq!(of("pfs.writable")["severity"], json!("ok"));
    assert!(of("pfs.delay")["found"].as_str().unwrap().contains("another handle finds a block after"));
    for check in ["pfs.space", "pfs.direct_io", "pfs.io_uring", "pfs.locks", "pfs.sync"] {
        assert!(of(check)["found"].is_string());
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    // What is configured is looked at without being asked to.
    let output = place.command(&["doctor"]).env("CASCADE_PFS_PATH", &dir).output().unwrap();
    assert!(text(&output).contains("pfs.writable"), "{}", text(&output));
    let output = place.run(&["doctor", "--pfs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("pfs_path"), "{}", text(&output));
}
