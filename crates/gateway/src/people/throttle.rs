//! How often somebody may try to show who he is. Tries are counted before they are judged, so that
//! many at once gain nothing.
//!
//! Nobody can lock another out for ever: what counts against an account from everywhere does not
//! count for an address that the account came in from before.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tidegate_rules::id::UserId;

use crate::problem::Problem;

/// Tries at once from one address, whoever is meant, and how long one more takes to come.
const ADDRESS_MAX: NonZeroU32 = NonZeroU32::new(30).unwrap();
const ADDRESS_EVERY: Duration = Duration::from_secs(3);

/// Tries at once for one account from one address.
const PAIR_MAX: NonZeroU32 = NonZeroU32::new(6).unwrap();
const PAIR_EVERY: Duration = Duration::from_secs(10);

/// Tries at once for one account from all addresses that it never came in from.
const ACCOUNT_MAX: NonZeroU32 = NonZeroU32::new(30).unwrap();
const ACCOUNT_EVERY: Duration = Duration::from_secs(10);

/// Second factors and old passwords at once by somebody who is in.
const PROOF_MAX: NonZeroU32 = NonZeroU32::new(6).unwrap();
const PROOF_EVERY: Duration = Duration::from_secs(10);

/// Those who have been quiet are forgotten when this many are known.
const KNOWN_MAX: usize = 10_000;

/// An account by a hash of its name: names have many lengths, and may be anything.
type Account = [u8; 32];

/// Who tried how often.
pub struct Throttle {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    pairs: DefaultKeyedRateLimiter<(Account, IpAddr)>,
    accounts: DefaultKeyedRateLimiter<Account>,
    proofs: DefaultKeyedRateLimiter<UserId>,
}

fn quota(every: Duration, burst: NonZeroU32) -> Quota {
    // A period of zero is the only one that is refused, and none of them is.
    Quota::with_period(every).unwrap_or_else(|| Quota::per_minute(NonZeroU32::MIN)).allow_burst(burst)
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            addresses: RateLimiter::hashmap(quota(ADDRESS_EVERY, ADDRESS_MAX)),
            pairs: RateLimiter::hashmap(quota(PAIR_EVERY, PAIR_MAX)),
            accounts: RateLimiter::hashmap(quota(ACCOUNT_EVERY, ACCOUNT_MAX)),
            proofs: RateLimiter::hashmap(quota(PROOF_EVERY, PROOF_MAX)),
        }
    }
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
    /// Counts a try to log in from an address.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub fn address(&self, address: IpAddr) -> Result<(), Problem> {
        count(&self.addresses, &network_of(address))
    }

    /// Counts a try to log in as somebody.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub fn account(&self, name: &str, address: IpAddr, is: Address) -> Result<(), Problem> {
        let account: Account = Sha256::digest(name.as_bytes()).into();
        count(&self.pairs, &(account, network_of(address)))?;
        if is == Address::Known { Ok(()) } else { count(&self.accounts, &account) }
    }

    /// Counts a second factor or an old password, shown by somebody who is in.
    ///
    /// # Errors
    /// 429 when there were too many.
    pub fn proof(&self, user: UserId) -> Result<(), Problem> {
        count(&self.proofs, &user)
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

fn count<K: std::hash::Hash + Eq + Clone>(tries: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), Problem> {
    if tries.len() >= KNOWN_MAX {
        tries.retain_recent();
    }
    tries.check_key(key).map_err(|until| {
        let wait = until.wait_time_from(DefaultClock::default().now());
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many tries; wait, then try once more");
        problem.retry_after_s = Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1));
        problem
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outcome: &Result<(), Problem>) -> bool {
        outcome.as_ref().is_err_and(|problem| problem.code == "rate_limited" && problem.retry_after_s.is_some_and(|seconds| seconds >= 1))
    }

    #[test]
    fn many_who_guess_lock_nobody_out_of_a_known_address() {
        let throttle = Throttle::default();
        let home = IpAddr::from([192, 0, 2, 1]);
        for guesser in 0..ACCOUNT_MAX.get() {
            let from = IpAddr::from(0x0a00_0000_u32.wrapping_add(guesser).to_be_bytes());
            assert!(throttle.account("owner@shop.example", from, Address::Unknown).is_ok());
        }
        let another = IpAddr::from([10, 1, 1, 1]);
        assert!(refused(&throttle.account("owner@shop.example", another, Address::Unknown)), "everywhere is too much");
        assert!(throttle.account("owner@shop.example", home, Address::Known).is_ok());
        assert!(throttle.account("support@shop.example", another, Address::Unknown).is_ok(), "others are not concerned");
        for _ in 1..PAIR_MAX.get() {
            assert!(throttle.account("owner@shop.example", home, Address::Known).is_ok());
        }
        assert!(refused(&throttle.account("owner@shop.example", home, Address::Known)), "a known address has its limit too");
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

    #[test]
    fn an_address_has_a_limit_whoever_is_meant() {
        let throttle = Throttle::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..ADDRESS_MAX.get() {
            assert!(throttle.address(one).is_ok());
        }
        assert!(refused(&throttle.address(one)));
        assert!(throttle.address(other).is_ok());
    }
}
