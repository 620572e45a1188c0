//! Plans and memberships over HTTP.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_rules::membership::DURATION_DAYS_MAX;
use tidegate_rules::people::Permission;
use tidegate_rules::time::Time;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, money, one_more, read_cursor, text, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::orders::{main_merchant, merchant_named};
use super::request::{EmptyBody, Params, RawBody};
use super::safe::checked_reason;
use super::{App, ProblemBody};
use crate::clock;
use crate::plans::{self, PlanWish};
use crate::problem::Problem;
use crate::store::{PeriodRow, PlanRow};

/// The longest id of a plan.
const ID_MAX: usize = 64;

/// The most periods of a user that are shown.
const PERIODS_MAX: i64 = 200;

/// A plan.
#[derive(Serialize, ToSchema)]
pub struct PlanView {
    /// Its id: the `plan_id` of orders.
    #[schema(example = "gold")]
    id: String,
    /// Whose.
    merchant_id: String,
    /// What people read.
    #[schema(example = "Gold, one month")]
    name: String,
    /// What it costs, in USDT. An order says itself what is to be paid.
    #[schema(example = "12.500000")]
    price: String,
    /// How long it lasts.
    #[schema(example = 30)]
    duration_days: u32,
    /// Whether new orders may name it.
    active: bool,
    /// Since when.
    created_at: String,
}

impl From<&PlanRow> for PlanView {
    fn from(row: &PlanRow) -> Self {
        Self {
            id: row.id.clone(),
            merchant_id: row.merchant.to_string(),
            name: row.name.clone(),
            price: row.price.to_string(),
            duration_days: row.duration_days,
            active: row.active,
            created_at: row.created_at.to_string(),
        }
    }
}

/// A page of plans.
#[derive(Serialize, ToSchema)]
pub struct PlanPage {
    /// By id.
    data: Vec<PlanView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// A plan to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePlan {
    /// 1 to 64 letters, digits, `-` and `_`; made up without it.
    #[schema(example = "gold", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    id: Option<String>,
    /// Whose; the caller's without it.
    merchant_id: Option<String>,
    /// What people read.
    #[schema(example = "Gold, one month")]
    name: String,
    /// What it costs, in USDT.
    #[schema(example = "12.5", pattern = "^(0|[1-9][0-9]*)(\\.[0-9]{1,6})?$")]
    price: String,
    /// How long it lasts: 1 to 3650.
    #[schema(example = 30, minimum = 1, maximum = 3650)]
    duration_days: u32,
}

/// What to change of a plan. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePlan {
    /// What people read.
    name: Option<String>,
    /// What it costs, in USDT.
    #[schema(example = "12.5", pattern = "^(0|[1-9][0-9]*)(\\.[0-9]{1,6})?$")]
    price: Option<String>,
    /// How long it lasts, for orders that are paid from now on: 1 to 3650.
    #[schema(minimum = 1, maximum = 3650)]
    duration_days: Option<u32>,
    /// Whether new orders may name it.
    active: Option<bool>,
}

fn days(days: u32) -> Result<u32, Problem> {
    if (1..=DURATION_DAYS_MAX).contains(&days) {
        return Ok(days);
    }
    Err(Problem::invalid("/duration_days", format!("expected 1 to {DURATION_DAYS_MAX}")))
}

fn checked_id(id: Option<String>) -> Result<String, Problem> {
    let Some(id) = id else { return Ok(format!("plan_{}", hex::encode(clock::random::<8>()))) };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(is_plain) {
        return Err(Problem::invalid("/id", format!("expected 1 to {ID_MAX} letters, digits, - and _")));
    }
    Ok(id)
}

/// Create a plan
#[utoipa::path(post, path = "/api/v1/admin/plans", tag = "plans", request_body = CreatePlan, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = PlanView, headers(("Location" = String))), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, description = "plan_exists", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create_plan(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: CreatePlan = body.json(EmptyBody::IsMalformed)?;
        let merchant = match asked.merchant_id {
            Some(id) => merchant_named(&app.gateway, "/merchant_id", &id).await?.id,
            // Somebody who logged in is of no merchant.
            None => match caller.merchant() {
                Ok(merchant) => merchant,
                Err(_) => main_merchant(&app.gateway).await?.id,
            },
        };
        let wish = PlanWish {
            name: text("name", Some(asked.name))?.unwrap_or_default(),
            price: money("/price", &asked.price)?,
            duration_days: days(asked.duration_days)?,
            active: true,
        };
        let row = plans::create(&app.gateway, checked_id(asked.id)?, merchant, &wish, &caller.doer()).await?;
        let location = format!("/api/v1/admin/plans/{}", row.id);
        Ok((Answer::json(StatusCode::CREATED, &PlanView::from(&row)).at(location), Kept::NotYet))
    })
    .await
}

/// Which plans to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListPlans {
    /// Of this merchant.
    merchant_id: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List plans, by id
#[utoipa::path(get, path = "/api/v1/admin/plans", tag = "plans", params(ListPlans),
    responses((status = 200, body = PlanPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_plans(State(app): State<App>, caller: Caller, Params(query): Params<ListPlans>) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    let limit = limit(query.limit)?;
    let merchant = match query.merchant_id {
        Some(id) => Some(id.parse().map_err(|_| Problem::invalid("merchant_id", "expected mer_…"))?),
        None => None,
    };
    let mut rows = app.gateway.store.plans(merchant, read_cursor(query.cursor)?, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &PlanPage { data: rows.iter().map(PlanView::from).collect(), next_cursor }))
}

async fn plan(app: &App, id: &str) -> Result<PlanRow, Problem> {
    app.gateway.store.plan(id).await?.ok_or_else(|| Problem::not_found("plan"))
}

/// Show a plan
#[utoipa::path(get, path = "/api/v1/admin/plans/{id}", tag = "plans", params(("id" = String, Path)),
    responses((status = 200, body = PlanView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_plan(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    Ok(Answer::json(StatusCode::OK, &PlanView::from(&plan(&app, &id).await?)))
}

/// Change a plan
#[utoipa::path(put, path = "/api/v1/admin/plans/{id}", tag = "plans", request_body = UpdatePlan, params(("id" = String, Path)),
    responses((status = 200, body = PlanView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "plan_changed", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn update_plan(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    let asked: UpdatePlan = body.json(EmptyBody::IsMalformed)?;
    let before = plan(&app, &id).await?;
    let wish = PlanWish {
        name: text("name", asked.name)?.unwrap_or_else(|| before.name.clone()),
        price: asked.price.map_or(Ok(before.price), |price| money("/price", &price))?,
        duration_days: days(asked.duration_days.unwrap_or(before.duration_days))?,
        active: asked.active.unwrap_or(before.active),
    };
    let row = plans::update(&app.gateway, &before, &wish, &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &PlanView::from(&row)))
}

/// What an order added to a membership.
#[derive(Serialize, ToSchema)]
pub struct PeriodView {
    /// The plan.
    #[schema(example = "gold")]
    plan_id: String,
    /// The order that bought it.
    order_id: String,
    /// From when.
    starts_at: String,
    /// Until when.
    ends_at: String,
    /// The chain took the order's money back: somebody has to decide.
    reverted: bool,
    /// When an operator took it back; it counts for nothing since.
    withdrawn_at: Option<String>,
}

impl From<&PeriodRow> for PeriodView {
    fn from(row: &PeriodRow) -> Self {
        Self {
            plan_id: row.plan.clone(),
            order_id: row.order.to_string(),
            starts_at: row.starts_at.to_string(),
            ends_at: row.ends_at.to_string(),
            reverted: row.reverted,
            withdrawn_at: row.withdrawn_at.map(|at| at.to_string()),
        }
    }
}

/// What a user of the shop is a member of.
#[derive(Serialize, ToSchema)]
pub struct MembershipView {
    /// The shop's user.
    #[schema(example = "42")]
    user_id: String,
    /// A member now, of any plan.
    active: bool,
    /// The plan that lasts longest of those there are now.
    #[schema(example = "gold")]
    plan_id: Option<String>,
    /// Until when that lasts.
    expires_at: Option<String>,
    /// What every paid order added, the last to end first; at most 200.
    periods: Vec<PeriodView>,
}

fn membership(user: &str, rows: &[PeriodRow], now: Time) -> MembershipView {
    let counts = |row: &&PeriodRow| row.withdrawn_at.is_none();
    let running = |row: &&PeriodRow| row.starts_at <= now && now < row.ends_at;
    // The end of everything that follows on without a gap.
    let plan = rows.iter().filter(counts).find(running).map(|row| row.plan.clone());
    let until = |plan: &String| {
        let of_plan: Vec<&PeriodRow> = rows.iter().filter(counts).filter(|row| row.plan == *plan && row.ends_at > now).collect();
        let mut end = now;
        for row in of_plan.iter().rev() {
            if row.starts_at > end {
                break;
            }
            end = end.max(row.ends_at);
        }
        end.to_string()
    };
    MembershipView {
        user_id: user.to_owned(),
        active: plan.is_some(),
        expires_at: plan.as_ref().map(until),
        plan_id: plan,
        periods: rows.iter().map(PeriodView::from).collect(),
    }
}

/// Show what a user of the shop is a member of
#[utoipa::path(get, path = "/api/v1/users/{user_id}/membership", tag = "plans", params(("user_id" = String, Path)),
    responses((status = 200, body = MembershipView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_membership(State(app): State<App>, caller: Caller, Path(user): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let user = text("user_id", Some(user))?.unwrap_or_default();
    let rows = app.gateway.store.periods(caller.merchant()?, &user, PERIODS_MAX).await?;
    Ok(Answer::json(StatusCode::OK, &membership(&user, &rows, clock::now())))
}

/// Why a membership is taken back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// Stands in the audit log.
    #[schema(example = "the chain took the payment back, and the customer does not answer")]
    reason: String,
}

/// Take back what an order added to a membership
#[utoipa::path(post, path = "/api/v1/admin/orders/{id}/membership/withdraw", tag = "plans", request_body = Withdraw, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = PeriodView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn withdraw_membership(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: Withdraw = body.json(EmptyBody::IsMalformed)?;
        let reason = checked_reason(&asked.reason)?;
        let order = id.parse().map_err(|_| Problem::not_found("order"))?;
        let row = plans::withdraw(&app.gateway, order, reason, &caller.doer()).await?;
        Ok((Answer::json(StatusCode::OK, &PeriodView::from(&row)), Kept::NotYet))
    })
    .await
}
