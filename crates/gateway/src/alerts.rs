//! An alert as it is told: by the API, and in the body of its event. Decides nothing.

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::AlertRow;

/// An alert.
#[derive(Serialize, ToSchema)]
pub struct AlertView {
    /// Its id.
    #[schema(example = "alr_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// What happened.
    #[schema(example = "stray_money")]
    kind: String,
    /// `info`, `warning` or `critical`.
    severity: String,
    /// To what.
    about: String,
    /// In words.
    detail: String,
    /// `open`, `acknowledged` or `closed`.
    status: String,
    /// Since when.
    created_at: String,
    /// When a person last dealt with it.
    changed_at: Option<String>,
    /// Who.
    changed_by: Option<String>,
    /// What they said.
    reason: Option<String>,
}

impl From<&AlertRow> for AlertView {
    fn from(row: &AlertRow) -> Self {
        Self {
            id: row.id.to_string(),
            kind: row.kind.name().to_owned(),
            severity: row.kind.severity().name().to_owned(),
            about: row.about.clone(),
            detail: row.detail.clone(),
            status: row.status.name().to_owned(),
            created_at: row.created_at.to_string(),
            changed_at: row.changed_at.map(|at| at.to_string()),
            changed_by: row.changed_by.clone(),
            reason: row.reason.clone(),
        }
    }
}
