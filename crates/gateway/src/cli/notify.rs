//! `tidegate notify …`

use std::process::ExitCode;

use serde_json::json;
use tidegate_rules::notification::Channel;

use super::args::NotifyCommand;
use super::read_config;
use super::terminal::{complain, say};
use crate::config::Overrides;
use crate::notices::by_hand::{self, Tested};
use crate::people::Doer;
use crate::start::{self, Sorry};
use crate::store::Migrate;

/// `tidegate notify test`
pub(super) async fn run(command: NotifyCommand) -> Result<ExitCode, Sorry> {
    let NotifyCommand::Test { config, channel, to, json } = command;
    let config = read_config(&config, Overrides::default())?;
    let channel = Channel::from_name(&channel).ok_or_else(|| Sorry::new("--channel: expected smtp, telegram or sms"))?;
    let store = start::open_store(&config, Migrate::Yes).await?;
    let tested = by_hand::test_from_shell(&config, &store, channel, to.as_deref(), &Doer::on_command_line()).await;
    store.close().await;
    let Tested { to, failure } = tested?;
    match (&failure, json) {
        (_, true) => say(&json!({ "ok": failure.is_none(), "channel": channel.name(), "to": to, "detail": failure }).to_string()),
        (None, false) => say(&format!("{} took a test message for {to}; see whether it arrives", channel.name())),
        (Some(reason), false) => complain(&format!("{} did not take a test message for {to}: {reason}", channel.name())),
    }
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
