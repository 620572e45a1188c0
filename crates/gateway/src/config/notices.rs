//! Who is told of what, and by which channels: the section `[notifications]`. A table for a channel
//! switches it on; passwords and tokens come from the environment alone.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use lettre::message::Mailbox;
use tidegate_rules::alert::Severity;
use tidegate_rules::notification::{Channel, Digest, Language, Topic};
use tidegate_rules::time::Span;
use url::Url;

use super::file::{Problems, Section};
use super::values::{self, Echo, Form, Found};
use super::{Env, SecretText};

/// The password of the mail server.
pub(super) const SMTP_PASSWORD: &str = "SMTP_PASSWORD";
pub(super) const SMTP_PASSWORD_FILE: &str = "SMTP_PASSWORD_FILE";
/// The token of the bot.
pub(super) const TELEGRAM_BOT_TOKEN: &str = "TELEGRAM_BOT_TOKEN";
pub(super) const TELEGRAM_BOT_TOKEN_FILE: &str = "TELEGRAM_BOT_TOKEN_FILE";
/// What the SMS gateway wants to see.
pub(super) const SMS_SECRET: &str = "SMS_SECRET";
pub(super) const SMS_SECRET_FILE: &str = "SMS_SECRET_FILE";

/// Who is told of what, and how.
#[derive(Clone, Debug)]
pub struct Notifications {
    /// The language of operators, and of customers who name none.
    pub language: Language,
    /// What operators are told of orders.
    pub events: Vec<Topic>,
    /// The least alert that operators are told of.
    pub alerts: Option<Severity>,
    /// How often operators get a summary.
    pub digest: Digest,
    /// What customers are told of their orders: nothing unless they are to be told at all.
    pub customer_events: Vec<Topic>,
    /// Mail.
    pub smtp: Option<Smtp>,
    /// Telegram.
    pub telegram: Option<Telegram>,
    /// SMS.
    pub sms: Option<Sms>,
}

impl Notifications {
    /// The channels that are configured.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        let on = |channel: &Channel| match channel {
            Channel::Smtp => self.smtp.is_some(),
            Channel::Telegram => self.telegram.is_some(),
            Channel::Sms => self.sms.is_some(),
        };
        Channel::ALL.iter().copied().filter(on).collect()
    }

    /// Which operators are reached by a channel, as it addresses them.
    #[must_use]
    pub fn operators(&self, channel: Channel) -> Vec<String> {
        match channel {
            Channel::Smtp => self.smtp.as_ref().map_or_else(Vec::new, |smtp| smtp.to.iter().map(ToString::to_string).collect()),
            Channel::Telegram => self.telegram.as_ref().map_or_else(Vec::new, |telegram| vec![telegram.chat_id.clone()]),
            Channel::Sms => self.sms.as_ref().map_or_else(Vec::new, |sms| sms.to.clone()),
        }
    }
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Who logs in, and with what.
    pub login: Option<(String, SecretText)>,
    /// Who mails are from.
    pub from: Mailbox,
    /// The operators.
    pub to: Vec<Mailbox>,
    /// At most so many mails a minute.
    pub per_minute: NonZeroU32,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS after a greeting in the open; without it nothing is sent.
    StartTls,
    /// Not at all.
    None,
}

/// A bot of Telegram and the chat that it writes to.
#[derive(Clone, Debug)]
pub struct Telegram {
    /// Where the Bot API is.
    pub api_url: Url,
    /// The bot's token.
    pub token: SecretText,
    /// The operators' chat.
    pub chat_id: String,
    /// At most so many messages a minute.
    pub per_minute: NonZeroU32,
}

/// An SMS gateway that is spoken to over HTTP.
#[derive(Clone, Debug)]
pub struct Sms {
    /// Where it is, with `{to}`, `{text}` and `{secret}` perhaps.
    pub url: SecretText,
    /// How it is asked.
    pub method: SmsMethod,
    /// Sent with each request, with the same names perhaps.
    pub headers: Vec<(String, SecretText)>,
    /// The body, with the same names.
    pub body: SecretText,
    /// What its answer has in it when it took the message; any success is enough without it.
    pub accepted: Option<String>,
    /// What stands for `{secret}`.
    pub secret: Option<SecretText>,
    /// The operators.
    pub to: Vec<String>,
    /// At most so many messages a minute.
    pub per_minute: NonZeroU32,
}

/// How an SMS gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmsMethod {
    /// With everything in the address.
    Get,
    /// With a body.
    Post,
}

/// A mail address as people write it, if it is one.
#[must_use]
pub fn mailbox(text: &str) -> Option<Mailbox> {
    // The longest path of RFC 5321, and a name before it.
    let fits = text.len() <= 320 && !text.chars().any(char::is_control);
    let mailbox: Mailbox = if fits { text.trim().parse().ok()? } else { return None };
    (AsRef::<str>::as_ref(&mailbox.email).len() <= 254).then_some(mailbox)
}

/// A telephone number without what people put between its digits, if it is one.
#[must_use]
pub fn phone(text: &str) -> Option<String> {
    let number: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '/')).collect();
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let is_one = (6..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then_some(number)
}

/// A chat of Telegram: its number, or the name of a public channel.
#[must_use]
pub fn chat(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let name = text.strip_prefix('@').unwrap_or_default();
    let is_name = (4..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_number || is_name).then(|| text.to_owned())
}

const LANGUAGE: Form<Language> =
    Form { expected: "\"en\" or \"zh\"", echo: Echo::Quote, parse: |text| Language::from_name(text).ok_or(Found::Text) };

const EVENT: Form<Topic> = Form {
    expected: "the name of an event of orders such as \"order.paid\"",
    echo: Echo::Quote,
    parse: |text| Topic::of_event(text).filter(|topic| *topic != Topic::Alert).ok_or(Found::Text),
};

const CUSTOMER_EVENT: Form<Topic> = Form {
    expected: "the name of an event of orders that customers are told of, such as \"order.paid\"",
    echo: Echo::Quote,
    parse: |text| Topic::of_event(text).and_then(Topic::for_customer).ok_or(Found::Text),
};

const ALERTS: Form<Option<Severity>> = Form {
    expected: "\"info\", \"warning\", \"critical\" or \"off\"",
    echo: Echo::Quote,
    parse: |text| match Severity::from_name(text) {
        None if text == "off" => Ok(None),
        None => Err(Found::Text),
        some => Ok(some),
    },
};

const DIGEST: Form<Digest> = Form {
    expected: "\"off\", \"hourly\" or \"daily\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "off" => Ok(Digest::Off),
        "hourly" => Ok(Digest::Hourly),
        "daily" => Ok(Digest::Daily(Span::ZERO)),
        _ => Err(Found::Text),
    },
};

const TIME_OF_DAY: Form<Span> = Form {
    expected: "a time of day in UTC such as \"08:00\"",
    echo: Echo::Quote,
    parse: |text| {
        let (hour, minute) = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2).ok_or(Found::Text)?;
        let number = |text: &str, below: u64| text.parse::<u64>().ok().filter(|number| *number < below && !text.starts_with('+'));
        let (hour, minute) = number(hour, 24).zip(number(minute, 60)).ok_or(Found::Text)?;
        Ok(Span::from_secs(hour.saturating_mul(3_600).saturating_add(minute.saturating_mul(60))))
    },
};

const HOST: Form<String> = Form {
    expected: "the name or address of a mail server, such as \"smtp.example.com\"",
    echo: Echo::Quote,
    parse: |text| match url::Host::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        // An IPv6 address without the brackets of a URL.
        Err(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => Ok(text.to_owned()),
        Err(_) => Err(Found::Text),
    },
};

const SECURITY: Form<Security> = Form {
    expected: "\"tls\", \"starttls\" or \"none\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "tls" => Ok(Security::Tls),
        "starttls" => Ok(Security::StartTls),
        "none" => Ok(Security::None),
        _ => Err(Found::Text),
    },
};

const MAILBOX: Form<Mailbox> = Form {
    expected: "a mail address such as \"ops@example.com\" or \"Shop <pay@example.com>\"",
    echo: Echo::Quote,
    parse: |text| mailbox(text).ok_or(Found::Text),
};

const PHONE: Form<String> =
    Form { expected: "a telephone number such as \"+4915112345678\"", echo: Echo::Quote, parse: |text| phone(text).ok_or(Found::Text) };

const CHAT: Form<String> = Form {
    expected: "the number of a chat in quotes, such as \"-1001234567890\", or the @name of a channel",
    echo: Echo::Quote,
    parse: |text| chat(text).ok_or(Found::Text),
};

const TOKEN: Form<SecretText> = Form {
    expected: "a bot's token as @BotFather gives it: digits, a colon, and letters",
    echo: Echo::Hide,
    parse: |text| {
        let (number, key) = text.split_once(':').ok_or(Found::Text)?;
        let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if is_key && is_number { Ok(SecretText::new(text)) } else { Err(Found::Text) }
    },
};

const SMS_METHOD: Form<SmsMethod> = Form {
    expected: "\"GET\" or \"POST\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "GET" => Ok(SmsMethod::Get),
        "POST" => Ok(SmsMethod::Post),
        _ => Err(Found::Text),
    },
};

const SMS_URL: Form<SecretText> = Form {
    expected: "an http:// or https:// URL, with {to}, {text} and {secret} perhaps",
    echo: Echo::Hide,
    parse: |text| {
        let is_url = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if is_url { Ok(SecretText::new(text)) } else { Err(Found::Text) }
    },
};

const SECRET_TEXT: Form<SecretText> = Form {
    expected: "a text that is not empty",
    echo: Echo::Hide,
    parse: |text| if text.trim().is_empty() { Err(Found::Text) } else { Ok(SecretText::new(text)) },
};

/// What operators are told of unless the configuration says otherwise, in the order of topics.
const EVENTS: [Topic; 7] =
    [Topic::Underpaid, Topic::Paid, Topic::Overpaid, Topic::LatePayment, Topic::Expired, Topic::PaymentReverted, Topic::PaymentFailed];

/// The same for customers.
const CUSTOMER_EVENTS: [Topic; 5] =
    [Topic::CustomerUnderpaid, Topic::CustomerPaid, Topic::CustomerLatePayment, Topic::CustomerExpired, Topic::CustomerPaymentFailed];

/// Reads the section `[notifications]`.
pub(super) fn notifications(
    section: &mut Section<'_>,
    env: &Env<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Notifications {
    let said_something = !section.is_empty();
    let language = section.text("language", &LANGUAGE, problems).unwrap_or(Language::English);
    let events = topics("events", &EVENT, section, problems).unwrap_or_else(|| EVENTS.to_vec());
    let alerts = section.text("alerts", &ALERTS, problems).unwrap_or(Some(Severity::Warning));
    let digest_at = section.text("digest_at", &TIME_OF_DAY, problems);
    let digest = match section.text("digest", &DIGEST, problems).unwrap_or(Digest::Off) {
        Digest::Daily(_) => Digest::Daily(digest_at.unwrap_or(Span::from_secs(8 * 3_600))),
        other => other,
    };
    let customers = section.boolean("customers", problems).unwrap_or(false);
    let customer_events = topics("customer_events", &CUSTOMER_EVENT, section, problems).unwrap_or_else(|| CUSTOMER_EVENTS.to_vec());
    let smtp = table("smtp", section, problems, |table, problems| smtp(table, env, problems));
    let telegram = table("telegram", section, problems, |table, problems| telegram(table, env, problems));
    let sms = table("sms", section, problems, |table, problems| sms(table, env, problems));

    let on = |known: &Option<Option<()>>| known.is_some();
    let tables = [
        (SMTP_PASSWORD, "smtp", smtp.as_ref().map(|smtp| smtp.as_ref().map(drop))),
        (TELEGRAM_BOT_TOKEN, "telegram", telegram.as_ref().map(|telegram| telegram.as_ref().map(drop))),
        (SMS_SECRET, "sms", sms.as_ref().map(|sms| sms.as_ref().map(drop))),
    ];
    for (variable, name, _) in tables.iter().filter(|(variable, _, table)| env.is_set(variable) && !on(table)) {
        warnings.push(format!("{variable} is set, but there is no [notifications.{name}], so it is not used"));
    }
    if said_something && !tables.iter().any(|(_, _, table)| on(table)) {
        warnings.push(
            "[notifications] names no channel, so nobody is told; add [notifications.smtp], [notifications.telegram] or [notifications.sms]"
                .to_owned(),
        );
    }
    if customers && smtp.is_none() && sms.is_none() {
        problems.add(
            &section.place,
            "expected [notifications.smtp] or [notifications.sms] for `customers = true`, found neither: customers are told by mail or SMS alone",
        );
    }
    Notifications {
        language,
        events,
        alerts,
        digest,
        customer_events: if customers { customer_events } else { Vec::new() },
        smtp: smtp.flatten(),
        telegram: telegram.flatten(),
        sms: sms.flatten(),
    }
}

/// A channel's table, read to its end; `None` where there is no such table, `Some(None)` where it
/// is wrong.
fn table<'a, T>(
    key: &'static str,
    section: &mut Section<'a>,
    problems: &mut Problems,
    read: impl FnOnce(&mut Section<'a>, &mut Problems) -> Option<T>,
) -> Option<Option<T>> {
    let field = section.field(key);
    let there = field.is_some();
    let mut table = match field {
        Some(field) => {
            let place = field.place.clone();
            problems.keep(&place, field.into_section())?
        }
        None => return None,
    };
    let found = read(&mut table, problems);
    table.finish(problems);
    there.then_some(found)
}

/// A list of events; each once.
fn topics(key: &'static str, form: &Form<Topic>, section: &mut Section<'_>, problems: &mut Problems) -> Option<Vec<Topic>> {
    list(key, form, "a list of events such as [\"order.paid\", \"order.expired\"]", section, problems)
}

fn list<T: Ord>(key: &'static str, form: &Form<T>, expected: &str, section: &mut Section<'_>, problems: &mut Problems) -> Option<Vec<T>> {
    let field = section.field(key)?;
    let place = field.place.clone();
    let entries = problems.keep(&place, field.into_list(expected))?;
    let found: BTreeSet<T> = entries.iter().filter_map(|entry| problems.keep(&entry.place, entry.text(form))).collect();
    Some(found.into_iter().collect())
}

fn per_minute(usual: u32, table: &mut Section<'_>, problems: &mut Problems) -> NonZeroU32 {
    NonZeroU32::new(table.u32("per_minute", usual, 1..=6_000, problems)).unwrap_or(NonZeroU32::MIN)
}

/// A secret from the environment, or from the file that another variable names.
fn secret(
    name: &'static str,
    in_file: &'static str,
    form: &Form<SecretText>,
    env: &Env<'_>,
    problems: &mut Problems,
) -> Option<SecretText> {
    if env.is_set(name) && env.is_set(in_file) {
        problems.add(name, &format!("expected this variable or {in_file}, found both; unset one of them"));
    }
    env.read(name, form, problems)
}

fn missing(table: &Section<'_>, problems: &mut Problems, wanted: &[(&str, bool)]) {
    let absent: Vec<String> = wanted.iter().filter(|(_, there)| !there).map(|(key, _)| format!("`{key}`")).collect();
    if !absent.is_empty() {
        problems.add(&table.place, &format!("missing {}", absent.join(", ")));
    }
}

fn smtp(table: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Option<Smtp> {
    let given = ["host", "from"].map(|key| (key, table.field(key).is_some()));
    missing(table, problems, &given);
    let host = table.text("host", &HOST, problems);
    let security = table.text("security", &SECURITY, problems).unwrap_or(Security::Tls);
    let usual_port = match security {
        Security::Tls => 465,
        Security::StartTls => 587,
        Security::None => 25,
    };
    let port = table.integer("port", 1..=65_535, problems).and_then(|port| u16::try_from(port).ok()).unwrap_or(usual_port);
    let username = table.text("username", &values::TEXT, problems);
    let password = secret(SMTP_PASSWORD, SMTP_PASSWORD_FILE, &SECRET_TEXT, env, problems);
    let from = table.text("from", &MAILBOX, problems);
    let to = boxes(table, problems);
    let per_minute = per_minute(30, table, problems);
    if username.is_some() != password.is_some() {
        let (found, other) = if username.is_some() { ("`username`", SMTP_PASSWORD) } else { (SMTP_PASSWORD, "`username`") };
        problems.add(&table.place, &format!("expected both `username` and {SMTP_PASSWORD}, or neither, found {found} without {other}"));
    }
    let near = host.as_deref().is_some_and(is_this_machine);
    if security == Security::None && username.is_some() && !near {
        problems.add(
            &table.place,
            "expected `security` to be \"tls\" or \"starttls\" where a password is sent to another machine, found \"none\"",
        );
    }
    let login = username.zip(password);
    Some(Smtp { host: host?, port, security, login, from: from?, to, per_minute })
}

/// The operators' mail addresses, each once.
fn boxes(table: &mut Section<'_>, problems: &mut Problems) -> Vec<Mailbox> {
    let Some(field) = table.field("to") else { return Vec::new() };
    let place = field.place.clone();
    let entries = problems.keep(&place, field.into_list("a list of mail addresses such as [\"ops@example.com\"]")).unwrap_or_default();
    let mut found: Vec<Mailbox> = Vec::new();
    for mailbox in entries.iter().filter_map(|entry| problems.keep(&entry.place, entry.text(&MAILBOX))) {
        if !found.iter().any(|other| other.email == mailbox.email) {
            found.push(mailbox);
        }
    }
    found
}

/// True for a host that is this machine, whatever is between.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn telegram(table: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Option<Telegram> {
    let given = [("chat_id", table.field("chat_id").is_some())];
    missing(table, problems, &given);
    let chat_id = table.text("chat_id", &CHAT, problems);
    let api_url = table.text("api_url", &values::PUBLIC_URL, problems).or_else(|| Url::parse("https://api.telegram.org").ok());
    let per_minute = per_minute(20, table, problems);
    let said = env.is_set(TELEGRAM_BOT_TOKEN);
    let token = secret(TELEGRAM_BOT_TOKEN, TELEGRAM_BOT_TOKEN_FILE, &TOKEN, env, problems);
    if !said {
        problems
            .add(&table.place, &format!("expected the bot's token in {TELEGRAM_BOT_TOKEN} or {TELEGRAM_BOT_TOKEN_FILE}, found neither"));
    }
    let open = api_url.as_ref().is_some_and(|url| url.scheme() == "http" && !url.host_str().is_some_and(is_this_machine));
    if open {
        problems.add(&table.place, "expected `api_url` to be https where the token is sent to another machine, found http");
    }
    Some(Telegram { api_url: api_url?, token: token?, chat_id: chat_id?, per_minute })
}

/// How a body looks unless the configuration says otherwise.
const SMS_BODY: &str = r#"{"to":"{to}","text":"{text}"}"#;

fn sms(table: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Option<Sms> {
    let given = [("url", table.field("url").is_some())];
    missing(table, problems, &given);
    let url = table.text("url", &SMS_URL, problems);
    let method = table.text("method", &SMS_METHOD, problems).unwrap_or(SmsMethod::Post);
    let given_body = table.text("body", &SECRET_TEXT, problems);
    let has_body = given_body.is_some();
    let body = match method {
        SmsMethod::Get => SecretText::new(""),
        SmsMethod::Post => given_body.unwrap_or_else(|| SecretText::new(SMS_BODY)),
    };
    let headers = super::headers(table, problems);
    let accepted = table.text("accepted", &values::TEXT, problems);
    let secret = secret(SMS_SECRET, SMS_SECRET_FILE, &SECRET_TEXT, env, problems);
    let to = list("to", &PHONE, "a list of telephone numbers such as [\"+4915112345678\"]", table, problems).unwrap_or_default();
    let per_minute = per_minute(10, table, problems);
    if method == SmsMethod::Get && has_body {
        problems.add(&table.place, "expected no `body` with `method = \"GET\"`, found one; put {to} and {text} into `url`");
    }
    let url = url?;
    let says = |name: &str| [url.expose(), body.expose()].iter().any(|text| text.contains(name));
    for name in ["{to}", "{text}"].iter().filter(|name| !says(name)) {
        problems.add(&table.place, &format!("expected {name} in `url` or `body`, found it in neither"));
    }
    let asks = says("{secret}") || headers.iter().any(|(_, value)| value.expose().contains("{secret}"));
    match (asks, secret.is_some()) {
        (true, false) => {
            problems.add(&table.place, &format!("expected what stands for {{secret}} in {SMS_SECRET} or {SMS_SECRET_FILE}, found neither"));
        }
        (false, true) => {
            problems.add(
                &table.place,
                &format!("expected {{secret}} in `url`, `headers` or `body`, where {SMS_SECRET} is set, found it in none"),
            );
        }
        (true, true) | (false, false) => {}
    }
    let open = Url::parse(url.expose()).is_ok_and(|url| url.scheme() == "http" && !url.host_str().is_some_and(is_this_machine));
    if open && secret.is_some() {
        problems.add(&table.place, "expected `url` to be https where a secret is sent to another machine, found http");
    }
    Some(Sms { url, method, headers, body, accepted, secret, to, per_minute })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_text_addresses() {
        let table = "
            mail  | ops@example.com          | ops@example.com
            mail  | Shop <pay@example.com>   | Shop <pay@example.com>
            mail  | nobody                   | -
            mail  | a@b@c                    | -
            mail  | a@b, c@d                 | -
            phone | +49 151 1234-5678        | +4915112345678
            phone | (0151) 12345678          | 015112345678
            phone | 12345                    | -
            phone | +1234567890123456        | -
            phone | call me                  | -
            chat  | -1001234567890           | -1001234567890
            chat  | @shop_alerts             | @shop_alerts
            chat  | @a                       | -
            chat  | shop                     | -";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let found = match cells[0] {
                "mail" => mailbox(cells[1]).map(|mailbox| mailbox.to_string()),
                "phone" => phone(cells[1]),
                _ => chat(cells[1]),
            };
            assert_eq!(found.unwrap_or_else(|| "-".to_owned()), cells[2], "{line}");
        }
        assert!(mailbox("a@example.com\nBcc: b@example.com").is_none());
        assert!(mailbox(&format!("{}@example.com", "x".repeat(300))).is_none());
    }
}
