//! Loopback addresses of jobs: each running job has a range of its own, in which each of its hosts has one.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runner::contract::RENDEZVOUS_PORT;
use serde::{Deserialize, Serialize};
use store::resources::ResourceKey;

/// Most hosts of a job: each is one address of a range.
pub const MOST_HOSTS: usize = 250;

/// The addresses 127.SECOND.THIRD.1 and on, and the port at which the hosts of a job meet.
///
/// Other jobs have other ports too: PyTorch's store listens on all addresses of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AddressRange {
    /// Second number of the addresses. Never 0: those are for the machine itself.
    pub second: u8,
    /// Third number of the addresses.
    pub third: u8,
    /// The port of the first host.
    pub port: u16,
}

impl AddressRange {
    /// The address of a host, counted from 0.
    pub fn host(self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, self.second, self.third, last)
    }

    fn shares_with(self, other: AddressRange) -> bool {
        self.port == other.port || (self.second, self.third) == (other.second, other.third)
    }
}

/// The ranges that are in use.
#[derive(Default)]
pub struct Addresses {
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    held: HashMap<AddressRange, usize>,
    /// Ranges of jobs that an earlier server started and that nobody has taken up yet.
    left_over: HashMap<ResourceKey, AddressRange>,
}

/// A range in use, given back when this is dropped.
pub struct Lease {
    addresses: Arc<Addresses>,
    range: AddressRange,
}

impl Lease {
    /// The range.
    pub fn range(&self) -> AddressRange {
        self.range
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.addresses.lock();
        if let Some(count) = used.held.get_mut(&self.range) {
            *count -= 1;
            if *count == 0 {
                used.held.remove(&self.range);
            }
        }
    }
}

impl Addresses {
    /// Keeps a range for a job that was started by an earlier server.
    pub fn reserve(&self, key: ResourceKey, range: AddressRange) {
        self.lock().left_over.insert(key, range);
    }

    /// Holds the range of a job that runs already.
    pub fn hold(self: &Arc<Self>, key: &ResourceKey, range: AddressRange) -> Lease {
        let mut used = self.lock();
        used.left_over.remove(key);
        *used.held.entry(range).or_default() += 1;
        Lease { addresses: self.clone(), range }
    }

    /// A range that no running job uses, for a job that is about to start; `seed` spreads the ranges of several servers of
    /// this machine.
    pub fn take(self: &Arc<Self>, key: &ResourceKey, seed: u16) -> Lease {
        let mut used = self.lock();
        used.left_over.remove(key);
        let taken: HashSet<AddressRange> = used.held.keys().chain(used.left_over.values()).copied().collect();
        let is_free = |range: &AddressRange| !taken.iter().any(|other| other.shares_with(*range));
        let port = (RENDEZVOUS_PORT..).find(|port| !taken.iter().any(|other| other.port == *port));
        let port = port.unwrap_or(RENDEZVOUS_PORT);
        let ranges = (0..=u16::MAX).map(|step| {
            let [second, third] = seed.wrapping_add(step).to_be_bytes();
            AddressRange { second, third, port }
        });
        let range = ranges.filter(|range| range.second != 0).find(is_free);
        // There are more ranges than processes on a machine.
        let range = range.unwrap_or(AddressRange { second: 1, third: 0, port });
        *used.held.entry(range).or_default() += 1;
        Lease { addresses: self.clone(), range }
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ResourceKey {
        ResourceKey::new("123456789012", "us-east-1", "training-job", name)
    }

    #[test]
    fn running_jobs_share_neither_addresses_nor_ports() {
        let addresses = Arc::new(Addresses::default());
        let left = AddressRange { second: 3, third: 7, port: 7777 };
        addresses.reserve(key("old"), left);
        let first = addresses.take(&key("a"), 0x0307);
        assert_eq!(first.range(), AddressRange { second: 3, third: 8, port: 7778 });
        assert_eq!(first.range().host(1).to_string(), "127.3.8.2");
        let resumed = addresses.hold(&key("old"), left);
        drop(resumed);
        let second = addresses.take(&key("b"), 0x0307);
        assert_eq!(second.range(), left, "what ended is free again");
        assert_eq!(addresses.take(&key("c"), 0).range().second, 1, "127.0 is the machine's own");
    }
}
