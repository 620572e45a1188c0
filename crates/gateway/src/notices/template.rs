//! Texts with names in double braces: `Order {{order_id}} is paid`. No logic, and nothing is
//! guessed: a name that the topic does not know is refused where the text is written, not found out
//! where it is sent. Pure.

use std::collections::BTreeMap;

use tidegate_rules::notification::{About, Channel, Topic};

/// The longest subject, in characters.
const SUBJECT_MAX: usize = 200;

/// The longest text, in characters: what Telegram takes, with room for what is filled in.
const BODY_MAX: usize = 3_000;

/// The longest text of an SMS before it is filled in.
const SMS_BODY_MAX: usize = 500;

/// The longest value that is filled in, in characters.
const VALUE_MAX: usize = 300;

/// What stands for a value that there is not.
const NONE: &str = "-";

/// What every text may name.
const EVERYWHERE: [&str; 3] = ["event", "at", "installation"];

const OF_ORDER: [&str; 23] = [
    "order_id",
    "reference",
    "merchant_order_id",
    "merchant_id",
    "user_id",
    "plan_id",
    "status",
    "exception",
    "network",
    "token",
    "amount",
    "amount_received",
    "amount_confirmed",
    "amount_missing",
    "address",
    "checkout_url",
    "redirect_url",
    "created_at",
    "expires_at",
    "paid_at",
    "cancelled_at",
    "tx_hash",
    "from",
];

const OF_ALERT: [&str; 5] = ["alert_id", "alert_kind", "severity", "about", "detail"];

const OF_PERIOD: [&str; 13] = [
    "period_from",
    "period_to",
    "orders_created",
    "orders_paid",
    "amount_paid",
    "orders_underpaid",
    "orders_overpaid",
    "orders_expired",
    "orders_cancelled",
    "late_payments",
    "payments_failed",
    "payments_reverted",
    "alerts_open",
];

/// What begins the name of a member of an order's metadata.
const METADATA: &str = "metadata.";

/// The names that a topic's texts may use; of an order `metadata.NAME` too.
#[must_use]
pub fn known(topic: Topic) -> Vec<&'static str> {
    let own: &[&str] = match topic.about() {
        About::Order => &OF_ORDER,
        About::Alert => &OF_ALERT,
        About::Period => &OF_PERIOD,
        About::Installation => &[],
    };
    EVERYWHERE.iter().chain(own).copied().collect()
}

fn is_known(topic: Topic, name: &str) -> bool {
    known(topic).contains(&name) || (topic.about() == About::Order && name.strip_prefix(METADATA).is_some_and(is_member))
}

/// True for a member of metadata that a text can name.
fn is_member(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// What is filled in, by name. A value is one line without control characters, whoever it is from:
/// it can start no line of its own, neither of a text nor of a mail's head.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// Keeps a value under a name; one that is empty as if there were none.
    pub fn put(&mut self, name: &str, value: impl AsRef<str>) {
        let value: String =
            value.as_ref().chars().map(|c| if c.is_control() || is_line_end(c) { ' ' } else { c }).take(VALUE_MAX).collect();
        let value = value.trim();
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or(NONE, String::as_str)
    }
}

/// Unicode ends lines and turns the direction of writing in more ways than with control characters.
const fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Words(String),
    Name(String),
}

/// Why a text is refused, in words.
type Refused = String;

impl Text {
    fn parse(topic: Topic, text: &str) -> Result<Self, Refused> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((words, tail)) = rest.split_once("{{") {
            let (name, tail) = tail.split_once("}}").ok_or_else(|| format!("expected }}}} after {{{{{}", start(tail)))?;
            pieces.push(Piece::Words(closed(words)?));
            let name = name.trim();
            if !is_known(topic, name) {
                return Err(unknown(topic, name));
            }
            pieces.push(Piece::Name(name.to_owned()));
            rest = tail;
        }
        pieces.push(Piece::Words(closed(rest)?));
        Ok(Self(pieces))
    }

    fn fill(&self, values: &Values) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Words(words) => words.as_str(),
                Piece::Name(name) => values.get(name),
            })
            .collect()
    }
}

/// Words between two names, which may not end a name that did not begin.
fn closed(words: &str) -> Result<String, Refused> {
    match words.split_once("}}") {
        Some((before, _)) => Err(format!("expected {{{{ before }}}}, found none: …{}}}}}", end(before))),
        None => Ok(words.to_owned()),
    }
}

fn start(text: &str) -> String {
    text.chars().take(20).collect()
}

fn end(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(20);
    text.chars().skip(skipped).collect()
}

fn unknown(topic: Topic, name: &str) -> Refused {
    let known = known(topic);
    let near = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
    let near =
        near.filter(|near| strsim::damerau_levenshtein(near, name) <= 2).map_or_else(String::new, |near| format!(", did you mean {near}?"));
    let more = if topic.about() == About::Order { ", metadata.NAME" } else { "" };
    let shown: String = name.chars().take(64).collect();
    format!("{{{{{shown}}}}} is not known to {}{near} Known are: {}{more}", topic.name(), known.join(", "))
}

/// A message before it is filled in, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    subject: Text,
    body: Text,
}

/// Which part of a template is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `subject` or `body`.
    pub part: &'static str,
    /// What was expected and found.
    pub why: String,
}

impl Template {
    /// Reads and checks the two texts of a template.
    ///
    /// # Errors
    /// [`Wrong`] says which text is refused, and why.
    pub fn parse(topic: Topic, channel: Channel, subject: &str, body: &str) -> Result<Self, Wrong> {
        check_subject(channel, subject).map_err(|why| Wrong { part: "subject", why })?;
        check_body(channel, body).map_err(|why| Wrong { part: "body", why })?;
        Ok(Self {
            subject: Text::parse(topic, subject).map_err(|why| Wrong { part: "subject", why })?,
            body: Text::parse(topic, body).map_err(|why| Wrong { part: "body", why })?,
        })
    }

    /// Subject and body with these values.
    #[must_use]
    pub fn fill(&self, values: &Values) -> (String, String) {
        (self.subject.fill(values), self.body.fill(values))
    }
}

fn check_subject(channel: Channel, subject: &str) -> Result<(), Refused> {
    if channel != Channel::Smtp {
        return if subject.is_empty() { Ok(()) } else { Err(format!("expected none, since {} has no subjects", channel.name())) };
    }
    if subject.trim().is_empty() || subject.chars().count() > SUBJECT_MAX {
        return Err(format!("expected 1 to {SUBJECT_MAX} characters"));
    }
    if subject.chars().any(|c| c.is_control() || is_line_end(c)) {
        return Err("expected one line without control characters".to_owned());
    }
    Ok(())
}

fn check_body(channel: Channel, body: &str) -> Result<(), Refused> {
    let most = if channel == Channel::Sms { SMS_BODY_MAX } else { BODY_MAX };
    if body.trim().is_empty() || body.chars().count() > most {
        return Err(format!("expected 1 to {most} characters"));
    }
    if body.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Err("expected lines that end with \\n and no other control characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_filled_in_or_refused() {
        let mut values = Values::default();
        values.put("order_id", "ord_1");
        values.put("amount", "12.5");
        values.put("metadata.name", "Ann {{amount}}");
        // Topic; the text; what it becomes, or how the refusal begins.
        let table = "
            order.paid | Order {{order_id}} is paid          | Order ord_1 is paid
            order.paid | {{order_id}}{{amount}}              | ord_112.5
            order.paid | {{ order_id }}: {{address}}         | ord_1: -
            order.paid | for {{metadata.name}}               | for Ann {{amount}}
            order.paid | a { b } c                           | a { b } c
            order.paid | {\"a\":1}                           | {\"a\":1}
            order.paid | {{order_di}}                        | ! {{order_di}} is not known to order.paid, did you mean order_id? Known are: event, at, installation, order_id,
            order.paid | {{detail}}                          | ! {{detail}} is not known to order.paid Known are: event,
            order.paid | {{metadata.}}                       | ! {{metadata.}} is not known
            order.paid | {{metadata.a b}}                    | ! {{metadata.a b}} is not known
            order.paid | {{}}                                | ! {{}} is not known
            order.paid | {{#if paid}}                        | ! {{#if paid}} is not known
            order.paid | {{order_id                          | ! expected }} after {{order_id
            order.paid | order_id}}                          | ! expected {{ before }}, found none: …order_id}}
            wallet.alert | {{detail}}                        | -
            wallet.alert | {{order_id}}                      | ! {{order_id}} is not known to wallet.alert
            wallet.alert | {{metadata.name}}                 | ! {{metadata.name}} is not known
            customer.order.paid | {{amount}}                 | 12.5
            test | {{installation}}                          | -
            digest | {{orders_paid}}                         | -";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
            let topic = Topic::from_name(cells[0]).unwrap();
            match (Template::parse(topic, Channel::Sms, "", cells[1]), cells[2].strip_prefix("! ")) {
                (Ok(template), None) => assert_eq!(template.fill(&values).1, cells[2], "{line}"),
                (Err(wrong), Some(start)) => assert!(wrong.part == "body" && wrong.why.starts_with(start), "{line}: {wrong:?}"),
                (other, _) => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_value_starts_no_line() {
        let mut values = Values::default();
        values.put("metadata.name", "Ann\r\nBcc: victim@example.com\u{2028}\u{202e}x\0");
        values.put("metadata.long", "x".repeat(1_000));
        values.put("metadata.empty", " \n ");
        let template =
            Template::parse(Topic::Paid, Channel::Smtp, "For {{metadata.name}}", "{{metadata.long}}|{{metadata.empty}}").unwrap();
        let (subject, body) = template.fill(&values);
        assert_eq!(subject, "For Ann  Bcc: victim@example.com  x");
        assert_eq!(body, format!("{}|-", "x".repeat(VALUE_MAX)));
    }

    #[test]
    fn each_channel_has_its_limits() {
        let parse = |channel, subject: &str, body: &str| Template::parse(Topic::Paid, channel, subject, body).map_err(|wrong| wrong.part);
        assert!(parse(Channel::Smtp, "s", "b").is_ok());
        assert!(parse(Channel::Telegram, "", "a\n\tb").is_ok());
        assert_eq!(parse(Channel::Telegram, "s", "b"), Err("subject"));
        assert_eq!(parse(Channel::Sms, "s", "b"), Err("subject"));
        assert_eq!(parse(Channel::Smtp, "", "b"), Err("subject"));
        assert_eq!(parse(Channel::Smtp, "a\nb", "b"), Err("subject"));
        assert_eq!(parse(Channel::Smtp, &"s".repeat(201), "b"), Err("subject"));
        assert_eq!(parse(Channel::Smtp, "s", " "), Err("body"));
        assert_eq!(parse(Channel::Smtp, "s", "a\0b"), Err("body"));
        assert_eq!(parse(Channel::Sms, "", &"b".repeat(501)), Err("body"));
        assert_eq!(parse(Channel::Telegram, "", &"b".repeat(3_001)), Err("body"));
    }
}
