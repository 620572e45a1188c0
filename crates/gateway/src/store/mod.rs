//! The one memory of the program: SQLite embedded, or PostgreSQL, behind one struct.
//!
//! Reads are named after the questions they answer ([`read`]). There is one write,
//! [`Store::commit`]: a [`Changes`] is stored whole or not at all (I6). The SQL text is the same on
//! both engines; what truly differs is in [`schema`] and in how commits are carried out here: on
//! PostgreSQL each in its own transaction, on SQLite by one writer that commits all waiting
//! requests together, so that they share one sync, and keeps one that is in the way from spoiling
//! another.

mod apply;
mod chain;
mod channel;
mod events;
mod fuse;
mod inbox;
mod instances;
mod leaving;
mod moving;
mod notices;
mod partitions;
mod people;
mod plans;
mod pulse;
mod read;
mod replica;
mod rows;
mod safe;
mod schema;
pub mod tally;
mod webhook_endpoints;

use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _};
use tidegate_rules::changes::Changes;
use tidegate_rules::notification::NEWS_MAX;
use tidegate_rules::time::Time;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use crate::metrics::{Brought, Commits, commits};

pub use chain::{BalanceRow, HintRow, JobRow, JobStatus};
pub use channel::{Listener, TEXT_BYTES_MAX};
pub use events::{AttemptRow, DeliveryFilter, DeliveryRow, EventFilter};
pub use fuse::{Fuse, Side};
pub use inbox::{InboxFilter, InboxRow, NewInbox, Outcome};
pub use instances::{Queue, presence};
pub use leaving::{LEAVE_ROWS, Leaving};
pub use moving::{Moved, Place, move_over};
pub use notices::{EventCount, NoticeFilter, NoticeRow, TellingRow, TemplateRow};
pub use people::{SessionRow, TotpRow, UserRow};
pub use plans::{PeriodRow, PlanRow};
use pulse::Pulse;
pub use pulse::{ANSWER_MAX, DatabaseHealth};
pub use read::{OrderFilter, TransferFilter, WalletFilter};
pub use rows::{
    ApiKeyRow, Busy, DueDelivery, EventRow, KeptAnswerRow, MerchantRow, NetworkRow, OrderRow, TransferRow, WalletCount, WalletRow,
    is_consistent, marks,
};
pub use safe::{AlertFilter, AlertRow, AuditFilter, AuditRow, SourceRow};
pub use webhook_endpoints::{EndpointRow, REMOVED};

/// How long a commit may take on PostgreSQL. From a server whose machine was switched off no answer ever
/// comes: what became of it is unknown then, and whoever asked decides anew.
const COMMIT_MAX: Duration = Duration::from_secs(120);

/// How many waiting requests the SQLite writer commits together at most.
const GROUP_MAX: usize = 128;

/// How many requests may wait for the SQLite writer before callers wait to hand theirs in.
const QUEUE_MAX: usize = 4_096;

/// How often committed pages are moved from the WAL into the database.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// From when on a statement is a slow one, unless it is said.
const SLOW_QUERY: Duration = Duration::from_secs(1);

/// The oldest SQLite without the WAL-reset bug (fixed in 3.51.3).
const SQLITE_MIN: (u32, u32, u32) = (3, 51, 3);

/// Which database is behind the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Embedded, one file.
    Sqlite,
    /// A server.
    Postgres,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// Everything is stored, durably.
    Done,
    /// Nothing is stored: something that it was based on has changed. Read and decide again.
    Conflict,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened, and what to do about it.
    #[error("{0}")]
    Open(String),
    /// The database did not answer as it should. Nothing was stored.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The connection broke during commit, and the commit cannot be found. Nothing was stored.
    #[error("the connection to the database broke before the commit")]
    Lost,
    /// A stored value does not read as what it should be.
    #[error("the database holds {what} that cannot be read: {value}")]
    Corrupt {
        /// What was expected.
        what: &'static str,
        /// What was found.
        value: String,
    },
}

impl StoreError {
    fn corrupt(what: &'static str, value: impl std::fmt::Display) -> Self {
        Self::Corrupt { what, value: value.to_string() }
    }
}

/// A request to the SQLite writer and the place for its answer.
type Request = (Box<Changes>, oneshot::Sender<Result<Commit, StoreError>>);

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    readers: AnyPool,
    writer: Option<mpsc::Sender<Request>>,
    replica: Option<replica::Replica>,
    fuse: Fuse,
    pulse: Arc<Pulse>,
    commits: Arc<Commits>,
}

impl Store {
    /// Opens a database by its URL (`sqlite://PATH` or `postgres://…`), brings its schema up to
    /// date if `migrate`, and starts the writer.
    ///
    /// # Errors
    /// [`StoreError::Open`] says what is wrong with the URL, the file, the server or the schema.
    pub async fn open(url: &str, pool_size: u32, pool_timeout: Duration, migrate: Migrate) -> Result<Self, StoreError> {
        Self::open_watched(url, pool_size, pool_timeout, SLOW_QUERY, migrate).await
    }

    /// The same; a statement that takes `slow_query` or longer is a warning in the log.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_watched(
        url: &str,
        pool_size: u32,
        pool_timeout: Duration,
        slow_query: Duration,
        migrate: Migrate,
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let engine = if url.starts_with("sqlite:") { Engine::Sqlite } else { Engine::Postgres };
        let address = match (engine, migrate) {
            (Engine::Sqlite, Migrate::Yes) if !url.contains('?') => {
                make_private(url);
                format!("{url}?mode=rwc")
            }
            // Looking makes no file.
            (Engine::Sqlite, Migrate::No) if !url.contains('?') => format!("{url}?mode=rw"),
            _ => url.to_owned(),
        };
        let options: AnyConnectOptions = address.parse().map_err(|error| open_error(engine, "of DATABASE_URL", &error))?;
        // A statement's text has no values in it: they are bound.
        let options = options.log_statements(LevelFilter::Off).log_slow_statements(LevelFilter::Warn, slow_query);
        let mut connection = AnyConnection::connect_with(&options).await.map_err(|error| open_error(engine, "of DATABASE_URL", &error))?;
        prepare(engine, &mut connection).await.map_err(|error| open_error(engine, "of DATABASE_URL", &error))?;
        if engine == Engine::Sqlite {
            connection.execute(WRITER_CACHE).await.map_err(|error| open_error(engine, "of DATABASE_URL", &error))?;
        }
        if engine == Engine::Sqlite {
            check_sqlite(&mut connection).await?;
        }
        schema::bring_up(engine, &mut connection, migrate).await?;
        moving::refuse_moved(&mut connection).await?;

        let readers = AnyPoolOptions::new()
            .max_connections(pool_size)
            .acquire_timeout(pool_timeout)
            .acquire_slow_threshold(slow_query)
            .after_connect(move |connection, _| Box::pin(async move { prepare(engine, connection).await }))
            .connect_with(options)
            .await
            .map_err(|error| open_error(engine, "of DATABASE_URL", &error))?;
        let writer = match engine {
            Engine::Postgres => None,
            Engine::Sqlite => {
                let (sender, receiver) = mpsc::channel(QUEUE_MAX);
                tokio::spawn(write_in_groups(connection, receiver));
                tokio::spawn(checkpoint_beside(readers.clone()));
                Some(sender)
            }
        };
        let (pulse, commits) = (Arc::default(), Arc::default());
        Ok(Self { engine, readers, writer, replica: None, fuse: Fuse::default(), pulse, commits })
    }

    /// Which database this is.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Stores a change, whole or not at all, durably.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing is stored then.
    pub async fn commit(&self, changes: Changes) -> Result<Commit, StoreError> {
        let last = if self.fuse.before(&changes).await { Some(changes.clone()) } else { None };
        let (brought, begun) = (Brought::of(&changes), Instant::now());
        let span = tracing::debug_span!(target: crate::logging::SPANS, "commit", outcome = tracing::field::Empty);
        let work = async {
            match &self.writer {
                Some(writer) => hand_in(writer, changes).await,
                // A task of its own: whoever waits may give up, and must not leave a connection behind
                // that is in the middle of a transaction.
                None => {
                    let store = self.clone();
                    let work = async move { timeout(COMMIT_MAX, store.commit_alone(&changes)).await.unwrap_or(Err(StoreError::Lost)) };
                    let work = work.in_current_span();
                    tokio::spawn(work).await.unwrap_or_else(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => Err(StoreError::Lost),
                    })
                }
            }
        };
        let outcome = work.instrument(span.clone()).await;
        span.record("outcome", commits::word(&outcome));
        self.commits.ended(&outcome, &brought, begun.elapsed());
        self.pulse.committed(&outcome);
        self.fuse.after(last).await;
        outcome
    }

    /// What is counted of commits.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// Where a simulation ends this process.
    #[must_use]
    pub const fn fuse(&self) -> &Fuse {
        &self.fuse
    }

    /// PostgreSQL: one transaction for each change. When the connection breaks during COMMIT the
    /// commit's own id tells afterwards what happened.
    async fn commit_alone(&self, changes: &Changes) -> Result<Commit, StoreError> {
        let id = commit_id();
        let mut transaction = self.readers.begin().await?;
        match apply::apply(&mut transaction, self.engine, &[changes]).await {
            Ok(Commit::Done) => {}
            Ok(Commit::Conflict) => return Ok(Commit::Conflict),
            Err(error) if is_conflict(&error) => return Ok(Commit::Conflict),
            Err(error) => return Err(error.into()),
        }
        sqlx::query("INSERT INTO commits (id, at) VALUES ($1, $2)")
            .bind(&id)
            .bind(crate::clock::now().millis())
            .execute(&mut *transaction)
            .await?;
        match transaction.commit().await {
            Ok(()) => Ok(Commit::Done),
            Err(sqlx::Error::Database(error)) if is_conflict_code(error.code().as_deref()) => Ok(Commit::Conflict),
            Err(error) => {
                tracing::warn!(%error, "the connection broke during a commit: looking the commit up");
                // The server may be at it still: the same id waits for that, and then is there already or
                // was never stored.
                let again = sqlx::query("INSERT INTO commits (id, at) VALUES ($1, $2)");
                match again.bind(&id).bind(crate::clock::now().millis()).execute(&self.readers).await {
                    Ok(_) => Err(StoreError::Lost),
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Commit::Done),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Forgets what is kept only for a while: messages to people after ninety days, what payment
    /// providers said after thirty, answers under idempotency keys after seven, commit ids after one.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forget_old(&self, now: Time) -> Result<(), StoreError> {
        const DAY: i64 = 86_400_000;
        let (week_ago, day_ago) = (now.millis().saturating_sub(7 * DAY), now.millis().saturating_sub(DAY));
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at < $1").bind(week_ago).execute(&self.readers).await?;
        sqlx::query("DELETE FROM chain_messages WHERE received_at < $1").bind(week_ago).execute(&self.readers).await?;
        sqlx::query("DELETE FROM chain_hints WHERE done_at < $1").bind(week_ago).execute(&self.readers).await?;
        // Of a channel that was taken out of the configuration: nobody sends them any more.
        sqlx::query("UPDATE payment_notifications SET status = 'failed', last_error = 'nobody sends by this channel any more' WHERE status = 'due' AND due_at < $1")
            .bind(now.minus(NEWS_MAX).minus(NEWS_MAX).millis())
            .execute(&self.readers)
            .await?;
        sqlx::query("DELETE FROM payment_notifications WHERE status <> 'due' AND created_at < $1")
            .bind(now.millis().saturating_sub(90 * DAY))
            .execute(&self.readers)
            .await?;
        let month_ago = now.millis().saturating_sub(30 * DAY);
        sqlx::query("DELETE FROM webhook_inbox WHERE received_at < $1").bind(month_ago).execute(&self.readers).await?;
        sqlx::query("DELETE FROM commits WHERE at < $1").bind(day_ago).execute(&self.readers).await?;
        self.forget_processes().await?;
        self.forget_credentials(now).await
    }

    /// Answers if the database does.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.readers.execute("SELECT 1").await?;
        Ok(())
    }

    /// Lets the writer finish and closes every connection.
    pub async fn close(self) {
        drop(self.writer);
        self.readers.close().await;
    }
}

/// Whether opening may change the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Bring it up to date.
    Yes,
    /// Refuse to open an old one.
    No,
}

/// SQLite: has the writer store a change, and waits until it has.
async fn hand_in(writer: &mpsc::Sender<Request>, changes: Changes) -> Result<Commit, StoreError> {
    let (answer, answered) = oneshot::channel();
    writer.send((Box::new(changes), answer)).await.map_err(|_| StoreError::Lost)?;
    answered.await.map_err(|_| StoreError::Lost)?
}

/// A name for a commit that no other has.
fn commit_id() -> String {
    hex::encode(crate::clock::random::<16>())
}

/// A new database file is for its owner alone; its WAL takes after it. That it cannot be made is
/// said when it is opened.
fn make_private(url: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if path.contains('%') {
        return;
    }
    let _ = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path);
}

/// How long a transaction may stand still. A process that does so in the middle of one must not keep
/// its locks: another waits for them to take its duties over (ADR 0015).
const IDLE_MAX: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// How many KiB of pages SQLite's writer keeps. It is worth it for the writer alone: whatever others
/// keep is out of date after its next commit, and the kernel has the file in memory anyway.
const WRITER_CACHE: &str = "PRAGMA cache_size = -8192";

/// What every connection needs: full durability for money, and patience instead of errors.
async fn prepare(engine: Engine, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    if engine == Engine::Postgres {
        connection.execute(IDLE_MAX).await?;
    }
    if engine == Engine::Sqlite {
        connection
            .execute("PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 64000; PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY")
            .await?;
    }
    Ok(())
}

async fn check_sqlite(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < SQLITE_MIN {
        return Err(StoreError::Open(format!(
            "this binary was built with SQLite {found}; expected at least 3.51.3, which does not corrupt the WAL: build it with libsqlite3-sys 0.37 or later"
        )));
    }
    Ok(())
}

/// `which` follows "the database", for people: where its URL was said, or the URL without what is secret.
fn open_error(engine: Engine, which: &str, error: &sqlx::Error) -> StoreError {
    // The error of a driver may quote the URL, and the URL may hold a password.
    let what = match error {
        sqlx::Error::Configuration(_) => "the URL does not read as one".to_owned(),
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string().split("://").next().unwrap_or_default().to_owned(),
    };
    StoreError::Open(match engine {
        Engine::Sqlite => format!(
            "could not open the SQLite file {which}: {what}; check that its directory exists and can be written; `tidegate migrate` makes the file"
        ),
        Engine::Postgres => format!("could not open the PostgreSQL database {which}: {what}; check host, name, user and password"),
    })
}

/// True when a statement failed because another commit was first.
fn is_conflict(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.is_unique_violation() || is_conflict_code(error.code().as_deref()),
        _ => false,
    }
}

/// PostgreSQL's serialization_failure and deadlock_detected.
fn is_conflict_code(code: Option<&str>) -> bool {
    matches!(code, Some("40001" | "40P01"))
}

/// Moves what is committed from the WAL into the database, beside the writer instead of in it: a
/// passive checkpoint waits for nobody and lets nobody wait. (The writer's own one, far above what
/// piles up in a second, only bounds the file.)
async fn checkpoint_beside(readers: AnyPool) {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if readers.is_closed() {
            return;
        }
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&readers).await {
            tracing::debug!(%error, "a checkpoint was not made; the next one will be");
        }
    }
}

/// SQLite's one writer: takes every request that waits, commits them with one sync, and only then
/// answers.
async fn write_in_groups(mut connection: AnyConnection, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while requests.recv_many(&mut group, GROUP_MAX).await > 0 {
        gather(&mut requests, &mut group).await;
        match write_group(&mut connection, &group).await {
            Ok(outcomes) => {
                for ((_, answer), outcome) in group.drain(..).zip(outcomes) {
                    // The one who asked may have gone; what was stored stays stored.
                    let _ = answer.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a group of {} commits failed", group.len());
                let _ = connection.execute("ROLLBACK").await;
                for (_, answer) in group.drain(..) {
                    let _ = answer.send(Err(StoreError::Database(sqlx::Error::Protocol(error.to_string()))));
                }
            }
        }
    }
    let _ = connection.close().await;
}

/// Lets those who were answered a moment ago hand in what they want next: one sync for all of them
/// instead of one for the first and another for the rest. Ends as soon as a turn brings nobody.
async fn gather(requests: &mut mpsc::Receiver<Request>, group: &mut Vec<Request>) {
    loop {
        let before = group.len();
        tokio::task::yield_now().await;
        while group.len() < GROUP_MAX
            && let Ok(request) = requests.try_recv()
        {
            group.push(request);
        }
        if group.len() == before || group.len() >= GROUP_MAX {
            return;
        }
    }
}

/// Stores a group. Almost always nothing is in anybody's way: then the rows of all of them are
/// written together. Where something is, everything is done again, each in its own.
async fn write_group(connection: &mut AnyConnection, group: &[Request]) -> Result<Vec<Result<Commit, StoreError>>, sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let together: Vec<&Changes> = group.iter().map(|(changes, _)| &**changes).collect();
    if matches!(apply::apply(connection, Engine::Sqlite, &together).await, Ok(Commit::Done)) {
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        return Ok(group.iter().map(|_| Ok(Commit::Done)).collect());
    }
    sqlx::query("ROLLBACK").execute(&mut *connection).await?;
    write_each_apart(connection, group).await
}

/// Stores a group, each request in its own savepoint, so that one in the way spoils no other.
async fn write_each_apart(connection: &mut AnyConnection, group: &[Request]) -> Result<Vec<Result<Commit, StoreError>>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(group.len());
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for (changes, _) in group {
        sqlx::query("SAVEPOINT request").execute(&mut *connection).await?;
        let outcome = match apply::apply(connection, Engine::Sqlite, &[changes]).await {
            Err(error) if is_conflict(&error) => Ok(Commit::Conflict),
            other => other.map_err(StoreError::from),
        };
        if !matches!(outcome, Ok(Commit::Done)) {
            sqlx::query("ROLLBACK TO request").execute(&mut *connection).await?;
        }
        sqlx::query("RELEASE request").execute(&mut *connection).await?;
        outcomes.push(outcome);
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(outcomes)
}
