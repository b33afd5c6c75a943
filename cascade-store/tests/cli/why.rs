//! `cascade why`, on arenas that evicted, forgot and damaged blocks for real.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Put, Store, StoreConfig};
use serde_json::Value;

use crate::rig::{Place, close, damage, put, text};

fn verdicts(document: &Value) -> Vec<&str> {
    document["ids"].as_array().unwrap().iter().map(|answer| answer["verdict"].as_str().unwrap()).collect()
}

#[test]
fn what_became_of_each_block_is_told() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "kept", &[1; 5000]);
    put(&store, "deleted", &[2; 5000]);
    put(&store, "damaged", &[0xD7; 300_000]);
    assert!(store.delete(&BlockId::named("deleted")));
    close(store);
    damage(&place.path("n1"), &[0xD7; 4096]);
    let store = place.store("n1");
    let found = store.lease(&BlockId::named("damaged")).map(|_| ());
    assert_eq!(found, Err(MissReason::Corrupt));
    let hex = BlockId::named("kept").to_hex();
    let (code, document) = place.json(&["why", &hex, "name:deleted", "name:damaged", "name:never"]);
    assert_eq!((code, &document["schema"]), (1, &Value::from("cascade.why/1")));
    assert_eq!(verdicts(&document), ["hit", "deleted", "damaged", "not_known"]);
    assert_eq!((&document["ids"][0]["bytes"], &document["ids"][0]["kind"]), (&5000.into(), &"name".into()));
    assert!(document["ids"][1]["left"].as_u64() > Some(1_700_000_000), "{document}");
    assert!(document["ids"][3]["record_since"].as_u64() > Some(1_700_000_000), "{document}");
    let output = place.run(&["why", "name:kept"]);
    assert!(output.status.success() && text(&output).contains("it is in the arena"), "{}", text(&output));
    // An answer of people for people: what to compare.
    let chain = place.run(&["why", &format!("{}e3", &hex[..62])]);
    assert!(
        text(&chain).contains("key space") && text(&chain).contains("reaches back to"),
        "{}",
        text(&chain)
    );
    close(store);
    // Put again it is a hit again, whatever is remembered of it.
    let store = place.store("n1");
    put(&store, "deleted", &[3; 5000]);
    assert_eq!(verdicts(&place.json(&["why", "name:deleted"]).1), ["hit"]);
}

#[test]
fn a_block_that_was_evicted_is_told_from_one_that_never_was() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "first", &[1; 1 << 20]);
    for number in 0..80_u32 {
        let outcome =
            store.put(&BlockId::content(&number.to_le_bytes()), &[number as u8; 1 << 20], Put::default());
        assert_eq!(outcome, Outcome::Stored);
    }
    let is_gone = |id: &BlockId| !store.contains(id);
    let gone: Vec<BlockId> =
        (0..80_u32).map(|number| BlockId::content(&number.to_le_bytes())).filter(is_gone).collect();
    assert!(gone.len() > 30, "{} of 80 were evicted", gone.len());
    let ids: Vec<String> = gone.iter().map(BlockId::to_hex).collect();
    let arguments: Vec<&str> = std::iter::once("why").chain(ids.iter().map(String::as_str)).collect();
    let (code, document) = place.json(&arguments);
    let evicted = verdicts(&document).into_iter().filter(|verdict| *verdict == "evicted").count();
    // One place can be another's by now; most are not.
    assert!(code == 1 && evicted * 10 >= gone.len() * 9, "{evicted} of {}: {document}", gone.len());
}

#[test]
fn a_block_that_only_files_have_is_a_hit_and_one_that_they_lost_is_told() {
    let place = Place::new();
    let files = tempfile::tempdir().unwrap();
    let dir = files.path().join("tier");
    let open = || {
        let builder = StoreConfig::builder().without_environment().shm_path(place.dir()).pfs_path(&dir);
        let builder = builder.shm_capacity("32MiB").unwrap().set("node", "n1").unwrap();
        Store::open(&builder.set("pfs_capacity", "256MiB").unwrap().resolve().unwrap()).unwrap()
    };
    let store = open();
    put(&store, "below", &[5; 70_000]);
    assert_eq!(store.demote(&[BlockId::named("below")]), [Outcome::Stored]);
    let ask = || {
        let output =
            place.command(&["why", "name:below", "--json"]).env("CASCADE_PFS_PATH", &dir).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
    };
    let found = ask();
    let answer = &found["ids"][0];
    let said = ["verdict", "arena", "files"].map(|name| answer[name].as_str().unwrap());
    assert_eq!((said, &answer["bytes"]), (["hit", "absent", "there"], &70_000.into()));
    close(store);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(ask()["ids"][0]["files"], "absent");
}

#[test]
fn without_an_arena_it_says_so_and_a_wrong_id_is_named() {
    let place = Place::new();
    let (code, document) = place.json(&["why", "name:x"]);
    assert_eq!((code, verdicts(&document)), (1, vec!["no_arena"]));
    let output = place.run(&["why", "abc"]);
    assert!(
        output.status.code() == Some(2) && text(&output).contains("64 hexadecimal digits"),
        "{}",
        text(&output)
    );
    assert!(!place.dir().exists());
}
