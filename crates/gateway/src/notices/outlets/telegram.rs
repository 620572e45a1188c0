//! Telegram, by its Bot API: `sendMessage` with plain text, so that nothing in it means anything.
//! <https://core.telegram.org/bots/api#sendmessage>

use serde::Deserialize;
use serde_json::json;
use tidegate_rules::time::Span;

use super::{Failure, Hope, Letter, client, echo, read, reason};
use crate::config::{SecretText, Telegram};

/// The longest text that Telegram takes is 4,096 units of UTF-16; no character is more than two.
const TEXT_MAX: usize = 4_096;

/// What is told of an answer's `retry_after`, in seconds, is believed up to an hour.
const RETRY_AFTER_MAX_S: u64 = 3_600;

/// A bot.
pub(super) struct Way {
    client: reqwest::Client,
    url: SecretText,
    token: SecretText,
}

/// An answer, as far as it matters here.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

impl Way {
    pub(super) fn new(config: &Telegram) -> Result<Self, String> {
        let base = config.api_url.as_str().trim_end_matches('/');
        let url = SecretText::new(format!("{base}/bot{}/sendMessage", config.token.expose()));
        Ok(Self { client: client()?, url, token: config.token.clone() })
    }

    pub(super) async fn send(&self, letter: Letter<'_>) -> Result<(), Failure> {
        let body = json!({ "chat_id": letter.to, "text": cut(letter.body), "link_preview_options": { "is_disabled": true } });
        let answer = self.client.post(self.url.expose()).json(&body).send().await;
        let answer = answer.map_err(|error| Failure::later(reason(&error)).without(&self.token))?;
        let status = answer.status();
        let text = read(answer).await;
        let said: Answer = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() && said.ok {
            return Ok(());
        }
        let words = if said.description.is_empty() { &text } else { &said.description };
        let pause = said.parameters.retry_after.map(|seconds| Span::from_secs(seconds.min(RETRY_AFTER_MAX_S)));
        let hope = pause.map_or(Hope::Later, Hope::NotBefore);
        Err(Failure { reason: format!("Telegram answered {status}: {}", echo(words)), hope }.without(&self.token))
    }
}

/// As much of a text as Telegram takes.
fn cut(text: &str) -> String {
    let mut units = 0_usize;
    text.chars()
        .take_while(|c| {
            units = units.saturating_add(c.len_utf16());
            units <= TEXT_MAX
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_telegram_would_refuse_it() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(5_000)).len(), 4_096);
        assert_eq!(cut(&"🙂".repeat(3_000)).chars().count(), 2_048);
    }
}
