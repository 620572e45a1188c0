//! Coming in: password, second factor, session. What is stored of a session is the hash of its token;
//! what protects it from other sites is a second token that is derived from the first.
//!
//! Whoever is not known is told the same, after the same time, as whoever has a wrong password.

use std::net::IpAddr;

use axum::http::StatusCode;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::Changes;
use tidegate_rules::id::{SessionId, UserId};
use tidegate_rules::people::{NewSession, PeopleChange, UserStatus};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::totp;

use super::throttle::{Address, Throttle, network_of};
use super::{Doer, password, totp_binding};
use crate::clock;
use crate::config::SecretText;
use crate::gateway::Gateway;
use crate::problem::Problem;
use crate::store::{Commit, SessionRow, TotpRow, UserRow};

/// How long a session lasts at most.
pub const SESSION_MAX: Span = Span::from_secs(12 * 3_600);

/// How long a session may go unused.
pub const IDLE_MAX: Span = Span::from_secs(2 * 3_600);

/// How often it is noted that a session is used.
const SEEN_EVERY: Span = Span::from_secs(60);

/// How many characters are kept of the name of a program.
const AGENT_MAX: usize = 200;

/// The code of a change that waits for a second factor. Asking again with one is another question:
/// such an answer is kept under no idempotency key.
pub const PROOF_NEEDED: &str = "second_factor_required";

/// The code of a second factor that is wrong or was used.
pub const PROOF_WRONG: &str = "second_factor_invalid";

/// A try to come in.
pub struct Attempt<'a> {
    /// The e-mail address as it was typed.
    pub email: &'a str,
    /// The password.
    pub password: SecretText,
    /// A code of the second factor.
    pub totp: Option<&'a str>,
    /// From where.
    pub address: IpAddr,
    /// With which program.
    pub agent: &'a str,
}

/// Somebody who is in.
pub struct LoggedIn {
    /// Who.
    pub user: UserRow,
    /// What goes into the cookie.
    pub token: SecretText,
    /// When the session ends by itself.
    pub expires_at: Time,
}

/// The e-mail address that an account is known by.
#[must_use]
pub fn account_name(email: &str) -> String {
    email.trim().to_lowercase()
}

/// What a token is stored as.
fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// The token that a page of ours sends beside the cookie, and no other site can know.
#[must_use]
pub fn csrf_token(token: &SecretText) -> String {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).expect("HMAC takes keys of every length");
    mac.update(b"tidegate csrf");
    hex::encode(mac.finalize().into_bytes())
}

/// Whether this is the token that belongs to the cookie.
#[must_use]
pub fn is_csrf_token(token: &SecretText, shown: &str) -> bool {
    csrf_token(token).as_bytes().ct_eq(shown.as_bytes()).into()
}

/// Lets somebody in.
///
/// # Errors
/// 401 `invalid_credentials`, `totp_required` or `invalid_totp`; 429 after too many tries.
pub async fn log_in(gateway: &Gateway, throttle: &Throttle, attempt: Attempt<'_>) -> Result<LoggedIn, Problem> {
    throttle.address(attempt.address).await?;
    let email = account_name(attempt.email);
    let known = if email.contains('\0') { None } else { gateway.store.user_by_email(&email).await? };
    let origin = attempt.address.to_string();
    // Nobody is asked for too, so that both take as long.
    let id = known.as_ref().map_or_else(|| UserId::new(Time::from_millis(0), [0; 10]), |user| user.id);
    // By network, as tries are counted: whoever has an IPv6 network has another address every day.
    let is_here = |before: &String| before.parse().is_ok_and(|before| network_of(before) == network_of(attempt.address));
    let came = if gateway.store.came_from(id).await?.iter().any(is_here) { Address::Known } else { Address::Unknown };
    throttle.account(&email, attempt.address, came).await?;

    let fits = password::fits(attempt.password, known.as_ref().map(|user| user.password_hash.clone())).await?;
    let Some(user) = known.filter(|user| fits && user.status == UserStatus::Active) else {
        failed(gateway, id, came_to_nothing("password"), &origin).await?;
        return Err(unauthorized("invalid_credentials", "the e-mail address or the password is wrong"));
    };
    let at = clock::now();
    let mut people = Vec::new();
    if let Some(factor) = user.second_factor() {
        let Some(shown) = attempt.totp else {
            failed(gateway, user.id, came_to_nothing("no second factor"), &origin).await?;
            return Err(unauthorized("totp_required", "this account has a second factor: send its code as totp too"));
        };
        match step_of(gateway, &user, factor, shown, at)? {
            Some(step) => people.push(PeopleChange::TotpUsed { user: user.id, step }),
            None => {
                failed(gateway, user.id, came_to_nothing("second factor"), &origin).await?;
                return Err(wrong_code());
            }
        }
    }
    let token = SecretText::new(hex::encode(clock::random::<32>()));
    let session = SessionId::new(at, clock::id_bytes());
    let expires_at = at.plus(SESSION_MAX);
    people.push(PeopleChange::NewSession(NewSession {
        id: session,
        user: user.id,
        version: user.version,
        token_hash: token_hash(token.expose()),
        address: origin.clone(),
        agent: attempt.agent.chars().filter(|c| !c.is_control()).take(AGENT_MAX).collect(),
        created_at: at,
        expires_at,
    }));
    let doer = Doer { actor: user.id.to_string(), origin };
    let detail = json!({ "session": session.to_string(), "second_factor": user.second_factor().is_some() });
    let changes = Changes { people, audit: vec![doer.did(Action::Login, user.id, at).with(&detail)], ..Changes::default() };
    match gateway.store.commit(changes).await? {
        Commit::Done => Ok(LoggedIn { user, token, expires_at }),
        // The code was used a moment ago, or the account was closed.
        Commit::Conflict => Err(wrong_code()),
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}

fn wrong_code() -> Problem {
    unauthorized("invalid_totp", "this code is wrong or was used; wait for the next one")
}

fn came_to_nothing(what: &str) -> serde_json::Value {
    json!({ "wrong": what })
}

/// Writes down that somebody could not show who he is. What was typed is not kept: it may be a
/// password in the wrong field.
async fn failed(gateway: &Gateway, who: UserId, what: serde_json::Value, origin: &str) -> Result<(), Problem> {
    let nobody = UserId::new(Time::from_millis(0), [0; 10]);
    let subject = if who == nobody { "unknown".to_owned() } else { who.to_string() };
    let doer = Doer { actor: subject.clone(), origin: origin.to_owned() };
    let audit = doer.did(Action::LoginFailed, subject, clock::now()).with(&what);
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    Ok(())
}

/// The step of a code, if it is one of this second factor that was not used.
pub(super) fn step_of(gateway: &Gateway, user: &UserRow, factor: &TotpRow, shown: &str, now: Time) -> Result<Option<u64>, Problem> {
    let secret = gateway.vault.open(&factor.secret, &totp_binding(&user.id.to_string())).map_err(|error| {
        tracing::error!(user = %user.id, %error, "the secret of a second factor does not open");
        Problem::internal()
    })?;
    Ok(totp::verify(&secret, shown, now, factor.step))
}

/// Whose session has this token, if it goes on.
///
/// # Errors
/// When the store does not answer.
pub async fn session_of(gateway: &Gateway, token: &SecretText) -> Result<Option<(UserRow, SessionRow)>, Problem> {
    let now = clock::now();
    let Some(session) = gateway.store.session(&token_hash(token.expose()), now).await? else { return Ok(None) };
    if now.since(session.seen_at) > IDLE_MAX {
        return Ok(None);
    }
    let Some(user) = gateway.store.user(session.user).await?.filter(|user| user.status == UserStatus::Active) else { return Ok(None) };
    if now.since(session.seen_at) >= SEEN_EVERY {
        gateway.store.session_seen(session.id, now).await?;
    }
    Ok(Some((user, session)))
}

/// Ends one of a user's sessions.
///
/// # Errors
/// 404 when it is none of his that goes on.
pub async fn end_session(gateway: &Gateway, user: UserId, id: SessionId, doer: &Doer) -> Result<(), Problem> {
    let at = clock::now();
    let changes = Changes {
        people: vec![PeopleChange::EndSession { id, user, at }],
        audit: vec![doer.did(Action::SessionEnd, id, at).alone()],
        ..Changes::default()
    };
    match gateway.store.commit(changes).await? {
        Commit::Done => Ok(()),
        Commit::Conflict => Err(Problem::not_found("session")),
    }
}

/// Checks the second factor that goes with a change, and uses it up. Somebody without one is sent to
/// enrol, but for the sandbox, where there is nothing to lose.
///
/// # Errors
/// 403 [`PROOF_NEEDED`] or [`PROOF_WRONG`], 429 after too many.
pub async fn prove(gateway: &Gateway, throttle: &Throttle, user: &UserRow, shown: Option<&str>) -> Result<(), Problem> {
    let refused = |code, detail: &str| Problem::new(StatusCode::FORBIDDEN, code, detail);
    let Some(factor) = user.second_factor() else {
        if gateway.sandbox.is_some() {
            return Ok(());
        }
        let detail = "this change needs a second factor and this account has none: enrol one with POST /api/v1/auth/totp first";
        return Err(refused(PROOF_NEEDED, detail));
    };
    let Some(shown) = shown else {
        return Err(refused(PROOF_NEEDED, "this change needs a second factor: send a fresh code in the header X-TOTP"));
    };
    throttle.proof(user.id).await?;
    let wrong = || refused(PROOF_WRONG, "this code is wrong or was used; wait for the next one");
    let step = step_of(gateway, user, factor, shown, clock::now())?.ok_or_else(wrong)?;
    let changes = Changes { people: vec![PeopleChange::TotpUsed { user: user.id, step }], ..Changes::default() };
    if gateway.store.commit(changes).await? == Commit::Done { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csrf_token_belongs_to_its_session() {
        let (one, other) = (SecretText::new("aa"), SecretText::new("bb"));
        assert!(is_csrf_token(&one, &csrf_token(&one)));
        for wrong in [csrf_token(&other), String::new(), csrf_token(&one).to_uppercase(), token_hash("aa")] {
            assert!(!is_csrf_token(&one, &wrong), "{wrong}");
        }
    }

    #[test]
    fn an_account_has_one_name() {
        assert_eq!(account_name("  Owner@Shop.Example "), "owner@shop.example");
    }
}
