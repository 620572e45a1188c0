//! Texts from process to process through PostgreSQL's LISTEN and NOTIFY. Nothing is stored: whoever
//! does not listen at the moment never hears. SQLite has one process and needs none of it.

use sqlx::postgres::PgListener;

use super::{Store, StoreError};

/// The channel's name. It is the database's own, so two installations share none.
const CHANNEL: &str = "tidegate_signals";

/// The longest text that PostgreSQL takes, in bytes.
pub const TEXT_BYTES_MAX: usize = 7_999;

/// What is said on the channel from now on.
pub struct Listener(PgListener);

impl Listener {
    /// Listens to the database at `url`, on a connection of its own.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let mut listener = PgListener::connect(url).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The next text; `None` when the connection was lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn next(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_recv().await?.map(|notification| notification.payload().to_owned()))
    }
}

impl Store {
    /// Says a text of at most [`TEXT_BYTES_MAX`] to all who listen. Only on PostgreSQL.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn say(&self, text: &str) -> Result<(), StoreError> {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text).execute(&self.readers).await?;
        Ok(())
    }
}
