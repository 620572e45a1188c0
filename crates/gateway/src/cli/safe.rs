//! `tidegate key …`, `backup`, `restore` and `audit …`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tidegate_vault::{MasterKey, OsEntropy};

use super::args::{AuditCommand, ConfigArgs, KeyCommand};
use super::terminal::{bar, complain, say};
use super::{quiet_gateway, read_config};
use crate::backup;
use crate::config::Overrides;
use crate::people::Doer;
use crate::rotate;
use crate::safe;
use crate::start::Sorry;

/// `tidegate key …`
pub(super) async fn key(command: KeyCommand) -> Result<ExitCode, Sorry> {
    match command {
        KeyCommand::Rotate { config, json } => rotate_key(&config, json).await?,
        KeyCommand::New { config: _, parts, json } => new_key(parts, json),
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::fn_params_excessive_bools, reason = "as they come from the command line")]
fn new_key(parts: bool, json: bool) {
    if parts {
        let (part1, part2) = MasterKey::generate_parts(&mut OsEntropy);
        if json {
            say(&json!({ "master_key": *part1, "master_key_part2": *part2 }).to_string());
        } else {
            say(&format!("WALLET_MASTER_KEY        {}\nWALLET_MASTER_KEY_PART2  {}", *part1, *part2));
        }
    } else {
        let key = MasterKey::generate(&mut OsEntropy).to_hex();
        if json {
            say(&json!({ "master_key": *key }).to_string());
        } else {
            say(&key);
        }
    }
    if !std::io::stdout().is_terminal() {
        return;
    }
    if parts {
        complain("keep the two parts apart, and both safe: without either no wallet can be opened, and there is no other way in");
    } else {
        complain("keep this key safe and apart from the database: without it no wallet can be opened, and there is no other way in");
    }
}

/// `tidegate backup FILE`
pub(super) async fn backup(config: &ConfigArgs, file: &Path, json: bool) -> Result<ExitCode, Sorry> {
    let bytes = backup::backup(&read_config(config, Overrides::default())?, file, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "ok": true, "file": file.display().to_string(), "bytes": bytes }).to_string());
    } else {
        say(&format!("{}: {bytes} bytes, opened again and compared. It is worth nothing without the master key.", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `tidegate restore FILE`
pub(super) async fn restore(config: &ConfigArgs, file: &Path, json: bool) -> Result<ExitCode, Sorry> {
    let header = backup::restore(&read_config(config, Overrides::default())?, file, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "ok": true, "backup": header }).to_string());
    } else {
        say(&format!("restored: {}. Orders and wallets that were made after it are not in it.", header.line()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `tidegate audit …`
pub(super) async fn audit(command: AuditCommand) -> Result<ExitCode, Sorry> {
    let AuditCommand::Verify { config, json } = command;
    verify_audit(&config, json).await
}

async fn verify_audit(config: &ConfigArgs, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let found = safe::verify_audit(&gateway).await?;
    match (&found, json) {
        (Ok(rows), true) => say(&json!({ "ok": true, "rows": rows }).to_string()),
        (Err(wrong), true) => say(&json!({ "ok": false, "detail": wrong }).to_string()),
        (Ok(rows), false) => say(&format!("the audit log is whole: {rows} rows")),
        (Err(wrong), false) => complain(&format!("{wrong}; compare with a backup, and find out who can write to the database")),
    }
    gateway.store.clone().close().await;
    Ok(if found.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rotate_key(config: &ConfigArgs, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let bar = bar(gateway.store.wallet_count().await?.saturating_mul(2));
    let rotated = rotate::rotate(&gateway, &Doer::on_command_line(), |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    if json {
        say(&json!({ "ok": true, "texts": rotated.texts, "key_id": gateway.vault.current().key_id() }).to_string());
    } else {
        say(&format!(
            "{} texts are sealed under the new key, nothing is left under the old one. Remove WALLET_MASTER_KEY_PREVIOUS and restart `tidegate serve`; keep the old key as long as a backup is under it.",
            rotated.texts
        ));
    }
    gateway.store.clone().close().await;
    Ok(())
}
