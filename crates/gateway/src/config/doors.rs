//! `[payment_webhooks.NAME]`: who may post to `POST /webhook/payment/NAME`, how that is signed, and
//! where its body says what it is about.

use std::collections::BTreeMap;

use tidegate_rules::block::Network;

use super::file::{Problems, Section};
use super::values::{self, Echo, Form, Found};
use super::{NetworkConfig, PaymentWebhook};
use crate::providers::{Algorithm, Encoding, HmacScheme, IdIn, Pointer, Scheme, Signed};

/// The rule by which a provider signs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hmac,
    Standard,
    Stripe,
    Nowpayments,
}

const KIND: Form<Kind> = Form {
    expected: "\"hmac\", \"standard\", \"stripe\" or \"nowpayments\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "hmac" => Ok(Kind::Hmac),
        "standard" => Ok(Kind::Standard),
        "stripe" => Ok(Kind::Stripe),
        "nowpayments" => Ok(Kind::Nowpayments),
        _ => Err(Found::Text),
    },
};

const ALGORITHM: Form<Algorithm> = Form {
    expected: "\"sha256\" or \"sha512\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "sha256" => Ok(Algorithm::Sha256),
        "sha512" => Ok(Algorithm::Sha512),
        _ => Err(Found::Text),
    },
};

const ENCODING: Form<Encoding> = Form {
    expected: "\"hex\" or \"base64\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "hex" => Ok(Encoding::Hex),
        "base64" => Ok(Encoding::Base64),
        _ => Err(Found::Text),
    },
};

const SIGNED: Form<Signed> = Form {
    expected: "what is signed, with {body} at its end and perhaps {timestamp} and {id} before it, such as \"{timestamp}.{body}\"",
    echo: Echo::Quote,
    parse: |text| Signed::parse(text).ok_or(Found::Text),
};

const POINTER: Form<Pointer> = Form {
    expected: "a JSON pointer into the body such as \"/data/id\"",
    echo: Echo::Quote,
    parse: |text| Pointer::parse(text).ok_or(Found::Text),
};

const HEADER: Form<String> = Form {
    expected: "a name that HTTP allows for a header, such as \"X-Signature\"",
    echo: Echo::Quote,
    parse: |text| if values::is_header_name(text) { Ok(text.to_ascii_lowercase()) } else { Err(Found::Text) },
};

/// The keys that only the form "hmac" has.
const HMAC_KEYS: [&str; 8] = ["header", "algorithm", "encoding", "prefix", "signed", "timestamp_header", "id_pointer", "id_header"];

/// The doors that the file has tables for, by name.
pub(super) fn payment_webhooks(
    section: Section<'_>,
    networks: &[NetworkConfig],
    problems: &mut Problems,
) -> BTreeMap<String, PaymentWebhook> {
    let mut doors = BTreeMap::new();
    for (name, field) in section.children() {
        let place = field.place.clone();
        let Some(mut table) = problems.keep(&place, field.into_section()) else { continue };
        if !values::is_network_name(name) {
            problems.add(&place, "expected a provider's name to be 1 to 32 letters, digits, - or _, found another one; rename the table");
        }
        if let Some(door) = door(name, &mut table, networks, problems) {
            doors.insert(name.to_owned(), door);
        }
        table.finish(problems);
    }
    doors
}

fn door(name: &str, table: &mut Section<'_>, networks: &[NetworkConfig], problems: &mut Problems) -> Option<PaymentWebhook> {
    let missing: Vec<&str> = ["form", "secret"].into_iter().filter(|key| table.field(key).is_none()).collect();
    if !missing.is_empty() {
        let keys: Vec<String> = missing.iter().map(|key| format!("`{key}`")).collect();
        problems.add(&table.place, &format!("missing {}", keys.join(", ")));
    }
    let kind = table.text("form", &KIND, problems);
    let secret_form = if kind == Some(Kind::Standard) { &values::WEBHOOK_SECRET } else { &values::SHARED_SECRET };
    let secret = table.text("secret", secret_form, problems);
    let hmac = hmac(table, kind, problems);
    let transaction = transaction(table, networks, problems);
    let order = table.text("order_pointer", &POINTER, problems);
    let scheme = match kind? {
        Kind::Hmac => Scheme::Hmac(hmac?),
        Kind::Standard => Scheme::Standard,
        Kind::Stripe => Scheme::Stripe,
        Kind::Nowpayments => Scheme::Nowpayments,
    };
    Some(PaymentWebhook { name: name.to_owned(), scheme, secret: secret?, transaction, order })
}

/// The keys of the form "hmac"; of any other form they are a mistake.
fn hmac(table: &mut Section<'_>, kind: Option<Kind>, problems: &mut Problems) -> Option<HmacScheme> {
    if kind != Some(Kind::Hmac) {
        for key in HMAC_KEYS {
            if let Some(field) = table.field(key).filter(|_| kind.is_some()) {
                problems.add(&field.place, "expected this only where form = \"hmac\"; the other forms know it themselves, so take it out");
            }
        }
        return None;
    }
    let header = table.text("header", &HEADER, problems);
    let algorithm = table.text("algorithm", &ALGORITHM, problems).unwrap_or(Algorithm::Sha256);
    let encoding = table.text("encoding", &ENCODING, problems).unwrap_or(Encoding::Hex);
    let prefix = table.text("prefix", &values::TEXT, problems).unwrap_or_default();
    let timestamp_header = table.text("timestamp_header", &HEADER, problems);
    let signed = table.text("signed", &SIGNED, problems);
    let usual = || if timestamp_header.is_some() { Signed::timestamp_and_body() } else { Signed::body() };
    let signed = signed.unwrap_or_else(usual);
    if signed.has_timestamp() != timestamp_header.is_some() {
        let problem = "expected `timestamp_header` and {timestamp} in `signed` together: a time that is not signed proves nothing";
        problems.add(&table.place, problem);
    }
    let (in_body, in_header) = (table.text("id_pointer", &POINTER, problems), table.text("id_header", &HEADER, problems));
    if signed.has_id() && in_header.is_none() {
        problems.add(&table.place, "expected `id_header` for the {id} in `signed`, found none");
    }
    let id = match (table.field("id_pointer").is_some(), table.field("id_header").is_some()) {
        (true, false) => in_body.map(IdIn::Body),
        (false, true) => in_header.map(IdIn::Header),
        _ => {
            problems.add(&table.place, "expected one of `id_pointer` and `id_header`: by its id a message is handled once");
            None
        }
    };
    if table.field("header").is_none() {
        problems.add(&table.place, "missing `header`, in which the signature is");
    }
    Some(HmacScheme { header: header?, algorithm, encoding, prefix, signed, timestamp_header, id: id? })
}

/// Where a body names a transaction, and on which network that is.
fn transaction(table: &mut Section<'_>, networks: &[NetworkConfig], problems: &mut Problems) -> Option<(Network, Pointer)> {
    let pointer = table.text("tx_hash_pointer", &POINTER, problems);
    let name = table.text("network", &values::TEXT, problems);
    if table.field("tx_hash_pointer").is_some() != table.field("network").is_some() {
        problems.add(&table.place, "expected `tx_hash_pointer` and `network` together, found one of them");
    }
    let name = name?;
    let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    if !known.contains(&name.as_str()) {
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        problems.add(&table.place, &format!("expected `network` to be an active network ({known}), found {}", values::quote(&name)));
    }
    Some((Network::new(&name), pointer?))
}
