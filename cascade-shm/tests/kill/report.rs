//! What a lane says at its end: for people, and one line for `cargo xtask soak`.

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Prints what a lane did without any failure: a failed one ends by a panic.
pub fn passed(lane: &str, n: u64, unit: &str, extra: &[(&str, f64)]) {
    let bound = 3.0 / n as f64;
    println!("{lane}: 0 failures in {n} {unit}: rate below {bound:.1e} (95 %)");
    let extra: String = extra.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
    println!(r#"lane-result {{"lane":"{lane}","n":{n},"unit":"{unit}","failures":0{extra}}}"#);
}
