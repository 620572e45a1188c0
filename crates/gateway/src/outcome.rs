//! Storing what came of something that was sent. It has happened outside whether it is stored or not,
//! and what is not stored would be sent again: so while the database takes nothing, as with a full
//! disk, the outcome waits, and nobody hears the same thing over and over.

use std::time::Duration;

use tidegate_rules::changes::Changes;

use crate::store::Store;

/// The pause before an outcome is stored again.
const NOTE_AGAIN: Duration = Duration::from_secs(5);

/// Stores an outcome, however long the database takes to be there again. Dropped before, it is lost,
/// and the try is made again after the next start: at least once.
pub async fn note(store: &Store, changes: &Changes, about: &str) {
    while let Err(error) = store.commit(changes.clone()).await {
        tracing::error!(%error, about, "the outcome of a message could not be stored; it is not sent again meanwhile");
        tokio::time::sleep(NOTE_AGAIN).await;
    }
}
