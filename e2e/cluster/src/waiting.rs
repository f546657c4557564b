//! Waits for what a test expects the cluster to come to.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How often a state is looked for before a test gives up.
const ATTEMPTS: u32 = 600;
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until it is so.
///
/// # Errors
/// When it never was, with the last error of the look.
pub async fn eventually(wanted: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match is_so().await {
            Ok(true) => return Ok(()),
            Ok(false) => last = None,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("never so: {wanted}")),
        None => bail!("never so: {wanted}"),
    }
}
