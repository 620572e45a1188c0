//! The users of a gateway: who they are, their passwords and their second factors. There is always
//! an owner left. Every change is stored with its row in the audit log.

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, KeptAnswer};
use tidegate_rules::id::{SessionId, UserId};
use tidegate_rules::people::{NewUser, PeopleChange, Role, UserMove, UserStatus};
use tidegate_rules::time::Time;
use tidegate_rules::totp;
use tidegate_vault::OsEntropy;
use zeroize::Zeroizing;

use super::login::{self, account_name};
use super::throttle::Throttle;
use super::{Doer, password, totp_binding};
use crate::clock;
use crate::config::SecretText;
use crate::gateway::Gateway;
use crate::orders::refuse_if_answered;
use crate::problem::Problem;
use crate::store::{Commit, Store, TotpRow, UserRow};

/// The longest e-mail address (RFC 5321).
const EMAIL_MAX: usize = 254;

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

/// Somebody who is to join.
pub struct Wish {
    /// The e-mail address, as it was typed.
    pub email: String,
    /// What he may do.
    pub role: Role,
    /// His password.
    pub password: SecretText,
}

/// An e-mail address as it is stored.
///
/// # Errors
/// 422 for a text that is none.
pub fn checked_email(pointer: &str, email: &str) -> Result<String, Problem> {
    let email = account_name(email);
    let whole = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'));
    let plain = email.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if whole && plain && email.len() <= EMAIL_MAX {
        return Ok(email);
    }
    Err(Problem::invalid(pointer, format!("expected an e-mail address of at most {EMAIL_MAX} bytes, such as owner@shop.example")))
}

/// Adds somebody.
///
/// # Errors
/// 409 `user_exists`, 422 for an address or a password that is none, 503.
pub async fn add(store: &Store, wish: Wish, doer: &Doer, keep: impl FnOnce(&UserRow) -> Option<KeptAnswer>) -> Result<UserRow, Problem> {
    let email = checked_email("/email", &wish.email)?;
    password::check("/password", &wish.password)?;
    let taken = || Problem::conflict("user_exists", "there is a user with this e-mail address already");
    if store.user_by_email(&email).await?.is_some() {
        return Err(taken());
    }
    let hash = password::hash(wish.password).await?;
    let at = clock::now();
    let id = UserId::new(at, clock::id_bytes());
    let row = UserRow {
        id,
        email: email.clone(),
        role: wish.role,
        status: UserStatus::Active,
        password_hash: SecretText::new(hash.clone()),
        totp: None,
        created_at: at,
        last_login_at: None,
        version: 1,
    };
    let changes = Changes {
        people: vec![PeopleChange::NewUser(NewUser { id, email: email.clone(), role: wish.role, password_hash: hash, created_at: at })],
        audit: vec![doer.did(Action::UserCreate, id, at).with(&json!({ "email": email, "role": wish.role.name() }))],
        alerts: doer.notice(Action::UserCreate, id, &format!("{email} is {} now", wish.role.name()), at).into_iter().collect(),
        answer: keep(&row),
        ..Changes::default()
    };
    let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
    if store.commit(changes).await? == Commit::Done {
        return Ok(row);
    }
    refuse_if_answered(store, scope).await?;
    Err(taken())
}

/// What is to change about somebody.
#[derive(Default)]
pub struct Put {
    /// Another role.
    pub role: Option<Role>,
    /// Another status.
    pub status: Option<UserStatus>,
    /// Another password.
    pub password: Option<SecretText>,
    /// What becomes of the second factor.
    pub second_factor: Factor,
}

/// What becomes of somebody's second factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factor {
    /// It stays.
    #[default]
    Stays,
    /// It is taken away: the device is lost.
    Goes,
}

async fn found(store: &Store, id: UserId) -> Result<UserRow, Problem> {
    store.user(id).await?.ok_or_else(|| Problem::not_found("user"))
}

/// Refuses what would leave nobody who may do everything.
async fn refuse_without_owner(store: &Store, row: &UserRow) -> Result<(), Problem> {
    let is_owner = row.role == Role::Owner && row.status == UserStatus::Active;
    if is_owner && store.owners_besides(row.id).await? == 0 {
        return Err(Problem::conflict("last_owner", "this is the last owner who may log in: make another one first"));
    }
    Ok(())
}

fn busy() -> Problem {
    Problem::unavailable("busy", "the user changes all the time; try again")
}

/// Changes somebody. Another password, a status that keeps him out and a second factor that is taken
/// away end his sessions.
///
/// # Errors
/// 404, 409 `last_owner`, 422 for a password that is none.
pub async fn put(store: &Store, id: UserId, wish: Put, doer: &Doer) -> Result<UserRow, Problem> {
    let hash = match wish.password {
        Some(new) => {
            password::check("/password", &new)?;
            Some(password::hash(new).await?)
        }
        None => None,
    };
    for _ in 0..ATTEMPTS {
        let row = found(store, id).await?;
        let (role, status) = (wish.role.unwrap_or(row.role), wish.status.unwrap_or(row.status));
        if role != Role::Owner || status != UserStatus::Active {
            refuse_without_owner(store, &row).await?;
        }
        let at = clock::now();
        let mut steps = Steps { row: &row, doer, at, version: row.version, changes: Changes::default() };
        if (role, status) != (row.role, row.status) {
            let from = json!({ "role": row.role.name(), "status": row.status.name() });
            let detail = json!({ "from": from, "role": role.name(), "status": status.name() });
            let what = format!("{} is {}, {} now", row.email, role.name(), status.name());
            steps.take(UserMove::Put { role, status }, Action::UserUpdate, &detail, &what);
        }
        if let Some(hash) = &hash {
            steps.take(UserMove::Password(hash.clone()), Action::UserPassword, &json!({}), &format!("{} has another password", row.email));
        }
        if wish.second_factor == Factor::Goes && row.totp.is_some() {
            let what = format!("{} has no second factor any more", row.email);
            steps.take(UserMove::DropTotp, Action::TotpDisable, &json!({}), &what);
        }
        let mut changes = steps.changes;
        if changes.people.is_empty() {
            return Ok(row);
        }
        if hash.is_some() || status == UserStatus::Disabled || wish.second_factor == Factor::Goes {
            changes.people.push(PeopleChange::EndSessions { user: id, but: None, at });
        }
        if store.commit(changes).await? == Commit::Done {
            return found(store, id).await;
        }
    }
    Err(busy())
}

/// Several changes of one user in one commit, each with its row in the log.
struct Steps<'a> {
    row: &'a UserRow,
    doer: &'a Doer,
    at: Time,
    version: i64,
    changes: Changes,
}

impl Steps<'_> {
    fn take(&mut self, kind: UserMove, action: Action, detail: &serde_json::Value, what: &str) {
        self.changes.people.push(PeopleChange::User { id: self.row.id, version: self.version, kind });
        self.version = self.version.saturating_add(1);
        self.changes.audit.push(self.doer.did(action, self.row.id, self.at).with(detail));
        self.changes.alerts.extend(self.doer.notice(action, self.row.id, what, self.at));
    }
}

/// Removes somebody. The audit log keeps what he did.
///
/// # Errors
/// 404, 409 `last_owner`.
pub async fn remove(store: &Store, id: UserId, doer: &Doer) -> Result<(), Problem> {
    for _ in 0..ATTEMPTS {
        let row = found(store, id).await?;
        refuse_without_owner(store, &row).await?;
        let mut steps = Steps { row: &row, doer, at: clock::now(), version: row.version, changes: Changes::default() };
        let detail = json!({ "email": row.email, "role": row.role.name() });
        steps.take(UserMove::Remove, Action::UserDelete, &detail, &format!("{} is gone", row.email));
        if store.commit(steps.changes).await? == Commit::Done {
            return Ok(());
        }
    }
    Err(busy())
}

/// Somebody who is in, and his session.
pub struct Own<'a> {
    /// Who.
    pub user: &'a UserRow,
    /// The session that stays.
    pub session: SessionId,
    /// For the log.
    pub doer: &'a Doer,
}

/// Changes one's own password; every other session ends.
///
/// # Errors
/// 403 `wrong_password`, 422 for a new one that is none, 429 after too many tries.
pub async fn change_password(
    gateway: &Gateway,
    throttle: &Throttle,
    who: Own<'_>,
    old: SecretText,
    new: SecretText,
) -> Result<(), Problem> {
    password::check("/new", &new)?;
    throttle.proof(who.user.id).await?;
    if !password::fits(old, Some(who.user.password_hash.clone())).await? {
        return Err(Problem::new(axum::http::StatusCode::FORBIDDEN, "wrong_password", "/old is not the password in use"));
    }
    let hash = password::hash(new).await?;
    let Own { user, session, doer } = who;
    let at = clock::now();
    let changes = Changes {
        people: vec![
            PeopleChange::User { id: user.id, version: user.version, kind: UserMove::Password(hash) },
            PeopleChange::EndSessions { user: user.id, but: Some(session), at },
        ],
        audit: vec![doer.did(Action::UserPassword, user.id, at).alone()],
        ..Changes::default()
    };
    if gateway.store.commit(changes).await? == Commit::Done { Ok(()) } else { Err(busy()) }
}

/// A second factor that is offered: what an app reads, and what people type into one.
pub struct Offer {
    /// `otpauth://…`, for a QR code.
    pub uri: Zeroizing<String>,
    /// The secret in base32.
    pub secret: Zeroizing<String>,
}

/// Offers a second factor. It counts once [`confirm_totp`] saw a code of it.
///
/// # Errors
/// 409 `totp_enabled` when there is one already.
pub async fn offer_totp(gateway: &Gateway, user: &UserRow) -> Result<Offer, Problem> {
    if user.second_factor().is_some() {
        return Err(Problem::conflict("totp_enabled", "this account has a second factor: remove it first"));
    }
    let secret = Zeroizing::new(clock::random::<{ totp::SECRET_BYTES }>());
    let sealed = gateway.vault.current().seal(secret.as_slice(), &totp_binding(&user.id.to_string()), &mut OsEntropy);
    let kind = UserMove::OfferTotp(sealed.as_str().to_owned());
    let changes = Changes { people: vec![PeopleChange::User { id: user.id, version: user.version, kind }], ..Changes::default() };
    if gateway.store.commit(changes).await? == Commit::Conflict {
        return Err(busy());
    }
    let text = Zeroizing::new(totp::base32(secret.as_slice()));
    let name: String = url::form_urlencoded::byte_serialize(user.email.as_bytes()).collect();
    let uri = format!("otpauth://totp/Tidegate:{name}?secret={}&issuer=Tidegate", *text);
    Ok(Offer { uri: Zeroizing::new(uri), secret: text })
}

fn wrong_code() -> Problem {
    let detail = "this code is wrong or was used; wait for the next one, and check the clock of the device";
    Problem::new(axum::http::StatusCode::FORBIDDEN, login::PROOF_WRONG, detail)
}

/// The step of a code of a second factor, offered or in use.
async fn shown_step(gateway: &Gateway, throttle: &Throttle, user: &UserRow, factor: &TotpRow, code: &str) -> Result<u64, Problem> {
    throttle.proof(user.id).await?;
    login::step_of(gateway, user, factor, code, clock::now())?.ok_or_else(wrong_code)
}

/// Takes the offered second factor into use; every other session ends.
///
/// # Errors
/// 409 without an offer, 403 for a wrong code, 429 after too many.
pub async fn confirm_totp(gateway: &Gateway, throttle: &Throttle, who: Own<'_>, code: &str) -> Result<(), Problem> {
    let Own { user, session, doer } = who;
    let offered = user.totp.as_ref().filter(|totp| !totp.confirmed);
    let offered =
        offered.ok_or_else(|| Problem::conflict("totp_not_offered", "there is nothing to confirm: begin with POST /api/v1/auth/totp"))?;
    let step = shown_step(gateway, throttle, user, offered, code).await?;
    let at = clock::now();
    let changes = Changes {
        people: vec![
            PeopleChange::User { id: user.id, version: user.version, kind: UserMove::ConfirmTotp(step) },
            PeopleChange::EndSessions { user: user.id, but: Some(session), at },
        ],
        audit: vec![doer.did(Action::TotpEnable, user.id, at).alone()],
        alerts: doer.notice(Action::TotpEnable, user.id, &format!("{} has a second factor now", user.email), at).into_iter().collect(),
        ..Changes::default()
    };
    if gateway.store.commit(changes).await? == Commit::Done { Ok(()) } else { Err(busy()) }
}

/// Removes one's own second factor, with a last code of it.
///
/// # Errors
/// 409 without one, 403 for a wrong code, 429 after too many.
pub async fn drop_totp(gateway: &Gateway, throttle: &Throttle, who: Own<'_>, code: &str) -> Result<(), Problem> {
    let Own { user, doer, .. } = who;
    let factor = user.second_factor().ok_or_else(|| Problem::conflict("totp_not_enabled", "this account has no second factor"))?;
    let step = shown_step(gateway, throttle, user, factor, code).await?;
    let mut steps = Steps { row: user, doer, at: clock::now(), version: user.version, changes: Changes::default() };
    steps.changes.people.push(PeopleChange::TotpUsed { user: user.id, step });
    let what = format!("{} has no second factor any more", user.email);
    steps.take(UserMove::DropTotp, Action::TotpDisable, &json!({}), &what);
    if gateway.store.commit(steps.changes).await? == Commit::Done { Ok(()) } else { Err(busy()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        assert_eq!(checked_email("/email", " Owner@Shop.Example\n").unwrap(), "owner@shop.example");
        assert_eq!(checked_email("/email", "老板@商店.example").unwrap(), "老板@商店.example");
        for wrong in ["", "owner", "owner@", "@shop.example", "owner@shop", "a b@shop.example", "a@b@shop.example", "a\0@shop.example"] {
            assert!(checked_email("/email", wrong).is_err(), "{wrong:?}");
        }
        assert!(checked_email("/email", &format!("{}@shop.example", "x".repeat(EMAIL_MAX))).is_err());
    }
}
