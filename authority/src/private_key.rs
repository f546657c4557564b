//! A private key in PEM form, in each of the encodings that people and cert-manager write: PKCS#8, SEC1 for ECDSA, PKCS#1
//! for RSA. What signs reads PKCS#8 only, so that the others are wrapped.

use pem::Pem;
use rcgen::KeyPair;

/// Algorithm of a key on the curve P-256, as PKCS#8 names it.
const ECDSA_P256: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// The same on the curve P-384.
const ECDSA_P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
/// The same of RSA.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// Version of PKCS#8 without a public key.
const VERSION: &[u8] = b"\x02\x01\x00";
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
/// Longest key that is read.
const KEY_BYTES_MAX: usize = 16 << 10;

/// The private key of a file in PEM form. What else is in the file, such as the parameters of a curve, is left out.
pub fn key(text: &[u8]) -> Option<KeyPair> {
    let parts = pem::parse_many(text).ok()?;
    let key = parts.iter().find(|part| part.tag().ends_with("PRIVATE KEY"))?;
    let algorithms: &[&[u8]] = match key.tag() {
        "EC PRIVATE KEY" => &[ECDSA_P256, ECDSA_P384],
        "RSA PRIVATE KEY" => &[RSA],
        _ => return KeyPair::try_from(key.contents()).ok(),
    };
    algorithms.iter().find_map(|algorithm| KeyPair::try_from(wrapped(key, algorithm)?).ok())
}

/// As PKCS#8.
fn wrapped(key: &Pem, algorithm: &[u8]) -> Option<Vec<u8>> {
    let key = element(OCTET_STRING, key.contents())?;
    element(SEQUENCE, &[VERSION, algorithm, &key].concat())
}

/// An element of DER, with its length in two bytes if that is longer than seven bits.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    if content.len() > KEY_BYTES_MAX {
        return None;
    }
    let length = u16::try_from(content.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    let head: &[u8] = match length {
        0..=0x7f => &[tag, low],
        0x80..=0xff => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    Some([head, content].concat())
}

#[cfg(test)]
mod tests {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm};

    use super::*;

    /// The key within PKCS#8, which is SEC1.
    fn inner(key: &KeyPair, algorithm: &[u8]) -> Vec<u8> {
        let der = key.serialize_der();
        let start = der.windows(algorithm.len()).position(|window| window == algorithm).unwrap() + algorithm.len();
        let head = if der[start + 1] == 0x81 { 3 } else { 2 };
        der[start + head..].to_vec()
    }

    fn pem(tag: &str, content: Vec<u8>) -> String {
        pem::encode(&Pem::new(tag, content))
    }

    #[test]
    fn keys_of_both_curves_are_read_in_both_encodings() {
        let curves: [(&'static SignatureAlgorithm, &[u8]); 2] =
            [(&PKCS_ECDSA_P256_SHA256, ECDSA_P256), (&PKCS_ECDSA_P384_SHA384, ECDSA_P384)];
        for (curve, algorithm) in curves {
            let made = KeyPair::generate_for(curve).unwrap();
            let sec1 = pem("EC PRIVATE KEY", inner(&made, algorithm));
            let with_parameters = pem("EC PARAMETERS", vec![5, 0]) + &sec1;
            for text in [made.serialize_pem(), sec1, with_parameters] {
                assert_eq!(key(text.as_bytes()).unwrap().public_key_raw(), made.public_key_raw(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        let made = KeyPair::generate().unwrap();
        for (tag, content) in [
            ("CERTIFICATE", made.serialize_der()),
            ("EC PRIVATE KEY", made.serialize_der()),
            ("RSA PRIVATE KEY", inner(&made, ECDSA_P256)),
            ("PRIVATE KEY", inner(&made, ECDSA_P256)),
            ("ENCRYPTED PRIVATE KEY", vec![0; 100]),
            ("EC PRIVATE KEY", vec![0; 1 << 20]),
            ("PRIVATE KEY", Vec::new()),
        ] {
            assert!(key(pem(tag, content).as_bytes()).is_none(), "{tag}");
        }
        assert!(key(b"").is_none() && key(b"\xff").is_none());
    }
}
