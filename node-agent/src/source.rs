//! Sources: where packages come from, and their way into the library.
