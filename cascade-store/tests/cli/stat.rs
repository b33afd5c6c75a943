//! `cascade stat`.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use cascade_core::id::BlockId;
use cascade_store::Put;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::child::child;
use crate::rig::{Place, put, text};

#[test]
fn a_place_without_arenas_stays_as_it_was() {
    let place = Place::new();
    let output = place.run(&["stat"]);
    assert!(output.status.success() && text(&output).contains("No arena in"), "{}", text(&output));
    let (code, document) = place.json(&["stat"]);
    assert_eq!((code, &document["arenas"], &document["schema"]), (0, &json!([]), &json!("cascade.stat/1")));
    assert!(!place.dir().exists());
}

#[test]
fn the_document_says_what_the_arena_holds() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "small", &[1; 5000]);
    let _ = store.put(&BlockId::named("large"), &[2; 200_000], Put::prefix());
    let lease = store.lease(&BlockId::named("large")).unwrap();
    let (code, document) = place.json(&["stat"]);
    assert_eq!((code, &document["node"]), (0, &json!("n1")));
    let arena = &document["arenas"][0];
    let is = |pointer: &str, value: Value| assert_eq!(arena.pointer(pointer), Some(&value), "{pointer}");
    is("/path", json!(place.path("n1")));
    is("/is_usable", json!(true));
    is("/in_use", json!(true));
    is("/format/version", json!(store.arena().superblock().version));
    is("/format/incarnation", json!(format!("{:016x}", store.arena().superblock().incarnation)));
    is("/capacity_bytes", json!(32 << 20));
    is("/ready_bytes", json!(32 << 20));
    is("/used_bytes", json!(store.stats().arena().used_bytes));
    is("/blocks/total", json!(2));
    is("/blocks/payload_bytes", json!(205_000));
    is("/blocks/prefix", json!({ "blocks": 1, "payload_bytes": 200_000 }));
    is("/blocks/verified", json!(2));
    is("/slots/states/sealed", json!(2));
    is("/slots/used", json!(2));
    is("/regions/large", json!(1));
    is("/counters/put_bytes", json!(205_000));
    is("/quarantine/blocks", json!(0));
    assert!(arena["pages"]["kind"].is_string() && arena["pages"]["bytes"].as_u64() >= Some(4096), "{arena}");
    is("/owners/0/pid", json!(std::process::id()));
    is("/owners/0/alive", json!(true));
    is("/owners/0/pins", json!(1));
    assert_eq!(arena["owners"].as_array().unwrap().len(), 1);
    drop(lease);
    drop(store);
    assert_eq!(place.json(&["stat"]).1["arenas"][0]["owners"], json!([]), "the arena outlives its owners");
}

#[test]
fn what_stores_of_other_processes_counted_is_shown_after_they_were_killed_too() {
    let place = Place::new();
    let mut killed = child(&place, Signal::SIGKILL);
    killed.wait().unwrap();
    let stores = |pointer: &str| {
        let document = place.json(&["stat"]).1;
        document["arenas"][0]["stores"]
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| panic!("{pointer} in {document}"))
    };
    assert_eq!((stores("/puts"), stores("/hits"), stores("/misses")), (json!(1), json!(1), json!(0)));
    let store = place.store("n1");
    store.set_block_tokens(16);
    let mut out = vec![0; 9999];
    assert!(store.get(&BlockId::named("block"), &mut out).is_ok());
    assert!(store.get(&BlockId::named("none"), &mut out).is_err());
    assert!(store.contains(&BlockId::named("block")) && !store.contains(&BlockId::named("none")));
    assert_eq!(
        (stores("/hits"), stores("/misses"), stores("/misses_by_reason/absent")),
        (json!(2), json!(1), json!(1))
    );
    assert_eq!((stores("/located"), stores("/located_hits")), (json!(2), json!(1)));
    assert_eq!((stores("/tiers/1/tier"), stores("/tiers/1/hits")), (json!("arena"), json!(2)));
    assert_eq!(
        (stores("/tiers/1/served_bytes"), stores("/tiers/1/saved_tokens")),
        (json!(2 * 9999), json!(16))
    );
    assert!(stores("/tiers/1/latency_us/p50").as_f64().unwrap() > 0.0);
    assert_eq!((stores("/tiers/0/served_bytes"), stores("/warning")), (Value::Null, Value::Null));
    let page = text(&place.run(&["stat"]));
    for part in ["2 of 3 fetches and leases (66.7 %); 1 missed: 1 absent", "1 of 2 ids found", "tokens saved"]
    {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    // What cannot be read is said to be unknown, and is no error.
    drop(store);
    std::fs::write(place.dir().join("counters.n1"), b"CASCOUNT and no more").unwrap();
    let (code, document) = place.json(&["stat"]);
    assert_eq!((code, &document["arenas"][0]["stores"]), (0, &Value::Null));
    assert!(
        document["arenas"][0]["stores_problem"].as_str().unwrap().contains("another version"),
        "{document}"
    );
}

#[test]
fn puts_that_never_hit_are_warned_of_in_stat_and_doctor() {
    let place = Place::new();
    let store = place.store("n1");
    for number in 0..4000_u32 {
        let _ = store.put(&BlockId::content(&number.to_le_bytes()), &[1; 64], Put::default());
    }
    // Ten minutes ago, as far as the record goes.
    let file = std::fs::File::options().read(true).write(true).open(place.dir().join("counters.n1")).unwrap();
    let (mut first, at) = ([0; 8], 4096 + u64::from(std::process::id() % 16) * 8192);
    file.read_exact_at(&mut first, at).unwrap();
    let first = u64::from_le_bytes(first);
    assert!(first > 1 << 30);
    file.write_all_at(&(first - 700).to_le_bytes(), at).unwrap();
    let page = text(&place.run(&["stat"]));
    assert!(page.contains("WARNING") && page.contains("puts but never hits: 4,000 blocks"), "{page}");
    let (_, document) = place.json(&["doctor"]);
    let find = |document: &Value| {
        let findings = document["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["check"] == "store.hits").unwrap()
    };
    assert_eq!(find(&document)["severity"], "note");
    assert!(store.contains(&BlockId::content(&3999_u32.to_le_bytes())));
    assert_eq!(find(&place.json(&["doctor"]).1)["severity"], "ok");
}

#[test]
fn the_page_has_sizes_for_people() {
    let place = Place::new();
    let store = place.store("n1");
    put(&store, "block", &[1; 8 << 20]);
    let page = text(&place.run(&["stat"]));
    for part in ["8MiB used of 32MiB (25.0 %), 32MiB ready", "1 block (8MiB)", "alive", "node n1, format"] {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    assert!(!page.contains("NOT USABLE"));
}

#[test]
fn what_is_not_usable_is_shown_with_the_reason_and_the_rest_too() {
    let place = Place::new();
    drop(place.store("n1"));
    std::fs::write(place.path("n2"), b"not an arena").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.path("n2"), std::fs::Permissions::from_mode(0o600)).unwrap();
    // One in another's place, and one that counts more regions than it has: stores refuse both.
    for name in ["n3", "n4"] {
        drop(place.store(if name == "n3" { "other" } else { name }));
    }
    std::fs::rename(place.path("other"), place.path("n3")).unwrap();
    let miscounted = std::fs::File::options().write(true).open(place.path("n4")).unwrap();
    let control = cascade_shm::inspect::Inspection::open(&place.path("n4")).unwrap().unwrap();
    let control = control.superblock().geometry.offsets().control;
    std::os::unix::fs::FileExt::write_all_at(&miscounted, &[1], control + 7).unwrap();
    let (code, document) = place.json(&["stat"]);
    let arenas = document["arenas"].as_array().unwrap();
    assert_eq!((code, arenas.len()), (0, 4));
    assert_eq!((&arenas[2]["is_usable"], &arenas[2]["problem"]), (&json!(false), &json!("misnamed")));
    assert_eq!((&arenas[3]["is_usable"], &arenas[3]["problem"]), (&json!(false), &json!("damaged")));
    assert_eq!(arenas[0]["is_usable"], json!(true));
    assert_eq!((&arenas[1]["is_usable"], &arenas[1]["problem"]), (&json!(false), &json!("foreign")));
    assert!(arenas[1]["error"].as_str().unwrap().contains("arena.n2"));
    assert!(text(&place.run(&["stat"])).contains("NOT USABLE (foreign)"));
}

#[test]
fn watching_gives_a_line_for_each_tick_with_rates_and_ends_at_ctrl_c() {
    let place = Place::new();
    let store = place.store("n1");
    let mut command = place.command(&["stat", "--watch", "0.1", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["arenas"][0]["rates"], Value::Null, "there was no tick before the first");
    put(&store, "block", &[1; 1 << 20]);
    drop(store.lease(&BlockId::named("block")).unwrap());
    // They fall between two ticks, whichever those are.
    let rates: Vec<Value> = (0..3).map(|_| next()["arenas"][0]["rates"].clone()).collect();
    for pointer in
        ["/put_bytes_per_s", "/stores/puts_per_s", "/stores/hits_per_s", "/stores/tiers/1/hits_per_s"]
    {
        let seen: Vec<f64> =
            rates.iter().map(|rates| rates.pointer(pointer).unwrap().as_f64().unwrap()).collect();
        assert!(seen.iter().any(|rate| *rate > 0.0), "{pointer}: {seen:?}");
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_arena_whose_process_was_stopped_is_shown_as_it_stands() {
    let place = Place::new();
    let mut stopped = child(&place, Signal::SIGSTOP);
    let pid = Pid::from_raw(i32::try_from(stopped.id()).unwrap());
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    let (code, document) = place.json(&["stat"]);
    kill(pid, Signal::SIGKILL).unwrap();
    stopped.wait().unwrap();
    let owner = &document["arenas"][0]["owners"][0];
    assert_eq!((code, &owner["alive"], &owner["pins"]), (0, &json!(true), &json!(1)));
}

#[test]
fn a_reader_that_goes_ends_the_watch_without_a_word() {
    let place = Place::new();
    drop(place.store("n1"));
    let mut command = place.command(&["stat", "--watch", "0.1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("arena.n1"));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

#[test]
fn the_place_is_found_as_the_store_finds_it() {
    let place = Place::new();
    drop(place.store("n1"));
    let file = place.root().join("cascade.toml");
    std::fs::write(&file, format!("shm_path = {:?}\nnode = \"from-file\"\n", place.root().join("elsewhere")))
        .unwrap();
    let file = file.to_str().unwrap();
    let dir_of = |arguments: &[&str]| place.json(arguments).1["dir"].clone();
    assert_eq!(dir_of(&["stat", "--config", file]), json!(place.dir()), "environment over file");
    let elsewhere = place.root().join("third");
    let over = ["stat", "--dir", elsewhere.to_str().unwrap()];
    assert_eq!(dir_of(&over), json!(elsewhere), "option over environment");
    let output = place.command(&["stat", "--config", file, "--json"]).env_remove("CASCADE_SHM_PATH").output();
    let document: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(document["dir"], json!(place.root().join("elsewhere")));
    let missing = place.run(&["stat", "--config", "/no/such/file"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing).contains("/no/such/file"), "{}", text(&missing));
}
