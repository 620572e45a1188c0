//! `tidegate merchant …` and `tidegate api-key …`: the credentials of shops.

use std::process::ExitCode;

use serde_json::json;
use tidegate_rules::id::KeyId;
use tidegate_rules::time::Time;

use super::args::{ApiKeyCommand, ConfigArgs, MerchantCommand};
use super::terminal::say;
use super::{quiet_gateway, read_config, webhook_endpoints};
use crate::clock;
use crate::config::{IpRange, Overrides};
use crate::credentials::{self, KeyWish, MerchantPut, MerchantWish};
use crate::http::KeyView;
use crate::orders::UNLEASED_CHECK;
use crate::people::Doer;
use crate::safe;
use crate::start::{self, Sorry};
use crate::store::{MerchantRow, Migrate, Store};

/// `tidegate api-key …`
pub(super) async fn api_key(command: ApiKeyCommand) -> Result<ExitCode, Sorry> {
    match command {
        ApiKeyCommand::Create { config, merchant, scopes, name, allowed_ips, expires_at, json } => {
            create_api_key(&config, &merchant, Wanted { name, scopes, expires_at, allowed_ips }, json).await?;
        }
        ApiKeyCommand::List { config, merchant, limit, json } => list_api_keys(&config, merchant.as_deref(), limit, json).await?,
        ApiKeyCommand::Revoke { config, id, json } => revoke_api_key(&config, &id, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wanted of a new key.
struct Wanted {
    name: Option<String>,
    scopes: Vec<String>,
    expires_at: Option<Time>,
    allowed_ips: Vec<IpRange>,
}

/// `tidegate merchant …`
pub(super) async fn merchant(command: MerchantCommand) -> Result<ExitCode, Sorry> {
    match command {
        MerchantCommand::Endpoint(command) => return webhook_endpoints::endpoint(command).await,
        MerchantCommand::Add { config, name, webhook_url, json } => add_merchant(&config, &name, webhook_url, json).await?,
        MerchantCommand::Update { config, name, webhook_url, json } => update_merchant(&config, &name, &webhook_url, json).await?,
        MerchantCommand::Show { config, name, json } => show_merchant(&config, &name, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn merchant_in(store: &Store, name: &str) -> Result<MerchantRow, Sorry> {
    let merchants = store.merchants().await?;
    merchants.iter().find(|row| row.name == name || row.id.to_string() == name).cloned().ok_or_else(|| {
        let names = merchants.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
        Sorry(format!("{name}: expected a merchant, one of: {names}; `tidegate merchant add` makes a new one"))
    })
}

/// A URL that was given with this flag.
pub(super) fn checked_url<'a>(flag: &str, url: &'a str) -> Result<&'a str, Sorry> {
    if url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some()) {
        return Ok(url);
    }
    Err(Sorry(format!("{flag}: expected an http or https URL, found {url:?}")))
}

async fn update_merchant(config: &ConfigArgs, name: &str, webhook_url: &str, json: bool) -> Result<(), Sorry> {
    let url = if webhook_url.is_empty() { None } else { Some(checked_url("--webhook-url", webhook_url)?.to_owned()) };
    let gateway = quiet_gateway(config).await?;
    let row = merchant_in(&gateway.store, name).await?;
    let put = MerchantPut { webhook_url: Some(url), ..MerchantPut::default() };
    let row = credentials::put_merchant(&gateway.store, row, put, &Doer::on_command_line()).await?;
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
    let row = merchant_in(&gateway.store, name).await?;
    safe::secret_shown(&gateway, row.id, &Doer::on_command_line()).await?;
    let secret = gateway.webhook_secret(&row).map_err(Sorry)?;
    print_merchant(&row, &String::from_utf8_lossy(&secret), json);
    gateway.store.clone().close().await;
    Ok(())
}

async fn create_api_key(config: &ConfigArgs, merchant: &str, wish: Wanted, json: bool) -> Result<(), Sorry> {
    let config = read_config(config, Overrides::default())?;
    let livemode = start::is_live(&config);
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let found = merchant_in(&store, merchant).await?;
    if wish.expires_at.is_some_and(|until| until <= clock::now()) {
        return Err(Sorry::new("--expires-at: expected a time to come"));
    }
    let Wanted { name, scopes, expires_at, allowed_ips } = wish;
    let wish = KeyWish { merchant: found.id, name, scopes, livemode, expires_at, allowed_ips };
    let (row, secret) = credentials::add_api_key(&store, wish, &Doer::on_command_line(), |_| None).await?;
    let (id, secret) = (row.id, secret.expose());
    if json {
        say(&json!({ "id": id, "secret": secret }).to_string());
    } else {
        say(&format!("id      {id}\nsecret  {secret}\n\nThe secret is shown this once."));
    }
    store.close().await;
    Ok(())
}

async fn list_api_keys(config: &ConfigArgs, merchant: Option<&str>, limit: u32, json: bool) -> Result<(), Sorry> {
    let store = start::open_store(&read_config(config, Overrides::default())?, Migrate::Yes).await?;
    let of = match merchant {
        Some(name) => Some(merchant_in(&store, name).await?.id),
        None => None,
    };
    let keys: Vec<KeyView> = store.api_keys(of, None, i64::from(limit)).await?.iter().map(KeyView::from).collect();
    if json {
        say(&json!({ "data": keys, "next_cursor": null }).to_string());
    } else {
        keys.iter().for_each(|key| say(&key.line()));
    }
    store.close().await;
    Ok(())
}

async fn revoke_api_key(config: &ConfigArgs, id: &str, json: bool) -> Result<(), Sorry> {
    let key: KeyId = id.parse().map_err(|error| Sorry(format!("{id}: {error}")))?;
    let store = start::open_store(&read_config(config, Overrides::default())?, Migrate::Yes).await?;
    credentials::revoke_api_key(&store, key, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "ok": true, "id": key }).to_string());
    } else {
        say(&format!("{key} is void; a running gateway follows within five seconds"));
    }
    store.close().await;
    Ok(())
}

async fn add_merchant(config: &ConfigArgs, name: &str, webhook_url: Option<String>, json: bool) -> Result<(), Sorry> {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Sorry::new("NAME: expected 1 to 100 printable characters"));
    }
    if let Some(url) = &webhook_url {
        checked_url("--webhook-url", url)?;
    }
    let config = read_config(config, Overrides::default())?;
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let wish = MerchantWish { name: name.to_owned(), webhook_url };
    let (row, secret) = credentials::add_merchant(&store, &vault, wish, &Doer::on_command_line(), |_| None)
        .await?
        .ok_or_else(|| Sorry(format!("there is a merchant {name:?} already; choose another name")))?;
    print_merchant(&row, secret.expose(), json);
    store.close().await;
    Ok(())
}
