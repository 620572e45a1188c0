//! Doors for the fuzz targets in `fuzz/` to what is read of a shop's requests. `cargo fuzz` alone
//! compiles them.

use axum::http::Uri;
use tidegate_rules::amount::Amount;

use super::api::{self, CreateOrder, ListOrders};
use super::request;
use crate::orders::Wish;
use crate::problem::Problem;
use crate::store::OrderFilter;

/// The body of `POST /api/v1/orders`.
///
/// # Errors
/// What the shop is told.
pub fn order_body(body: &[u8]) -> Result<Wish, Problem> {
    request::parse::<CreateOrder>(body)?.wish(Amount::from_micros(1))
}

/// The query of `GET /api/v1/orders`: the filter, and how many.
///
/// # Errors
/// What the shop is told.
pub fn order_query(uri: &Uri) -> Result<(OrderFilter, u32), Problem> {
    request::read_query::<ListOrders>(uri)?.filter()
}

/// The cursor that stands for an id.
#[must_use]
pub fn cursor(id: &str) -> Option<String> {
    Some(api::write_cursor(&id))
}
