//! A small cache with a budget: what was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A cache whose entries weigh something. One entry may exceed the budget: then it is alone.
#[derive(Debug)]
pub(super) struct Lru<Key, Value> {
    budget: usize,
    weight: usize,
    clock: u64,
    entries: HashMap<Key, Slot<Value>>,
    by_age: BTreeMap<u64, Key>,
}

#[derive(Debug)]
struct Slot<Value> {
    value: Value,
    weight: usize,
    used: u64,
}

impl<Key: Clone + Eq + Hash, Value: Clone> Lru<Key, Value> {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, weight: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() }
    }

    /// The value of a key, which becomes the most recently used.
    pub(super) fn find(&mut self, key: &Key) -> Option<Value> {
        self.clock += 1;
        let slot = self.entries.get_mut(key)?;
        self.by_age.remove(&slot.used);
        slot.used = self.clock;
        self.by_age.insert(self.clock, key.clone());
        Some(slot.value.clone())
    }

    /// Keeps a value, replacing the old one, and drops others until the budget holds.
    pub(super) fn insert(&mut self, key: Key, value: Value, weight: usize) {
        self.remove(&key);
        self.clock += 1;
        self.by_age.insert(self.clock, key.clone());
        self.entries.insert(key, Slot { value, weight, used: self.clock });
        self.weight += weight;
        while self.weight > self.budget && self.entries.len() > 1 {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.forget(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.forget(key) {
            self.by_age.remove(&slot.used);
        }
    }

    /// Drops every entry whose key does not pass.
    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let dropped: Vec<Key> = self.entries.keys().filter(|key| !keep(key)).cloned().collect();
        dropped.iter().for_each(|key| self.remove(key));
    }

    fn forget(&mut self, key: &Key) -> Option<Slot<Value>> {
        let slot = self.entries.remove(key)?;
        self.weight -= slot.weight;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_unused_for_longest_goes_first() {
        let mut cache = Lru::new(3);
        for key in 1..=3 {
            cache.insert(key, key * 10, 1);
        }
        assert_eq!(cache.find(&1), Some(10));
        cache.insert(4, 40, 1);
        assert_eq!([1, 2, 3, 4].map(|key| cache.find(&key)), [Some(10), None, Some(30), Some(40)]);
        cache.insert(5, 50, 9);
        assert_eq!([1, 3, 4, 5].map(|key| cache.find(&key)), [None, None, None, Some(50)]);
        cache.insert(5, 51, 1);
        cache.insert(6, 60, 1);
        cache.retain(|key| *key == 6);
        assert_eq!([5, 6].map(|key| cache.find(&key)), [None, Some(60)]);
        assert_eq!((cache.weight, cache.by_age.len()), (1, 1));
    }
}
