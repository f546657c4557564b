//! Which child offices may have a package. A plan names thousands of both, so this is a bit for each child, in the order
//! of the plan's children.

use super::CHILDREN_MAX;
use crate::message::DecodeError;

/// Which of the children of a plan may have a package.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantedChildren(Vec<u8>);

impl GrantedChildren {
    /// Whether the child at this place may have it.
    pub fn contains(&self, child: usize) -> bool {
        self.0.get(child / 8).is_some_and(|byte| byte & (1 << (child % 8)) != 0)
    }

    /// As a plan carries it: the first child is the lowest bit of the first byte.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromIterator<usize> for GrantedChildren {
    fn from_iter<I: IntoIterator<Item = usize>>(children: I) -> Self {
        let mut bits = Vec::new();
        for child in children {
            if bits.len() <= child / 8 {
                bits.resize(child / 8 + 1, 0);
            }
            bits[child / 8] |= 1 << (child % 8);
        }
        Self(bits)
    }
}

impl TryFrom<&[u8]> for GrantedChildren {
    type Error = DecodeError;

    fn try_from(bits: &[u8]) -> Result<Self, DecodeError> {
        if bits.len() > CHILDREN_MAX.div_ceil(8) {
            return Err(DecodeError::OutOfRange("granted_children"));
        }
        Ok(Self(bits.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_told_apart_and_survive_the_wire() {
        let granted: GrantedChildren = [0, 9, 4_999].into_iter().collect();
        let received = GrantedChildren::try_from(granted.as_bytes()).unwrap();
        assert_eq!(received, granted);
        let contained: Vec<usize> = (0..CHILDREN_MAX).filter(|&child| received.contains(child)).collect();
        assert_eq!(contained, [0, 9, 4_999]);
    }

    #[test]
    fn more_children_than_a_plan_has_are_refused() {
        assert!(GrantedChildren::try_from(&vec![1; CHILDREN_MAX / 8][..]).is_ok());
        assert!(GrantedChildren::try_from(&vec![1; CHILDREN_MAX / 8 + 1][..]).is_err());
    }
}
