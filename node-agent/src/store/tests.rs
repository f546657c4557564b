//! The store as a whole, on temporary folders.

mod crash;
mod delivery;
mod fixture;
mod hostile;
mod publishing;
mod removal;
mod scale;
