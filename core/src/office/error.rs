//! The faults of an office tree, each with the office, the field, what was expected and what to do.

use crate::names::OfficeName;
use crate::office::OFFICES_MAX;

/// Offices named in the text of a cycle; longer cycles are cut.
const CYCLE_NAMES_SHOWN_MAX: usize = 8;

/// Why a set of offices is not one tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfficeTreeError {
    /// There is no office at all.
    #[error("there is no office: expected one Office without spec.parent (the Central Office); add it")]
    Empty,
    /// More offices than one tree may have.
    #[error("there are more than {OFFICES_MAX} offices, the most of one tree: remove some or use a second server")]
    TooMany,
    /// Two objects of one name.
    #[error("office {office} exists more than once: expected one object a name; remove the others")]
    Duplicate {
        /// The name.
        office: OfficeName,
    },
    /// A second office without a parent.
    #[error(
        "office {office} has no parent, and neither has {central}: expected exactly one office without spec.parent \
         (the Central Office); set spec.parent on one of them"
    )]
    SecondCentral {
        /// The second one by name.
        office: OfficeName,
        /// The first one by name.
        central: OfficeName,
    },
    /// The parent does not exist.
    #[error(
        "office {office} has the parent {parent}, which does not exist: expected the name of an Office; \
             correct the name or add that office"
    )]
    UnknownParent {
        /// The office that names it.
        office: OfficeName,
        /// The name that is no office.
        parent: OfficeName,
    },
    /// The parents lead back to where they started.
    #[error(
        "office {office} is its own ancestor ({}): expected parents that lead to the Central Office; \
         change spec.parent of one of them",
        cycle_text(cycle)
    )]
    Cycle {
        /// The first office of the cycle by name.
        office: OfficeName,
        /// The whole cycle from that office on, child before parent.
        cycle: Vec<OfficeName>,
    },
    /// The Central Office must share, a VPN office does not.
    #[error(
        "office {office} has no parent and the type VPN: expected Wired or WiFi for the Central Office; \
         change spec.type or set spec.parent"
    )]
    VpnIsCentral {
        /// The office.
        office: OfficeName,
    },
    /// Nodes of a VPN office do not pass content on.
    #[error(
        "office {office} has the parent {parent} of the type VPN, whose nodes pass nothing on: expected a parent of \
         the type Wired or WiFi; change spec.parent of {office} or spec.type of {parent}"
    )]
    VpnHasChild {
        /// The child.
        office: OfficeName,
        /// The VPN office.
        parent: OfficeName,
    },
}

impl OfficeTreeError {
    /// The office at fault, if it is one.
    pub fn office(&self) -> Option<&OfficeName> {
        match self {
            Self::Empty | Self::TooMany => None,
            Self::Duplicate { office }
            | Self::SecondCentral { office, .. }
            | Self::UnknownParent { office, .. }
            | Self::Cycle { office, .. }
            | Self::VpnIsCentral { office }
            | Self::VpnHasChild { office, .. } => Some(office),
        }
    }

    /// The field at fault, empty when it is the set of offices as a whole.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Empty | Self::TooMany => "",
            Self::Duplicate { .. } => "metadata.name",
            Self::VpnIsCentral { .. } => "spec.type",
            Self::SecondCentral { .. } | Self::UnknownParent { .. } | Self::Cycle { .. } | Self::VpnHasChild { .. } => {
                "spec.parent"
            }
        }
    }

    /// The reason in one word, for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "NoCentralOffice",
            Self::TooMany => "TooManyOffices",
            Self::Duplicate { .. } => "DuplicateObject",
            Self::SecondCentral { .. } => "SecondCentralOffice",
            Self::UnknownParent { .. } => "UnknownOffice",
            Self::Cycle { .. } => "ParentCycle",
            Self::VpnIsCentral { .. } => "CentralOfficeIsVpn",
            Self::VpnHasChild { .. } => "ParentIsVpn",
        }
    }
}

fn cycle_text(cycle: &[OfficeName]) -> String {
    let shown = cycle.iter().take(CYCLE_NAMES_SHOWN_MAX).map(OfficeName::as_str);
    let closing =
        if cycle.len() > CYCLE_NAMES_SHOWN_MAX { "..." } else { cycle.first().map_or("", OfficeName::as_str) };
    shown.chain([closing]).collect::<Vec<_>>().join(" -> ")
}
