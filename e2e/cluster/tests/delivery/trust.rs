//! Whom nodes trust: which roots they are told, which of them each has stored, and what the server says meanwhile.

use std::fs;

use anyhow::{Context, Result};
use peerdist_authority::sha256;
use peerdist_e2e_cluster::waiting::eventually;

use crate::site::Site;

/// What the server says when it follows.
const FOLLOWED: &str = "the keys of the authority changed";
/// What it says of a node that comes with a token, rather than with its certificate.
pub(crate) const ENROLLED: &str = "node enrolled";

/// Waits until clients are told so.
pub(crate) async fn trusts(site: &Site, wanted: &str, is_so: impl Fn(&Vec<String>) -> bool) -> Result<()> {
    let wanted = format!("clients are told to trust {wanted}");
    let found = eventually(&wanted, async || Ok(is_so(&site.trusted_roots()?))).await;
    found.with_context(|| format!("{:?}", site.trusted_roots()))
}

/// Waits until a node trusts the root with this digest.
pub(crate) async fn learns(site: &Site, node: &str, root: &str) -> Result<()> {
    eventually(&format!("{node} trusts the root that comes"), async || {
        Ok(trusted_by(site, node)?.iter().any(|one| one == root))
    })
    .await
    .with_context(|| site.client_log(node).unwrap_or_default())
}

/// The digests of the roots that a node trusts.
pub(crate) fn trusted_by(site: &Site, node: &str) -> Result<Vec<String>> {
    let stored = fs::read(site.root(node).join("identity/root.der"))?;
    let mut rest = stored.as_slice();
    let mut digests = Vec::new();
    // A certificate is a sequence, and says its length in two bytes.
    while let [0x30, 0x82, high, low, ..] = rest {
        let length = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        let (root, after) = rest.split_at_checked(length).context("a whole certificate")?;
        digests.push(digest(root));
        rest = after;
    }
    Ok(digests)
}

/// The digest of a root's certificate, as people are told it.
pub(crate) fn digest(root: &[u8]) -> String {
    sha256(root).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until the server has read other keys so often.
pub(crate) async fn server_follows(site: &Site, times: usize) -> Result<()> {
    eventually(&format!("the server follows its keys for the {times}. time"), async || {
        Ok(count_in_log(site, FOLLOWED)? >= times)
    })
    .await
}

/// How often the server said this.
pub(crate) fn count_in_log(site: &Site, said: &str) -> Result<usize> {
    Ok(site.server_log()?.lines().filter(|line| line.contains(said)).count())
}
