//! Does the database answer, and does it take what is written? For the health pages and the metrics,
//! which must be answered while it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_rules::changes::Changes;
use tokio::time::{Instant, timeout};

use super::{Commit, Engine, Store, StoreError};
use crate::single_flight::SingleFlight;

/// How long the database may take to answer, a free connection included, before it counts as down.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How the database does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseHealth {
    /// It answers, and took what was written last.
    Healthy {
        /// How long the answer took, waiting for a free connection included.
        took: Duration,
    },
    /// No answer within [`ANSWER_MAX`].
    Silent,
    /// It cannot be reached, or refuses to answer.
    Down,
    /// It answers, and takes nothing that is written: a full or read-only disk, a standby.
    ReadOnly,
}

impl DatabaseHealth {
    /// Every word of [`DatabaseHealth::reason`].
    pub const REASONS: [&str; 3] = ["does not answer in time", "cannot be reached", "takes no writes"];

    /// True when everything works.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy { .. })
    }

    /// What is wrong, in words that go on from "it": one of [`DatabaseHealth::REASONS`]. What the
    /// database said is in the log alone: it may name users and hosts.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        let [silent, down, read_only] = Self::REASONS;
        match self {
            Self::Healthy { .. } => None,
            Self::Silent => Some(silent),
            Self::Down => Some(down),
            Self::ReadOnly => Some(read_only),
        }
    }
}

/// What is known of the database beside its answers.
#[derive(Default)]
pub(super) struct Pulse {
    asking: SingleFlight<DatabaseHealth>,
    /// The last commit failed: until one succeeds, answering is not enough.
    refused: AtomicBool,
}

impl Pulse {
    pub(super) fn committed(&self, outcome: &Result<Commit, StoreError>) {
        match outcome {
            Ok(Commit::Done) => self.refused.store(false, Ordering::Relaxed),
            // Somebody else was first: this says nothing of the disk.
            Ok(Commit::Conflict) => {}
            Err(_) => self.refused.store(true, Ordering::Relaxed),
        }
    }
}

impl Store {
    /// How the database does. Answers within [`ANSWER_MAX`] whatever happens, and asks the database
    /// once for all who ask at the same time.
    pub async fn health(&self) -> DatabaseHealth {
        let store = self.clone();
        let ask = async move {
            let asked = Instant::now();
            match timeout(ANSWER_MAX, store.answer()).await {
                Ok(None) => DatabaseHealth::Healthy { took: asked.elapsed() },
                Ok(Some(wrong)) => wrong,
                Err(_) => DatabaseHealth::Silent,
            }
        };
        self.pulse.asking.get(Duration::ZERO, ask).await.unwrap_or(DatabaseHealth::Down)
    }

    /// What is wrong with the database.
    async fn answer(&self) -> Option<DatabaseHealth> {
        match self.ping().await {
            Ok(()) => {}
            Err(StoreError::Database(sqlx::Error::PoolTimedOut)) => return Some(DatabaseHealth::Silent),
            Err(error) => {
                tracing::debug!(%error, "the database does not answer");
                return Some(DatabaseHealth::Down);
            }
        }
        if self.pulse.refused.load(Ordering::Relaxed)
            && let Err(error) = self.write_something().await
        {
            tracing::debug!(%error, "the database takes no writes");
            return Some(DatabaseHealth::ReadOnly);
        }
        None
    }

    /// Writes what changes nothing, by the way that commits take. On PostgreSQL a commit leaves its
    /// own id; on SQLite an empty one leaves nothing, so something is written beside it.
    async fn write_something(&self) -> Result<(), StoreError> {
        if self.engine == Engine::Sqlite {
            sqlx::query("INSERT INTO settings (name, value) VALUES ('pulse', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
                .bind(crate::clock::now().to_string())
                .execute(&self.readers)
                .await?;
        }
        let _ = self.commit(Changes::default()).await?;
        Ok(())
    }
}
