//! Moves everything from an SQLite file to PostgreSQL: each table in the order of its key, in
//! batches, then every row of both is read again and compared.
//!
//! The mark that says how far a table is moves in the commit that stores its rows, so a move that
//! was killed goes on where it was, and no row is copied twice. While it is not finished nothing else
//! opens the target, and once it is nothing opens the source: two gateways on two copies of one pool
//! would lend the same wallet twice. What is sealed is copied as it is; no key is needed.

use std::time::Duration;

use serde_json::Value;
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tidegate_rules::changes::NewAudit;
use tidegate_rules::time::Time;

use super::apply::{append_audit, write_rows_by};
use super::{Engine, Migrate, StoreError, open_error, prepare, schema};

/// How many rows are copied in one transaction.
const COPY_ROWS: usize = 2_048;
/// How many rows one statement stores: PostgreSQL takes 65,535 values in one, and each statement is a
/// journey to the server and back.
const INSERT_ROWS: usize = 512;
/// How many rows are compared at a time: their keys are the values of one statement.
const COMPARE_ROWS: usize = 512;

/// How long the source may be held by somebody else: what a command that ends needs.
const SOURCE_WAIT: Duration = Duration::from_secs(2);
/// How long others may be in the target: a server notices late that whoever asked was killed.
const OTHERS_WAIT: Duration = Duration::from_secs(5);
const OTHERS_LOOK: Duration = Duration::from_millis(200);

/// Held on PostgreSQL by whoever moves (any number will do).
const MOVE_LOCK: i64 = 0x7469_6465_6d6f_7665;

/// What belongs to a database itself and not to what is in it.
const NOT_MOVED: [&str; 3] = ["schema_versions", "moves", "move_marks"];

/// A database: where it is, and how it is called in front of people.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its URL, which may hold a password.
    pub url: &'a str,
    /// Its URL without user and password.
    pub shown: &'a str,
}

/// What a move did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Each table and how many rows it has, in both.
    pub tables: Vec<(String, u64)>,
    /// How many rows this run copied; a run before it may have copied others.
    pub copied: u64,
}

impl Moved {
    /// How many rows there are in all tables together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().fold(0, |sum, (_, rows)| sum.saturating_add(*rows))
    }
}

/// Moves everything. `progress` hears how much is done, of how much: each row counts when it is
/// copied and again when it is compared.
///
/// # Errors
/// When the source is in use, has an old schema or is not there; when the target is in use, holds
/// something already or another source's rows; when a row differs in the end. Run it again after a
/// kill: it goes on where it was.
pub async fn move_over(
    from: Place<'_>,
    to: Place<'_>,
    audit: &NewAudit,
    now: Time,
    mut progress: impl FnMut(u64, u64),
) -> Result<Moved, StoreError> {
    sqlx::any::install_default_drivers();
    let mut source = take_source(from).await?;
    let mut target = take_target(to).await?;
    refuse_gone(&mut source, to).await?;
    let tables = tables(&mut source).await?;
    let begun = begun(&mut target, from).await?;
    if matches!(begun, Begun::No) {
        refuse_full(&mut target, &tables, to).await?;
        begin(&mut source, &mut target, from, audit, now).await?;
    }
    let mut counts = Vec::with_capacity(tables.len());
    for table in &tables {
        counts.push(count(&mut source, table).await?);
    }
    let mut copied: u64 = 0;
    if !matches!(begun, Begun::Finished) {
        let total = counts.iter().fold(0_u64, |sum, rows| sum.saturating_add(*rows)).saturating_mul(2);
        let mut done: u64 = 0;
        let mut add = |rows: u64| {
            done = done.saturating_add(rows);
            progress(done, total);
        };
        for table in &tables {
            copied = copied.saturating_add(copy(&mut source, &mut target, table, &mut add).await?);
            // So that the planner knows how large it is: for the comparison, and for the gateway's first day.
            target.execute(AssertSqlSafe(format!("ANALYZE \"{}\"", table.name))).await?;
        }
        for (table, count) in tables.iter().zip(&counts) {
            compare(&mut source, &mut target, table, *count, &mut add).await?;
            set_sequence(&mut source, &mut target, table).await?;
        }
    }
    // First the source is closed and then the target opened: killed in between, nothing runs on either
    // until this is run again. A source that was restored from a copy since is closed again.
    leave(&mut source, to, now).await?;
    sqlx::query("UPDATE moves SET finished_at = COALESCE(finished_at, $1) WHERE direction = 'here'")
        .bind(now.millis())
        .execute(&mut target)
        .await?;
    target.close().await?;
    source.close().await?;
    Ok(Moved { tables: tables.into_iter().map(|table| table.name).zip(counts).collect(), copied })
}

/// Refuses to open a database that is half moved or was moved away.
pub(super) async fn refuse_moved(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let rows =
        sqlx::query("SELECT direction, peer FROM moves WHERE direction = 'away' OR finished_at IS NULL").fetch_all(connection).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (direction, peer): (String, String) = (row.try_get("direction")?, row.try_get("peer")?);
    Err(StoreError::Open(if direction == "away" {
        format!("everything in this database was moved to {peer}: set DATABASE_URL to that one; on both, one wallet would be lent twice")
    } else {
        format!(
            "this database is only half moved here from {peer}: run `tidegate migrate --from {peer} --to …` again, it goes on where it was"
        )
    }))
}

/// A column, and what is in it. Nothing else than these two is in any table.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

#[derive(Clone, Debug)]
struct Table {
    name: String,
    columns: Vec<Column>,
    /// The places of its key's columns, in the key's order.
    key: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
}

type Cells = Vec<Cell>;

impl Table {
    fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|place| self.columns.get(*place))
    }

    /// `"a", "b"`
    fn list<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
        columns.map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
    }

    fn key_of(&self, row: &Cells) -> Cells {
        self.key.iter().filter_map(|place| row.get(*place).cloned()).collect()
    }

    fn read(&self, row: &AnyRow) -> Result<Cells, StoreError> {
        let cell = |(place, column): (usize, &Column)| {
            Ok(match column.kind {
                Kind::Text => Cell::Text(row.try_get(place)?),
                Kind::Number => Cell::Number(row.try_get(place)?),
            })
        };
        self.columns.iter().enumerate().map(cell).collect()
    }
}

type Statement = Query<'static, Any, AnyArguments>;

fn bind(statement: Statement, cell: &Cell) -> Statement {
    match cell {
        Cell::Text(text) => statement.bind(text.clone()),
        Cell::Number(number) => statement.bind(*number),
    }
}

/// Opens the source so that nobody else can, and refuses one with an old schema.
async fn take_source(from: Place<'_>) -> Result<AnyConnection, StoreError> {
    let options: AnyConnectOptions =
        format!("{}?mode=rw", from.url).parse().map_err(|error| open_error(Engine::Sqlite, from.shown, &error))?;
    let mut source = AnyConnection::connect_with(&options.disable_statement_logging()).await.map_err(|error| {
        StoreError::Open(format!("could not open {}: {}; expected an SQLite file of Tidegate", from.shown, plain(&error)))
    })?;
    // Taken at the first access and kept: fails while any other process has the file open.
    let timeout = format!("PRAGMA busy_timeout = {}", SOURCE_WAIT.as_millis());
    for step in [timeout.as_str(), "PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = FULL", "BEGIN IMMEDIATE", "COMMIT"] {
        source.execute(AssertSqlSafe(step.to_owned())).await.map_err(|error| {
            StoreError::Open(format!(
                "{} is in use ({}): stop `tidegate serve` and every other command on it first",
                from.shown,
                plain(&error)
            ))
        })?;
    }
    schema::bring_up(Engine::Sqlite, &mut source, Migrate::No)
        .await
        .map_err(|error| StoreError::Open(format!("{}: {error}; with DATABASE_URL set to it", from.shown)))?;
    Ok(source)
}

/// What the driver says, without what it quotes.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string().split("://").next().unwrap_or_default().to_owned(),
    }
}

/// Opens the target, brings its schema up to date, and refuses one that somebody else is in.
async fn take_target(to: Place<'_>) -> Result<AnyConnection, StoreError> {
    let refused = |error: &sqlx::Error| open_error(Engine::Postgres, to.shown, error);
    let options: AnyConnectOptions = to.url.parse().map_err(|error| refused(&error))?;
    let mut target = AnyConnection::connect_with(&options.disable_statement_logging()).await.map_err(|error| refused(&error))?;
    prepare(Engine::Postgres, &mut target).await.map_err(|error| refused(&error))?;
    let begun = tokio::time::Instant::now();
    loop {
        let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(MOVE_LOCK).fetch_one(&mut target).await?;
        // Of others a user without rights sees little more than that they are there.
        let others: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()",
        )
        .fetch_one(&mut target)
        .await?;
        if alone && others == 0 {
            break;
        }
        if begun.elapsed() > OTHERS_WAIT {
            return Err(StoreError::Open(format!(
                "{} is in use by {others} other connections: expected nobody else in it; close them, or move to a database of its own",
                to.shown
            )));
        }
        tokio::time::sleep(OTHERS_LOOK).await;
    }
    schema::bring_up(Engine::Postgres, &mut target, Migrate::Yes).await?;
    Ok(target)
}

/// Every table of the source that is moved, and what is in it.
async fn tables(source: &mut AnyConnection) -> Result<Vec<Table>, StoreError> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
            .fetch_all(&mut *source)
            .await?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names.into_iter().filter(|name| !NOT_MOVED.contains(&name.as_str())) {
        let rows = sqlx::query("SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid").bind(&name).fetch_all(&mut *source).await?;
        let mut columns = Vec::with_capacity(rows.len());
        let mut key: Vec<(i64, usize)> = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let kind = match row.try_get::<String, _>("type")?.as_str() {
                "TEXT" => Kind::Text,
                "BIGINT" | "INTEGER" => Kind::Number,
                other => return Err(StoreError::corrupt("a column of a kind that is not known", format!("{name}: {other}"))),
            };
            columns.push(Column { name: row.try_get("name")?, kind });
            let order: i64 = row.try_get("pk")?;
            if order > 0 {
                key.push((order, place));
            }
        }
        key.sort_unstable();
        if key.is_empty() {
            return Err(StoreError::corrupt("a table without a key", name));
        }
        tables.push(Table { name, columns, key: key.into_iter().map(|(_, place)| place).collect() });
    }
    Ok(tables)
}

async fn count(connection: &mut AnyConnection, table: &Table) -> Result<u64, StoreError> {
    let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM \"{}\"", table.name))).fetch_one(connection).await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

enum Begun {
    No,
    Before,
    Finished,
}

/// How far the target says it is with this source.
async fn begun(target: &mut AnyConnection, from: Place<'_>) -> Result<Begun, StoreError> {
    let row = sqlx::query("SELECT peer, finished_at FROM moves WHERE direction = 'here'").fetch_optional(target).await?;
    let Some(row) = row else { return Ok(Begun::No) };
    let peer: String = row.try_get("peer")?;
    if peer != from.shown {
        return Err(StoreError::Open(format!(
            "the target holds rows of {peer}, not of {}: go on with `--from {peer}`, or give an empty database",
            from.shown
        )));
    }
    Ok(if row.try_get::<Option<i64>, _>("finished_at")?.is_some() { Begun::Finished } else { Begun::Before })
}

/// A source that was moved elsewhere is no source any more.
async fn refuse_gone(source: &mut AnyConnection, to: Place<'_>) -> Result<(), StoreError> {
    let peer: Option<String> = sqlx::query_scalar("SELECT peer FROM moves WHERE direction = 'away'").fetch_optional(source).await?;
    match peer.filter(|peer| peer != to.shown) {
        Some(peer) => Err(StoreError::Open(format!("everything was moved to {peer} already: set DATABASE_URL to that one"))),
        None => Ok(()),
    }
}

/// A target in which there is anything belongs to somebody.
async fn refuse_full(target: &mut AnyConnection, tables: &[Table], to: Place<'_>) -> Result<(), StoreError> {
    for table in tables {
        let rows = count(target, table).await?;
        if rows > 0 {
            return Err(StoreError::Open(format!(
                "{} is in use: expected an empty database, found {rows} rows in {}; make a new one with CREATE DATABASE",
                to.shown, table.name
            )));
        }
    }
    Ok(())
}

/// Says in the source's audit log what happens, and in the target that it is under way.
async fn begin(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    from: Place<'_>,
    audit: &NewAudit,
    now: Time,
) -> Result<(), StoreError> {
    let mut transaction = source.begin().await?;
    append_audit(&mut transaction, &[audit]).await?;
    transaction.commit().await?;
    sqlx::query("INSERT INTO moves (direction, peer, started_at) VALUES ('here', $1, $2)")
        .bind(from.shown)
        .bind(now.millis())
        .execute(target)
        .await?;
    Ok(())
}

/// Says in the source where everything is now.
async fn leave(source: &mut AnyConnection, to: Place<'_>, now: Time) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO moves (direction, peer, started_at, finished_at) VALUES ('away', $1, $2, $2) ON CONFLICT (direction) DO NOTHING",
    )
    .bind(to.shown)
    .bind(now.millis())
    .execute(source)
    .await?;
    Ok(())
}

/// Where the copying of a table stands: the last key, and how many rows.
async fn mark(target: &mut AnyConnection, table: &Table) -> Result<(Option<Cells>, u64), StoreError> {
    let row = sqlx::query("SELECT last_key, copied FROM move_marks WHERE table_name = $1").bind(&table.name).fetch_optional(target).await?;
    let Some(row) = row else { return Ok((None, 0)) };
    let text: String = row.try_get("last_key")?;
    let bad = || StoreError::corrupt("the mark of a move", &text);
    let values: Vec<Value> = serde_json::from_str(&text).map_err(|_| bad())?;
    let cell = |(value, column): (&Value, &Column)| match column.kind {
        Kind::Text => value.as_str().map(|text| Cell::Text(Some(text.to_owned()))),
        Kind::Number => value.as_i64().map(|number| Cell::Number(Some(number))),
    };
    let key: Cells = values.iter().zip(table.key_columns()).filter_map(cell).collect();
    if key.len() != table.key.len() {
        return Err(bad());
    }
    Ok((Some(key), u64::try_from(row.try_get::<i64, _>("copied")?).unwrap_or(0)))
}

fn key_text(key: &Cells) -> String {
    let value = |cell: &Cell| match cell {
        Cell::Text(text) => Value::from(text.clone()),
        Cell::Number(number) => Value::from(*number),
    };
    Value::Array(key.iter().map(value).collect()).to_string()
}

/// The next rows of the source after a key.
async fn rows_after(source: &mut AnyConnection, table: &Table, after: Option<&Cells>, limit: usize) -> Result<Vec<Cells>, StoreError> {
    let key = Table::list(table.key_columns());
    let condition = after.map_or_else(String::new, |after| {
        let places: Vec<String> = (1..=after.len()).map(|place| format!("${place}")).collect();
        format!(" WHERE ({key}) > ({})", places.join(", "))
    });
    let columns = Table::list(table.columns.iter());
    let text = format!("SELECT {columns} FROM \"{}\"{condition} ORDER BY {key} LIMIT {limit}", table.name);
    let statement = after.into_iter().flatten().fold(sqlx::query(AssertSqlSafe(text)), bind);
    statement.fetch_all(source).await?.iter().map(|row| table.read(row)).collect()
}

/// Copies what is missing of a table. How many rows that were.
async fn copy(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    table: &Table,
    mut progress: impl FnMut(u64),
) -> Result<u64, StoreError> {
    let (after, before) = mark(target, table).await?;
    progress(before);
    let mut copied: u64 = 0;
    let mut rows = rows_after(source, table, after.as_ref(), COPY_ROWS).await?;
    while let Some(last) = rows.last() {
        let key = table.key_of(last);
        let count = u64::try_from(rows.len()).unwrap_or(0);
        copied = copied.saturating_add(count);
        // The next rows are read while these are written.
        let (written, next) = tokio::join!(
            store(target, table, &rows, &key, before.saturating_add(copied)),
            rows_after(source, table, Some(&key), COPY_ROWS)
        );
        written?;
        progress(count);
        rows = next?;
    }
    Ok(copied)
}

/// Stores a batch and its mark, together.
async fn store(target: &mut AnyConnection, table: &Table, rows: &[Cells], last: &Cells, copied: u64) -> Result<(), StoreError> {
    let mut transaction = target.begin().await?;
    let places = format!("({})", vec!["?"; table.columns.len()].join(","));
    let columns = Table::list(table.columns.iter());
    let rows: Vec<&Cells> = rows.iter().collect();
    write_rows_by(
        INSERT_ROWS,
        &mut transaction,
        &rows,
        &places,
        |values| format!("INSERT INTO \"{}\" ({columns}) VALUES {values}", table.name),
        |statement, row| row.iter().fold(statement, bind),
    )
    .await?;
    sqlx::query(
        "INSERT INTO move_marks (table_name, last_key, copied) VALUES ($1, $2, $3) \
         ON CONFLICT (table_name) DO UPDATE SET last_key = excluded.last_key, copied = excluded.copied",
    )
    .bind(&table.name)
    .bind(key_text(last))
    .bind(i64::try_from(copied).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Reads a table in both again, and compares every column of every row.
async fn compare(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    table: &Table,
    expected: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), StoreError> {
    let differs = |what: String| {
        StoreError::Open(format!(
            "the copy differs in {}: {what}; nothing uses it yet: give `--to` an empty database and begin again",
            table.name
        ))
    };
    let found = count(target, table).await?;
    if found != expected {
        return Err(differs(format!("{expected} rows there, {found} here")));
    }
    let mut rows = rows_after(source, table, None, COMPARE_ROWS).await?;
    while let Some(last) = rows.last() {
        let key = table.key_of(last);
        let (copies, next) = tokio::join!(rows_at(target, table, &rows), rows_after(source, table, Some(&key), COMPARE_ROWS));
        let copies = copies?;
        for row in &rows {
            if !copies.contains(row) {
                return Err(differs(format!("the row {}", key_text(&table.key_of(row)))));
            }
        }
        progress(u64::try_from(rows.len()).unwrap_or(0));
        rows = next?;
    }
    Ok(())
}

/// The rows of the target that have the keys of these.
async fn rows_at(target: &mut AnyConnection, table: &Table, rows: &[Cells]) -> Result<std::collections::HashSet<Cells>, StoreError> {
    let mut place: usize = 0;
    let mut placeholder = |column: &Column| {
        place = place.saturating_add(1);
        match column.kind {
            Kind::Text => format!("CAST(${place} AS TEXT)"),
            Kind::Number => format!("CAST(${place} AS BIGINT)"),
        }
    };
    let tuples: Vec<String> =
        rows.iter().map(|_| format!("({})", table.key_columns().map(&mut placeholder).collect::<Vec<_>>().join(", "))).collect();
    let tuples = if table.key.len() == 1 { tuples.join(", ") } else { format!("VALUES {}", tuples.join(", ")) };
    let (columns, key) = (Table::list(table.columns.iter()), Table::list(table.key_columns()));
    let text = format!("SELECT {columns} FROM \"{}\" WHERE ({key}) IN ({tuples})", table.name);
    let keys = rows.iter().flat_map(|row| table.key_of(row));
    let statement = keys.fold(sqlx::query(AssertSqlSafe(text)), |statement, cell| bind(statement, &cell));
    statement.fetch_all(target).await?.iter().map(|row| table.read(row)).collect()
}

/// The next number that the target gives is the one that the source would have given.
async fn set_sequence(source: &mut AnyConnection, target: &mut AnyConnection, table: &Table) -> Result<(), StoreError> {
    let mut key = table.key_columns();
    let (Some(column), None) = (key.next(), key.next()) else { return Ok(()) };
    if column.kind == Kind::Text {
        return Ok(());
    }
    let sequence: Option<String> =
        sqlx::query_scalar("SELECT pg_get_serial_sequence($1, $2)").bind(&table.name).bind(&column.name).fetch_one(&mut *target).await?;
    let Some(sequence) = sequence else { return Ok(()) };
    let last: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = $1").bind(&table.name).fetch_optional(source).await?;
    if let Some(last) = last.filter(|last| *last > 0) {
        sqlx::query("SELECT setval(CAST(CAST($1 AS TEXT) AS regclass), $2)").bind(sequence).bind(last).execute(target).await?;
    }
    Ok(())
}
