//! What a lane says at its end: for people, and one line for `cargo xtask soak`.

use std::time::{Duration, Instant};

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Open descriptors of this process.
#[allow(dead_code, reason = "not every lane asks")]
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// No more descriptors are open than `before`, once the threads of the arena have noticed who is gone.
#[allow(dead_code, reason = "not every lane asks")]
pub fn wait_for_files(before: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while open_files() > before {
        assert!(Instant::now() < deadline, "{before} descriptors became {}: they leak", open_files());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says every ten seconds of a long run how far it is.
pub struct Progress(Instant);

impl Progress {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn say(&mut self, n: u64) {
        if self.0.elapsed() >= Duration::from_secs(10) {
            println!("lane-progress {n}");
            self.0 = Instant::now();
        }
    }
}

/// Prints what a lane did without any failure: a failed one ends by a panic.
pub fn passed(lane: &str, n: u64, unit: &str, extra: &[(&str, f64)]) {
    let bound = 3.0 / n as f64;
    println!("{lane}: 0 failures in {n} {unit}: rate below {bound:.1e} (95 %)");
    let extra: String = extra.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
    println!(r#"lane-result {{"lane":"{lane}","n":{n},"unit":"{unit}","failures":0{extra}}}"#);
}
