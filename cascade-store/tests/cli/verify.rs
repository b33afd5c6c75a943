//! `cascade verify`.

use cascade_core::id::BlockId;
use serde_json::json;

use crate::rig::{Place, damage, put, text};

#[test]
fn a_sound_arena_passes_while_others_use_it() {
    let place = Place::new();
    let store = place.store("n1");
    (0..20_u8).for_each(|number| {
        put(&store, &format!("b{number}"), &vec![number; 50_000 * usize::from(number + 1)])
    });
    let lease = store.lease(&BlockId::named("b3")).unwrap();
    let (code, document) = place.json(&["verify"]);
    let expected = json!({ "blocks": 20, "sound": 20, "damaged": 0, "dropped": 0, "skipped": 0, "disagreements": 0,
        "is_complete": true, "schema": "cascade.verify/1", "payload_bytes": 50_000 * 210 });
    assert_eq!(code, 0);
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&document[name], value, "{name}");
    }
    drop(lease);
    let page = text(&place.run(&["verify", "--threads", "3"]));
    assert!(
        page.contains("20 blocks") && page.contains("GB/s") && page.contains("agree with each other"),
        "{page}"
    );
}

#[test]
fn damage_is_found_named_and_dropped_when_told() {
    let place = Place::new();
    let store = place.store("n1");
    let mut bytes = vec![3; 200_000];
    bytes[120_000..120_008].copy_from_slice(b"planted!");
    put(&store, "sound", &[1; 9999]);
    put(&store, "damaged", &bytes);
    damage(&place.path("n1"), b"planted!");
    let id = BlockId::named("damaged").to_string();
    let (code, document) = place.json(&["verify"]);
    assert_eq!((code, &document["damaged"], &document["dropped"]), (1, &json!(1), &json!(0)));
    assert_eq!(document["damaged_blocks"][0]["id"], json!(id));
    assert!(store.contains(&BlockId::named("damaged")), "nothing is dropped unless told");
    let output = place.run(&["verify", "--repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains(&format!("block {id}")) && text(&output).contains("1 dropped"),
        "{}",
        text(&output)
    );
    assert!(!store.contains(&BlockId::named("damaged")) && store.contains(&BlockId::named("sound")));
    let (code, document) = place.json(&["verify"]);
    assert_eq!((code, &document["blocks"]), (0, &json!(1)));
}

#[test]
fn tables_that_disagree_are_found_when_nobody_else_is_at_work() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 4096]);
    let offsets = store.arena().superblock().geometry.offsets();
    drop(store);
    let file = std::fs::File::options().read(true).write(true).open(place.path("n1")).unwrap();
    let mut word = [0; 8];
    file.read_exact_at(&mut word, offsets.bitmaps).unwrap();
    file.write_all_at(&(u64::from_le_bytes(word) | 1 << 40).to_le_bytes(), offsets.bitmaps).unwrap();
    let (code, document) = place.json(&["verify"]);
    assert_eq!((code, &document["damaged"], &document["disagreements"]), (1, &json!(0), &json!(1)));
    assert!(text(&place.run(&["verify"])).contains("DISAGREE on 1 unit"));
}

#[test]
fn an_arena_that_is_not_there_is_neither_sound_nor_made() {
    let place = Place::new();
    let output = place.run(&["verify"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("cascade stat"), "{}", text(&output));
    assert!(!place.dir().exists());
}
