//! SMS, by an HTTP gateway of the operator's choice: `{to}`, `{text}` and `{secret}` are put where the
//! configuration says, each escaped for the place it stands in, and all in one pass, so that no
//! message is ever read as a template.

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::{Failure, Hope, Letter, client, echo, read, reason};
use crate::config::{SecretText, Sms, SmsMethod, phone};

/// How a value is written in its place.
type Escape = fn(&str) -> String;

/// An SMS gateway.
pub(super) struct Way {
    client: reqwest::Client,
    config: Sms,
    secret: SecretText,
    escape: Escape,
}

impl Way {
    pub(super) fn new(config: &Sms) -> Result<Self, String> {
        let secret = config.secret.clone().unwrap_or_else(|| SecretText::new(""));
        Ok(Self { client: client()?, config: config.clone(), secret, escape: escape_for(content_type(config)) })
    }

    pub(super) async fn send(&self, letter: Letter<'_>) -> Result<(), Failure> {
        let to = phone(letter.to)
            .ok_or_else(|| Failure { reason: "the recipient is not a telephone number".to_owned(), hope: Hope::Refused })?;
        let values = [("{to}", to.as_str()), ("{text}", letter.body), ("{secret}", self.secret.expose())];
        let url =
            Url::parse(&fill(self.config.url.expose(), &values, in_url)).map_err(|_| Failure::later("the filled in `url` is not a URL"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.config.headers {
            let filled = fill(value.expose(), &values, str::to_owned);
            let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&filled).ok());
            let (name, mut value) = pair.ok_or_else(|| Failure::later(format!("the filled in header {name} is none that HTTP allows")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let request = match self.config.method {
            SmsMethod::Get => self.client.get(url),
            SmsMethod::Post => {
                if !headers.contains_key(CONTENT_TYPE) {
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&self.config)));
                }
                self.client.post(url).body(fill(self.config.body.expose(), &values, self.escape))
            }
        };
        let answer = request.headers(headers).send().await.map_err(|error| Failure::later(reason(&error)).without(&self.secret))?;
        let status = answer.status();
        let text = read(answer).await;
        let accepted = self.config.accepted.as_ref().is_none_or(|accepted| text.contains(accepted));
        if status.is_success() && accepted {
            return Ok(());
        }
        Err(Failure::later(format!("the SMS gateway answered {status}: {}", echo(&text))).without(&self.secret))
    }
}

/// What a body is called: by its own header, else by how it begins.
fn content_type(config: &Sms) -> &'static str {
    let named = config.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let named = named.map(|(_, value)| value.expose().to_ascii_lowercase());
    let begins = config.body.expose().trim_start();
    match named {
        Some(named) if named.contains("json") => JSON,
        Some(named) if named.contains("xml") => XML,
        Some(named) if named.contains("form-urlencoded") => FORM,
        Some(_) => PLAIN,
        None if begins.starts_with(['{', '[']) => JSON,
        None if begins.starts_with('<') => XML,
        None => FORM,
    }
}

const JSON: &str = "application/json";
const XML: &str = "application/xml";
const FORM: &str = "application/x-www-form-urlencoded";
const PLAIN: &str = "text/plain; charset=utf-8";

fn escape_for(content_type: &str) -> Escape {
    match content_type {
        JSON => in_json,
        XML => in_xml,
        FORM => in_url,
        _ => str::to_owned,
    }
}

fn in_url(value: &str) -> String {
    // `%20` and not `+`: a path knows no `+`, and everybody reads `%20`.
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20")
}

fn in_json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn in_xml(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}

/// Puts values in the place of their names, in one pass.
fn fill(template: &str, values: &[(&str, &str)], escape: Escape) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        filled.push_str(before);
        match values.iter().find_map(|(name, value)| Some((from.strip_prefix(name)?, value))) {
            Some((after, value)) => {
                filled.push_str(&escape(value));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = from.strip_prefix('{').unwrap_or_default();
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_for_their_place_and_filled_in_once() {
        let values = [("{to}", "+4915112345678"), ("{text}", "5 < 6 & \"{secret}\"\nüber"), ("{secret}", "s3cret")];
        let table: [(Escape, &str, &str); 6] = [
            (in_json, r#"{"to":"{to}","text":"{text}"}"#, r#"{"to":"+4915112345678","text":"5 < 6 & \"{secret}\"\nüber"}"#),
            (in_json, r#"{"a":{"b":"{to}"},"k":"{secret}"}"#, r#"{"a":{"b":"+4915112345678"},"k":"s3cret"}"#),
            (in_url, "to={to}&key={secret}", "to=%2B4915112345678&key=s3cret"),
            (in_url, "t={text}", "t=5%20%3C%206%20%26%20%22%7Bsecret%7D%22%0A%C3%BCber"),
            (in_xml, "<t>{text}</t>", "<t>5 &lt; 6 &amp; &quot;{secret}&quot;\nüber</t>"),
            (str::to_owned, "Bearer {secret} {other} {", "Bearer s3cret {other} {"),
        ];
        for (escape, template, expected) in table {
            assert_eq!(fill(template, &values, escape), expected);
        }
    }
}
