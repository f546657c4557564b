//! Embedded mode: every role in one process on loopback addresses.
