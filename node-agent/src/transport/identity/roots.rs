//! Which roots a node trusts, and of which of them its own certificate is.

use peerdist_authority::certificates::is_below;
use peerdist_authority::server_identity::ROOTS_MAX;
use peerdist_authority::sha256;
use peerdist_core::wire::proto;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CHAIN_MAX;

/// The roots that are pinned, among those that are known and those that the server shows.
pub(in crate::transport) fn pinned_roots(
    known: Vec<CertificateDer<'static>>,
    enrolment: &proto::EnrolReply,
    pins: &[[u8; 32]],
) -> Vec<CertificateDer<'static>> {
    let shown = enrolment.roots.iter().take(ROOTS_MAX).map(|root| CertificateDer::from(root.to_vec()));
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    for root in known.into_iter().chain(shown) {
        if pins.contains(&sha256(&root)) && !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}

/// SHA-256 of those of the roots that the certificate is of. They may be several: a root that was renewed with the same
/// key signed all that the former one signed.
pub(super) fn roots_above(roots: &[CertificateDer<'static>], enrolment: &proto::EnrolReply) -> Vec<[u8; 32]> {
    let Some(highest) = enrolment.chain.iter().take(CHAIN_MAX).next_back() else { return Vec::new() };
    let highest = CertificateDer::from(highest.to_vec());
    roots.iter().filter(|root| is_below(&highest, root)).map(|root| sha256(root)).collect()
}

/// Certificates that stand one after the other, up to the first thing that is none.
pub(super) fn split(mut ders: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    while let Ok((rest, _)) = X509Certificate::from_der(ders) {
        let length = ders.len() - rest.len();
        certificates.push(CertificateDer::from(ders[..length].to_vec()));
        ders = rest;
    }
    certificates
}
