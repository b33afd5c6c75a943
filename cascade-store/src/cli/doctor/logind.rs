//! systemd-logind's `RemoveIPC`: at the end of a user's last session it deletes that user's files in /dev/shm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Finding;
use super::machine::Machine;

const NAME: &str = "session.remove_ipc";
/// Where logind's files may lie; of two drop-ins of one name the first place wins.
const PLACES: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    if !machine.dir.starts_with("/dev/shm") {
        return vec![Finding::ok(NAME, "the directory", "logind deletes in /dev/shm only")];
    }
    if !machine.at("/run/systemd/users").is_dir() {
        return vec![Finding::ok(NAME, "/run/systemd/users", "systemd-logind does not run here")];
    }
    let (removes, source) = setting(machine);
    if !removes {
        return vec![Finding::ok(NAME, source, "RemoveIPC is off")];
    }
    let Some(uid) = machine.uid() else {
        return vec![Finding::note(
            NAME,
            source,
            "RemoveIPC is on, and the user cannot be told",
            "loginctl enable-linger",
        )];
    };
    if uid <= last_system_uid(machine) {
        return vec![Finding::ok(
            NAME,
            source,
            format!("RemoveIPC is on, and spares system users such as uid {uid}"),
        )];
    }
    let user = user_name(machine, uid);
    if user.as_ref().is_some_and(|user| machine.at("/var/lib/systemd/linger").join(user).exists()) {
        return vec![Finding::ok(NAME, "/var/lib/systemd/linger", "RemoveIPC is on, and this user lingers")];
    }
    let user = user.unwrap_or_else(|| uid.to_string());
    let found = format!(
        "RemoveIPC is on: when {user} logs out of this node for the last time, the arena's file is deleted, also \
                         while a job uses it"
    );
    let cure = format!(
        "loginctl enable-linger {user} (or sudo: RemoveIPC=no in /etc/systemd/logind.conf, then `systemctl \
                        restart systemd-logind`)"
    );
    vec![Finding::problem(NAME, source, found, cure)]
}

/// What is in force, and the file that says so.
fn setting(machine: &Machine) -> (bool, String) {
    let main = PLACES
        .iter()
        .map(|place| Path::new(place).join("logind.conf"))
        .find(|file| machine.at(file).is_file());
    let mut source = "systemd's default".to_owned();
    // Distributions that build in another default show it as a comment.
    let mut removes = true;
    if let Some(file) = &main {
        let text = machine.read(file).unwrap_or_default();
        if let Some(value) = last_value(&text, "#RemoveIPC=") {
            (removes, source) = (value, format!("{} (the default, as its comment says)", file.display()));
        }
    }
    for file in main.into_iter().chain(drop_ins(machine)) {
        if let Some(value) = machine.read(&file).and_then(|text| last_value(&text, "RemoveIPC=")) {
            (removes, source) = (value, file.display().to_string());
        }
    }
    (removes, source)
}

/// Drop-ins in the order of their names, whatever directory they lie in.
fn drop_ins(machine: &Machine) -> impl Iterator<Item = PathBuf> {
    let mut files = BTreeMap::new();
    for place in PLACES.iter().rev() {
        let dir = Path::new(place).join("logind.conf.d");
        for entry in std::fs::read_dir(machine.at(&dir)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                files.insert(entry.file_name(), dir.join(entry.file_name()));
            }
        }
    }
    files.into_values()
}

fn last_value(text: &str, key: &str) -> Option<bool> {
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix(key))?;
    match value.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" | "y" | "t" => Some(true),
        "no" | "false" | "off" | "0" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// systemd takes it from login.defs when it is built.
fn last_system_uid(machine: &Machine) -> u32 {
    let text = machine.read("/etc/login.defs").unwrap_or_default();
    let value = text.lines().find_map(|line| line.trim().strip_prefix("SYS_UID_MAX"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(999)
}

fn user_name(machine: &Machine, uid: u32) -> Option<String> {
    let table = machine.read("/etc/passwd").unwrap_or_default();
    let named = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.first().map(|name| (*name).to_owned()))?
    });
    // Users of a directory service are not in the table.
    named.or_else(|| machine.variable("USER").map(str::to_owned))
}
