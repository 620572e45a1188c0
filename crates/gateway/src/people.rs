//! Who does something, the row of the audit log that says so, and what the owner is told of it. How
//! people come in is in [`login`], who they are in [`users`].

pub mod login;
pub mod password;
pub mod throttle;
pub mod users;

use std::fmt::Display;

use serde_json::Value;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{NewAlert, NewAudit};
use tidegate_rules::time::Time;
use tidegate_vault::Binding;

use crate::gateway::Gateway;

/// What the secret of somebody's second factor is bound to.
#[must_use]
pub fn totp_binding(user: &str) -> Binding {
    Binding::new("totp", &[user])
}

/// The longest reason that is kept, in characters.
pub const REASON_MAX: usize = 500;

/// Somebody, and where they are.
#[derive(Clone, Debug)]
pub struct Doer {
    /// The id of an API key or of a user, a user of the machine, or the program itself.
    pub actor: String,
    /// An address, or `command line`.
    pub origin: String,
}

impl Doer {
    /// Whoever types commands on this machine.
    #[must_use]
    pub fn on_command_line() -> Self {
        let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned());
        let user: String = user.chars().filter(|c| !c.is_control()).take(64).collect();
        Self { actor: format!("user:{user}"), origin: "command line".to_owned() }
    }

    /// The program, by itself.
    #[must_use]
    pub fn program() -> Self {
        Self { actor: "tidegate".to_owned(), origin: "program".to_owned() }
    }

    /// The alert that tells the owner of a change to what decides where money or notices go. None for
    /// the command line: whoever has the server can do everything, and the log says so.
    #[must_use]
    pub fn notice(&self, action: Action, subject: impl Display, what: &str, at: Time) -> Option<NewAlert> {
        if !["key_", "usr_"].iter().any(|prefix| self.actor.starts_with(prefix)) {
            return None;
        }
        let (about, action) = (format!("{} {subject} {at}", action.name()), action.name());
        let detail = format!("{action} {subject} by {} from {}: {what}; if that was not you or yours, end it now", self.actor, self.origin);
        Some(Gateway::alert(AlertKind::CredentialsChanged, about, detail, at))
    }

    /// The row that says what was done.
    #[must_use]
    pub fn did(&self, action: Action, subject: impl Display, at: Time) -> Done {
        Done(NewAudit {
            at,
            actor: self.actor.clone(),
            action,
            subject: subject.to_string(),
            origin: self.origin.clone(),
            reason: String::new(),
            detail: "{}".to_owned(),
        })
    }
}

/// A row of the audit log that is being filled in.
pub struct Done(NewAudit);

impl Done {
    /// Why, in the words of whoever did it.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.0.reason);
        self
    }

    /// What else there is to know, as a JSON object. Never a secret.
    #[must_use]
    pub fn with(mut self, detail: &Value) -> NewAudit {
        self.0.detail = detail.to_string();
        self.0
    }

    /// Nothing else.
    #[must_use]
    pub fn alone(self) -> NewAudit {
        self.0
    }
}
