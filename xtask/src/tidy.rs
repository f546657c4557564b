//! What no compiler checks, in the manner of rust-analyzer's tidy: each check is one file, gets the repository's root
//! and returns its complaints as sentences. It reads text and parses no Rust.

use std::path::Path;

use anyhow::{Result, bail};

mod heads;
mod invariants;
mod modules;
mod words;

/// Complaints about the repository at a path.
type Check = fn(&Path) -> Result<Vec<String>>;

/// Runs every check; prints all complaints and fails when there is one.
pub(crate) fn check(root: &Path) -> Result<()> {
    let checks: [(&str, Check); 4] = [
        ("heads of files", heads::check),
        ("files that no `mod` names", modules::check),
        ("words", words::check),
        ("tests behind the invariants", invariants::check),
    ];
    let mut complaints = Vec::new();
    for (name, check) in checks {
        let found = check(root)?;
        println!("{name}: {}", if found.is_empty() { "ok".to_owned() } else { format!("{} complaints", found.len()) });
        complaints.extend(found);
    }
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        count => bail!("{count} complaints"),
    }
}
