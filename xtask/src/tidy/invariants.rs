//! ARCHITECTURE.md numbers what must always hold and names the tests behind it, on lines that begin with `Proof:`.
//! A name there that no test bears is a promise nobody keeps.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::tree;

/// The document with the promises.
const DOCUMENT: &str = "ARCHITECTURE.md";
/// How a line with names of tests begins.
const MARK: &str = "Proof:";

/// One complaint for each named test that does not exist, and one when nothing is named at all.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let document = tree::read(&root.join(DOCUMENT))?;
    let named = named_tests(&document);
    if named.is_empty() {
        return Ok(vec![format!("{DOCUMENT}: no line begins with `{MARK}` and names a test")]);
    }
    let mut functions = BTreeSet::new();
    for path in tree::files(root, &["rs"])? {
        functions.extend(test_names(&tree::read(&path)?));
    }
    let missing = named.into_iter().filter(|(_, name)| !functions.contains(name));
    Ok(missing.map(|(line, name)| format!("{DOCUMENT}:{line}: no test is called `{name}`")).collect())
}

/// Line and name of every test between backticks on a line of proof, and on the lines that continue it.
fn named_tests(document: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    let mut in_proof = false;
    for (index, line) in document.lines().enumerate() {
        let line = line.trim();
        in_proof = line.starts_with(MARK) || (in_proof && !line.is_empty());
        if in_proof {
            named.extend(line.split('`').skip(1).step_by(2).map(|name| (index + 1, name.to_owned())));
        }
    }
    named
}

/// Names of the functions that follow a test attribute, and of those inside `proptest!`, which bear it too.
fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(name) = function_name(line).filter(|_| is_test) {
            names.push(name);
            is_test = false;
        }
    }
    names
}

fn function_name(line: &str) -> Option<String> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    Some(rest.split(['(', '<']).next().unwrap_or(rest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_lines_of_proof_and_their_continuation() {
        let document = "A `word`.\n\n   Proof: `first` (core),\n   `second`.\n\nAnother `word`.\n";
        let names: Vec<String> = named_tests(document).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["first", "second"]);
    }

    #[test]
    fn only_functions_with_a_test_attribute_count() {
        let text = "fn helper() {}\n#[test]\nfn holds() {}\n#[tokio::test]\nasync fn also_holds() {}\n";
        assert_eq!(test_names(text), ["holds", "also_holds"]);
    }
}
