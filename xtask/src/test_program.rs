//! The program that cargo makes of a test target. Started by itself it does not wait for cargo, which lets one call at a
//! time use the folder of what is built, so that clippy can look at the code while a test waits for its network.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step;

/// Builds the test target unless that was done, and gives back the start of a command line that runs it where cargo
/// would, with these settings as environment variables.
pub(crate) fn test_program(root: &Path, name: &str, settings: &[String]) -> Result<Vec<String>> {
    let as_messages = "--message-format=json-render-diagnostics";
    let arguments = ["test", "--locked", "--workspace", "--no-run", as_messages, "--test", name].map(str::to_owned);
    let messages = step::output(root, Path::new(&step::cargo()), &arguments)?;
    let (manifest, program) = messages
        .lines()
        .find_map(|line| program_of(&serde_json::from_str(line).ok()?, name))
        .with_context(|| format!("cargo did not say where the program of test target {name} is"))?;
    let folder = Path::new(&manifest).parent().with_context(|| format!("{manifest} is in no folder"))?;
    let start = ["env".to_owned(), format!("--chdir={}", folder.display())];
    Ok(start.into_iter().chain(settings.iter().cloned()).chain([program]).collect())
}

/// The manifest and the program of the test target, if the message is about it.
fn program_of(message: &Value, name: &str) -> Option<(String, String)> {
    let is_ours = message["target"]["name"] == name && message["target"]["kind"][0] == "test";
    let text = |field: &str| message[field].as_str().map(str::to_owned);
    text("manifest_path").zip(text("executable")).filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn program_of_the_target_is_found_among_what_cargo_says() {
        let of = |name: &str, kind: &str, program: Value| {
            json!({
                "reason": "compiler-artifact", "manifest_path": "/src/e2e/Cargo.toml", "executable": program,
                "target": {"name": name, "kind": [kind]},
            })
        };
        let found = program_of(&of("cluster", "test", json!("/target/cluster-1")), "cluster");
        assert_eq!(found, Some(("/src/e2e/Cargo.toml".to_owned(), "/target/cluster-1".to_owned())));
        for other in [
            of("cluster", "lib", json!("/target/cluster-2")),
            of("operator", "test", json!("/target/operator-1")),
            of("cluster", "test", Value::Null),
            json!({"reason": "build-finished", "success": true}),
        ] {
            assert_eq!(program_of(&other, "cluster"), None);
        }
    }
}
