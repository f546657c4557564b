//! `peerdist up` as people run it: the real binary, on loopback networks of its own (127.101 and up, one a test), with
//! packages of a few MiB. What counts is the exit code, the report, and what lies on disk. Processes apart and links
//! between them are for the network scenarios.

#[cfg(test)]
mod again;
#[cfg(test)]
mod bad_packages;
#[cfg(test)]
mod changing_sources;
#[cfg(test)]
mod confined;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod edits;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod full_disks;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod https;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod origin;
#[cfg(test)]
mod place;
#[cfg(test)]
mod status;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod unusable_sets;
