//! The store as a whole, on temporary folders.

mod crash;
mod delivery;
pub(crate) mod fixture;
mod full_disk;
mod hostile;
mod publishing;
mod removal;
mod scale;
