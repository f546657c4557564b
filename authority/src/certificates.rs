//! Root and intermediate: a key with the certificate that goes with it. The root signs the intermediate, the
//! intermediate signs every node. Randomness comes from the system, the time from the caller.

use std::time::{Duration, SystemTime};

use rand::RngCore;
use rcgen::{BasicConstraints, CertificateParams, DnType, Error, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a root is valid.
const ROOT_LIFETIME: Duration = days(3650);
/// How long an intermediate is valid, unless its root ends before.
const INTERMEDIATE_LIFETIME: Duration = days(90);
/// An intermediate with less than this left is replaced.
const INTERMEDIATE_RENEWAL: Duration = days(30);
/// An intermediate that would not live longer than this beyond the old one is not worth making.
const RENEWAL_GAIN_MIN: Duration = days(1);
/// How long the certificate of a node is valid, unless its intermediate ends before.
pub const NODE_LIFETIME: Duration = days(7);
/// How long after its end the certificate of a node is still taken by its office while the server is away.
pub const EXPIRED_TOLERANCE: Duration = days(30);
/// Certificates start in the past: clocks differ.
const START_IN_PAST: Duration = Duration::from_secs(3600);

/// So many days.
pub const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// SHA-256 of a certificate.
pub fn sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// A key, and the certificate that an authority has for it.
#[derive(Debug)]
pub struct CertifiedKey {
    /// The key.
    pub key: KeyPair,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
}

impl CertifiedKey {
    /// A new root.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new_root(now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let certificate = root_certificate(&key, now)?;
        Ok(Self { key, certificate })
    }

    /// A new intermediate that this root signs.
    ///
    /// # Errors
    /// When there is no randomness, or the root cannot sign.
    pub fn new_intermediate(&self, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut parameters =
            parameters_below(&self.certificate, "peerdist server authority", INTERMEDIATE_LIFETIME, now);
        make_authority(&mut parameters, 0);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = parameters.signed_by(&key, &issuer)?.der().clone();
        Ok(Self { key, certificate })
    }

    /// Whether the certificate is for this key.
    pub fn belongs_together(&self) -> bool {
        X509Certificate::from_der(&self.certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == self.key.public_key_raw())
    }

    /// Whether this intermediate of `root` need not be replaced yet.
    pub fn is_fresh(&self, root: &CertificateDer<'_>, now: SystemTime) -> bool {
        let (Some((_, end)), Some((_, root_end))) = (validity(&self.certificate), validity(root)) else {
            return false;
        };
        let possible_end = (now + INTERMEDIATE_LIFETIME).min(root_end);
        end > now + INTERMEDIATE_RENEWAL || possible_end < end + RENEWAL_GAIN_MIN
    }
}

/// The certificate of a root with this key.
///
/// # Errors
/// When the key cannot sign.
pub fn root_certificate(key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, Error> {
    let mut parameters = parameters("peerdist root", ROOT_LIFETIME, now);
    make_authority(&mut parameters, 1);
    Ok(parameters.self_signed(key)?.der().clone())
}

/// For a certificate that `above` signs: it ends with that one at the latest.
pub fn parameters_below(
    above: &CertificateDer<'_>,
    name: &str,
    lifetime: Duration,
    now: SystemTime,
) -> CertificateParams {
    let mut parameters = parameters(name, lifetime, now);
    if let Some((_, end)) = validity(above) {
        parameters.not_after = (now + lifetime).min(end).into();
    }
    parameters
}

/// What all certificates have in common.
fn parameters(name: &str, lifetime: Duration, now: SystemTime) -> CertificateParams {
    let mut serial = [0; 16];
    rand::rng().fill_bytes(&mut serial);
    serial[0] &= 0x7f;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = (now - START_IN_PAST).into();
    parameters.not_after = (now + lifetime).into();
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

/// From when to when a certificate is valid; `None` when it is none.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    let validity = parsed.validity();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

/// Whether a certificate may sign others and is signed by `above`.
pub fn is_below(certificate: &CertificateDer<'_>, above: &CertificateDer<'_>) -> bool {
    let (Ok((_, below)), Ok((_, above))) = (X509Certificate::from_der(certificate), X509Certificate::from_der(above))
    else {
        return false;
    };
    let is_authority = below.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca);
    let is_named = below.issuer().as_raw() == above.subject().as_raw();
    is_authority && is_named && below.verify_signature(Some(above.public_key())).is_ok()
}

/// Whether a certificate may sign others, and below them intermediates.
pub fn is_root(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let constraints = parsed.basic_constraints().ok().flatten();
    let is_authority = constraints.is_some_and(|constraints| {
        constraints.value.ca && constraints.value.path_len_constraint.is_none_or(|below| below > 0)
    });
    let usage = parsed.key_usage().ok().flatten();
    is_authority && usage.is_none_or(|usage| usage.value.key_cert_sign())
}

fn make_authority(parameters: &mut CertificateParams, intermediates_below: u8) {
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates_below));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intermediate_is_replaced_before_it_runs_out_and_never_outlives_its_root() {
        let now = SystemTime::UNIX_EPOCH + days(20_000);
        let root = CertifiedKey::new_root(now).unwrap();
        let intermediate = root.new_intermediate(now).unwrap();
        assert!(root.belongs_together() && intermediate.belongs_together());
        assert!(is_root(&root.certificate) && !is_root(&intermediate.certificate));
        assert!(intermediate.is_fresh(&root.certificate, now + days(59)));
        assert!(!intermediate.is_fresh(&root.certificate, now + days(61)));
        let last = root.new_intermediate(now + days(3640)).unwrap();
        assert_eq!(validity(&last.certificate).unwrap().1, validity(&root.certificate).unwrap().1);
        assert!(last.is_fresh(&root.certificate, now + days(3640)), "a new one would not live longer");
    }

    #[test]
    fn signature_of_another_root_of_the_same_name_is_noticed() {
        let now = SystemTime::UNIX_EPOCH + days(20_000);
        let (one, other) = (CertifiedKey::new_root(now).unwrap(), CertifiedKey::new_root(now).unwrap());
        let intermediate = one.new_intermediate(now).unwrap().certificate;
        assert!(is_below(&intermediate, &one.certificate));
        assert!(!is_below(&intermediate, &other.certificate));
        let mut changed = intermediate.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(!is_below(&changed.into(), &one.certificate));
    }

    #[test]
    fn key_of_another_certificate_is_noticed() {
        let now = SystemTime::UNIX_EPOCH + days(20_000);
        let (one, other) = (CertifiedKey::new_root(now).unwrap(), CertifiedKey::new_root(now).unwrap());
        assert!(!CertifiedKey { key: one.key, certificate: other.certificate }.belongs_together());
    }
}
