//! The command `peerdist`.

fn main() {}
