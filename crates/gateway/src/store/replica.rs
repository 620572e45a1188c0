//! A read replica for lists and statistics: what may be a moment old.
//!
//! Nothing that decides anything is asked of it. It is left alone for a while when it does not
//! answer, or is too far behind; then the database itself is asked, and nobody notices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, ConnectOptions as _};
use tokio::time::Instant;

use super::rows::Found;
use super::{Engine, Store, StoreError, open_error};
use crate::duties;

/// How long a connection to a replica is waited for.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How often it is looked at, and how long it is left alone after it failed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How far behind it may be, in milliseconds.
const BEHIND_MAX: i64 = 10_000;

/// How far it is behind, in milliseconds: a process renews its duties every second, by the clock of
/// the database. Nothing there yet counts as nothing behind.
const BEHIND: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) + $1 - MAX(held_until) FROM duties";

/// A replica and how it did last.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pool: AnyPool,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    looked: Option<Instant>,
    is_good: bool,
}

impl Replica {
    /// One that is connected to when it is asked first.
    fn open(url: &str, pool_size: u32) -> Result<Self, StoreError> {
        let options: AnyConnectOptions = url.parse().map_err(|error| open_error(Engine::Postgres, "of DATABASE_REPLICA_URL", &error))?;
        let pool = AnyPoolOptions::new()
            .max_connections(pool_size)
            .acquire_timeout(CONNECT_MAX)
            .connect_lazy_with(options.disable_statement_logging());
        Ok(Self { pool, state: Arc::default() })
    }

    /// Whether it answers and is not far behind, as of a moment ago.
    async fn is_good(&self) -> bool {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
                return state.is_good;
            }
            // The others go on with what is known while this one looks.
            state.looked = Some(Instant::now());
        }
        let term = i64::try_from(duties::TERM.millis()).unwrap_or(0);
        let behind: Result<Option<i64>, sqlx::Error> = sqlx::query_scalar(BEHIND).bind(term).fetch_one(&self.pool).await;
        let why = match behind {
            Ok(behind) if behind.is_none_or(|behind| behind <= BEHIND_MAX) => None,
            Ok(behind) => Some(format!("it is {} ms behind", behind.unwrap_or_default())),
            Err(error) => Some(error.to_string()),
        };
        self.note(why.as_deref());
        why.is_none()
    }

    /// Notes how it did; a change is told.
    fn note(&self, trouble: Option<&str>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_good = state.is_good;
        *state = State { looked: Some(Instant::now()), is_good: trouble.is_none() };
        drop(state);
        match trouble {
            Some(reason) if was_good => tracing::warn!("the read replica is left alone for a while: {reason}"),
            None if !was_good => tracing::info!("lists are read from the replica"),
            _ => {}
        }
    }
}

impl Store {
    /// Takes a read replica (`postgres://…`) for lists and statistics. It need not be there now.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the URL does not read as one.
    pub fn with_replica(mut self, url: &str, pool_size: u32) -> Result<Self, StoreError> {
        self.replica = Some(Replica::open(url, pool_size)?);
        Ok(self)
    }

    /// Asks a question whose answer may be a moment old: the replica, where there is one that is well,
    /// else the database itself.
    pub async fn lately<T, F: Future<Output = Found<T>> + Send>(&self, question: impl Fn(Self) -> F + Send + Sync) -> Found<T> {
        let Some(replica) = &self.replica else { return question(self.clone()).await };
        if replica.is_good().await {
            let aside = Self { readers: replica.pool.clone(), writer: None, replica: None, ..self.clone() };
            match question(aside).await {
                Ok(found) => return Ok(found),
                Err(error) => replica.note(Some(&error.to_string())),
            }
        }
        question(self.clone()).await
    }
}
