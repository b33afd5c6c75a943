use super::*;

#[test]
fn every_absence_has_a_reason_and_a_cure() {
    let refused = |code| Absence::Refused { function: "cuInit", code, name: "CUDA_ERROR_X".into() };
    let absences = [
        (Absence::NoLibrary { reason: "not found".into() }, "not found"),
        (Absence::NotADriver { function: "cuInit" }, "cuInit"),
        (Absence::NoDevice, "CUDA_VISIBLE_DEVICES"),
        (refused(34), "stub"),
        (refused(802), "fabric"),
        (refused(804), "kernel module"),
        (refused(999), "999 CUDA_ERROR_X"),
    ];
    for (absence, word) in absences {
        let text = absence.to_string();
        assert!(
            text.starts_with("no GPU tier: ") && text.contains(word) && text.ends_with(absence.cure()),
            "{text}"
        );
    }
}

#[test]
fn the_first_library_that_loads_answers() {
    let missing = "libcascade-test-that-is-nowhere.so.1";
    // The C library loads everywhere and is no driver.
    assert_eq!(first(&[missing, "libc.so.6"]), Err(Absence::NotADriver { function: "cuInit" }));
    let Err(Absence::NoLibrary { reason }) = first(&[missing, "libcascade-test-neither.so"]) else {
        panic!("neither library exists");
    };
    assert!(reason.contains(missing), "{reason}");
}

#[test]
fn the_numa_node_is_read_where_the_kernel_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    for (device, text, expected) in [("0000:3b:00.0", "1\n", Some(1)), ("0000:3c:00.0", "-1\n", None)] {
        std::fs::create_dir(folder.path().join(device)).unwrap();
        std::fs::write(folder.path().join(device).join("numa_node"), text).unwrap();
        assert_eq!(numa_node(folder.path(), device), expected);
    }
    assert_eq!(numa_node(folder.path(), "0000:3d:00.0"), None);
}
