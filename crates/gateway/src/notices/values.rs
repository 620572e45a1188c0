//! What an event says, as values for a text: numbers without trailing zeros, times to the minute.
//! Reads the body of the event, which was fixed when it happened; decides nothing. Pure.

use serde_json::Value;
use tidegate_rules::amount::Amount;
use tidegate_rules::notification::Topic;
use tidegate_rules::time::Time;

use super::template::Values;
use crate::store::EventCount;

/// The values that every message has.
fn of(topic: Topic, at: Time, installation: &str) -> Values {
    let mut values = Values::default();
    values.put("event", topic.event());
    values.put("at", moment(&at.to_string()));
    values.put("installation", installation);
    values
}

/// A test message's values.
#[must_use]
pub fn of_installation(topic: Topic, at: Time, installation: &str) -> Values {
    of(topic, at, installation)
}

/// The values of an order, as its event shows it.
#[must_use]
pub fn of_order(topic: Topic, at: Time, installation: &str, order: &Value) -> Values {
    let mut values = of(topic, at, installation);
    let text = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
    for (name, member) in [
        ("order_id", "id"),
        ("merchant_order_id", "merchant_order_id"),
        ("merchant_id", "merchant_id"),
        ("user_id", "user_id"),
        ("plan_id", "plan_id"),
        ("status", "status"),
        ("exception", "exception"),
        ("network", "network"),
        ("token", "token"),
        ("address", "address"),
        ("checkout_url", "checkout_url"),
        ("redirect_url", "redirect_url"),
    ] {
        values.put(name, text(member));
    }
    let own = text("merchant_order_id");
    values.put("reference", if own.is_empty() { text("id") } else { own });
    for name in ["amount", "amount_received", "amount_confirmed"] {
        values.put(name, plain(text(name)));
    }
    if let (Ok(amount), Ok(received)) = (text("amount").parse::<Amount>(), text("amount_received").parse::<Amount>()) {
        values.put("amount_missing", plain(&amount.saturating_sub(received).to_string()));
    }
    for name in ["created_at", "expires_at", "paid_at", "cancelled_at"] {
        values.put(name, moment(text(name)));
    }
    let last = order.get("transfers").and_then(Value::as_array).and_then(|transfers| transfers.last());
    for name in ["tx_hash", "from"] {
        values.put(name, last.and_then(|transfer| transfer.get(name)).and_then(Value::as_str).unwrap_or_default());
    }
    for (name, value) in order.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        values.put(&format!("metadata.{name}"), value);
    }
    values
}

/// The values of an alert, as its event shows it.
#[must_use]
pub fn of_alert(topic: Topic, at: Time, installation: &str, alert: &Value) -> Values {
    let mut values = of(topic, at, installation);
    let text = |name: &str| alert.get(name).and_then(Value::as_str).unwrap_or_default();
    for (name, member) in [("alert_id", "id"), ("alert_kind", "kind"), ("severity", "severity"), ("about", "about"), ("detail", "detail")] {
        values.put(name, text(member));
    }
    values
}

/// What happened in a period.
#[derive(Clone, Debug, Default)]
pub struct Period {
    /// Its beginning.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// How many events of each kind there were.
    pub counts: Vec<EventCount>,
    /// What was paid.
    pub paid: Amount,
    /// Alerts that are open at its end.
    pub alerts_open: u64,
}

/// The values of a period.
#[must_use]
pub fn of_period(topic: Topic, at: Time, installation: &str, period: &Period) -> Values {
    let mut values = of(topic, at, installation);
    values.put("period_from", moment(&period.from.to_string()));
    values.put("period_to", moment(&period.to.to_string()));
    let count = |topic: Topic| period.counts.iter().find(|(kind, _)| kind == topic.name()).map_or(0, |(_, count)| *count);
    for (name, topic) in [
        ("orders_created", Topic::Pending),
        ("orders_paid", Topic::Paid),
        ("orders_underpaid", Topic::Underpaid),
        ("orders_overpaid", Topic::Overpaid),
        ("orders_expired", Topic::Expired),
        ("orders_cancelled", Topic::Cancelled),
        ("late_payments", Topic::LatePayment),
        ("payments_failed", Topic::PaymentFailed),
        ("payments_reverted", Topic::PaymentReverted),
    ] {
        values.put(name, count(topic).to_string());
    }
    values.put("amount_paid", plain(&period.paid.to_string()));
    values.put("alerts_open", period.alerts_open.to_string());
    values
}

/// An amount without the zeros at its end.
fn plain(amount: &str) -> &str {
    if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { amount }
}

/// A time to the minute, as people read it.
fn moment(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => String::new(),
    }
}

/// An order to show how a text reads.
#[must_use]
pub fn sample_order() -> Value {
    serde_json::json!({
        "id": "ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70", "merchant_id": "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f71", "status": "paid",
        "exception": null, "network": "tron", "token": "USDT", "amount": "12.500000", "amount_received": "12.000000",
        "amount_confirmed": "12.000000", "address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "user_id": "42", "plan_id": "gold",
        "merchant_order_id": "INV-1001", "checkout_url": "https://pay.example.com/pay/ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70",
        "redirect_url": "https://shop.example/thanks", "metadata": { "name": "Ann", "email": "ann@example.com", "language": "en" },
        "created_at": "2026-11-23T08:00:00.000Z", "expires_at": "2026-11-23T08:30:00.000Z", "paid_at": "2026-11-23T08:04:00.000Z",
        "cancelled_at": null,
        "transfers": [{ "tx_hash": "661f1df8402c1ee3bd7e43f3de9f0e9b5c53c3e8e5e1d1a35e3c3f8f8f0b1234", "from": "TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf" }],
    })
}

/// An alert to show how a text reads.
#[must_use]
pub fn sample_alert() -> Value {
    serde_json::json!({
        "id": "alr_019a5a0fca7e7bd0a3f2c8e1b4d96f70", "kind": "stray_money", "severity": "warning", "about": "tron/661f1df8…/0",
        "detail": "12.500000 came to TJRabPrwbZy45sbavfcjinPJC18kjpRTv8, which no order owned then", "status": "open",
    })
}

/// A period to show how a text reads.
#[must_use]
pub fn sample_period() -> Period {
    let counts = [(Topic::Pending, 120), (Topic::Paid, 97), (Topic::Underpaid, 3), (Topic::Expired, 20), (Topic::LatePayment, 1)];
    Period {
        from: Time::from_secs(1_795_420_800),
        to: Time::from_secs(1_795_507_200),
        counts: counts.iter().map(|(topic, count)| (topic.name().to_owned(), *count)).collect(),
        paid: Amount::from_micros(4_321_500_000),
        alerts_open: 2,
    }
}

#[cfg(test)]
mod tests {
    use tidegate_rules::notification::Channel;

    use super::*;
    use crate::notices::template::Template;

    fn fill(values: &Values, topic: Topic, text: &str) -> String {
        Template::parse(topic, Channel::Telegram, "", text).unwrap().fill(values).1
    }

    #[test]
    fn an_order_is_told_as_people_read_it() {
        let at = "2026-11-23T08:04:31.120Z".parse().unwrap();
        let values = of_order(Topic::Paid, at, "pay.example.com", &sample_order());
        let table = "
            {{event}} at {{at}} on {{installation}} | order.paid at 2026-11-23 08:04 UTC on pay.example.com
            {{reference}} {{merchant_order_id}}     | INV-1001 INV-1001
            {{amount}} - {{amount_received}} = {{amount_missing}} {{token}} | 12.5 - 12 = 0.5 USDT
            {{paid_at}} {{cancelled_at}}            | 2026-11-23 08:04 UTC -
            {{exception}}                           | -
            {{from}}                                | TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf
            {{metadata.name}} {{metadata.nothing}}  | Ann -";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (text, expected) = line.split_once('|').unwrap();
            assert_eq!(fill(&values, Topic::Paid, text.trim()), expected.trim());
        }
        let mut own = sample_order();
        own["merchant_order_id"] = Value::Null;
        own["metadata"] = serde_json::json!({ "n": 7, "yes": true, "list": [1], "nothing": null });
        let values = of_order(Topic::Paid, at, "", &own);
        assert_eq!(fill(&values, Topic::Paid, "{{reference}}"), own["id"].as_str().unwrap());
        assert_eq!(fill(&values, Topic::Paid, "{{metadata.n}} {{metadata.yes}} {{metadata.list}} {{metadata.nothing}}"), "7 true - -");
    }

    #[test]
    fn amounts_lose_zeros_and_no_digit() {
        for (amount, expected) in [("12.500000", "12.5"), ("100.000000", "100"), ("0.000001", "0.000001"), ("10", "10"), ("", "")] {
            assert_eq!(plain(amount), expected);
        }
    }

    #[test]
    fn a_period_is_told_in_numbers() {
        let values = of_period(Topic::Digest, Time::from_secs(0), "", &sample_period());
        let text = "{{period_from}} {{orders_created}} {{orders_paid}} {{amount_paid}} {{orders_cancelled}} {{alerts_open}}";
        assert_eq!(fill(&values, Topic::Digest, text), "2026-11-23 08:00 UTC 120 97 4321.5 0 2");
    }
}
