//! What a caller is told when something cannot be done: RFC 9457 `application/problem+json`.
//!
//! A [`Problem`] holds only what the client may see. What went wrong inside is logged where it
//! happened, under the same request id.

use axum::http::StatusCode;
use serde::Serialize;
use tidegate_rules::order::Refusal;

use crate::store::StoreError;

/// The code that says that another request with the same idempotency key was first.
pub const RACED: &str = "concurrent_request";

/// A refusal or a failure, as the client is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable name in snake_case, to be matched by programs.
    pub code: &'static str,
    /// What happened and what to do, for people.
    pub detail: String,
    /// What is wrong with which part of the request.
    pub errors: Vec<FieldError>,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
}

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// What was expected.
    #[schema(example = "expected a decimal string with at most 6 fraction digits, such as \"12.5\"")]
    pub message: String,
}

impl Problem {
    /// A problem of a status with a code and a detail.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// 422: one part of the request is not what was expected.
    pub fn invalid(pointer: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", format!("{pointer}: {message}"));
        problem.errors.push(FieldError { pointer: pointer.to_owned(), message });
        problem
    }

    /// 400: the request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_request", detail)
    }

    /// 404.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// 409: the request contradicts the state of things.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 503: something that the request needs does not work now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after_s = Some(5);
        problem
    }

    /// 429: it happened too often.
    pub fn too_many(detail: impl Into<String>, again_s: u32) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        problem.retry_after_s = Some(again_s);
        problem
    }

    /// 500: our fault. The cause is logged, not told.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something failed on our side; the log has it under this request id")
    }

    /// The title that goes with the status.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        match error {
            StoreError::Corrupt { .. } => Self::internal(),
            _ => Self::unavailable("database_unavailable", "the database does not answer; nothing was changed, try again"),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotPending => "order_not_pending",
            Refusal::PaymentInProgress => "payment_in_progress",
            Refusal::AlreadyPaid => "order_paid",
            Refusal::AlreadyExpired => "order_expired",
            Refusal::AlreadyCancelled => "order_cancelled",
            Refusal::TransferCounted => "transfer_already_counted",
            Refusal::BadExpiry => "invalid_expires_at",
        };
        Self::conflict(code, refusal.to_string())
    }
}
