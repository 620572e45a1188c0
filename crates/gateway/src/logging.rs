//! What the program says of itself: one line an event on stderr, in JSON or for people. Stdout is for
//! what a command has to say.
//!
//! A line names what it is about in fields: `order`, `wallet`, `network`, `tx_hash`, and in what an HTTP
//! request caused `request_id`, from the span around it. Never a secret, and of people nothing but the
//! ids they go by here: no address of theirs, no name, nothing of an order's `metadata`.
//!
//! How much is said can be changed while the program runs. Like the log itself that is the process's,
//! not one gateway's, so it is kept here.

use std::io::IsTerminal as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::LogFormat;
use crate::start::Sorry;

/// Where the line of each request comes from: `LOG_LEVEL=info,tidegate::access=warn` leaves out all
/// but slow ones.
pub const ACCESS: &str = "tidegate::access";

/// Where spans come from that are for traces alone, and not for the log.
pub const SPANS: &str = "tidegate::spans";

/// How much is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Now.
    pub now: String,
    /// After a restart.
    pub configured: String,
}

struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    levels: Mutex<Levels>,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// Starts the log. A second call, as tests make, changes nothing.
///
/// # Errors
/// When `level` does not read as levels.
pub fn start(level: &str, format: LogFormat) -> Result<(), Sorry> {
    let read =
        EnvFilter::try_new(level).map_err(|error| Sorry(format!("LOG_LEVEL: {error}; expected error, warn, info, debug or trace")))?;
    let (filter, handle) = reload::Layer::new(read);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Pretty => lines.boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter.and(filter_fn(|metadata| metadata.target() != SPANS))));
    #[cfg(feature = "otlp")]
    let started = log.with(crate::traces::collector()?).try_init();
    #[cfg(not(feature = "otlp"))]
    let started = log.try_init();
    #[cfg(not(feature = "otlp"))]
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this binary was built without traces: build it with --features otlp");
    }
    if started.is_ok() {
        let levels = Levels { now: level.to_owned(), configured: level.to_owned() };
        let _ = CONTROL.set(Control { filter: handle, levels: Mutex::new(levels) });
    }
    Ok(())
}

/// How much is said; `None` where another program keeps the log.
#[must_use]
pub fn levels() -> Option<Levels> {
    Some(CONTROL.get()?.levels.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// What is wrong with levels as `EnvFilter` reads them, if anything.
///
/// # Errors
/// In words that go on from "found".
pub fn check(level: &str) -> Result<(), String> {
    EnvFilter::try_new(level).map(drop).map_err(|error| error.to_string())
}

/// Says more or less from now on, until a restart. False, and nothing is changed, where
/// [`check`] finds something wrong or another program keeps the log.
#[must_use]
pub fn set_level(level: &str) -> bool {
    let (Some(control), Ok(filter)) = (CONTROL.get(), EnvFilter::try_new(level)) else { return false };
    let mut levels = control.levels.lock().unwrap_or_else(PoisonError::into_inner);
    if control.filter.reload(filter).is_err() {
        return false;
    }
    level.clone_into(&mut levels.now);
    true
}
