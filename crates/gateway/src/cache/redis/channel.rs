//! Texts from process to process through a channel of Redis. Redis keeps none of them: whoever does
//! not listen at the moment never hears.

use ::redis::aio::{MultiplexedConnection, PubSubStream};
use ::redis::{Client, ErrorKind, IntoConnectionInfo as _, RedisError, Value, cmd};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{CONNECT_MAX, Redis, State, Trouble, code_of, is_code, unexpected};

/// What is said on the channel of an installation, from now on.
pub struct Subscription(PubSubStream);

impl Subscription {
    /// The next text; `None` when the connection has ended. What is no text is left out.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let message = self.0.next().await?;
            if let Ok(text) = message.get_payload() {
                return Some(text);
            }
        }
    }
}

/// What came of saying something.
enum Said {
    Done,
    Forbidden(String),
}

impl Redis {
    /// Says a text to all who listen. Whether anybody heard is not told. Takes at most
    /// [`WAIT_MAX`](super::WAIT_MAX).
    pub async fn publish(&self, text: &str) {
        let link = self.link();
        if !link.saying.is_open() {
            return;
        }
        match link.ask(|connection| publish(connection, self.channel(), text)).await {
            Some(Said::Done) => link.saying.granted(),
            Some(Said::Forbidden(code)) => link.saying.refused(&link.url, &code),
            None => {}
        }
    }

    /// Listens, on a connection of its own, as soon as Redis works.
    ///
    /// # Errors
    /// [`Trouble`] says in words that go on from "it" why that is not possible now.
    pub async fn subscribe(&self) -> Result<Subscription, Trouble> {
        let mut state = self.link().state.subscribe();
        // The link itself says what is wrong with Redis.
        let _ = state.wait_for(|state| matches!(state, State::Working(_))).await;
        timeout(CONNECT_MAX, self.try_subscribe()).await.unwrap_or(Err(Trouble::Silent))
    }

    async fn try_subscribe(&self) -> Result<Subscription, Trouble> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = self.link.url.expose().clone().into_connection_info().map_err(|_| Trouble::UNSUPPORTED)?;
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(login)).map_err(|_| Trouble::UNSUPPORTED)?;
        let mut channel = client.get_async_pubsub().await.map_err(|error| refusal(&error))?;
        channel.subscribe(self.channel()).await.map_err(|error| refusal(&error))?;
        Ok(Subscription(channel.into_on_message()))
    }

    fn channel(&self) -> String {
        format!("{}:signals", self.prefix)
    }
}

/// Why nobody can listen. Of what Redis said only a code is kept: the rest may repeat a password.
fn refusal(error: &RedisError) -> Trouble {
    match error.code().filter(|code| is_code(code)) {
        Some(code @ ("WRONGPASS" | "NOAUTH")) => Trouble::Password(code.to_owned()),
        Some(code) => Trouble::Refused { command: "SUBSCRIBE", code: code.to_owned() },
        None if error.kind() == ErrorKind::Io => Trouble::Closed,
        None => Trouble::Refused { command: "SUBSCRIBE", code: "ERR".to_owned() },
    }
}

async fn publish(mut connection: MultiplexedConnection, channel: String, text: &str) -> Result<Said, Trouble> {
    match connection.send_packed_command(cmd("PUBLISH").arg(channel).arg(text)).await? {
        Value::Int(_) => Ok(Said::Done),
        Value::ServerError(error) if error.code() == "NOPERM" => Ok(Said::Forbidden(code_of(&error))),
        other => Err(unexpected("PUBLISH", &other)),
    }
}
