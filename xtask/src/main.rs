//! Commands of the Cascade workspace.
fn main() {}
