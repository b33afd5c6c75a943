//! `cascade doctor`. Its checks are tested on planted machines, beside them.

use serde_json::json;

use crate::rig::{Place, text};

#[test]
fn the_status_follows_from_the_findings_and_nothing_is_made() {
    let place = Place::new();
    let (code, document) = place.json(&["doctor"]);
    assert_eq!(document["schema"], json!("cascade.doctor/1"));
    let findings = document["findings"].as_array().unwrap();
    let problems = findings.iter().filter(|finding| finding["severity"] == "problem").count();
    assert_eq!((document["problems"].as_u64().unwrap() as usize, code), (problems, i32::from(problems > 0)));
    assert!(findings.len() > 10 && !place.dir().exists());
}

#[test]
fn an_arena_that_cannot_fit_is_a_problem_with_a_cure() {
    let place = Place::new();
    let output =
        place.command(&["doctor", "--quiet"]).env("CASCADE_SHM_CAPACITY", "900TiB").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let page = text(&output);
    assert!(
        page.contains("PROBLEM  shm.size") && page.contains("cure: sudo mount -o remount,size="),
        "{page}"
    );
    assert!(!page.contains("\nok "), "{page}");
}

#[test]
fn a_wrong_setting_is_named() {
    let output = Place::new().command(&["doctor"]).env("CASCADE_SHM_CAPACITY", "much").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("shm_capacity"), "{}", text(&output));
}

#[test]
fn an_arena_that_the_configured_store_refuses_is_a_problem() {
    let place = Place::new();
    drop(place.store("n1"));
    let look = |capacity: &str| {
        let output =
            place.command(&["doctor", "--json"]).env("CASCADE_SHM_CAPACITY", capacity).output().unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["check"] == "shm.arena").unwrap()
    };
    assert_eq!(look("32MiB")["severity"], json!("ok"));
    let other = look("16MiB");
    assert_eq!(other["severity"], json!("problem"));
    assert!(other["found"].as_str().unwrap().contains("capacity_bytes"), "{other}");
}
