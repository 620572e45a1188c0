//! `tidegate merchant …` and `tidegate api-key …`: the first credentials.

use std::process::ExitCode;

use serde_json::json;

use super::args::{ApiKeyCommand, ConfigArgs, MerchantCommand};
use super::terminal::say;
use super::{quiet_gateway, read_config};
use crate::config::Overrides;
use crate::gateway::Gateway;
use crate::orders::UNLEASED_CHECK;
use crate::people::Doer;
use crate::safe;
use crate::start::{self, Sorry};
use crate::store::{MerchantRow, Migrate};

/// `tidegate api-key …`
pub(super) async fn api_key(command: ApiKeyCommand) -> Result<ExitCode, Sorry> {
    let ApiKeyCommand::Create { config, merchant, scopes, json } = command;
    create_api_key(&config, &merchant, &scopes, json).await?;
    Ok(ExitCode::SUCCESS)
}

/// `tidegate merchant …`
pub(super) async fn merchant(command: MerchantCommand) -> Result<ExitCode, Sorry> {
    match command {
        MerchantCommand::Add { config, name, webhook_url, json } => add_merchant(&config, &name, webhook_url, json).await?,
        MerchantCommand::Update { config, name, webhook_url, json } => update_merchant(&config, &name, &webhook_url, json).await?,
        MerchantCommand::Show { config, name, json } => show_merchant(&config, &name, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn merchant_named(gateway: &Gateway, name: &str) -> Result<MerchantRow, Sorry> {
    let merchants = gateway.store.merchants().await?;
    merchants.iter().find(|row| row.name == name || row.id.to_string() == name).cloned().ok_or_else(|| {
        let names = merchants.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
        Sorry(format!("{name}: expected one of: {names}"))
    })
}

fn checked_url(url: &str) -> Result<&str, Sorry> {
    if url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some()) {
        return Ok(url);
    }
    Err(Sorry(format!("--webhook-url: expected an http or https URL, found {url:?}")))
}

async fn update_merchant(config: &ConfigArgs, name: &str, webhook_url: &str, json: bool) -> Result<(), Sorry> {
    let url = if webhook_url.is_empty() { None } else { Some(checked_url(webhook_url)?.to_owned()) };
    let gateway = quiet_gateway(config).await?;
    let row = merchant_named(&gateway, name).await?;
    let row = start::put_webhook_url(&gateway.store, row, url, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "id": row.id, "name": row.name, "webhook_url": row.webhook_url }).to_string());
    } else {
        let to = row.webhook_url.as_deref().unwrap_or("nowhere");
        say(&format!("webhooks of {} go to {to}; a running gateway follows within {} s", row.name, UNLEASED_CHECK.secs()));
    }
    gateway.store.clone().close().await;
    Ok(())
}

fn print_merchant(row: &MerchantRow, secret: &str, json: bool) {
    if json {
        say(&json!({ "id": row.id, "name": row.name, "webhook_url": row.webhook_url, "webhook_secret": secret }).to_string());
        return;
    }
    let url = row.webhook_url.as_deref().unwrap_or("-");
    say(&format!("id              {}\nname            {}\nwebhook_url     {url}\nwebhook_secret  {secret}", row.id, row.name));
}

async fn show_merchant(config: &ConfigArgs, name: &str, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let row = merchant_named(&gateway, name).await?;
    safe::secret_shown(&gateway, row.id, &Doer::on_command_line()).await?;
    let secret = gateway.webhook_secret(&row).map_err(Sorry)?;
    print_merchant(&row, &String::from_utf8_lossy(&secret), json);
    gateway.store.clone().close().await;
    Ok(())
}

async fn create_api_key(config: &ConfigArgs, merchant: &str, scopes: &[String], json: bool) -> Result<(), Sorry> {
    let config = read_config(config, Overrides::default())?;
    let live = start::is_live(&config);
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let merchants = store.merchants().await?;
    let found = merchants.iter().find(|row| row.name == merchant || row.id.to_string() == merchant);
    let names = || merchants.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = found
        .ok_or_else(|| Sorry(format!("--merchant {merchant}: expected one of: {}; `tidegate merchant add` makes a new one", names())))?;
    let (id, secret) = start::add_api_key(&store, found.id, scopes, live, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "id": id, "secret": secret }).to_string());
    } else {
        say(&format!("id      {id}\nsecret  {secret}\n\nThe secret is shown this once."));
    }
    store.close().await;
    Ok(())
}

async fn add_merchant(config: &ConfigArgs, name: &str, webhook_url: Option<String>, json: bool) -> Result<(), Sorry> {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Sorry::new("NAME: expected 1 to 100 printable characters"));
    }
    if let Some(url) = &webhook_url {
        checked_url(url)?;
    }
    let config = read_config(config, Overrides::default())?;
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let (row, secret) = start::add_merchant(&store, &vault, name, webhook_url, &Doer::on_command_line())
        .await?
        .ok_or_else(|| Sorry(format!("there is a merchant {name:?} already; choose another name")))?;
    print_merchant(&row, &secret, json);
    store.close().await;
    Ok(())
}
