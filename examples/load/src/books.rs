//! What the shop knows it did: its own books, to hold against what the gateway says afterwards.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dice::Dice;

/// Wrong things that are kept word for word; all are counted.
const WRONG_KEPT_MAX: usize = 30;

/// How a visit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The exact amount.
    Pays,
    /// A tenth too much.
    PaysMore,
    /// Nine tenths first, then the rest.
    PaysInParts,
    /// The order is cancelled.
    Cancels,
    /// Nothing more happens, and the order expires.
    Leaves,
}

impl Ending {
    /// Of a hundred visitors 70 pay, 5 pay more, 5 pay in parts, 10 cancel and 10 leave.
    pub fn drawn(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..70 => Self::Pays,
            70..75 => Self::PaysMore,
            75..80 => Self::PaysInParts,
            80..90 => Self::Cancels,
            _ => Self::Leaves,
        }
    }
}

/// An order as the shop knows it.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The order's id.
    pub id: String,
    /// What it costs, in millionths.
    pub amount: u64,
    /// What was paid, in millionths.
    pub paid: u64,
    /// True when the network was chosen at the checkout: its address is younger than the order.
    pub chosen_later: bool,
    /// True when a payment was sent and no answer came.
    pub unsure: bool,
}

impl Sale {
    /// An order that was just made.
    #[must_use]
    pub const fn new(id: String, amount: u64) -> Self {
        Self { id, amount, paid: 0, chosen_later: false, unsure: false }
    }

    /// True when enough was sent.
    #[must_use]
    pub const fn is_paid(&self) -> bool {
        self.paid >= self.amount && !self.unsure
    }
}

#[derive(Default)]
struct Inner {
    sales: HashMap<String, Sale>,
    wrong: Vec<String>,
    wrong_count: u64,
    pages_to_the_end: u64,
}

/// The books. The lock is held for a few instructions and never while anything waits.
#[derive(Default)]
pub struct Books {
    inner: Mutex<Inner>,
}

impl Books {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new order.
    pub fn sold(&self, sale: Sale) {
        let mut inner = self.inner();
        if let Some(before) = inner.sales.insert(sale.id.clone(), sale) {
            drop(inner);
            self.wrong(format!("{} was given to two visitors", before.id));
        }
    }

    /// The payer chose the network.
    pub fn chose(&self, id: &str) {
        self.change(id, |sale| sale.chosen_later = true);
    }

    /// So much is paid now.
    pub fn pays(&self, id: &str, micros: u64) {
        self.change(id, |sale| sale.paid = sale.paid.saturating_add(micros));
    }

    /// Nobody knows whether the payment was made.
    pub fn lost_sight(&self, id: &str) {
        self.change(id, |sale| sale.unsure = true);
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Sale)) {
        if let Some(sale) = self.inner().sales.get_mut(id) {
            change(sale);
        }
    }

    /// What an order costs.
    #[must_use]
    pub fn amount(&self, id: &str) -> Option<u64> {
        self.inner().sales.get(id).map(|sale| sale.amount)
    }

    /// A page showed how its order ended.
    pub fn page_saw_the_end(&self) {
        self.inner().pages_to_the_end += 1;
    }

    /// How many pages did.
    #[must_use]
    pub fn pages_to_the_end(&self) -> u64 {
        self.inner().pages_to_the_end
    }

    /// Something that must not be.
    pub fn wrong(&self, what: String) {
        let mut inner = self.inner();
        inner.wrong_count += 1;
        if inner.wrong.len() < WRONG_KEPT_MAX {
            inner.wrong.push(what);
        }
    }

    /// How many wrong things there were, and the first of them.
    #[must_use]
    pub fn wrongs(&self) -> (u64, Vec<String>) {
        let inner = self.inner();
        (inner.wrong_count, inner.wrong.clone())
    }

    /// All orders, by id.
    #[must_use]
    pub fn sales(&self) -> HashMap<String, Sale> {
        self.inner().sales.clone()
    }
}

/// An amount such as `"12.500000"` in millionths.
#[must_use]
pub fn micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<6}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_millionths() {
        assert_eq!(micros("12.500000"), Some(12_500_000));
        assert_eq!(micros("5"), Some(5_000_000));
        assert_eq!(micros("0.000001"), Some(1));
        for bad in ["", ".5", "1.0000001", "-1", "1e3", "1,5"] {
            assert_eq!(micros(bad), None, "{bad}");
        }
    }
}
