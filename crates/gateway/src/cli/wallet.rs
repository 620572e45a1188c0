//! `tidegate wallet …`: the pool from the shell.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::Network;
use tidegate_rules::wallet::{WalletKind, WalletStatus};

use super::args::{ConfigArgs, WalletCommand};
use super::terminal::{bar, complain, confirm, read_secret, say};
use super::{quiet_gateway, read_config};
use crate::balances::{self, Reading, Synced};
use crate::config::Overrides;
use crate::gateway::{Gateway, NetworkPart};
use crate::http::{WalletPage, WalletView};
use crate::orders::part_named;
use crate::people::{Doer, REASON_MAX};
use crate::pool::Batch;
use crate::safe;
use crate::sources;
use crate::start::{self, Sorry};
use crate::store::{Migrate, WalletFilter};

/// `tidegate wallet …`
pub(super) async fn run(command: WalletCommand) -> Result<ExitCode, Sorry> {
    match command {
        WalletCommand::Generate { config, network, count, name_prefix, kind, source, json } => {
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let batch = Batch {
                count,
                name_prefix: name_prefix.as_deref(),
                kind: kind.as_deref().and_then(WalletKind::from_name),
                source: source.as_deref(),
            };
            let wallets = gateway.pool.generate(&gateway, part, &batch, &Doer::on_command_line(), |_| None).await?;
            show_wallets(&WalletPage::made(&wallets), json);
            gateway.store.clone().close().await;
        }
        WalletCommand::Import { config, network, file, name, json } => {
            let key = read_secret(file.as_deref())?;
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let wallet = gateway.pool.import(&gateway, part, key.trim(), name.as_deref(), &Doer::on_command_line(), |_| None).await?;
            if json {
                say(&serde_json::to_string_pretty(&WalletView::from(&wallet)).unwrap_or_default());
            } else {
                show_wallets(&WalletPage::made(std::slice::from_ref(&wallet)), false);
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Seed { config, name, import, file, account, yes, json } => {
            checked_source_name(&name)?;
            let words = if import { Some(read_secret(file.as_deref())?) } else { None };
            let gateway = quiet_gateway(&config).await?;
            let doer = Doer::on_command_line();
            match words {
                Some(words) => {
                    let (words, passphrase) = words.split_once('\n').unwrap_or((&words, ""));
                    let id = sources::import_seed(&gateway, &name, account, words.trim(), passphrase.trim_end_matches(['\r', '\n']), &doer)
                        .await?;
                    show_source(&id.to_string(), &name, "hd", None, json);
                }
                None => new_seed(&gateway, &name, account, yes, json, &doer).await?,
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Watch { config, name, network, file, json } => {
            checked_source_name(&name)?;
            let xpub = read_secret(file.as_deref())?;
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let id = sources::add_xpub(&gateway, &name, part, &xpub, &Doer::on_command_line()).await?;
            show_source(&id.to_string(), &name, "watch", None, json);
            gateway.store.clone().close().await;
        }
        WalletCommand::Export { config, wallet, reason, yes, json } => {
            let id = wallet.parse().map_err(|_| Sorry(format!("expected the id of a wallet, such as wal_…, found {wallet:?}")))?;
            if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
                return Err(Sorry(format!("--reason: expected 1 to {REASON_MAX} characters")));
            }
            let question = format!("This prints the private key of {wallet}. Whoever sees it can take what the wallet holds.");
            confirm(yes, &question, "export")?;
            let gateway = quiet_gateway(&config).await?;
            let key = safe::export(&gateway, id, &reason, &Doer::on_command_line()).await?;
            if json {
                say(&json!({ "id": wallet, "private_key": *key }).to_string());
            } else {
                say(&key);
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Sources { config, json } => list_sources(&config, json).await?,
        WalletCommand::Sync { config, wallet, network, json } => {
            return sync_wallets(&config, wallet.as_deref(), network.as_deref(), json).await;
        }
        WalletCommand::Xpub { config, source, network, json } => show_xpub(&config, &source, &network, json).await?,
        WalletCommand::Verify { config, wallet, json } => return verify_wallets(&config, wallet.as_deref(), json).await,
        WalletCommand::List { config, network, status, kind, limit, json } => {
            let store = start::open_store(&read_config(&config, Overrides::default())?, Migrate::Yes).await?;
            let status = status.map(|name| {
                WalletStatus::from_name(&name)
                    .ok_or_else(|| Sorry::new("--status: expected available, occupied, cooldown, disabled or frozen"))
            });
            let kind =
                kind.map(|name| WalletKind::from_name(&name).ok_or_else(|| Sorry::new("--kind: expected random, hd, watch or imported")));
            let filter = WalletFilter {
                network: network.as_deref().map(Network::new),
                status: status.transpose()?,
                kind: kind.transpose()?,
                ..WalletFilter::default()
            };
            let rows = store.wallets(filter, i64::from(limit)).await?;
            show_wallets(&WalletPage::of(&rows), json);
            store.close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the chain what wallets hold. Exit 1 where the records do not explain it.
async fn sync_wallets(config: &ConfigArgs, wallet: Option<&str>, network: Option<&str>, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let (synced, differing) = match wallet {
        Some(text) => {
            let id = text.parse().map_err(|_| Sorry(format!("expected the id of a wallet, such as wal_…, found {text:?}")))?;
            let row = gateway.store.wallet(id).await?.ok_or_else(|| Sorry(format!("there is no wallet {id}")))?;
            let part = part_named(&gateway, &row.network)?;
            balances::sync(&gateway, part, &[row], |_| {}).await?
        }
        None => {
            let parts: Vec<Arc<NetworkPart>> = match network {
                Some(name) => vec![Arc::clone(part_named(&gateway, &Network::new(name))?)],
                None => gateway.networks().values().cloned().collect(),
            };
            walk(&gateway, &parts).await?
        }
    };
    show_readings(&gateway, synced, &differing, json);
    gateway.store.clone().close().await;
    Ok(if differing.is_empty() && synced.silent == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every wallet of these networks that may hold something, with a bar.
pub(super) async fn walk(gateway: &Gateway, parts: &[Arc<NetworkPart>]) -> Result<(Synced, Vec<Reading>), Sorry> {
    let mut total: u64 = 0;
    for part in parts {
        total = total.saturating_add(gateway.store.count_to_ask(&part.config.name).await?);
    }
    let bar = bar(total);
    let found = balances::sync_all(gateway, parts, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    Ok(found)
}

/// What was read, and where the chain and the records differ.
pub(super) fn show_readings(gateway: &Gateway, synced: Synced, differing: &[Reading], json: bool) {
    let amount = |reading: &Reading, raw: Raw| {
        let decimals = gateway.networks().get(&reading.wallet.network).map_or(0, |part| part.config.decimals);
        raw.to_amount_saturating(decimals).to_string()
    };
    let by_records = |reading: &Reading| {
        let records = reading.records.map(|records| records.incoming.saturating_sub(records.outgoing));
        amount(reading, records.unwrap_or_default())
    };
    if json {
        let rows: Vec<_> = differing
            .iter()
            .map(|reading| {
                json!({
                    "id": reading.wallet.id,
                    "network": reading.wallet.network.as_str(),
                    "address": reading.wallet.address_text,
                    "block_number": reading.block,
                    "balance": amount(reading, reading.value),
                    "by_records": by_records(reading),
                })
            })
            .collect();
        let ok = differing.is_empty() && synced.silent == 0;
        let Synced { wallets, unknown, silent, .. } = synced;
        say(&json!({ "ok": ok, "wallets": wallets, "unknown": unknown, "silent_networks": silent, "differing": rows }).to_string());
        return;
    }
    for reading in differing {
        let wallet = &reading.wallet;
        say(&format!(
            "DIFFERS  {}  {:<44}  block {}  holds {}, by the records {}",
            wallet.id,
            wallet.address_text,
            reading.block,
            amount(reading, reading.value),
            by_records(reading)
        ));
    }
    let unknown = if synced.unknown == 0 {
        String::new()
    } else {
        format!(", {} not compared: their block is not applied here yet, is `tidegate serve` running?", synced.unknown)
    };
    let silent = if synced.silent == 0 { String::new() } else { format!(", {} networks did not answer", synced.silent) };
    say(&format!("{} wallets read, {} differ from the records{unknown}{silent}", synced.wallets, differing.len()));
}

/// The public side of a seed, for another installation that watches and cannot spend.
async fn show_xpub(config: &ConfigArgs, source: &str, network: &str, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let part = part_named(&gateway, &Network::new(network))?;
    let xpub = sources::xpub_of(&gateway, part, source, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "source": source, "network": network, "xpub": xpub }).to_string());
    } else {
        say(&xpub);
    }
    gateway.store.clone().close().await;
    Ok(())
}

fn checked_source_name(name: &str) -> Result<(), Sorry> {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Sorry::new("NAME: expected 1 to 100 printable characters"));
    }
    Ok(())
}

fn show_source(id: &str, name: &str, kind: &str, words: Option<&str>, json: bool) {
    if json {
        say(&json!({ "id": id, "name": name, "kind": kind, "words": words }).to_string());
        return;
    }
    say(&format!("id    {id}\nname  {name}\nkind  {kind}"));
    if let Some(words) = words {
        say("\nThe words, this once. Write them on paper: they restore every address, and whoever has them has the money.\n");
        for (number, word) in (1..).zip(words.split(' ')) {
            say(&format!("{number:>4}  {word}"));
        }
    }
}

async fn list_sources(config: &ConfigArgs, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let mut rows = Vec::new();
    for source in gateway.store.sources().await? {
        let mut next = serde_json::Map::new();
        for network in gateway.networks().keys().filter(|name| source.network.as_ref().is_none_or(|of| of == *name)) {
            next.insert(network.to_string(), json!(gateway.store.next_index(source.id, network).await?));
        }
        rows.push(json!({ "id": source.id, "name": source.name, "kind": source.kind.name(), "account": source.account, "next_index": next, "created_at": source.created_at.to_string() }));
    }
    if json {
        say(&json!({ "data": rows }).to_string());
    } else {
        say(&format!("{:<37} {:<20} {:<6} {:<8} {}", "id", "name", "kind", "account", "next index"));
        for row in &rows {
            let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
            say(&format!("{:<37} {:<20} {:<6} {:<8} {}", text("id"), text("name"), text("kind"), row["account"], row["next_index"]));
        }
    }
    gateway.store.clone().close().await;
    Ok(())
}

/// Makes a seed, shows its words, and has them typed back, so that the paper is right.
async fn new_seed(gateway: &Gateway, name: &str, account: u32, yes: bool, json: bool, doer: &Doer) -> Result<(), Sorry> {
    let (id, words) = sources::new_seed(gateway, name, account, doer).await?;
    show_source(&id.to_string(), name, "hd", Some(words.as_str()), json);
    drop(words);
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    loop {
        let _ = write!(std::io::stderr(), "\nType all the words back, in one line: ");
        let mut typed = zeroize::Zeroizing::new(String::new());
        if std::io::stdin().read_line(&mut typed)? == 0 {
            return Err(Sorry(format!(
                "the words were not verified; the seed {id} is kept: if they are not on paper, make another and do not use this one"
            )));
        }
        if sources::words_match(gateway, id, typed.trim()).await? {
            say("They are right. The seed is ready.");
            return Ok(());
        }
        complain("these are not the words; look again");
    }
}

async fn verify_wallets(config: &ConfigArgs, wallet: Option<&str>, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let (checked, bad) = match wallet {
        Some(text) => {
            let id = text.parse().map_err(|_| Sorry(format!("expected the id of a wallet, such as wal_…, found {text:?}")))?;
            let verdict = safe::verify_one(&gateway, id, &Doer::on_command_line()).await?;
            (1, if verdict.wrong.is_some() { vec![verdict] } else { Vec::new() })
        }
        None => {
            let bar = bar(gateway.store.wallet_count().await?);
            let mut checked = 0;
            let bad = safe::verify_all(&gateway, |done, _| {
                bar.set_position(done);
                checked = done;
            })
            .await?;
            bar.finish_and_clear();
            (checked, bad)
        }
    };
    if json {
        let rows: Vec<_> = bad
            .iter()
            .map(|verdict| {
                let wallet = &verdict.wallet;
                json!({
                    "id": wallet.id,
                    "network": wallet.network.as_str(),
                    "address": wallet.address_text,
                    "status": wallet.status.name(),
                    "detail": verdict.wrong,
                })
            })
            .collect();
        say(&json!({ "ok": bad.is_empty(), "checked": checked, "failed": rows }).to_string());
    } else {
        for verdict in &bad {
            say(&format!("BAD  {}  {}  {}", verdict.wallet.id, verdict.wallet.address_text, verdict.wrong.as_deref().unwrap_or_default()));
        }
        say(&format!("{checked} wallets checked, {} failed{}", bad.len(), if bad.is_empty() { "" } else { "; they are frozen" }));
    }
    gateway.store.clone().close().await;
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_wallets(page: &WalletPage, json: bool) {
    if json {
        say(&serde_json::to_string_pretty(page).unwrap_or_default());
        return;
    }
    say(&format!("{:<37} {:<28} {:<12} {:<44} {}", "id", "name", "network", "address", "status"));
    for wallet in &page.data {
        say(&wallet.line());
    }
}
