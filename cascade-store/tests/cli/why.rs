//! `cascade why`, on arenas that evicted, forgot and damaged blocks for real.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::keyspace::KeySpace;
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

#[test]
fn the_prefix_of_a_prompt_is_told_block_by_block_and_where_it_breaks() {
    let place = Place::new();
    let store = place.store("n1");
    let tokens: Vec<u32> = (0..70).collect();
    let space = KeySpace::builder("m").revision("r").dtype("bf16").layout("l").block_tokens(16);
    let space = space.layers(2).kv_heads(1).tenant_secret([0xab; 16]).build().unwrap();
    let ids = space.root().chain(&tokens);
    for id in [&ids[0], &ids[1], &ids[3]] {
        assert_eq!(store.put(id, &[1; 5000], Put::default()), Outcome::Stored);
    }
    let write = |name: &str, content: &str| {
        let path = place.root().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = "ab".repeat(16);
    let toml = format!(
        "model = 'm'\nrevision = 'r'\ndtype = 'bf16'\nlayout = 'l'\nblock_tokens = 16\nlayers = 2\nkv_heads = 1\ntenant_secret = '{secret}'"
    );
    let space = write("space.toml", &toml);
    let list = write("tokens.json", &serde_json::to_string(&tokens).unwrap());
    let (code, document) = place.json(&["why", "--space", &space, "--tokens", &list]);
    assert_eq!((code, verdicts(&document)), (1, vec!["hit", "hit", "not_known", "hit"]));
    let prefix = &document["prefix"];
    let number = |name: &str| prefix[name].as_u64().unwrap();
    let numbers =
        ["blocks", "hit_blocks", "hit_tokens", "rest_tokens", "first_break", "stranded_blocks"].map(number);
    assert_eq!(numbers, [4, 2, 32, 6, 2, 1]);
    assert_eq!(document["ids"][2]["id"], Value::from(ids[2].to_hex()));
    let words = tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let page = text(&place.run(&["why", "--space", &space, "--tokens", &write("tokens.txt", &words)]));
    for part in [
        "blocks 0 to 1  hit",
        "2 of 4 blocks hit",
        "breaks at block 2 (tokens 32 to 47)",
        "1 hit behind the break",
    ] {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    // With extras, each under its own.
    let extra = serde_json::json!({ "tokens": tokens, "extra": ["00", "", "", ""] }).to_string();
    let extra = place.json(&["why", "--space", &space, "--tokens", &write("extra.json", &extra)]).1;
    assert_eq!(extra["prefix"]["hit_blocks"], 0);
    let refused = |space: &str, tokens: &str, part: &str| {
        let output = place.run(&["why", "--space", space, "--tokens", tokens]);
        let said = text(&output);
        assert!(
            output.status.code() == Some(2) && said.contains(part) && !said.contains(&secret),
            "{part:?} in {said}"
        );
    };
    refused(&space, &write("few", "1 2 3"), "no whole block of 16");
    refused(&space, &write("no", "1 x 3"), "\"x\"");
    refused(
        &space,
        &write("extras", &serde_json::json!({ "tokens": tokens, "extra": ["00"] }).to_string()),
        "1 extras",
    );
    refused(&write("both.toml", &format!("{toml}\nweights = 'w'")), &list, "exactly one of weights");
    refused(&write("more.toml", &format!("{toml}\ncolour = 'w'")), &list, "colour");
    refused(&write("odd.toml", &format!("{toml}0")), &list, "no key space");
    refused(&write("secret.toml", &toml.replace(&secret, &format!("{secret}x"))), &list, "hexadecimal");
    refused(place.root().join("none").to_str().unwrap(), &list, "none");
}
