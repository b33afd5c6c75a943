//! How evenly the directory's entries spread over ranks, by the function that routes them: `balance [IDS_PER_RANK]`.
//!
//! ```text
//! cargo run --release -p cascade-mpi --example balance -- 1000000
//! ```

use cascade_core::id::BlockId;
use cascade_mpi::route;

fn main() {
    let each: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    println!("ranks  ids a rank  max/mean  by chance");
    for ranks in [4_u32, 16, 64, 1024, 4096] {
        let ids = (0..each * u64::from(ranks)).map(|number| BlockId::from_words([number, 0, 0, 0]));
        let balance = route::balance(ranks, ids);
        println!("{ranks:5}  {each:10}  {:8.4}  {:9.4}", balance.max_over_mean, balance.by_chance);
    }
}
