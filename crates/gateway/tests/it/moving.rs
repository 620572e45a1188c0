//! `tidegate migrate --from sqlite://… --to postgres://…`: everything arrives, whatever it is killed
//! in the middle of; and two databases are never both in use.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::gateway::{Done, Home, Settings};
use crate::operator::{look, tamper};
use crate::postgres;
use crate::process::Process;

/// Rows that are made up in each table.
const MADE_UP: usize = 900;

fn home() -> Home {
    Home::new(&Settings::new("http://127.0.0.1:9", [7; 20]))
}

/// `migrate --from` this home's database `--to` that one.
fn move_to(home: &Home, to: &str) -> Done {
    home.run(&["migrate", "--from", &home.database_url, "--to", to])
}

/// The tables of an SQLite database that hold what is in it, with their columns: name and kind.
async fn tables(home: &Home) -> BTreeMap<String, Vec<(String, String, bool)>> {
    let names = look(home, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").await;
    let mut tables = BTreeMap::new();
    for name in names.lines().filter(|name| !["schema_versions", "moves", "move_marks"].contains(name)) {
        let columns = look(home, &format!("SELECT name, type, \"notnull\" OR pk > 0 FROM pragma_table_info('{name}')")).await;
        let column = |line: &str| {
            let parts: Vec<&str> = line.split('|').collect();
            (parts[0].to_owned(), parts[1].to_owned(), parts[2] == "1")
        };
        tables.insert(name.to_owned(), columns.lines().map(column).collect());
    }
    tables
}

/// Puts made-up rows into every table: numbers, texts of all kinds, and nothing where that may be.
async fn make_up(home: &Home, tables: &BTreeMap<String, Vec<(String, String, bool)>>) {
    for (name, columns) in tables {
        let value = |(column, kind, must): &(String, String, bool)| match (kind.as_str(), must) {
            ("TEXT", true) => format!("'{column}-' || (i * 7919 % {MADE_UP}) || '-Ünïcode ✓ ''quoted'' \"x\" ' || char(10, 9) || 'ß'"),
            ("TEXT", false) => format!("CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE '{column}-' || i END"),
            (_, true) => format!("i * 7919 % {MADE_UP} + 5"),
            (_, false) => "CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN 9223372036854775807 ELSE -i END".to_owned(),
        };
        let names: Vec<String> = columns.iter().map(|(column, ..)| format!("\"{column}\"")).collect();
        let values: Vec<String> = columns.iter().map(value).collect();
        let text = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MADE_UP}) INSERT OR IGNORE INTO \"{name}\" ({}) SELECT {} FROM n",
            names.join(", "),
            values.join(", ")
        );
        tamper(home, &text).await;
    }
}

/// Every row of a table as one text each, in the order of the bytes.
async fn all_rows(url: &str, table: &str, columns: &[(String, String, bool)]) -> Vec<String> {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let names: Vec<String> = columns.iter().map(|(column, ..)| format!("\"{column}\"")).collect();
    let text = format!("SELECT {} FROM \"{table}\"", names.join(", "));
    let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let cell = |row: &sqlx::any::AnyRow, place: usize| match columns[place].1.as_str() {
        "TEXT" => format!("{:?}", row.get::<Option<String>, _>(place)),
        _ => format!("{:?}", row.get::<Option<i64>, _>(place)),
    };
    let mut rows: Vec<String> =
        rows.iter().map(|row| (0..columns.len()).map(|place| cell(row, place)).collect::<Vec<_>>().join("|")).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn a_move_that_is_killed_many_times_brings_every_row_of_every_table() {
    let home = home();
    let tables = tables(&home).await;
    assert!(tables.len() > 25, "{tables:?}");
    make_up(&home, &tables).await;
    // As if later events had been there and were gone.
    tamper(&home, "UPDATE sqlite_sequence SET seq = 5000 WHERE name = 'events'").await;
    let target = postgres::fresh_database();

    let args = ["migrate", "--from", &home.database_url, "--to", &target, "--json"];
    let (mut kills, mut begun, mut patience_ms) = (0, 0, 150);
    let report: Value = loop {
        let mut process = Process::start("migrate", &mut home.command(&args));
        match tokio::time::timeout(Duration::from_millis(patience_ms), process.exit(Duration::from_secs(60))).await {
            Ok(status) => {
                assert!(status.success(), "{}", process.output());
                break serde_json::from_str(process.output().lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
            }
            Err(_) => {
                process.kill();
                kills += 1;
                // Soon enough it is long enough, on a slow machine too.
                patience_ms += patience_ms / 4;
            }
        }
        let half = postgres::query(&target, "SELECT count(*) FROM pg_tables WHERE tablename = 'moves'") == "1"
            && postgres::query(&target, "SELECT count(*) FROM moves WHERE finished_at IS NULL") == "1";
        begun += u64::from(half);
        if begun == 1 && half {
            // Nothing runs on half of it, and nothing else is put into it.
            let mut serve = home.command(&["check"]);
            let refused = Done::of(serve.env("DATABASE_URL", &target));
            assert!(refused.code == Some(1) && refused.output().contains("half moved"), "{refused:?}");
            let other = self::home();
            let refused = move_to(&other, &target);
            assert!(refused.code == Some(1) && refused.stderr.contains(&home.database_url), "{refused:?}");
        }
    };
    println!("killed {kills} times, {begun} of them in the middle");
    assert!(begun > 1, "the move was faster than the kills");
    assert_eq!(report["ok"], true);

    for (table, columns) in &tables {
        let (before, after) = (all_rows(&home.database_url, table, columns).await, all_rows(&target, table, columns).await);
        let made = if table == "audit_log" { MADE_UP + 1 } else { MADE_UP };
        assert!(before.len() + 1 >= made, "{table} has {} rows", before.len());
        assert!(before == after, "{table} differs");
        assert_eq!(report["tables"][table], before.len(), "{table}");
    }
    let next = postgres::query(
        &target,
        "INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES ('evt', 'k', 'm', 's', 1, '{}') RETURNING seq",
    );
    assert_eq!(next, "5001", "no number is given twice");

    // A second time nothing happens, and nothing runs on the file any more.
    let again = home.json(&["migrate", "--from", &home.database_url, "--to", &target]);
    assert_eq!((again["ok"].as_bool(), again["copied"].as_u64()), (Some(true), Some(0)), "{again}");
    let refused = home.run(&["migrate"]);
    let name = target.rsplit('/').next().unwrap();
    assert!(
        refused.code == Some(1) && refused.stderr.contains("was moved to postgres://127.0.0.1") && refused.stderr.contains(name),
        "{refused:?}"
    );
    let elsewhere = move_to(&home, &postgres::fresh_database());
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains("already"), "{elsewhere:?}");
}

#[tokio::test]
async fn a_gateway_goes_on_where_it_was_on_the_other_database() {
    let mut home = home();
    home.json(&["wallet", "seed", "paper", "--yes"]);
    home.json(&["wallet", "generate", "--network", "anvil", "--count", "5", "--kind", "hd"]);
    let merchant = home.merchant("shop", "https://shop.example/hook");
    let target = postgres::fresh_database();
    // The password is not in the arguments.
    let from = home.database_url.clone();
    home.database_url = target;
    let report = home.json(&["migrate", "--from", &from]);
    assert_eq!((&report["tables"]["usdt_wallets"], &report["tables"]["merchants"]), (&5.into(), &2.into()), "{report}");

    assert_eq!(home.json(&["wallet", "verify"])["checked"], 5, "the same master key opens everything");
    assert_eq!(home.json(&["merchant", "show", "shop"])["webhook_secret"], merchant.webhook_secret.as_str());
    assert_eq!(home.json(&["audit", "verify"])["ok"], true);
    let moved = look(&home, "SELECT detail FROM audit_log WHERE action = 'database.move'").await;
    assert!(moved.contains(&from) && moved.contains("postgres://127.0.0.1"), "{moved}");
    let next = home.json(&["wallet", "generate", "--network", "anvil", "--count", "1", "--kind", "hd"]);
    assert_eq!(home.json(&["wallet", "sources"])["data"][0]["next_index"]["anvil"], 6, "no address is made twice: {next}");
}

#[tokio::test]
async fn a_move_is_refused_where_it_would_do_harm() {
    let home = home();
    let target = postgres::fresh_database();

    // Somebody has the file open.
    let mut other = SqliteConnection::connect(&home.database_url).await.unwrap();
    sqlx::query("SELECT name FROM merchants").fetch_all(&mut other).await.unwrap();
    let refused = move_to(&home, &target);
    assert!(refused.code == Some(1) && refused.stderr.contains("is in use") && refused.stderr.contains("tidegate serve"), "{refused:?}");
    other.close().await.unwrap();

    // Somebody is in the target; or was, and left something.
    let other = sqlx::PgConnection::connect(&target).await.unwrap();
    let refused = move_to(&home, &target);
    assert!(refused.code == Some(1) && refused.stderr.contains("1 other connections"), "{refused:?}");
    other.close().await.unwrap();
    let mut full = self::home();
    full.database_url = postgres::fresh_database();
    full.run(&["migrate"]).succeeded();
    full.merchant("shop", "https://shop.example/hook");
    let refused = move_to(&home, &full.database_url);
    assert!(refused.code == Some(1) && refused.stderr.contains("expected an empty database"), "{refused:?}");

    // Another direction, and a flag that is missing.
    let refused = home.run(&["migrate", "--from", &target, "--to", &home.database_url]);
    assert!(refused.code == Some(1) && refused.stderr.contains("pg_dump"), "{refused:?}");
    assert!(!refused.stderr.contains("tidegate@"), "the user is not shown: {refused:?}");
    let refused = home.run(&["migrate", "--from", &home.database_url]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--to"), "{refused:?}");
    assert_eq!(home.run(&["migrate", "--to", &target]).code, Some(2));

    // One that is not there is called by its name, without what is secret in it.
    let refused = move_to(&home, "postgres://me:hidden@127.0.0.1:1/nowhere");
    assert!(refused.code == Some(1) && refused.stderr.contains("127.0.0.1:1/nowhere"), "{refused:?}");
    assert!(!refused.stderr.contains("hidden") && !refused.stderr.contains("DATABASE_URL"), "{refused:?}");

    // An old schema is migrated first, not in passing.
    tamper(&home, "DELETE FROM schema_versions WHERE version > 7").await;
    let refused = move_to(&home, &target);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("has schema 7") && refused.stderr.contains("run `tidegate migrate`"),
        "{refused:?}"
    );
    assert_eq!(postgres::query(&target, "SELECT count(*) FROM pg_tables WHERE tablename = 'moves'"), "0", "nothing was begun");
}

#[tokio::test]
async fn a_row_that_changed_on_the_way_is_found() {
    let home = home();
    let tables = tables(&home).await;
    make_up(&home, &tables).await;
    let target = postgres::fresh_database();
    // A move that was stopped before its end, and somebody who changed one letter meanwhile.
    let trigger =
        "CREATE TABLE stop (x int); CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'";
    let mut first = self::home();
    first.database_url = target.clone();
    first.run(&["migrate"]).succeeded();
    postgres::query(&target, trigger);
    postgres::query(&target, "CREATE TRIGGER stop BEFORE UPDATE ON moves FOR EACH ROW EXECUTE FUNCTION refuse()");
    assert_eq!(move_to(&home, &target).code, Some(1));
    postgres::query(&target, "DROP TRIGGER stop ON moves");
    postgres::query(&target, "UPDATE usdt_payment_orders SET note = 'x' WHERE id = (SELECT id FROM usdt_payment_orders LIMIT 1)");
    let refused = move_to(&home, &target);
    assert!(refused.code == Some(1) && refused.stderr.contains("differs in usdt_payment_orders"), "{refused:?}");
    assert_eq!(postgres::query(&target, "SELECT count(*) FROM moves WHERE finished_at IS NULL"), "1");
}
