//! Brings a database's schema up to date: the files in `migrations/`, in order, each once.
//!
//! The text is shared by both engines; two words in braces stand for what differs.

use sqlx::{AnyConnection, Executor as _};

use super::{Engine, Migrate, StoreError, partitions};

/// The migrations: version, name, text.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first", include_str!("../../migrations/0001_first.sql")),
    (2, "safe", include_str!("../../migrations/0002_safe.sql")),
    (3, "chains", include_str!("../../migrations/0003_chains.sql")),
    (4, "orders", include_str!("../../migrations/0004_orders.sql")),
    (5, "notices", include_str!("../../migrations/0005_notices.sql")),
    (6, "people", include_str!("../../migrations/0006_people.sql")),
    (7, "doors", include_str!("../../migrations/0007_doors.sql")),
    (8, "endpoints", include_str!("../../migrations/0008_endpoints.sql")),
    (9, "instances", include_str!("../../migrations/0009_instances.sql")),
    (10, "growth", include_str!("../../migrations/0010_growth.sql")),
    (11, "leases_by_height", include_str!("../../migrations/0011_leases_by_height.sql")),
    (12, "forgetting", include_str!("../../migrations/0012_forgetting.sql")),
];

/// The migration that divides tables by time, on PostgreSQL.
const DIVIDES: i64 = 10;

/// Two processes that start at once must not both migrate (PostgreSQL; any number will do).
const ADVISORY_LOCK: i64 = 0x7469_6465_6761_7465;

/// Applies what is missing, or says what is.
pub(super) async fn bring_up(engine: Engine, connection: &mut AnyConnection, migrate: Migrate) -> Result<(), StoreError> {
    if migrate == Migrate::No {
        // Looking changes nothing: a database without the table was never migrated.
        let applied = sqlx::query_scalar("SELECT MAX(version) FROM schema_versions").fetch_one(connection).await;
        return refuse_other(applied.unwrap_or(None).unwrap_or(0));
    }
    let begin = match engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN",
    };
    sqlx::query(begin).execute(&mut *connection).await?;
    match apply_missing(engine, connection).await {
        Ok(()) => {
            sqlx::query("COMMIT").execute(connection).await?;
            Ok(())
        }
        Err(error) => {
            let _ = connection.execute("ROLLBACK").await;
            Err(error)
        }
    }
}

async fn apply_missing(engine: Engine, connection: &mut AnyConnection) -> Result<(), StoreError> {
    if engine == Engine::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ADVISORY_LOCK).execute(&mut *connection).await?;
    }
    // Under the lock: PostgreSQL's IF NOT EXISTS does not help two that create at the same moment.
    connection.execute("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL)").await?;
    let applied: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM schema_versions").fetch_one(&mut *connection).await?;
    let applied = applied.unwrap_or(0);
    if applied > newest() {
        return refuse_other(applied);
    }
    for (version, name, text) in MIGRATIONS.iter().filter(|(version, ..)| *version > applied) {
        let (serial, now) = match engine {
            Engine::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", "CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
            Engine::Postgres => ("BIGSERIAL PRIMARY KEY", "CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT)"),
        };
        let text = text.replace("{serial}", serial).replace("{now}", now);
        for statement in statements(&text) {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
        }
        if *version == DIVIDES && engine == Engine::Postgres {
            partitions::divide(connection, crate::clock::now()).await?;
        }
        sqlx::query("INSERT INTO schema_versions (version, name) VALUES ($1, $2)")
            .bind(*version)
            .bind(*name)
            .execute(&mut *connection)
            .await?;
        tracing::info!(version, name, "schema migrated");
    }
    Ok(())
}

fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

/// Says what to do with a schema that is not the one of this binary.
fn refuse_other(applied: i64) -> Result<(), StoreError> {
    let newest = newest();
    if applied > newest {
        return Err(StoreError::Open(format!("the database has schema {applied}, this binary knows up to {newest}: use a newer tidegate")));
    }
    if applied < newest {
        return Err(StoreError::Open(format!("the database has schema {applied}, expected {newest}: run `tidegate migrate`")));
    }
    Ok(())
}

/// The statements of a migration. Its comments hold no semicolons, its texts neither.
fn statements(text: &str) -> Vec<String> {
    let without_comments: String = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    without_comments.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}
