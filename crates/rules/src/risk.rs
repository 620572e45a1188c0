//! What a movement of money, or a word of the token's issuer, says about a wallet: which alerts
//! follow, how far its risk rises, and whether it is taken out of use. Nothing here lowers a risk or
//! gives a wallet back; a person does.
//!
//! A [`Verdict`] is the same however often it is asked for. What keeps an alert single is what it is
//! about: the transfer, the address, or for a flood of dust [`flood_about`].

use std::collections::HashSet;

use crate::alert::AlertKind;
use crate::amount::Amount;
use crate::block::{Address, Hash, Transfer};
use crate::id::WalletId;
use crate::notice::TokenNotice;
use crate::time::{Span, Time};
use crate::wallet::{RiskLevel, WalletKind};

/// An amount is unusual only after at least this many earlier transfers to the wallet: before that
/// there is nothing it could be compared with.
pub const UNUSUAL_AFTER: u32 = 5;

/// An amount is unusual only above this many times the largest one before.
pub const UNUSUAL_FACTOR: u64 = 10;

/// An amount is unusual only above this: 1,000 tokens. Among small ones a factor means little.
pub const UNUSUAL_ABOVE: Amount = Amount::from_micros(1_000_000_000);

/// A wallet that receives more dust transfers than this within [`DUST_WINDOW`] is flooded.
pub const DUST_FLOOD_ABOVE: u32 = 20;

/// How far back dust is counted, in block time: 24 hours, the end exclusive.
pub const DUST_WINDOW: Span = Span::from_secs(24 * 3_600);

/// For how long after a payment, in block time, what happens to its payer concerns the wallet that
/// was paid: 90 days, the end inclusive.
pub const PAYER_RECENT: Span = Span::from_secs(90 * 24 * 3_600);

/// What follows. Empty by default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What an operator should look at.
    pub alerts: Vec<AlertKind>,
    /// The wallet is at least this risky now: [`raise`] to it. `None` says nothing about its risk.
    pub risk: Option<RiskLevel>,
    /// The wallet is to be frozen.
    pub freeze: bool,
}

impl Verdict {
    fn alert(kind: AlertKind) -> Self {
        Self { alerts: vec![kind], ..Self::default() }
    }

    fn raised(kind: AlertKind, risk: RiskLevel) -> Self {
        Self { risk: Some(risk), ..Self::alert(kind) }
    }

    fn frozen(kind: AlertKind) -> Self {
        Self { freeze: true, ..Self::raised(kind, RiskLevel::Blocked) }
    }
}

/// The risk of a wallet after something spoke for `to`: it only rises.
#[must_use]
pub fn raise(current: RiskLevel, to: RiskLevel) -> RiskLevel {
    current.max(to)
}

/// What came to a wallet before a new transfer. Transfers between wallets of ours are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How many transfers that are not dust.
    pub incoming: u32,
    /// The largest of them; zero when there is none.
    pub largest: Amount,
    /// How many dust transfers less than [`DUST_WINDOW`] before the new one.
    pub dust: u32,
}

impl History {
    /// The history from the time and amount of each transfer before the one at `at`, in any order.
    #[must_use]
    pub fn of(earlier: impl IntoIterator<Item = (Time, Amount)>, at: Time, dust_below: Amount) -> Self {
        let mut history = Self::default();
        for (time, amount) in earlier {
            if amount >= dust_below {
                history.incoming = history.incoming.saturating_add(1);
                history.largest = history.largest.max(amount);
            } else if at.since(time) < DUST_WINDOW {
                history.dust = history.dust.saturating_add(1);
            }
        }
        history
    }
}

/// What follows from a transfer of `amount` to a wallet of ours from somebody else. Amounts below
/// `dust_below` are dust, whoever owns them.
///
/// An unusual amount is no reason to distrust the wallet: it may simply be a large order. A flood of
/// dust is one to watch it, for somebody knows the address and means something by it.
#[must_use]
pub fn incoming(history: &History, amount: Amount, dust_below: Amount) -> Verdict {
    if amount < dust_below {
        if history.dust.saturating_add(1) > DUST_FLOOD_ABOVE {
            return Verdict::raised(AlertKind::DustFlood, RiskLevel::Watch);
        }
        return Verdict::default();
    }
    let usual = history.largest.micros().saturating_mul(UNUSUAL_FACTOR);
    if history.incoming >= UNUSUAL_AFTER && amount > UNUSUAL_ABOVE && amount.micros() > usual {
        return Verdict::alert(AlertKind::UnusualAmount);
    }
    Verdict::default()
}

/// What an alert about a flood of dust is about: the wallet, and the UTC day of the block that shows
/// it. A flood is one alert a day.
#[must_use]
pub fn flood_about(wallet: WalletId, at: Time) -> String {
    let at = at.to_string();
    format!("{wallet} {}", at.split('T').next().unwrap_or(&at))
}

/// What follows from a transfer from a wallet of ours, to anybody, another wallet of ours included.
/// `signed` has at least those transactions of the block that were signed here.
///
/// A transfer of nothing says nothing: anybody can make one from any address. Of a watched wallet
/// the key is elsewhere and so is whoever signs, rightly or not: that is told, and a person judges.
#[must_use]
pub fn outgoing(kind: WalletKind, transfer: &Transfer, signed: &HashSet<Hash>) -> Verdict {
    if transfer.value.is_zero() || signed.contains(&transfer.key.tx_hash) {
        return Verdict::default();
    }
    match kind {
        WalletKind::Watch => Verdict::alert(AlertKind::MoneyLeft),
        // Somebody else has the key.
        WalletKind::Random | WalletKind::Hd | WalletKind::Imported => Verdict::frozen(AlertKind::MoneyLeft),
    }
}

/// Whose address a notice is about; `None` when it is about the whole token.
#[must_use]
pub const fn concerns(notice: &TokenNotice) -> Option<Address> {
    match notice {
        TokenNotice::Blacklisted(address) | TokenNotice::Unblacklisted(address) => Some(*address),
        TokenNotice::FundsDestroyed { address, .. } => Some(*address),
        TokenNotice::Paused | TokenNotice::Unpaused | TokenNotice::Deprecated { .. } => None,
    }
}

/// Whose address a notice is about. A wallet of ours that also paid another one is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A wallet of ours.
    Ours,
    /// Somebody's who paid to a wallet of ours lately.
    Payer,
    /// Nobody's that concerns us.
    Stranger,
}

impl Whose {
    /// Somebody who last paid to a wallet of ours at `paid_at`, when something happens at `at`:
    /// both in block time.
    #[must_use]
    pub fn payer(paid_at: Time, at: Time) -> Self {
        if at.since(paid_at) <= PAYER_RECENT { Self::Payer } else { Self::Stranger }
    }
}

/// What follows from a word of the token's issuer: for the wallet itself when it is ours, for every
/// wallet that was paid when it is a payer's. What concerns the whole token says nothing about one
/// wallet and is asked with [`Whose::Stranger`].
///
/// Taking an address off the blacklist, or going on after a pause, changes nothing by itself.
#[must_use]
pub fn notice(notice: &TokenNotice, whose: Whose) -> Verdict {
    match (notice, whose) {
        (TokenNotice::Blacklisted(_), Whose::Ours) => Verdict::frozen(AlertKind::AddressBlacklisted),
        (TokenNotice::FundsDestroyed { .. }, Whose::Ours) => Verdict::frozen(AlertKind::FundsDestroyed),
        // Only a blacklisted address loses its money so: whoever missed the one learns it by the other.
        (TokenNotice::Blacklisted(_) | TokenNotice::FundsDestroyed { .. }, Whose::Payer) => {
            Verdict::raised(AlertKind::PayerBlacklisted, RiskLevel::High)
        }
        (TokenNotice::Blacklisted(_) | TokenNotice::FundsDestroyed { .. }, Whose::Stranger) => Verdict::default(),
        (TokenNotice::Paused, _) => Verdict::alert(AlertKind::TokenPaused),
        (TokenNotice::Deprecated { .. }, _) => Verdict::alert(AlertKind::TokenDeprecated),
        (TokenNotice::Unblacklisted(_) | TokenNotice::Unpaused, _) => Verdict::default(),
    }
}
