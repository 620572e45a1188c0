//! A real mail server on this machine (`tests/smtp/server.mjs`), and the mails that it took.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::Process;
use crate::tools;
use crate::wait::eventually;

/// Who may send, where not everybody may.
pub const USER: &str = "shop";
pub const PASSWORD: &str = "correct horse battery staple";

pub struct MailServer {
    pub port: u16,
    process: Process,
}

impl MailServer {
    /// One that wants a log-in.
    pub async fn start() -> Self {
        Self::with(&[("MAIL_USER", USER), ("MAIL_PASSWORD", PASSWORD)]).await
    }

    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp/server.mjs");
        let mut node = Command::new("node");
        node.arg(script).env("TIDEGATE_NPM", tools::npm_packages()).envs(settings.iter().copied());
        let mut process = Process::start("the mail server", &mut node);
        let port = process.line("listening …", |line| line.strip_prefix("listening ")?.parse().ok()).await;
        Self { port, process }
    }

    /// The mails so far, in order of arrival.
    pub fn mails(&self) -> Vec<Mail> {
        let output = self.process.output();
        output.lines().filter(|line| line.starts_with('{')).map(|line| Mail(serde_json::from_str(line).unwrap())).collect()
    }

    /// The mails to somebody.
    pub fn mails_to(&self, to: &str) -> Vec<Mail> {
        self.mails().into_iter().filter(|mail| mail.to() == [to]).collect()
    }

    /// Waits for the first mail to somebody.
    pub async fn mail_to(&self, to: &str) -> Mail {
        eventually(&format!("a mail to {to}"), async || self.mails_to(to).into_iter().next().ok_or_else(|| format!("{:?}", self.mails())))
            .await
    }
}

/// A mail as the server took it.
#[derive(Clone, Debug)]
pub struct Mail(pub Value);

impl Mail {
    pub fn to(&self) -> Vec<&str> {
        self.0["to"].as_array().unwrap().iter().map(|to| to.as_str().unwrap()).collect()
    }

    /// A header, which may be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all: Vec<&str> = self.headers().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        assert!(all.len() <= 1, "{name} more than once: {self:?}");
        all.first().copied()
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0["headers"].as_array().unwrap().iter().map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
    }

    pub fn subject(&self) -> &str {
        self.header("subject").unwrap_or_else(|| panic!("no subject: {self:?}"))
    }

    pub fn text(&self) -> &str {
        self.0["text"].as_str().unwrap()
    }
}
