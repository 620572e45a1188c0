//! Who is told of what by mail, Telegram or SMS, and when it is tried again: the names of topics,
//! channels and languages, the pauses between tries, the periods of digests. How a message reads
//! and how it travels is the gateway's business.

use crate::time::{Span, Time};
use crate::wallet::names;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// By mail.
    Smtp,
    /// By a bot of Telegram.
    Telegram,
    /// By an SMS gateway that is spoken to over HTTP.
    Sms,
}

names!(Channel: Smtp "smtp", Telegram "telegram", Sms "sms");

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Whoever runs the gateway.
    Operator,
    /// Whoever pays.
    Customer,
}

names!(Audience: Operator "operator", Customer "customer");

/// The languages that messages are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
}

names!(Language: English "en", Chinese "zh");

impl Language {
    /// The language of a tag such as `zh-CN` or `en_GB`.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
        Self::from_name(&primary.to_ascii_lowercase())
    }
}

/// What a message is about. Those for customers have texts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// An order was created.
    Pending,
    /// Money arrived, and it is not enough.
    Underpaid,
    /// Enough arrived; it is not settled yet.
    Confirming,
    /// Enough has settled.
    Paid,
    /// More than the amount has settled.
    Overpaid,
    /// Money arrived after the order's time.
    LatePayment,
    /// The order's time passed.
    Expired,
    /// A person cancelled the order.
    Cancelled,
    /// The chain took back money of a paid order.
    PaymentReverted,
    /// A transaction that was to pay the order failed.
    PaymentFailed,
    /// An alert was raised.
    Alert,
    /// What happened in an hour or a day.
    Digest,
    /// Whether the channel works.
    Test,
    /// [`Topic::Pending`], for the customer.
    CustomerPending,
    /// [`Topic::Underpaid`], for the customer.
    CustomerUnderpaid,
    /// [`Topic::Confirming`], for the customer.
    CustomerConfirming,
    /// [`Topic::Paid`], for the customer.
    CustomerPaid,
    /// [`Topic::Overpaid`], for the customer.
    CustomerOverpaid,
    /// [`Topic::LatePayment`], for the customer.
    CustomerLatePayment,
    /// [`Topic::Expired`], for the customer.
    CustomerExpired,
    /// [`Topic::Cancelled`], for the customer.
    CustomerCancelled,
    /// [`Topic::PaymentFailed`], for the customer.
    CustomerPaymentFailed,
}

names!(Topic:
    Pending "order.pending",
    Underpaid "order.underpaid",
    Confirming "order.confirming",
    Paid "order.paid",
    Overpaid "order.overpaid",
    LatePayment "order.late_payment",
    Expired "order.expired",
    Cancelled "order.cancelled",
    PaymentReverted "order.payment_reverted",
    PaymentFailed "order.payment_failed",
    Alert "wallet.alert",
    Digest "digest",
    Test "test",
    CustomerPending "customer.order.pending",
    CustomerUnderpaid "customer.order.underpaid",
    CustomerConfirming "customer.order.confirming",
    CustomerPaid "customer.order.paid",
    CustomerOverpaid "customer.order.overpaid",
    CustomerLatePayment "customer.order.late_payment",
    CustomerExpired "customer.order.expired",
    CustomerCancelled "customer.order.cancelled",
    CustomerPaymentFailed "customer.order.payment_failed",
);

/// What a topic speaks of, and so what its text may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// An order.
    Order,
    /// An alert.
    Alert,
    /// A period.
    Period,
    /// Nothing but the installation.
    Installation,
}

impl Topic {
    /// What stands before the name of an order's event in the topics for customers.
    const CUSTOMER: &'static str = "customer.";

    /// What it speaks of.
    #[must_use]
    pub const fn about(self) -> About {
        match self {
            Self::Alert => About::Alert,
            Self::Digest => About::Period,
            Self::Test => About::Installation,
            _ => About::Order,
        }
    }

    /// The operator's topic of an event, by the event's name; `None` for one that nobody is told of.
    #[must_use]
    pub fn of_event(name: &str) -> Option<Self> {
        Self::from_name(name).filter(|topic| topic.audience() == Audience::Operator && matches!(topic.about(), About::Order | About::Alert))
    }

    /// The same for the customer, where customers are told of it.
    #[must_use]
    pub fn for_customer(self) -> Option<Self> {
        Self::from_name(&format!("{}{}", Self::CUSTOMER, self.name()))
    }

    /// Who is told.
    #[must_use]
    pub fn audience(self) -> Audience {
        if self.name().starts_with(Self::CUSTOMER) { Audience::Customer } else { Audience::Operator }
    }

    /// The name of the event that it tells.
    #[must_use]
    pub fn event(self) -> &'static str {
        self.name().strip_prefix(Self::CUSTOMER).unwrap_or(self.name())
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeStatus {
    /// It is to be sent.
    Due,
    /// It was accepted.
    Sent,
    /// It was not accepted, and is not tried any more.
    Failed,
}

names!(NoticeStatus: Due "due", Sent "sent", Failed "failed");

/// How long each failed try is waited after. One try more than there are pauses is made.
pub const PAUSES: [Span; 5] =
    [Span::from_secs(60), Span::from_secs(5 * 60), Span::from_secs(30 * 60), Span::from_secs(2 * 3_600), Span::from_secs(6 * 3_600)];

/// When the next try is due after `tries` failed ones, of which the last was `now`; `None` once
/// there were enough.
///
/// Counted from the last try and not from the first: a message that waited long for its first try
/// does not have the others at once.
#[must_use]
pub fn next_try(tries: u32, now: Time) -> Option<Time> {
    let failed = usize::try_from(tries).ok()?.checked_sub(1)?;
    Some(now.plus(*PAUSES.get(failed)?))
}

/// What is older is no news: nobody is told of it any more.
pub const NEWS_MAX: Span = Span::from_secs(86_400);

/// How often a digest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Never.
    Off,
    /// Every full hour.
    Hourly,
    /// Every day, so long after midnight UTC.
    Daily(Span),
}

/// The period that a digest is due for now, when the last one ended at `until`: up to the last full
/// hour, or the last time of day, that has passed.
#[must_use]
pub fn digest_due(digest: Digest, until: Time, now: Time) -> Option<(Time, Time)> {
    let (every_ms, after_ms) = match digest {
        Digest::Off => return None,
        Digest::Hourly => (3_600_000, 0),
        Digest::Daily(after) => (86_400_000, i64::try_from(after.millis()).unwrap_or(0)),
    };
    let since_last = now.millis().saturating_sub(after_ms).checked_rem_euclid(every_ms)?;
    let last = Time::from_millis(now.millis().saturating_sub(since_last));
    (last > until).then_some((until, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_customers_have_topics_of_their_own() {
        for topic in Topic::ALL {
            assert_eq!(Topic::from_name(topic.name()), Some(*topic));
            match topic.audience() {
                Audience::Customer => assert_eq!(Topic::of_event(topic.event()).and_then(Topic::for_customer), Some(*topic)),
                Audience::Operator => assert_eq!(topic.event(), topic.name()),
            }
        }
        assert_eq!(Topic::of_event("order.paid"), Some(Topic::Paid));
        assert_eq!(Topic::of_event("wallet.alert"), Some(Topic::Alert));
        for no_event in ["digest", "test", "customer.order.paid", "membership.activated", ""] {
            assert_eq!(Topic::of_event(no_event), None, "{no_event}");
        }
        assert_eq!(Topic::Paid.for_customer(), Some(Topic::CustomerPaid));
        assert_eq!(Topic::PaymentReverted.for_customer(), None);
    }

    #[test]
    fn languages_by_tag() {
        for (tag, expected) in [
            ("en", Some(Language::English)),
            ("en-GB", Some(Language::English)),
            ("zh", Some(Language::Chinese)),
            ("zh-CN", Some(Language::Chinese)),
            ("ZH_hans", Some(Language::Chinese)),
            ("de", None),
            ("", None),
        ] {
            assert_eq!(Language::from_tag(tag), expected, "{tag}");
        }
    }

    #[test]
    fn tries_pause_longer_and_longer_and_end() {
        let now = Time::from_secs(1_000_000);
        let table = "
            0 -
            1 60
            2 300
            3 1800
            4 7200
            5 21600
            6 -
            4294967295 -";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (tries, pause) = line.split_once(' ').unwrap();
            let expected = pause.parse().ok().map(|pause| now.plus(Span::from_secs(pause)));
            assert_eq!(next_try(tries.parse().unwrap(), now), expected, "{line}");
        }
    }

    #[test]
    fn digests_end_at_full_hours_and_at_a_time_of_day() {
        // Kind; the end of the last one; now; the end of this one.
        let table = "
            off     2026-11-26T00:00:00Z  2026-11-27T12:00:00Z  -
            hourly  2026-11-26T09:30:00Z  2026-11-26T09:59:59Z  -
            hourly  2026-11-26T09:30:00Z  2026-11-26T10:00:00Z  2026-11-26T10:00:00.000Z
            hourly  2026-11-26T10:00:00Z  2026-11-26T10:59:59Z  -
            hourly  2026-11-26T10:00:00Z  2026-11-26T14:20:00Z  2026-11-26T14:00:00.000Z
            daily   2026-11-26T07:00:00Z  2026-11-26T07:59:59Z  -
            daily   2026-11-26T07:00:00Z  2026-11-26T08:00:00Z  2026-11-26T08:00:00.000Z
            daily   2026-11-26T08:00:00Z  2026-11-27T07:59:59Z  -
            daily   2026-11-26T08:00:00Z  2026-11-30T12:00:00Z  2026-11-30T08:00:00.000Z";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let digest = match cells[0] {
                "off" => Digest::Off,
                "hourly" => Digest::Hourly,
                _ => Digest::Daily(Span::from_secs(8 * 3_600)),
            };
            let until = cells[1].parse().unwrap();
            let due = digest_due(digest, until, cells[2].parse().unwrap());
            assert_eq!(due.map_or("-".to_owned(), |(_, to)| to.to_string()), cells[3], "{line}");
            assert!(due.is_none_or(|(from, _)| from == until), "{line}");
        }
    }
}
