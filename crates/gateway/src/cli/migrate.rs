//! `tidegate migrate`: the schema brought up to date, or everything moved to PostgreSQL.

use std::process::ExitCode;

use serde_json::{Map, Value, json};
use tidegate_rules::audit::Action;

use super::args::ConfigArgs;
use super::read_config;
use super::terminal::{bar, say};
use crate::clock;
use crate::config::{DatabaseUrl, Overrides};
use crate::people::Doer;
use crate::start::{self, Sorry};
use crate::store::{Migrate, Place, move_over as move_rows};

/// `tidegate migrate`
pub(super) async fn bring_up(config: &ConfigArgs, json: bool) -> Result<ExitCode, Sorry> {
    let store = start::open_store(&read_config(config, Overrides::default())?, Migrate::Yes).await?;
    let schema = store.schema().await?;
    store.close().await;
    if json {
        say(&json!({ "ok": true, "schema": schema }).to_string());
    } else {
        say("the schema is up to date");
    }
    Ok(ExitCode::SUCCESS)
}

/// `tidegate migrate --from sqlite://… --to postgres://…`
pub(super) async fn move_over(config: &ConfigArgs, from: &str, to: Option<&str>, json: bool) -> Result<ExitCode, Sorry> {
    let config = read_config(config, Overrides::default())?;
    let read = |flag: &str, text: &str| text.parse::<DatabaseUrl>().map_err(|error| Sorry(format!("{flag}: {error}")));
    let from = read("--from", from)?;
    let to = to.map_or_else(|| Ok(config.database.url.clone()), |to| read("--to", to))?;
    if !matches!(from, DatabaseUrl::Sqlite(_)) {
        return Err(Sorry(format!("--from: expected sqlite://PATH, found {from}; a PostgreSQL database moves by pg_dump and pg_restore")));
    }
    let DatabaseUrl::Postgres(target) = &to else {
        return Err(Sorry(format!("--to: expected postgres://USER@HOST/NAME here or in DATABASE_URL, found {to}")));
    };
    // The name of the database is no secret; what stands before the host may be one.
    let (from_shown, to_shown) = (from.to_string(), format!("{to}{}", target.expose().path()));
    let audit =
        Doer::on_command_line().did(Action::DatabaseMove, "database", clock::now()).with(&json!({ "from": from_shown, "to": to_shown }));
    let begun = tokio::time::Instant::now();
    let bar = bar(0);
    let (from_url, to_url) = (from.expose(), to.expose());
    let moved = move_rows(
        Place { url: &from_url, shown: &from_shown },
        Place { url: &to_url, shown: &to_shown },
        &audit,
        clock::now(),
        |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    )
    .await?;
    bar.finish_and_clear();
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let rows = moved.rows();
    if json {
        let tables: Map<String, Value> = moved.tables.into_iter().map(|(name, rows)| (name, rows.into())).collect();
        let done = json!({ "ok": true, "from": from_shown, "to": to_shown, "rows": rows, "copied": moved.copied, "took_ms": took_ms, "tables": tables });
        say(&done.to_string());
    } else {
        say(&format!(
            "{rows} rows are in {to_shown}, each compared with the one it was copied from. Set DATABASE_URL to it and start `tidegate serve`; the SQLite file is not opened any more, keep it as a copy."
        ));
    }
    Ok(ExitCode::SUCCESS)
}
