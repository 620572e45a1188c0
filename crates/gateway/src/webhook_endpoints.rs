//! What the owner does with further receivers of a merchant's webhooks. Each change is stored with its row
//! in the audit log, and told to the owner where it came over HTTP; it is told to the endpoint as it was
//! before, too, if that hears of alerts.

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, KeptAnswer};
use tidegate_rules::id::{EndpointId, MerchantId};
use tidegate_rules::time::Span;
use tidegate_rules::webhook_endpoint::{ENDPOINTS_MAX, EndpointChange, EndpointState, EndpointTerms, NewEndpoint};

use crate::clock;
use crate::config::SecretText;
use crate::credentials::{self, new_secret};
use crate::gateway::Gateway;
use crate::notify::{self, Trial};
use crate::orders::refuse_if_answered;
use crate::people::Doer;
use crate::problem::Problem;
use crate::store::{Commit, EndpointRow};

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

fn busy() -> Problem {
    Problem::unavailable("busy", "the endpoint changes all the time; try again")
}

/// One of a merchant's endpoints.
///
/// # Errors
/// 404 for one that is not there, was removed, or is another merchant's.
pub async fn find(gateway: &Gateway, merchant: MerchantId, id: EndpointId) -> Result<EndpointRow, Problem> {
    let row = gateway.store.endpoint(id).await?;
    row.filter(|row| row.merchant == merchant && row.removed_at.is_none()).ok_or_else(|| Problem::not_found("webhook endpoint"))
}

/// Adds an endpoint with a new secret. Everything that is committed from then on and that it takes goes
/// there.
///
/// # Errors
/// 404 for an unknown merchant, 409 `too_many_endpoints`.
pub async fn add(
    gateway: &Gateway,
    merchant: MerchantId,
    terms: &EndpointTerms,
    doer: &Doer,
    keep: impl Fn(&EndpointRow) -> Option<KeptAnswer>,
) -> Result<(EndpointRow, SecretText), Problem> {
    let owner = credentials::merchant(&gateway.store, merchant).await?;
    for _ in 0..ATTEMPTS {
        let most = i64::try_from(ENDPOINTS_MAX).unwrap_or(i64::MAX);
        if gateway.store.endpoints(merchant, None, most).await?.len() >= ENDPOINTS_MAX {
            let detail = format!("a merchant has at most {ENDPOINTS_MAX} webhook endpoints; remove one that is not needed");
            return Err(Problem::conflict("too_many_endpoints", detail));
        }
        let at = clock::now();
        let id = EndpointId::new(at, clock::id_bytes());
        let (secret, sealed) = new_secret(&gateway.vault, id);
        let row = EndpointRow {
            id,
            merchant,
            terms: terms.clone(),
            secret: sealed.clone(),
            previous_secret: None,
            created_at: at,
            removed_at: None,
            version: 1,
        };
        let what = format!("webhooks of {} go to {} too now, {}", owner.name, terms.url, told_of(terms));
        let changes = Changes {
            endpoints: vec![EndpointChange::New(NewEndpoint { id, merchant, terms: terms.clone(), secret: sealed, created_at: at })],
            audit: vec![doer.did(Action::EndpointCreate, id, at).with(&json!({ "merchant": merchant, "to": seen(terms) }))],
            alerts: doer.notice(Action::EndpointCreate, id, &what, at).into_iter().collect(),
            answer: keep(&row),
            ..Changes::default()
        };
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            return Ok((row, secret));
        }
        refuse_if_answered(&gateway.store, scope).await?;
    }
    Err(busy())
}

/// Changes an endpoint. What is in the outbox goes where it was to go.
///
/// # Errors
/// 404, 503.
pub async fn put(
    gateway: &Gateway,
    merchant: MerchantId,
    id: EndpointId,
    doer: &Doer,
    change: impl Fn(&EndpointTerms) -> EndpointTerms,
) -> Result<EndpointRow, Problem> {
    for _ in 0..ATTEMPTS {
        let row = find(gateway, merchant, id).await?;
        let to = change(&row.terms);
        if to == row.terms {
            return Ok(row);
        }
        let at = clock::now();
        let what = format!("its webhooks went to {}, {}, and go to {} now, {}", row.terms.url, told_of(&row.terms), to.url, told_of(&to));
        // What people say of it decides nothing.
        let is_told = EndpointTerms { description: row.terms.description.clone(), ..to.clone() } != row.terms;
        let changes = Changes {
            endpoints: vec![EndpointChange::Put { id, version: row.version, to: to.clone() }],
            audit: vec![doer.did(Action::EndpointUpdate, id, at).with(&json!({ "from": seen(&row.terms), "to": seen(&to) }))],
            alerts: doer.notice(Action::EndpointUpdate, id, &what, at).filter(|_| is_told).into_iter().collect(),
            ..Changes::default()
        };
        if gateway.store.commit(changes).await? == Commit::Done {
            return Ok(EndpointRow { terms: to, version: row.version.saturating_add(1), ..row });
        }
    }
    Err(busy())
}

/// Removes an endpoint: nothing is sent there any more, neither what happens from now on nor what it has
/// not taken yet. The notice of that goes there still, if it hears of alerts.
///
/// # Errors
/// 404.
pub async fn remove(gateway: &Gateway, merchant: MerchantId, id: EndpointId, doer: &Doer) -> Result<(), Problem> {
    let row = find(gateway, merchant, id).await?;
    let at = clock::now();
    let what = format!("nothing is sent to {} any more", row.terms.url);
    let changes = Changes {
        endpoints: vec![EndpointChange::Remove { id, at }],
        audit: vec![doer.did(Action::EndpointDelete, id, at).with(&json!({ "merchant": merchant, "from": seen(&row.terms) }))],
        alerts: doer.notice(Action::EndpointDelete, id, &what, at).into_iter().collect(),
        ..Changes::default()
    };
    // A conflict says that somebody else removed it: that is what was asked for.
    let _ = gateway.store.commit(changes).await?;
    Ok(())
}

/// Gives an endpoint another secret. For a while its webhooks carry both signatures, the new one first.
///
/// # Errors
/// 404, 503.
pub async fn rotate_secret(
    gateway: &Gateway,
    merchant: MerchantId,
    id: EndpointId,
    kept: Span,
    doer: &Doer,
    keep: impl Fn(&EndpointRow) -> Option<KeptAnswer>,
) -> Result<(EndpointRow, SecretText), Problem> {
    for _ in 0..ATTEMPTS {
        let row = find(gateway, merchant, id).await?;
        let at = clock::now();
        let until = at.plus(kept);
        let (secret, sealed) = new_secret(&gateway.vault, id);
        let after = EndpointRow { secret: sealed.clone(), previous_secret: Some((row.secret.clone(), until)), ..row.clone() };
        let what = format!("webhooks to {} are signed with another secret; the old one signs too until {until}", row.terms.url);
        let changes = Changes {
            endpoints: vec![EndpointChange::ReplaceSecret { id, old: row.secret, new: sealed, until }],
            audit: vec![doer.did(Action::EndpointSecretRotate, id, at).with(&json!({ "old_valid_until": until.to_string() }))],
            alerts: doer.notice(Action::EndpointSecretRotate, id, &what, at).into_iter().collect(),
            answer: keep(&after),
            ..Changes::default()
        };
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            return Ok((after, secret));
        }
        refuse_if_answered(&gateway.store, scope).await?;
    }
    Err(busy())
}

/// Sends an endpoint a webhook of no consequence, `webhook.test`, and says what came of it.
///
/// # Errors
/// 404. That it was not accepted is no error: the trial says so.
pub async fn test(gateway: &Gateway, merchant: MerchantId, id: EndpointId, doer: &Doer) -> Result<Trial, Problem> {
    let row = find(gateway, merchant, id).await?;
    let trial = notify::try_endpoint(gateway, &row).await;
    let detail = json!({ "webhook_id": trial.id, "code": trial.code });
    let audit = vec![doer.did(Action::EndpointTest, id, trial.at).with(&detail)];
    let _ = gateway.store.commit(Changes { audit, ..Changes::default() }).await?;
    Ok(trial)
}

/// What an endpoint hears, in words.
fn told_of(terms: &EndpointTerms) -> String {
    match terms.state {
        EndpointState::Enabled => format!("with {}", terms.events.as_deref().unwrap_or("everything")),
        EndpointState::Disabled => "disabled".to_owned(),
    }
}

/// An endpoint as the audit log shows it.
fn seen(terms: &EndpointTerms) -> serde_json::Value {
    json!({
        "url": terms.url, "description": terms.description, "events": terms.events,
        "enabled": terms.state == EndpointState::Enabled,
    })
}
