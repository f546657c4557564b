//! Every source file says in its first line what it is for.

use std::path::Path;

use anyhow::Result;

use crate::tree;

/// One complaint for each file that does not begin with a `//!` sentence.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in tree::files(root, &["rs"])? {
        if !has_head(&tree::read(&path)?) {
            let name = tree::relative(root, &path);
            complaints.push(format!("{name}:1: begin with `//!` and a sentence on what the file is for"));
        }
    }
    Ok(complaints)
}

fn has_head(text: &str) -> bool {
    text.lines().next().and_then(|line| line.strip_prefix("//! ")).is_some_and(|sentence| !sentence.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_a_sentence_in_the_first_line() {
        assert!(has_head("//! What it is for.\n"));
        assert!(!has_head("//! \nuse std::fs;\n"));
        assert!(!has_head("use std::fs;\n//! Too late.\n"));
        assert!(!has_head(""));
    }
}
