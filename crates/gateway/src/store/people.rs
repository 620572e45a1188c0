//! People, their sessions, merchants and API keys: what is asked of the store about them, and how a
//! change of them is carried out. No secret is here but as a hash or sealed.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tidegate_rules::id::{KeyId, MerchantId, SessionId, UserId};
use tidegate_rules::people::{NewSession, NewUser, PeopleChange, Role, UserMove, UserStatus};
use tidegate_rules::time::{Span, Time};
use tidegate_vault::Sealed;

use super::read::{Arg, Where};
use super::rows::{ApiKeyRow, Found, MerchantRow, flag, named, number, parse, time, time_some};
use super::{Commit, Store};
use crate::config::SecretText;

/// How long a session that ended is kept, for the addresses that somebody came in from.
const ENDED_KEPT: Span = Span::from_secs(30 * 86_400);

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct UserRow {
    /// The id.
    pub id: UserId,
    /// The name to log in with.
    pub email: String,
    /// What he may do.
    pub role: Role,
    /// Whether he may come in.
    pub status: UserStatus,
    /// The hash of the password.
    pub password_hash: SecretText,
    /// The second factor, offered or in use.
    pub totp: Option<TotpRow>,
    /// Since when.
    pub created_at: Time,
    /// When he came in last.
    pub last_login_at: Option<Time>,
    /// The row's version.
    pub version: i64,
}

/// A second factor.
#[derive(Clone, Debug)]
pub struct TotpRow {
    /// Its secret, sealed.
    pub secret: Sealed,
    /// False while it is only offered.
    pub confirmed: bool,
    /// The step of the last code that was used.
    pub step: u64,
}

impl UserRow {
    /// The second factor, if it counts.
    #[must_use]
    pub fn second_factor(&self) -> Option<&TotpRow> {
        self.totp.as_ref().filter(|totp| totp.confirmed)
    }
}

/// A session that goes on.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// From which address it was begun.
    pub address: String,
    /// With which program.
    pub agent: String,
    /// Since when.
    pub created_at: Time,
    /// When it was used last; up to a minute old.
    pub seen_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
}

fn user(row: &AnyRow) -> Found<UserRow> {
    let totp = match row.try_get::<Option<String>, _>("totp_secret")? {
        Some(secret) => {
            Some(TotpRow { secret: Sealed::from_text(secret), confirmed: flag(row, "totp_confirmed")?, step: number(row, "totp_step")? })
        }
        None => None,
    };
    Ok(UserRow {
        id: parse(row, "id")?,
        email: row.try_get("email")?,
        role: named(row, "role", Role::from_name)?,
        status: named(row, "status", UserStatus::from_name)?,
        password_hash: SecretText::new(row.try_get::<String, _>("password_hash")?),
        totp,
        created_at: time(row, "created_at")?,
        last_login_at: time_some(row, "last_login_at")?,
        version: row.try_get("version")?,
    })
}

fn session(row: &AnyRow) -> Found<SessionRow> {
    Ok(SessionRow {
        id: parse(row, "id")?,
        user: parse(row, "user_id")?,
        address: row.try_get("address")?,
        agent: row.try_get("agent")?,
        created_at: time(row, "created_at")?,
        seen_at: time(row, "seen_at")?,
        expires_at: time(row, "expires_at")?,
    })
}

fn key(row: &AnyRow) -> Found<ApiKeyRow> {
    Ok(ApiKeyRow {
        id: parse(row, "id")?,
        merchant: parse(row, "merchant_id")?,
        scopes: row.try_get("scopes")?,
        livemode: flag(row, "livemode")?,
        name: row.try_get("name")?,
        allowed_ips: row.try_get::<Option<String>, _>("allowed_ips")?.unwrap_or_default(),
        created_at: time(row, "created_at")?,
        expires_at: time_some(row, "expires_at")?,
        last_used_at: time_some(row, "last_used_at")?,
        revoked_at: time_some(row, "revoked_at")?,
    })
}

fn merchant(row: &AnyRow) -> Found<MerchantRow> {
    let previous = match (row.try_get::<Option<String>, _>("previous_secret")?, time_some(row, "previous_until")?) {
        (Some(secret), Some(until)) => Some((secret, until)),
        _ => None,
    };
    Ok(MerchantRow {
        id: parse(row, "id")?,
        name: row.try_get("name")?,
        webhook_url: row.try_get("webhook_url")?,
        webhook_events: row.try_get("webhook_events")?,
        webhook_secret: row.try_get("webhook_secret")?,
        previous_secret: previous,
        created_at: time(row, "created_at")?,
    })
}

impl Store {
    /// Which merchants are there, oldest first?
    pub async fn merchants(&self) -> Found<Vec<MerchantRow>> {
        sqlx::query("SELECT * FROM merchants ORDER BY id").fetch_all(&self.readers).await?.iter().map(merchant).collect()
    }

    /// A page of merchants, newest first.
    pub async fn merchant_page(&self, before: Option<String>, limit: i64) -> Found<Vec<MerchantRow>> {
        let mut query = Where::new("SELECT * FROM merchants");
        query.and("id < ?", before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(merchant).collect()
    }

    /// Which key hashes to this? A key that was revoked is none.
    pub async fn api_key(&self, secret_hash: &str) -> Found<Option<ApiKeyRow>> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE secret_hash = $1 AND revoked_at IS NULL")
            .bind(secret_hash)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(key).transpose()
    }

    /// Which key has this id, revoked or not?
    pub async fn api_key_by_id(&self, id: KeyId) -> Found<Option<ApiKeyRow>> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(key).transpose()
    }

    /// A page of keys, newest first.
    pub async fn api_keys(&self, of: Option<MerchantId>, before: Option<String>, limit: i64) -> Found<Vec<ApiKeyRow>> {
        let mut query = Where::new("SELECT * FROM api_keys");
        query.and("merchant_id = ?", of.map(|merchant| Arg::Text(merchant.to_string())));
        query.and("id < ?", before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(key).collect()
    }

    /// Notes that a key was used.
    pub async fn key_used(&self, id: KeyId, at: Time) -> Found<()> {
        sqlx::query("UPDATE api_keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)")
            .bind(at.millis())
            .bind(id.to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Who has this e-mail address?
    pub async fn user_by_email(&self, email: &str) -> Found<Option<UserRow>> {
        let row = sqlx::query("SELECT * FROM users WHERE email = $1").bind(email).fetch_optional(&self.readers).await?;
        row.as_ref().map(user).transpose()
    }

    /// Who is this?
    pub async fn user(&self, id: UserId) -> Found<Option<UserRow>> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(user).transpose()
    }

    /// A page of users, newest first.
    pub async fn users(&self, before: Option<String>, limit: i64) -> Found<Vec<UserRow>> {
        let mut query = Where::new("SELECT * FROM users");
        query.and("id < ?", before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(user).collect()
    }

    /// How many active owners are there besides this one?
    pub async fn owners_besides(&self, id: UserId) -> Found<u64> {
        let row = sqlx::query("SELECT COUNT(*) AS count FROM users WHERE role = 'owner' AND status = 'active' AND id <> $1")
            .bind(id.to_string())
            .fetch_one(&self.readers)
            .await?;
        number(&row, "count")
    }

    /// Which session that goes on has this token?
    pub async fn session(&self, token_hash: &str, now: Time) -> Found<Option<SessionRow>> {
        let row = sqlx::query("SELECT * FROM sessions WHERE token_hash = $1 AND ended_at IS NULL AND expires_at > $2")
            .bind(token_hash)
            .bind(now.millis())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(session).transpose()
    }

    /// A page of somebody's sessions that go on, newest first.
    pub async fn sessions(&self, of: UserId, now: Time, before: Option<String>, limit: i64) -> Found<Vec<SessionRow>> {
        let mut query = Where::new("SELECT * FROM sessions");
        query.and("user_id = ?", Some(Arg::Text(of.to_string())));
        query.and("expires_at > ?", Some(Arg::Number(now.millis())));
        query.and("id < ?", before.map(Arg::Text));
        let rows = query.then(&format!("AND ended_at IS NULL ORDER BY id DESC LIMIT {limit}")).fetch(self).await?;
        rows.iter().map(session).collect()
    }

    /// Notes that a session was used.
    pub async fn session_seen(&self, id: SessionId, at: Time) -> Found<()> {
        sqlx::query("UPDATE sessions SET seen_at = $1 WHERE id = $2 AND seen_at < $1")
            .bind(at.millis())
            .bind(id.to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// From which addresses did this user come in, in the last weeks?
    pub async fn came_from(&self, id: UserId) -> Found<Vec<String>> {
        let addresses = sqlx::query_scalar("SELECT DISTINCT address FROM sessions WHERE user_id = $1");
        Ok(addresses.bind(id.to_string()).fetch_all(&self.readers).await?)
    }

    /// Forgets sessions that ended and endpoints that were removed long ago, and previous webhook secrets
    /// that sign no more.
    pub(super) async fn forget_credentials(&self, now: Time) -> Found<()> {
        let long_ago = now.minus(ENDED_KEPT).millis();
        sqlx::query("DELETE FROM sessions WHERE expires_at < $1 OR ended_at < $1").bind(long_ago).execute(&self.readers).await?;
        sqlx::query("UPDATE merchants SET previous_secret = NULL, previous_until = NULL WHERE previous_until < $1")
            .bind(now.millis())
            .execute(&self.readers)
            .await?;
        self.forget_endpoints(now).await
    }
}

/// Carries out one change of people or credentials.
pub(super) async fn change(db: &mut AnyConnection, change: &PeopleChange) -> Result<Commit, sqlx::Error> {
    let changed = match change {
        PeopleChange::NewUser(new) => return insert_user(db, new).await,
        PeopleChange::User { id, version, kind } => return change_user(db, *id, *version, kind).await,
        PeopleChange::NewSession(new) => return insert_session(db, new).await,
        PeopleChange::EndSessions { user, but, at } => return end_sessions(db, *user, *but, *at).await,
        PeopleChange::TotpUsed { user, step } => {
            sqlx::query("UPDATE users SET totp_step = $1 WHERE id = $2 AND totp_step < $1 AND totp_confirmed = 1")
                .bind(step_number(*step))
                .bind(user.to_string())
                .execute(db)
                .await?
        }
        PeopleChange::EndSession { id, user, at } => {
            sqlx::query("UPDATE sessions SET ended_at = $1 WHERE id = $2 AND user_id = $3 AND ended_at IS NULL")
                .bind(at.millis())
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(db)
                .await?
        }
        PeopleChange::RevokeKey { id, at } => {
            sqlx::query("UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
                .bind(at.millis())
                .bind(id.to_string())
                .execute(db)
                .await?
        }
        PeopleChange::RenameMerchant { id, name } => {
            sqlx::query("UPDATE merchants SET name = $1 WHERE id = $2").bind(name).bind(id.to_string()).execute(db).await?
        }
        PeopleChange::ReplaceSecret { merchant, old, new, until } => {
            sqlx::query(
                "UPDATE merchants SET webhook_secret = $1, previous_secret = webhook_secret, previous_until = $2 \
                 WHERE id = $3 AND webhook_secret = $4",
            )
            .bind(new)
            .bind(until.millis())
            .bind(merchant.to_string())
            .bind(old)
            .execute(db)
            .await?
        }
    };
    Ok(one(changed.rows_affected()))
}

const fn one(rows: u64) -> Commit {
    if rows == 1 { Commit::Done } else { Commit::Conflict }
}

fn step_number(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

async fn insert_user(db: &mut AnyConnection, new: &NewUser) -> Result<Commit, sqlx::Error> {
    sqlx::query(
        "INSERT INTO users (id, email, role, status, password_hash, totp_confirmed, totp_step, created_at, version) \
         VALUES ($1, $2, $3, 'active', $4, 0, 0, $5, 1)",
    )
    .bind(new.id.to_string())
    .bind(&new.email)
    .bind(new.role.name())
    .bind(&new.password_hash)
    .bind(new.created_at.millis())
    .execute(db)
    .await?;
    Ok(Commit::Done)
}

async fn insert_session(db: &mut AnyConnection, new: &NewSession) -> Result<Commit, sqlx::Error> {
    let at = new.created_at.millis();
    // Whoever was disabled or removed a moment ago comes in no more, nor does whoever showed a password
    // that was changed since, or none of a second factor that there is now.
    let user = sqlx::query("UPDATE users SET last_login_at = $1 WHERE id = $2 AND status = 'active' AND version = $3")
        .bind(at)
        .bind(new.user.to_string())
        .bind(new.version)
        .execute(&mut *db)
        .await?;
    if one(user.rows_affected()) == Commit::Conflict {
        return Ok(Commit::Conflict);
    }
    sqlx::query(
        "INSERT INTO sessions (id, token_hash, user_id, address, agent, created_at, seen_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7)",
    )
    .bind(new.id.to_string())
    .bind(&new.token_hash)
    .bind(new.user.to_string())
    .bind(&new.address)
    .bind(&new.agent)
    .bind(at)
    .bind(new.expires_at.millis())
    .execute(db)
    .await?;
    Ok(Commit::Done)
}

async fn end_sessions(db: &mut AnyConnection, user: UserId, but: Option<SessionId>, at: Time) -> Result<Commit, sqlx::Error> {
    sqlx::query("UPDATE sessions SET ended_at = $1 WHERE user_id = $2 AND id <> $3 AND ended_at IS NULL")
        .bind(at.millis())
        .bind(user.to_string())
        .bind(but.map(|id| id.to_string()).unwrap_or_default())
        .execute(db)
        .await?;
    Ok(Commit::Done)
}

async fn change_user(db: &mut AnyConnection, id: UserId, version: i64, kind: &UserMove) -> Result<Commit, sqlx::Error> {
    let id_text = id.to_string();
    let owners_before = if matches!(kind, UserMove::Put { .. } | UserMove::Remove) {
        // Two owners who remove each other at once: the lock on their rows puts them in line.
        let owners = sqlx::query("UPDATE users SET version = version WHERE role = 'owner' AND status = 'active'").execute(&mut *db).await?;
        owners.rows_affected()
    } else {
        0
    };
    let changed = match kind {
        UserMove::Put { role, status } => {
            sqlx::query("UPDATE users SET role = $1, status = $2, version = version + 1 WHERE id = $3 AND version = $4")
                .bind(role.name())
                .bind(status.name())
                .bind(&id_text)
                .bind(version)
                .execute(&mut *db)
                .await?
        }
        UserMove::Password(hash) => {
            sqlx::query("UPDATE users SET password_hash = $1, version = version + 1 WHERE id = $2 AND version = $3")
                .bind(hash)
                .bind(&id_text)
                .bind(version)
                .execute(&mut *db)
                .await?
        }
        UserMove::OfferTotp(secret) => {
            sqlx::query(
                "UPDATE users SET totp_secret = $1, totp_confirmed = 0, totp_step = 0, version = version + 1 WHERE id = $2 AND version = $3 AND totp_confirmed = 0",
            )
            .bind(secret)
            .bind(&id_text)
            .bind(version)
            .execute(&mut *db)
            .await?
        }
        UserMove::ConfirmTotp(step) => {
            sqlx::query(
                "UPDATE users SET totp_confirmed = 1, totp_step = $1, version = version + 1 WHERE id = $2 AND version = $3 AND totp_secret IS NOT NULL",
            )
            .bind(step_number(*step))
            .bind(&id_text)
            .bind(version)
            .execute(&mut *db)
            .await?
        }
        UserMove::DropTotp => {
            sqlx::query(
                "UPDATE users SET totp_secret = NULL, totp_confirmed = 0, totp_step = 0, version = version + 1 WHERE id = $1 AND version = $2",
            )
            .bind(&id_text)
            .bind(version)
            .execute(&mut *db)
            .await?
        }
        UserMove::Remove => {
            sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(&id_text).execute(&mut *db).await?;
            sqlx::query("DELETE FROM users WHERE id = $1 AND version = $2").bind(&id_text).bind(version).execute(&mut *db).await?
        }
    };
    if one(changed.rows_affected()) == Commit::Conflict || owners_before == 0 {
        return Ok(one(changed.rows_affected()));
    }
    let owners: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE role = 'owner' AND status = 'active'").fetch_one(db).await?;
    Ok(if owners > 0 { Commit::Done } else { Commit::Conflict })
}
