//! Which offices form one tree. The Central Office stays that while it exists, whoever comes later waits with a reason;
//! an office below one that is not in the tree is not in it either.

use std::collections::{BTreeMap, BTreeSet};

use peerdist_core::names::OfficeName;
use peerdist_core::office::{OFFICES_MAX, OfficeTreeError, OfficeType};

use super::{Refusal, ValidOffice, name_of};

/// Splits candidates, in the order in which they came, into those of the tree and the others with reasons. `unusable`
/// names offices that exist and have faults of their own. Without an `incumbent` the first one without a parent becomes
/// the Central Office.
pub(super) fn judge<'names>(
    candidates: Vec<ValidOffice>,
    unusable: impl IntoIterator<Item = &'names String>,
    incumbent: Option<OfficeName>,
) -> (Vec<ValidOffice>, Vec<(OfficeName, Refusal)>) {
    let unusable: BTreeSet<OfficeName> = unusable.into_iter().filter_map(|name| name_of(name)).collect();
    let places: BTreeMap<OfficeName, Place> = candidates
        .iter()
        .take(OFFICES_MAX)
        .map(|candidate| (candidate.office.name.clone(), Place::of(candidate)))
        .collect();
    let central = incumbent.or_else(|| first_root(&candidates, &places));
    let judgement = Judgement { places, central, unusable };
    let (mut in_tree, mut refused) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match judgement.of(&candidate.office.name) {
            Ok(()) => in_tree.push(candidate),
            Err(refusal) => refused.push((candidate.office.name, refusal)),
        }
    }
    (in_tree, refused)
}

fn first_root(candidates: &[ValidOffice], places: &BTreeMap<OfficeName, Place>) -> Option<OfficeName> {
    let root = candidates.iter().map(|candidate| &candidate.office).find(|office| {
        office.parent.is_none() && office.office_type != OfficeType::Vpn && places.contains_key(&office.name)
    });
    root.map(|office| office.name.clone())
}

struct Place {
    parent: Option<OfficeName>,
    is_vpn: bool,
}

impl Place {
    fn of(office: &ValidOffice) -> Self {
        Self { parent: office.office.parent.clone(), is_vpn: office.office.office_type == OfficeType::Vpn }
    }
}

struct Judgement {
    places: BTreeMap<OfficeName, Place>,
    central: Option<OfficeName>,
    unusable: BTreeSet<OfficeName>,
}

impl Judgement {
    /// Walks up to the Central Office. The first fault on the way that is the office's own is told as such, a fault
    /// further up as the parent's.
    fn of(&self, office: &OfficeName) -> Result<(), Refusal> {
        let place = self.places.get(office).ok_or_else(|| waiting(&OfficeTreeError::TooMany))?;
        let Some(parent) = &place.parent else { return self.of_root(office, place) };
        if self.central.as_ref() == Some(office) {
            return Err(central_below(office, parent));
        }
        self.own_fault(office, parent)?;
        let mut seen = BTreeSet::from([office]);
        let mut next = parent;
        loop {
            if !seen.insert(next) {
                return Err(above(office, parent));
            }
            let Some(place) = self.places.get(next) else { return Err(above(office, parent)) };
            match &place.parent {
                None if self.central.as_ref() == Some(next) => return Ok(()),
                Some(up) if !self.is_vpn(up) => next = up,
                _ => return Err(above(office, parent)),
            }
        }
    }

    fn of_root(&self, office: &OfficeName, place: &Place) -> Result<(), Refusal> {
        if place.is_vpn {
            return Err(stalled(&OfficeTreeError::VpnIsCentral { office: office.clone() }));
        }
        match &self.central {
            Some(central) if central != office => {
                let error = OfficeTreeError::SecondCentral { office: office.clone(), central: central.clone() };
                Err(waiting(&error))
            }
            _ => Ok(()),
        }
    }

    fn own_fault(&self, office: &OfficeName, parent: &OfficeName) -> Result<(), Refusal> {
        if !self.places.contains_key(parent) {
            if self.unusable.contains(parent) {
                return Err(above(office, parent));
            }
            return Err(waiting(&OfficeTreeError::UnknownParent { office: office.clone(), parent: parent.clone() }));
        }
        if let Some(cycle) = self.cycle_through(office) {
            return Err(waiting(&OfficeTreeError::Cycle { office: office.clone(), cycle }));
        }
        if self.is_vpn(parent) {
            return Err(waiting(&OfficeTreeError::VpnHasChild { office: office.clone(), parent: parent.clone() }));
        }
        Ok(())
    }

    fn cycle_through(&self, office: &OfficeName) -> Option<Vec<OfficeName>> {
        let (mut cycle, mut seen) = (vec![office], BTreeSet::from([office]));
        let mut next = self.places.get(office)?.parent.as_ref()?;
        while next != office {
            if !seen.insert(next) {
                return None;
            }
            cycle.push(next);
            next = self.places.get(next)?.parent.as_ref()?;
        }
        Some(cycle.into_iter().cloned().collect())
    }

    fn is_vpn(&self, office: &OfficeName) -> bool {
        self.places.get(office).is_some_and(|place| place.is_vpn)
    }
}

fn stalled(error: &OfficeTreeError) -> Refusal {
    refusal(error, true)
}

fn waiting(error: &OfficeTreeError) -> Refusal {
    refusal(error, false)
}

fn refusal(error: &OfficeTreeError, stalled: bool) -> Refusal {
    Refusal { field: error.field().to_owned(), reason: error.reason(), message: error.to_string(), stalled }
}

fn central_below(office: &OfficeName, parent: &OfficeName) -> Refusal {
    Refusal {
        field: "spec.parent".to_owned(),
        reason: "CentralOfficeHasParent",
        message: format!(
            "office {office} is the Central Office and has the server, and now names the parent {parent}: expected no \
             parent; remove it, or delete the office first so that another can become the Central Office"
        ),
        stalled: true,
    }
}

fn above(office: &OfficeName, parent: &OfficeName) -> Refusal {
    Refusal {
        field: "spec.parent".to_owned(),
        reason: "ParentNotAccepted",
        message: format!(
            "office {office} has the parent {parent}, which is not part of the office tree: expected a parent that \
             leads to the Central Office; see the conditions of {parent}"
        ),
        stalled: false,
    }
}
