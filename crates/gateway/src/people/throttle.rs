//! How often somebody may try to show who he is. Tries are counted before they are judged, so that
//! many at once gain nothing.
//!
//! Nobody can lock another out for ever: what counts against an account from everywhere does not
//! count for an address that the account came in from before.
//!
//! Where there is Redis, tries are counted for all processes of the database together, and a restart
//! forgets none ([`crate::rate`]).

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_rules::id::UserId;

use crate::problem::Problem;
use crate::rate::{Limiter, Rate, Together};

/// Tries at once from one address, whoever is meant, and how long one more takes to come.
const ADDRESS_MAX: NonZeroU32 = NonZeroU32::new(30).unwrap();
const ADDRESS: Rate = Rate { burst: ADDRESS_MAX, every: Duration::from_secs(3) };

/// Tries at once for one account from one address.
const PAIR_MAX: NonZeroU32 = NonZeroU32::new(6).unwrap();
const PAIR: Rate = Rate { burst: PAIR_MAX, every: Duration::from_secs(10) };

/// Tries at once for one account from all addresses that it never came in from.
const ACCOUNT_MAX: NonZeroU32 = NonZeroU32::new(30).unwrap();
const ACCOUNT: Rate = Rate { burst: ACCOUNT_MAX, every: Duration::from_secs(10) };

/// Second factors and old passwords at once by somebody who is in.
const PROOF_MAX: NonZeroU32 = NonZeroU32::new(6).unwrap();
const PROOF: Rate = Rate { burst: PROOF_MAX, every: Duration::from_secs(10) };

/// An account by a hash of its name: names have many lengths, and may be anything.
type Account = [u8; 32];

/// Who tried how often.
pub struct Throttle {
    addresses: Limiter<IpAddr>,
    pairs: Limiter<(Account, IpAddr)>,
    accounts: Limiter<Account>,
    proofs: Limiter<UserId>,
}

/// Whether an account came in from an address before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// It did, in the last weeks.
    Known,
    /// It did not.
    Unknown,
}

impl Throttle {
    /// Nobody tried, as far as this process knows.
    #[must_use]
    pub fn new(together: Option<&Together>) -> Self {
        let pair = |(account, address): &(Account, IpAddr)| format!("{} {address}", hex::encode(account));
        Self {
            addresses: Limiter::new("log_in_address", ADDRESS, IpAddr::to_string, together),
            pairs: Limiter::new("log_in_pair", PAIR, pair, together),
            accounts: Limiter::new("log_in_account", ACCOUNT, |account| hex::encode(account), together),
            proofs: Limiter::new("proof", PROOF, UserId::to_string, together),
        }
    }

    /// Counts a try to log in from an address.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub async fn address(&self, address: IpAddr) -> Result<(), Problem> {
        self.addresses.count(&network_of(address)).await.map_err(too_many)
    }

    /// Counts a try to log in as somebody.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub async fn account(&self, name: &str, address: IpAddr, is: Address) -> Result<(), Problem> {
        let account: Account = Sha256::digest(name.as_bytes()).into();
        self.pairs.count(&(account, network_of(address))).await.map_err(too_many)?;
        if is == Address::Known { Ok(()) } else { self.accounts.count(&account).await.map_err(too_many) }
    }

    /// Counts a second factor or an old password, shown by somebody who is in.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub async fn proof(&self, user: UserId) -> Result<(), Problem> {
        self.proofs.count(&user).await.map_err(too_many)
    }
}

/// Whom to count something against: an IPv4 address, or the network of an IPv6 one, of which one
/// subscriber has as many as there are grains of sand.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

fn too_many(again_s: u32) -> Problem {
    Problem::too_many("too many tries; wait, then try once more", again_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outcome: &Result<(), Problem>) -> bool {
        outcome.as_ref().is_err_and(|problem| problem.code == "rate_limited" && problem.retry_after_s.is_some_and(|seconds| seconds >= 1))
    }

    #[tokio::test]
    async fn many_who_guess_lock_nobody_out_of_a_known_address() {
        let throttle = Throttle::new(None);
        let home = IpAddr::from([192, 0, 2, 1]);
        for guesser in 0..ACCOUNT_MAX.get() {
            let from = IpAddr::from(0x0a00_0000_u32.wrapping_add(guesser).to_be_bytes());
            assert!(throttle.account("owner@shop.example", from, Address::Unknown).await.is_ok());
        }
        let another = IpAddr::from([10, 1, 1, 1]);
        assert!(refused(&throttle.account("owner@shop.example", another, Address::Unknown).await), "everywhere is too much");
        assert!(throttle.account("owner@shop.example", home, Address::Known).await.is_ok());
        assert!(throttle.account("support@shop.example", another, Address::Unknown).await.is_ok(), "others are not concerned");
        for _ in 1..PAIR_MAX.get() {
            assert!(throttle.account("owner@shop.example", home, Address::Known).await.is_ok());
        }
        assert!(refused(&throttle.account("owner@shop.example", home, Address::Known).await), "a known address has its limit too");
    }

    #[test]
    fn an_ipv6_subscriber_is_one() {
        let table = "
            192.0.2.1               192.0.2.1
            ::ffff:192.0.2.1        192.0.2.1
            2001:db8:1:2:3:4:5:6    2001:db8:1:2::
            2001:db8:1:2::          2001:db8:1:2::
            2001:db8:1:3::          2001:db8:1:3::";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (address, expected) = line.split_once(' ').unwrap();
            assert_eq!(network_of(address.parse().unwrap()).to_string(), expected.trim());
        }
    }

    #[tokio::test]
    async fn an_address_has_a_limit_whoever_is_meant() {
        let throttle = Throttle::new(None);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..ADDRESS_MAX.get() {
            assert!(throttle.address(one).await.is_ok());
        }
        assert!(refused(&throttle.address(one).await));
        assert!(throttle.address(other).await.is_ok());
    }
}
