//! Drivers: loops that turn the world into events and the core's outputs into calls.
