//! Doors for the fuzz targets in `fuzz/` to what is read of a shop's requests. `cargo fuzz` alone
//! compiles them.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tidegate_rules::amount::Amount;
use tidegate_rules::time::Span;

use super::api::{self, CreateOrder, ListOrders};
use super::{forwarded, request};
use crate::config::{ProxyHeader, Server};
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

/// Where a request came from, by the header of a proxy in 10.0.0.0/8. Nothing, where the text cannot
/// be a header's.
#[must_use]
pub fn client_address(peer: IpAddr, proxy_header: ProxyHeader, said: &str) -> Option<IpAddr> {
    let server = Server {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        public_url: None,
        tls: None,
        redirect_listen: None,
        trusted_proxies: vec!["10.0.0.0/8".parse().ok()?],
        proxy_header,
        slow_request: Span::from_secs(2),
    };
    let name = match proxy_header {
        ProxyHeader::XForwarded => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    };
    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_bytes(said.as_bytes()).ok()?)]);
    Some(forwarded::client_address(peer, &headers, &server))
}
