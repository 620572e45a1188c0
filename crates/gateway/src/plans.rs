//! What is sold for a time, and who has it until when. A paid order with a plan adds to its user's
//! membership, in the commit that says it is paid; when that money is taken back, a person decides.

use serde::Serialize;
use serde_json::json;
use tidegate_rules::amount::Amount;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, Details, NewPeriod};
use tidegate_rules::id::{MerchantId, OrderId};
use tidegate_rules::time::Time;
use utoipa::ToSchema;

use crate::clock;
use crate::gateway::Gateway;
use crate::people::Doer;
use crate::problem::Problem;
use crate::store::{Commit, PeriodRow, PlanRow};

/// What an order added to a membership, as its event tells it.
#[derive(Serialize, ToSchema)]
pub struct ActivatedView {
    /// The shop's user.
    #[schema(example = "42")]
    user_id: String,
    /// The plan.
    #[schema(example = "gold")]
    plan_id: String,
    /// Its name.
    plan_name: String,
    /// The order that bought it.
    order_id: String,
    /// From when.
    starts_at: String,
    /// Until when: the user is a member so long.
    ends_at: String,
}

impl ActivatedView {
    /// Of a new period of a plan with this name.
    pub(crate) fn new(period: &NewPeriod, plan_name: &str, starts_at: Time, ends_at: Time) -> Self {
        Self {
            user_id: period.user.clone(),
            plan_id: period.plan.clone(),
            plan_name: plan_name.to_owned(),
            order_id: period.order.to_string(),
            starts_at: starts_at.to_string(),
            ends_at: ends_at.to_string(),
        }
    }
}

/// Whether an order may be opened for what it says it buys. A merchant without plans may say what he
/// likes, and gets it back.
///
/// # Errors
/// 422 for a plan that his plans do not have or that is not sold any more, and for one without a user.
pub async fn check(gateway: &Gateway, merchant: MerchantId, details: &Details) -> Result<(), Problem> {
    let Some(id) = &details.plan_id else { return Ok(()) };
    match gateway.store.plan(id).await?.filter(|plan| plan.merchant == merchant) {
        Some(plan) if !plan.active => Err(Problem::invalid("/plan_id", format!("the plan {id:?} is not sold any more"))),
        Some(_) if details.user_id.is_none() => {
            Err(Problem::invalid("/user_id", "this field is needed with a plan: whose membership is it?"))
        }
        Some(_) => Ok(()),
        None if gateway.store.plans(Some(merchant), None, 1).await?.is_empty() => Ok(()),
        None => Err(Problem::invalid("/plan_id", format!("there is no plan {id:?}; GET /api/v1/admin/plans lists those there are"))),
    }
}

/// What to store as a plan.
#[derive(Clone, Debug)]
pub struct PlanWish {
    /// What people read.
    pub name: String,
    /// What it costs, for people: orders say what is to be paid.
    pub price: Amount,
    /// How long it lasts.
    pub duration_days: u32,
    /// Whether it is sold.
    pub active: bool,
}

/// Makes a plan.
///
/// # Errors
/// 409 `plan_exists`.
pub async fn create(gateway: &Gateway, id: String, merchant: MerchantId, wish: &PlanWish, doer: &Doer) -> Result<PlanRow, Problem> {
    let now = clock::now();
    let row = PlanRow {
        id,
        merchant,
        name: wish.name.clone(),
        price: wish.price,
        duration_days: wish.duration_days,
        active: wish.active,
        created_at: now,
        version: 1,
    };
    if !gateway.store.add_plan(&row).await? {
        return Err(Problem::conflict("plan_exists", format!("there is a plan {:?} already; choose another id", row.id)));
    }
    note(gateway, doer.did(Action::PlanCreate, &row.id, now).with(&detail(wish))).await?;
    Ok(row)
}

fn detail(wish: &PlanWish) -> serde_json::Value {
    json!({ "name": wish.name, "price": wish.price.to_string(), "duration_days": wish.duration_days, "active": wish.active })
}

/// Changes a plan, for orders that are paid from now on.
///
/// # Errors
/// 404; 409 when somebody else changed it at the same moment.
pub async fn update(gateway: &Gateway, before: &PlanRow, wish: &PlanWish, doer: &Doer) -> Result<PlanRow, Problem> {
    let row = PlanRow {
        name: wish.name.clone(),
        price: wish.price,
        duration_days: wish.duration_days,
        active: wish.active,
        version: before.version.saturating_add(1),
        ..before.clone()
    };
    if !gateway.store.put_plan(&row, before.version).await? {
        return Err(Problem::conflict("plan_changed", "somebody else changed this plan just now; read it again"));
    }
    note(gateway, doer.did(Action::PlanUpdate, &row.id, clock::now()).with(&detail(wish))).await?;
    Ok(row)
}

async fn note(gateway: &Gateway, row: tidegate_rules::changes::NewAudit) -> Result<(), Problem> {
    match gateway.store.commit(Changes { audit: vec![row], ..Changes::default() }).await? {
        Commit::Done => Ok(()),
        Commit::Conflict => Err(Problem::unavailable("busy", "the audit log could not be written; try again")),
    }
}

/// Takes back what an order added to a membership. What later orders added keeps its days.
///
/// # Errors
/// 404 for an order that added nothing.
pub async fn withdraw(gateway: &Gateway, order: OrderId, reason: &str, doer: &Doer) -> Result<PeriodRow, Problem> {
    let now = clock::now();
    let missing = || Problem::not_found("membership of this order");
    let row = gateway.store.period(order).await?.ok_or_else(missing)?;
    if row.withdrawn_at.is_some() {
        return Ok(row);
    }
    note(
        gateway,
        doer.did(Action::MembershipWithdraw, order, now).because(reason).with(&json!({ "user_id": row.user, "plan_id": row.plan })),
    )
    .await?;
    gateway.store.withdraw_period(order, now).await?;
    gateway.store.period(order).await?.ok_or_else(missing)
}
