//! Words and characters that have no place in what we publish: marks of unfinished work and paths of one person's
//! machine. What clippy finds (`todo!`, `dbg!`, `unwrap`) is left to it.

use std::path::Path;

use anyhow::Result;

use crate::tree;

/// Kinds of files that people read.
const READ_BY_PEOPLE: [&str; 7] = ["rs", "md", "toml", "yaml", "yml", "proto", "sql"];

/// Written in halves, so that this file does not complain about itself.
const UNWANTED: [(&str, &str, &str); 5] = [
    ("TO", "DO", "finish it, or leave it out"),
    ("FIX", "ME", "fix it, or leave it out"),
    ("/ho", "me/", "use a path that exists on every machine"),
    ("/Us", "ers/", "use a path that exists on every machine"),
    ("/wo", "rk/", "use a path that exists on every machine"),
];

/// The reader's own folder, in examples.
const EVERYBODY: &str = "/home/you";

/// One complaint for each line with an unwanted word, a tab or white space at its end.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in tree::files(root, &READ_BY_PEOPLE)? {
        let Ok(text) = tree::read(&path) else { continue };
        for (line, complaint) in complaints_of(&text) {
            complaints.push(format!("{}:{line}: {complaint}", tree::relative(root, &path)));
        }
    }
    Ok(complaints)
}

fn complaints_of(text: &str) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (first, second, advice) in UNWANTED {
            let word = format!("{first}{second}");
            if line.replace(EVERYBODY, "").contains(&word) {
                complaints.push((index + 1, format!("`{word}`: {advice}")));
            }
        }
        if line.ends_with([' ', '\t']) {
            complaints.push((index + 1, "white space at the end of the line".to_owned()));
        }
        if line.contains('\t') {
            complaints.push((index + 1, "a tab: use spaces".to_owned()));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        let text = format!("fine\n// {}{} later\n", "TO", "DO");
        assert_eq!(complaints_of(&text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn white_space_at_the_end_is_found() {
        assert_eq!(complaints_of("a \nb\n").len(), 1);
    }
}
