//! The probe against a small driver of our own (`fake_driver.c`), so that the real loading and calling is tested
//! on machines without a GPU. It shows what the probe makes of a driver's answers, not what real drivers answer.

#![allow(clippy::unwrap_used, reason = "clippy sees helpers of an integration test as library code")]

use std::path::{Path, PathBuf};
use std::process::Command;

use cascade_gpu::driver::{Absence, Driver, probe_library};
use tempfile::TempDir;

/// Builds the driver with these definitions and asks it.
fn ask(definitions: &[&str]) -> Result<Driver, Absence> {
    let (_folder, library) = build(definitions);
    probe_library(&library)
}

fn build(definitions: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    compiler.args(definitions.iter().map(|definition| format!("-D{definition}")));
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    (folder, library)
}

#[test]
fn devices_are_listed_with_what_the_driver_says() {
    let driver = ask(&["DEVICES=2"]).unwrap();
    assert_eq!(driver.cuda_version, (12, 8));
    assert_eq!(driver.devices.len(), 2);
    let second = &driver.devices[1];
    assert_eq!((second.ordinal, second.name.as_str()), (1, "Fake GPU 1"));
    assert_eq!(second.memory_bytes, 80 << 30);
    assert_eq!((second.compute_capability, second.multiprocessors), ((9, 0), 132));
    assert!(second.unified_addressing);
    assert_eq!((second.pci_bus_id.as_str(), second.numa_node), ("ffff:fb:00.0", None));
}

#[test]
fn no_visible_device_is_an_absence() {
    assert_eq!(ask(&["DEVICES=0"]), Err(Absence::NoDevice));
    assert_eq!(ask(&["INIT=100"]), Err(Absence::NoDevice));
}

#[test]
fn a_refused_call_is_named_with_its_code() {
    let refused = |function, code, name: &str| Err(Absence::Refused { function, code, name: name.into() });
    assert_eq!(ask(&["INIT=803"]), refused("cuInit", 803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"));
    assert_eq!(ask(&["INIT=12345"]), refused("cuInit", 12345, ""));
    assert_eq!(ask(&["DEVICES=2", "TOTAL_MEM=999"]), refused("cuDeviceTotalMem_v2", 999, ""));
}

#[test]
fn a_library_without_the_functions_is_no_driver() {
    assert_eq!(ask(&["WITHOUT_PCI"]), Err(Absence::NotADriver { function: "cuDeviceGetPCIBusId" }));
}

#[test]
fn a_name_that_fills_the_buffer_is_cut_not_overrun() {
    let name = ask(&["LONG_NAME"]).unwrap().devices[0].name.clone();
    assert_eq!(name, "x".repeat(256));
}

#[test]
fn a_file_that_is_no_library_is_an_absence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libcuda.so.1");
    std::fs::write(&path, "not a library").unwrap();
    for path in [path, folder.path().join("nothing.so")] {
        let Err(Absence::NoLibrary { reason }) = probe_library(&path) else { panic!("{}", path.display()) };
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
    }
}
