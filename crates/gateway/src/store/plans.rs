//! Plans, and the periods that paid orders made of them.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tidegate_rules::amount::Amount;
use tidegate_rules::id::{MerchantId, OrderId};
use tidegate_rules::time::Time;

use super::Store;
use super::read::{Arg, Where};
use super::rows::{Found, amount, flag, parse, small, time, time_some};

/// A plan.
#[derive(Clone, Debug)]
pub struct PlanRow {
    /// Its id, as orders name it.
    pub id: String,
    /// Whose.
    pub merchant: MerchantId,
    /// What people read.
    pub name: String,
    /// What it costs.
    pub price: Amount,
    /// How long it lasts.
    pub duration_days: u32,
    /// Whether it is sold.
    pub active: bool,
    /// Since when.
    pub created_at: Time,
    /// The row's version.
    pub version: i64,
}

/// What a paid order added to a membership.
#[derive(Clone, Debug)]
pub struct PeriodRow {
    /// The order.
    pub order: OrderId,
    /// Whose user.
    pub user: String,
    /// The plan.
    pub plan: String,
    /// From when.
    pub starts_at: Time,
    /// Until when.
    pub ends_at: Time,
    /// Whether the chain took the order's money back, and has not returned it.
    pub reverted: bool,
    /// When a person took it back.
    pub withdrawn_at: Option<Time>,
}

const PERIODS: &str = "SELECT p.order_id, p.user_id, p.plan_id, p.starts_at, p.ends_at, p.withdrawn_at, o.reverted \
     FROM membership_periods p JOIN usdt_payment_orders o ON o.id = p.order_id";

impl Store {
    /// Which plan is this?
    pub async fn plan(&self, id: &str) -> Found<Option<PlanRow>> {
        let row = sqlx::query("SELECT * FROM plans WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(plan).transpose()
    }

    /// A page of plans, by id.
    pub async fn plans(&self, merchant: Option<MerchantId>, after: Option<String>, limit: i64) -> Found<Vec<PlanRow>> {
        let mut query = Where::new("SELECT * FROM plans");
        query.and("merchant_id = ?", merchant.map(|merchant| Arg::Text(merchant.to_string())));
        query.and("id > ?", after.map(Arg::Text));
        query.then(&format!("ORDER BY id LIMIT {limit}")).fetch(self).await?.iter().map(plan).collect()
    }

    /// Stores a new plan; false when its id is taken.
    pub async fn add_plan(&self, row: &PlanRow) -> Found<bool> {
        let added = sqlx::query(
            "INSERT INTO plans (id, merchant_id, name, price, duration_days, active, created_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, 1) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&row.id)
        .bind(row.merchant.to_string())
        .bind(&row.name)
        .bind(i64::try_from(row.price.micros()).unwrap_or(i64::MAX))
        .bind(i64::from(row.duration_days))
        .bind(i64::from(row.active))
        .bind(row.created_at.millis())
        .execute(&self.readers)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Changes a plan; false unless it is at this version.
    pub async fn put_plan(&self, row: &PlanRow, version: i64) -> Found<bool> {
        let changed = sqlx::query(
            "UPDATE plans SET name = $1, price = $2, duration_days = $3, active = $4, version = version + 1 WHERE id = $5 AND version = $6",
        )
        .bind(&row.name)
        .bind(i64::try_from(row.price.micros()).unwrap_or(i64::MAX))
        .bind(i64::from(row.duration_days))
        .bind(i64::from(row.active))
        .bind(&row.id)
        .bind(version)
        .execute(&self.readers)
        .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Everything that a shop's user ever had of any plan, the newest first.
    pub async fn periods(&self, merchant: MerchantId, user: &str, limit: i64) -> Found<Vec<PeriodRow>> {
        let mut query = Where::new(PERIODS);
        query.and("p.merchant_id = ?", Some(Arg::Text(merchant.to_string())));
        query.and("p.user_id = ?", Some(Arg::Text(user.to_owned())));
        query.then(&format!("ORDER BY p.ends_at DESC, p.order_id DESC LIMIT {limit}")).fetch(self).await?.iter().map(period).collect()
    }

    /// What did this order add?
    pub async fn period(&self, order: OrderId) -> Found<Option<PeriodRow>> {
        let mut query = Where::new(PERIODS);
        query.and("p.order_id = ?", Some(Arg::Text(order.to_string())));
        query.fetch(self).await?.first().map(period).transpose()
    }

    /// Takes back what an order added.
    pub async fn withdraw_period(&self, order: OrderId, at: Time) -> Found<()> {
        sqlx::query("UPDATE membership_periods SET withdrawn_at = $1 WHERE order_id = $2 AND withdrawn_at IS NULL")
            .bind(at.millis())
            .bind(order.to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }
}

fn plan(row: &AnyRow) -> Found<PlanRow> {
    Ok(PlanRow {
        id: row.try_get("id")?,
        merchant: parse(row, "merchant_id")?,
        name: row.try_get("name")?,
        price: amount(row, "price")?,
        duration_days: small(row, "duration_days")?,
        active: flag(row, "active")?,
        created_at: time(row, "created_at")?,
        version: row.try_get("version")?,
    })
}

fn period(row: &AnyRow) -> Found<PeriodRow> {
    Ok(PeriodRow {
        order: parse(row, "order_id")?,
        user: row.try_get("user_id")?,
        plan: row.try_get("plan_id")?,
        starts_at: time(row, "starts_at")?,
        ends_at: time(row, "ends_at")?,
        reverted: flag(row, "reverted")?,
        withdrawn_at: time_some(row, "withdrawn_at")?,
    })
}
