//! `tidegate merchant endpoint …`: further receivers of a merchant's webhooks.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use tidegate_rules::id::EndpointId;
use tidegate_rules::notify::EventType;
use tidegate_rules::time::Span;
use tidegate_rules::webhook_endpoint::{ENDPOINTS_MAX, EndpointState, EndpointTerms};

use super::args::ConfigArgs;
use super::credentials::{checked_url, merchant_in};
use super::quiet_gateway;
use super::terminal::say;
use crate::config::SecretText;
use crate::credentials::{OLD_SECRET_KEPT, OLD_SECRET_KEPT_MAX};
use crate::gateway::Gateway;
use crate::http::{EndpointView, NewEndpointView};
use crate::people::Doer;
use crate::start::Sorry;
use crate::store::EndpointRow;
use crate::webhook_endpoints;

/// The longest description, as over HTTP.
const DESCRIPTION_MAX: usize = 255;

#[derive(Subcommand)]
pub(super) enum EndpointCommand {
    /// Add a further receiver of a merchant's webhooks; its secret is shown once
    #[command(
        after_help = "Example:\n  tidegate merchant endpoint add main --url https://warehouse.example/hooks --event order.paid --event order.expired"
    )]
    Add {
        #[command(flatten)]
        config: ConfigArgs,
        /// The merchant's name or id
        merchant: String,
        /// Where its webhooks go
        #[arg(long)]
        url: String,
        /// A type of events that it takes, such as order.paid; all without it
        #[arg(long = "event", value_name = "TYPE", value_parser = event_type)]
        events: Vec<EventType>,
        /// What people say of it
        #[arg(long, value_parser = description)]
        description: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List a merchant's endpoints, newest first
    #[command(after_help = "Example:\n  tidegate merchant endpoint list main --json")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// The merchant's name or id
        merchant: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Change where an endpoint is, what it takes, or whether it hears of what happens from now on
    #[command(
        after_help = "Example:\n  tidegate merchant endpoint update whe_… --event order.paid\n  tidegate merchant endpoint update whe_… --disable"
    )]
    Update {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its id
        id: EndpointId,
        /// Where its webhooks go from now on
        #[arg(long)]
        url: Option<String>,
        /// A type of events that it takes from now on, instead of those before
        #[arg(long = "event", value_name = "TYPE", value_parser = event_type)]
        events: Vec<EventType>,
        /// It takes all events from now on
        #[arg(long, conflicts_with = "events")]
        all_events: bool,
        /// It hears of what happens from now on
        #[arg(long)]
        enable: bool,
        /// It does not
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Give an endpoint another secret, shown once; the old one signs too for a while
    #[command(after_help = "Example:\n  tidegate merchant endpoint rotate-secret whe_… --old-valid-for 3600")]
    RotateSecret {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its id
        id: EndpointId,
        /// For how many seconds the old one signs too, at most 30 days
        #[arg(long, value_name = "SECONDS", default_value_t = OLD_SECRET_KEPT.secs(), value_parser = clap::value_parser!(u64).range(..=OLD_SECRET_KEPT_MAX.secs()))]
        old_valid_for: u64,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove an endpoint: nothing is sent there any more
    #[command(after_help = "Example:\n  tidegate merchant endpoint remove whe_…")]
    Remove {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its id
        id: EndpointId,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

fn event_type(text: &str) -> Result<EventType, String> {
    let known = || EventType::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    EventType::from_name(text).ok_or_else(|| format!("expected one of: {}", known()))
}

fn description(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > DESCRIPTION_MAX || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {DESCRIPTION_MAX} printable characters"));
    }
    Ok(text.to_owned())
}

/// The types as they are stored, each once; `None` for all.
fn words(events: &[EventType]) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for kind in events {
        if !names.contains(&kind.name()) {
            names.push(kind.name());
        }
    }
    Some(names.join(" ")).filter(|names| !names.is_empty())
}

/// `tidegate merchant endpoint …`
pub(super) async fn endpoint(command: EndpointCommand) -> Result<ExitCode, Sorry> {
    let doer = Doer::on_command_line();
    match command {
        EndpointCommand::Add { config, merchant, url, events, description, json } => {
            let url = checked_url("--url", &url)?.to_owned();
            let terms = EndpointTerms { url, description, events: words(&events), state: EndpointState::Enabled };
            let gateway = quiet_gateway(&config).await?;
            let merchant = merchant_in(&gateway.store, &merchant).await?.id;
            let (row, secret) = webhook_endpoints::add(&gateway, merchant, &terms, &doer, |_| None).await?;
            print_new(&row, &secret, json);
            gateway.store.clone().close().await;
        }
        EndpointCommand::List { config, merchant, json } => {
            let gateway = quiet_gateway(&config).await?;
            let merchant = merchant_in(&gateway.store, &merchant).await?.id;
            let rows = gateway.store.endpoints(merchant, None, i64::try_from(ENDPOINTS_MAX).unwrap_or(i64::MAX)).await?;
            let views: Vec<EndpointView> = rows.iter().map(EndpointView::from).collect();
            if json {
                say(&json!({ "data": views, "next_cursor": null }).to_string());
            } else {
                views.iter().for_each(|view| say(&view.line()));
            }
            gateway.store.clone().close().await;
        }
        EndpointCommand::Update { config, id, url, events, all_events, enable, disable, json } => {
            let url = url.map(|url| checked_url("--url", &url).map(str::to_owned)).transpose()?;
            let gateway = quiet_gateway(&config).await?;
            let found = row(&gateway, id).await?;
            let change = |now: &EndpointTerms| EndpointTerms {
                url: url.clone().unwrap_or_else(|| now.url.clone()),
                description: now.description.clone(),
                events: if all_events || !events.is_empty() { words(&events) } else { now.events.clone() },
                state: match (enable, disable) {
                    (true, _) => EndpointState::Enabled,
                    (false, true) => EndpointState::Disabled,
                    (false, false) => now.state,
                },
            };
            let after = webhook_endpoints::put(&gateway, found.merchant, id, &doer, change).await?;
            print_view(&EndpointView::from(&after), json);
            gateway.store.clone().close().await;
        }
        EndpointCommand::RotateSecret { config, id, old_valid_for, json } => {
            let gateway = quiet_gateway(&config).await?;
            let merchant = row(&gateway, id).await?.merchant;
            let kept = Span::from_secs(old_valid_for);
            let (after, secret) = webhook_endpoints::rotate_secret(&gateway, merchant, id, kept, &doer, |_| None).await?;
            print_new(&after, &secret, json);
            gateway.store.clone().close().await;
        }
        EndpointCommand::Remove { config, id, json } => {
            let gateway = quiet_gateway(&config).await?;
            let merchant = row(&gateway, id).await?.merchant;
            webhook_endpoints::remove(&gateway, merchant, id, &doer).await?;
            if json {
                say(&json!({ "ok": true, "id": id }).to_string());
            } else {
                say(&format!("{id} is removed; nothing is sent there any more"));
            }
            gateway.store.clone().close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The endpoint with this id, whosever it is.
async fn row(gateway: &Gateway, id: EndpointId) -> Result<EndpointRow, Sorry> {
    let found = gateway.store.endpoint(id).await?.filter(|row| row.removed_at.is_none());
    found.ok_or_else(|| Sorry(format!("{id}: expected the id of an endpoint; `tidegate merchant endpoint list MERCHANT` lists them")))
}

fn print_view(view: &EndpointView, json: bool) {
    if json {
        say(&serde_json::to_string(view).unwrap_or_default());
    } else {
        say(&view.line());
    }
}

fn print_new(row: &EndpointRow, secret: &SecretText, json: bool) {
    if json {
        say(&serde_json::to_string(&NewEndpointView::of(row, Some(secret))).unwrap_or_default());
        return;
    }
    say(&format!("id      {}\nurl     {}\nsecret  {}\n\nThe secret is shown this once.", row.id, row.terms.url, secret.expose()));
}
