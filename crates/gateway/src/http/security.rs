//! What every answer says to browsers: that nothing is to be guessed, framed, fetched from elsewhere
//! or told to others, and over https that it is to stay https.

use axum::extract::Request;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::forwarded::Carried;

/// What is no page shows nothing, and nothing may show it. Pages bring a policy of their own.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

/// The page of the API's documentation: its own scripts and styles, and the pictures in them.
const DOCS: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// A year, for this host alone: names beside it are not ours.
const STAY_HTTPS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
);

/// Completes an answer. What a handler said is kept.
pub fn complete(headers: &mut HeaderMap, carried: Carried) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    // For browsers that do not know frame-ancestors.
    headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NO_PAGE);
    if carried == Carried::Https {
        headers.insert(STRICT_TRANSPORT_SECURITY, STAY_HTTPS);
    }
}

/// The policy of the documentation.
pub async fn docs(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, DOCS);
    response
}
