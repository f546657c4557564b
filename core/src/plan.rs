//! The plan of one office: which packages its nodes hold or pass on, and who its neighbours are. The server makes and
//! signs it; rendezvous points hand it on inside their office, so a node never trusts a peer for it.

mod granted_children;

use std::net::IpAddr;

use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;

pub use self::granted_children::GrantedChildren;
use crate::digest::Digest;
use crate::distribution::Priority;
use crate::message::{
    self, DecodeError, NODES_MAX, PACKAGES_MAX, Revision, SignedBytes, decode_node, decode_package, encode_node,
    encode_package,
};
use crate::names::{NodeName, OfficeName, PackageKey};
use crate::office::OfficeType;
use crate::peer::NodeRef;
use crate::signature::{SignatureError, SigningDomain, sign, verify_signature};
use crate::wire::{LARGE_MESSAGE_BYTES_MAX, proto};

/// Most nodes of the parent office that a plan names.
pub const PARENT_NODES_MAX: usize = 16;
/// Most nodes of an office that answer a broadcast question.
pub const ANSWERERS_MAX: usize = 8;
/// Most packages that a plan names as awaited. It has to name all: what it does not name, nodes delete.
pub const AWAITED_MAX: usize = 16 * PACKAGES_MAX;
/// Room for the names of what is awaited, in the one message that a plan is.
pub const AWAITED_BYTES_MAX: usize = LARGE_MESSAGE_BYTES_MAX / 4;
/// What a plan takes besides packages, awaited names and children: parents, addresses, the signature and the like.
const REST_BYTES_MAX: usize = 64 << 10;
/// What a child takes beside its name twice: the name of its rendezvous point, an address, tags and lengths.
const CHILD_OVERHEAD_BYTES: usize = 253 + 64;
/// What a package takes in a plan beside its names, its root and its grants: digest, numbers, tags and lengths.
const PLANNED_OVERHEAD_BYTES: usize = 96;
/// What a name takes beside its text.
const NAME_OVERHEAD_BYTES: usize = 16;
/// Most child offices that a plan names.
pub const CHILDREN_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Rises with every change.
    pub revision: Revision,
    /// The office.
    pub office: OfficeName,
    /// Its type.
    pub office_type: OfficeType,
    /// Whether it is the Central Office.
    pub central: bool,
    /// Its parent; none for the Central Office.
    pub parent: Option<OfficeName>,
    /// Nodes of the parent office, its rendezvous point first.
    pub parent_nodes: Vec<NodeRef>,
    /// Its child offices, by name.
    pub children: Vec<ChildOffice>,
    /// Packages, the most urgent first.
    pub packages: Vec<PlannedPackage>,
    /// What is meant for the office and not in the library, because it is not brought in yet or the library was lost:
    /// nodes keep what they have of these distributions.
    pub awaited: Vec<PackageKey>,
    /// Addresses of the server.
    pub server_addresses: Vec<IpAddr>,
    /// Most bytes a node may store; 0 is no limit.
    pub storage_limit_bytes: u64,
    /// How long an old version stays after it stopped being current.
    pub retention_seconds: u64,
    /// Most bits a second that a node may receive from the parent office; 0 is no ceiling.
    pub background_bits_per_second_max: u64,
    /// The nodes of the office that answer when somebody asks by broadcast who has a package.
    pub answerers: Vec<NodeName>,
}

/// A child office as its parent needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildOffice {
    /// Its name.
    pub name: OfficeName,
    /// Its type: of a VPN office every node asks for itself.
    pub office_type: OfficeType,
    /// Its rendezvous point, as far as the server knows.
    pub nodes: Vec<NodeRef>,
}

/// One package of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedPackage {
    /// Its names.
    pub key: PackageKey,
    /// Digest of the manifest root.
    pub digest: Digest,
    /// The signed manifest root.
    pub root: SignedBytes,
    /// Whether this office publishes it, or only passes it on.
    pub target: bool,
    /// No new chunks are asked for while it is paused.
    pub paused: bool,
    /// How urgent.
    pub priority: Priority,
    /// How many versions nodes keep.
    pub retention_versions: u32,
    /// Which of the plan's child offices may have it.
    pub granted_children: GrantedChildren,
}

/// A plan that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No trusted key signed it.
    #[error("the plan is refused: {0}")]
    Signature(#[from] SignatureError),
    /// The bytes are no plan.
    #[error("the signed bytes are no plan")]
    Encoding,
    /// A field breaks a rule.
    #[error(transparent)]
    Field(#[from] DecodeError),
}

impl Plan {
    /// Encodes and signs the plan.
    pub fn sign(&self, key: &SigningKey) -> SignedBytes {
        sign(SigningDomain::Plan, self.encode().encode_to_vec().into(), key).into()
    }

    /// Verifies and parses a plan.
    ///
    /// # Errors
    /// [`PlanError`] when no trusted key signed it or a field breaks a rule.
    pub fn open(signed: &SignedBytes, trusted: &[VerifyingKey]) -> Result<Self, PlanError> {
        verify_signature(SigningDomain::Plan, &signed.into(), trusted)?;
        let plan = proto::Plan::decode(signed.body.clone()).map_err(|_| PlanError::Encoding)?;
        Ok(Self::decode(plan)?)
    }

    /// The place of a child office among the plan's children, if it is one.
    pub fn place_of_child(&self, office: &OfficeName) -> Option<usize> {
        self.children.binary_search_by(|child| child.name.cmp(office)).ok()
    }

    fn encode(&self) -> proto::Plan {
        proto::Plan {
            revision: self.revision,
            office: self.office.as_str().to_owned(),
            office_type: encode_office_type(self.office_type) as i32,
            central: self.central,
            parent: self.parent.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
            parent_nodes: self.parent_nodes.iter().map(encode_node).collect(),
            children: self
                .children
                .iter()
                .map(|child| proto::ChildOffice {
                    name: child.name.as_str().to_owned(),
                    office_type: encode_office_type(child.office_type) as i32,
                    nodes: child.nodes.iter().map(encode_node).collect(),
                })
                .collect(),
            packages: self.packages.iter().map(encode_planned).collect(),
            awaited: self.awaited.iter().map(encode_package).collect(),
            server_addresses: self.server_addresses.iter().map(ToString::to_string).collect(),
            storage_limit_bytes: self.storage_limit_bytes,
            retention_seconds: self.retention_seconds,
            background_bits_per_second_max: self.background_bits_per_second_max,
            answerers: self.answerers.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }

    fn decode(plan: proto::Plan) -> Result<Self, DecodeError> {
        Ok(Self {
            revision: plan.revision,
            office: OfficeName::new(&plan.office)?,
            office_type: decode_office_type(plan.office_type)?,
            central: plan.central,
            parent: if plan.parent.is_empty() { None } else { Some(OfficeName::new(&plan.parent)?) },
            parent_nodes: message::list("parent_nodes", plan.parent_nodes, PARENT_NODES_MAX, decode_node)?,
            children: decode_children(plan.children)?,
            packages: message::list("packages", plan.packages, PACKAGES_MAX, decode_planned)?,
            awaited: message::list("awaited", plan.awaited, AWAITED_MAX, |package| decode_package(&package))?,
            server_addresses: message::list("server_addresses", plan.server_addresses, 16, |text: String| {
                text.parse().map_err(|_| DecodeError::OutOfRange("server_addresses"))
            })?,
            storage_limit_bytes: plan.storage_limit_bytes,
            retention_seconds: plan.retention_seconds,
            background_bits_per_second_max: plan.background_bits_per_second_max,
            answerers: message::list("answerers", plan.answerers, ANSWERERS_MAX, |name: String| {
                Ok(NodeName::new(&name)?)
            })?,
        })
    }
}

/// Packages name children by their places, which are looked up by name.
fn decode_children(children: Vec<proto::ChildOffice>) -> Result<Vec<ChildOffice>, DecodeError> {
    let children = message::list("children", children, CHILDREN_MAX, |child: proto::ChildOffice| {
        Ok(ChildOffice {
            name: OfficeName::new(&child.name)?,
            office_type: decode_office_type(child.office_type)?,
            nodes: message::list("nodes", child.nodes, NODES_MAX, decode_node)?,
        })
    })?;
    if !children.is_sorted_by(|before, after| before.name < after.name) {
        return Err(DecodeError::OutOfRange("children"));
    }
    Ok(children)
}

/// Room for packages in the plan of an office with these children.
pub(crate) fn planned_bytes_max<'tree>(children: impl Iterator<Item = &'tree OfficeName>) -> usize {
    let children: usize = children.map(|child| 2 * child.as_str().len() + CHILD_OVERHEAD_BYTES).sum();
    LARGE_MESSAGE_BYTES_MAX.saturating_sub(AWAITED_BYTES_MAX + REST_BYTES_MAX + children)
}

/// Most bytes that a package takes in a plan.
pub(crate) fn bytes_of_planned(package: &PackageKey, root_bytes: usize, granted: &GrantedChildren) -> usize {
    bytes_of_name(package) + root_bytes + granted.as_bytes().len() + PLANNED_OVERHEAD_BYTES
}

/// Most bytes that the name of a package takes in a plan.
pub(crate) fn bytes_of_name(package: &PackageKey) -> usize {
    let PackageKey { distribution, version } = package;
    let texts = [distribution.namespace.as_str(), distribution.name.as_str(), version.as_str()];
    texts.iter().map(|text| text.len()).sum::<usize>() + NAME_OVERHEAD_BYTES
}

fn encode_planned(package: &PlannedPackage) -> proto::PlannedPackage {
    let priority = match package.priority {
        Priority::Low => proto::Priority::Low,
        Priority::Normal => proto::Priority::Normal,
        Priority::High => proto::Priority::High,
    };
    proto::PlannedPackage {
        package: Some(encode_package(&package.key)),
        digest: bytes::Bytes::copy_from_slice(package.digest.as_bytes()),
        root: Some((&package.root).into()),
        target: package.target,
        paused: package.paused,
        priority: priority as i32,
        retention_versions: package.retention_versions,
        granted_children: bytes::Bytes::copy_from_slice(package.granted_children.as_bytes()),
    }
}

fn decode_planned(package: proto::PlannedPackage) -> Result<PlannedPackage, DecodeError> {
    let priority = match proto::Priority::try_from(package.priority) {
        Ok(proto::Priority::Low) => Priority::Low,
        Ok(proto::Priority::High) => Priority::High,
        _ => Priority::Normal,
    };
    Ok(PlannedPackage {
        key: decode_package(&package.package.ok_or(DecodeError::Missing("package"))?)?,
        digest: Digest::try_from(&package.digest[..])?,
        root: package.root.ok_or(DecodeError::Missing("root"))?.into(),
        target: package.target,
        paused: package.paused,
        priority,
        retention_versions: package.retention_versions,
        granted_children: GrantedChildren::try_from(&package.granted_children[..])?,
    })
}

/// The type as protobuf names it.
pub fn encode_office_type(office_type: OfficeType) -> proto::OfficeType {
    match office_type {
        OfficeType::Wired => proto::OfficeType::Wired,
        OfficeType::WiFi => proto::OfficeType::Wifi,
        OfficeType::Vpn => proto::OfficeType::Vpn,
    }
}

/// The type from protobuf.
///
/// # Errors
/// [`DecodeError`] for a number that this version does not know.
pub fn decode_office_type(number: i32) -> Result<OfficeType, DecodeError> {
    match proto::OfficeType::try_from(number) {
        Ok(proto::OfficeType::Wired) => Ok(OfficeType::Wired),
        Ok(proto::OfficeType::Wifi) => Ok(OfficeType::WiFi),
        Ok(proto::OfficeType::Vpn) => Ok(OfficeType::Vpn),
        _ => Err(DecodeError::OutOfRange("office_type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DistributionKey, Namespace, PackageName, Version};

    #[test]
    fn package_takes_no_more_of_a_plan_than_is_reckoned_with() {
        let name = "n".repeat(253);
        let distribution =
            DistributionKey { namespace: Namespace::new(&name).unwrap(), name: PackageName::new(&name).unwrap() };
        let key = PackageKey { distribution, version: Version::new(&"1".repeat(63)).unwrap() };
        let [body, signature, public] = [60_000, 64, 32].map(|bytes| vec![1; bytes].into());
        let root = SignedBytes { body, signature, key: public };
        let granted_children: GrantedChildren = (0..CHILDREN_MAX).collect();
        let reckoned = bytes_of_planned(&key, root.bytes(), &granted_children);
        let planned = PlannedPackage {
            key: key.clone(),
            digest: Digest::of(b"root"),
            root,
            target: true,
            paused: true,
            priority: Priority::High,
            retention_versions: u32::MAX,
            granted_children,
        };
        let (packages, awaited) = (vec![encode_planned(&planned)], vec![encode_package(&key)]);
        let with_package = proto::Plan { packages, ..proto::Plan::default() }.encoded_len();
        let with_name = proto::Plan { awaited, ..proto::Plan::default() }.encoded_len();
        assert!((reckoned - 64..=reckoned).contains(&with_package), "{with_package}, reckoned {reckoned}");
        assert!(with_name <= bytes_of_name(&key), "{with_name}");
    }
}
