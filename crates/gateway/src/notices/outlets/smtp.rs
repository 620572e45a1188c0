//! Mail, by SMTP, in plain text. One connection a mail.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::response::Category;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::{Failure, Hope, Letter, TRY_MAX, echo};
use crate::config::{SecretText, Security, Smtp, mailbox};

/// A mail server, and who writes.
pub(super) struct Way {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    password: SecretText,
}

impl Way {
    pub(super) fn new(config: &Smtp) -> Result<Self, String> {
        let tls = || {
            TlsParameters::new(config.host.clone())
                .map_err(|error| format!("TLS with {} could not be prepared: {}", config.host, echo(&error.to_string())))
        };
        let tls = match config.security {
            Security::Tls => Tls::Wrapper(tls()?),
            Security::StartTls => Tls::Required(tls()?),
            Security::None => Tls::None,
        };
        let builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host).port(config.port).tls(tls).timeout(Some(TRY_MAX));
        let (builder, password) = match &config.login {
            Some((name, password)) => (builder.credentials(Credentials::new(name.clone(), password.expose().to_owned())), password.clone()),
            None => (builder, SecretText::new("")),
        };
        Ok(Self { transport: builder.build(), from: config.from.clone(), password })
    }

    pub(super) async fn send(&self, letter: Letter<'_>) -> Result<(), Failure> {
        let message = self.message(letter)?;
        self.transport.send(message).await.map(drop).map_err(|error| failure(&error).without(&self.password))
    }

    fn message(&self, letter: Letter<'_>) -> Result<Message, Failure> {
        let refused = |reason: String| Failure { reason, hope: Hope::Refused };
        let to = mailbox(letter.to).ok_or_else(|| refused("the recipient is not a mail address".to_owned()))?;
        let builder = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(letter.subject)
            // The same in every try: whoever gets a mail twice can tell.
            .message_id(Some(format!("<{}@{}>", letter.id, self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN)
            // Nobody on holiday answers this.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
        builder.body(letter.body.to_owned()).map_err(|error| refused(format!("the mail could not be written: {error}")))
    }
}

fn failure(error: &lettre::transport::smtp::Error) -> Failure {
    if error.is_timeout() {
        return Failure::later("the mail server did not answer in time");
    }
    // 550 and its like are about a mailbox; 535 is about us, and may be mended.
    let about_mailbox = error.is_permanent() && error.status().is_some_and(|code| code.category == Category::MailSystem);
    Failure { reason: echo(&error.to_string()), hope: if about_mailbox { Hope::Refused } else { Hope::Later } }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn way() -> Way {
        Way::new(&Smtp {
            host: "127.0.0.1".to_owned(),
            port: 1,
            security: Security::None,
            login: None,
            from: mailbox("Shop <pay@example.com>").unwrap(),
            to: Vec::new(),
            per_minute: NonZeroU32::MIN,
        })
        .unwrap()
    }

    #[test]
    fn nothing_of_a_message_becomes_a_header() {
        let letter = Letter {
            id: "ntf_1",
            to: "ann@example.com",
            subject: "Paid\r\nBcc: victim@example.com\r\n\r\nboo",
            body: "X-A: b\r\n.\r\nQUIT\r\n",
        };
        let written = String::from_utf8(way().message(letter).unwrap().formatted()).unwrap();
        let (head, body) = written.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> =
            head.lines().filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split(':').next().unwrap()).collect();
        for name in &names {
            let known = [
                "From",
                "To",
                "Subject",
                "Message-ID",
                "Content-Type",
                "Auto-Submitted",
                "Content-Transfer-Encoding",
                "Date",
                "MIME-Version",
            ];
            assert!(known.contains(name), "{name} in {head}");
        }
        assert!(names.contains(&"Subject") && !body.contains("victim"), "{written}");
        assert!(head.contains("Message-ID: <ntf_1@example.com>"), "{head}");

        let refused = way().message(Letter { to: "ann@example.com\r\nBcc: victim@example.com", ..letter }).unwrap_err();
        assert_eq!(refused.hope, Hope::Refused);
    }
}
