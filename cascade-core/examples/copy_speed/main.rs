//! Speed of the copy kernels on this machine, in GB/s of payload (10^9 bytes), median of many copies between two warm,
//! private buffers, with the C library's `memcpy` beside them.
//!
//! `cargo run --release -p cascade-core --example copy_speed [LARGEST_MIB]`; the default is 512.
//!
//! One thread unless a row says otherwise. Small blocks stay in the caches, as both buffers are used again and again.

mod raw;

use std::time::{Duration, Instant};

use cascade_core::copy::{Direction, Kernel, StoreKind, plan};
use raw::Buffers;

/// Time spent on each figure, and the least number of copies whatever they take.
const TIME_PER_FIGURE: Duration = Duration::from_millis(150);
const LEAST_COPIES: usize = 5;

fn main() {
    let largest_mib = match std::env::args().nth(1).map(|argument| argument.parse()) {
        None => 512,
        Some(Ok(mib @ 1..=65_536)) => mib,
        Some(_) => {
            eprintln!("usage: copy_speed [LARGEST_MIB], from 1 to 65536");
            std::process::exit(2);
        }
    };
    let sizes: Vec<usize> = [4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 64 << 20, 512 << 20]
        .into_iter()
        .filter(|bytes| *bytes <= largest_mib << 20)
        .collect();
    let start = Instant::now();
    println!("{}\nplanned in {:.1} ms\n", plan(), start.elapsed().as_secs_f64() * 1e3);

    print!("{:<34}", "GB/s");
    sizes.iter().for_each(|bytes| print!("{:>9}", size_name(*bytes)));
    println!();
    let mut buffers = Buffers::new(sizes.last().copied().unwrap_or(4096));
    let mut row = |name: &str, work: &mut dyn FnMut(&mut Buffers, usize)| {
        print!("{name:<34}");
        for bytes in &sizes {
            print!("{:>9.1}", *bytes as f64 / median_seconds(|| work(&mut buffers, *bytes)) / 1e9);
        }
        println!();
    };
    row("memcpy of the C library", &mut |buffers, bytes| buffers.memcpy(bytes));
    for kernel in Kernel::available() {
        for store in [StoreKind::Plain, StoreKind::Streaming] {
            if store == StoreKind::Streaming {
                row(&format!("{kernel} copy {store}"), &mut |buffers, bytes| {
                    buffers.copy_only(kernel, store, bytes);
                });
            }
            row(&format!("{kernel} copy + digest {store}"), &mut |buffers, bytes| {
                buffers.copy_digest(kernel, store, bytes);
            });
        }
        row(&format!("{kernel} digest only"), &mut |buffers, bytes| buffers.digest_only(kernel, bytes));
    }
    let threads = plan().threads;
    for direction in [Direction::Put, Direction::Get] {
        row(&format!("by the plan, {direction:?}, {threads} threads"), &mut |buffers, bytes| {
            buffers.copy_chunks(direction, bytes);
        });
    }
}

fn size_name(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < LEAST_COPIES || start.elapsed() < TIME_PER_FIGURE {
        let before = Instant::now();
        work();
        seconds.push(before.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
