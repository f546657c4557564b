//! A whole number, written as Kubernetes writes quantities: `50Gi`, `1.5G`, `1000`. Of what, the field says.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Longest text of a quantity.
const QUANTITY_BYTES_MAX: usize = 32;
/// Most digits after the point.
const FRACTION_DIGITS_MAX: usize = 9;

/// The suffixes, the longer ones first so that `Ki` is not read as `i`.
const SUFFIXES: [(&str, u128); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// A whole number: of bytes, or of bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u64);

impl Quantity {
    /// That number.
    pub fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantity {value:?} is not valid: expected a number from 0 to 16 Ei such as 50Gi, 500M or 1.5T \
     (Ki Mi Gi Ti Pi Ei, k M G T P E); correct it"
)]
pub struct QuantityError {
    /// The refused text, cut to a printable length.
    pub value: String,
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_whole(text).map(Self).ok_or_else(|| QuantityError { value: text.chars().take(80).collect() })
    }
}

/// Exact in integers: `number = digits / 10^fraction_digits`, rounded up to a whole number.
fn parse_whole(text: &str) -> Option<u64> {
    if text.len() > QUANTITY_BYTES_MAX {
        return None;
    }
    let (number, factor) = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !only_digits || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = digits.parse::<u128>().ok()?.checked_mul(factor)?.div_ceil(scale);
    u64::try_from(whole).ok()
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SUFFIXES.iter().take(6).rev();
        let exact = binary.into_iter().find(|(_, factor)| self.0 != 0 && u128::from(self.0) % factor == 0);
        match exact {
            Some((suffix, factor)) => write!(formatter, "{}{suffix}", u128::from(self.0) / factor),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenQuantity::deserialize(deserializer)?.read().map_err(de::Error::custom)
    }
}

/// A quantity in a spec, as somebody wrote it. Whatever an API server lets through can be read: one object that could not
/// would keep all others of its kind from being listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct WrittenQuantity(String);

impl WrittenQuantity {
    /// The number.
    ///
    /// # Errors
    /// [`QuantityError`] when the text is no quantity.
    pub fn read(&self) -> Result<Quantity, QuantityError> {
        self.0.parse()
    }
}

impl<'de> Deserialize<'de> for WrittenQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = WrittenQuantity;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number such as 50Gi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<WrittenQuantity, E> {
        Ok(WrittenQuantity(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<WrittenQuantity, E> {
        Ok(WrittenQuantity(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<WrittenQuantity, E> {
        Ok(WrittenQuantity(number.to_string()))
    }
}

impl JsonSchema for WrittenQuantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": QUANTITY_BYTES_MAX,
            "minimum": 0,
            "pattern": r"^([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Option<u64> {
        text.parse().ok().map(Quantity::value)
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        assert_eq!(value("0"), Some(0));
        assert_eq!(value("50Gi"), Some(50 << 30));
        assert_eq!(value("500M"), Some(500_000_000));
        assert_eq!(value("1.5Ki"), Some(1536));
        assert_eq!(value("0.5"), Some(1));
        assert_eq!(value("15Ei"), Some(15 << 60));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in ["", "Gi", "-1", "1e3x", "16Ei", "50 Gi", "50GiB", "0x10", "1.1.1", "١Gi", &"9".repeat(40), "."] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_and_texts_are_both_quantities() {
        assert_eq!(serde_json::from_str::<Quantity>("1024").unwrap(), Quantity(1024));
        assert_eq!(serde_json::to_string(&Quantity(1024)).unwrap(), "\"1Ki\"");
        let error = serde_json::from_str::<Quantity>("-1").unwrap_err().to_string();
        assert!(error.contains("such as 50Gi"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_later() {
        for (written, expected) in [("\"1.5Ki\"", Some(1536)), ("1024", Some(1024)), ("-1", None), ("\"16Ei\"", None)] {
            let written: WrittenQuantity = serde_json::from_str(written).unwrap();
            assert_eq!(written.read().ok().map(Quantity::value), expected, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn every_quantity_survives_being_written(number in any::<u64>()) {
            prop_assert_eq!(value(&Quantity(number).to_string()), Some(number));
        }

        #[test]
        fn any_text_is_a_quantity_or_refused(text in "[0-9.]{0,36}[KMGTPEik]{0,3}|\\PC{0,40}") {
            let _ = value(&text);
        }
    }
}
