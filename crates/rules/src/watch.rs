//! The addresses that are ours, as a set that answers fast and stays small: finding payments costs
//! one look-up per transfer, however many addresses there are.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::block::Address;

/// The addresses that are ours.
#[derive(Clone, Debug, Default)]
pub struct Watched(HashSet<Address, BuildHasherDefault<AddressHasher>>);

impl Watched {
    /// True for one of ours.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        self.0.contains(address)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<Address> for Watched {
    fn extend<T: IntoIterator<Item = Address>>(&mut self, addresses: T) {
        self.0.extend(addresses);
    }
}

/// Takes bytes of the address for its hash. Addresses are Keccak digests already, and only our own
/// go into the set, so nobody can fill it with chosen ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // The set uses the upper bits too, which an address with a chosen prefix may share.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_and_nobody_elses() {
        let address = |n: u32| {
            let mut bytes = [0x41; 20];
            bytes[4..8].copy_from_slice(&n.to_be_bytes());
            Address(bytes)
        };
        let mut watched = Watched::default();
        watched.extend((0..10_000).map(address));
        assert_eq!(watched.len(), 10_000);
        assert!((0..10_000).all(|n| watched.contains(&address(n))));
        assert!((10_000..20_000).all(|n| !watched.contains(&address(n))));
    }
}
