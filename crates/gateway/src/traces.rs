//! Traces over OTLP, where the program is built with the feature `otlp` and
//! `OTEL_EXPORTER_OTLP_ENDPOINT` says where to: spans of requests, commits and webhooks, for whoever
//! wants to see where time goes. The exporter reads the standard variables `OTEL_*` itself.
//!
//! Spans of ours have the target `tidegate::spans` and nothing secret in them: the pattern of a path,
//! a status, an outcome, the name of a request. They are at the level debug, so that without the
//! feature, or without an endpoint, they cost a look at a static. The exporter makes their ids and
//! reads the clock for itself; nothing that is decided comes from either.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::start::Sorry;

/// The variables of which one switches traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// How long the collector may take for one batch. What it does not take is dropped: the exporter
/// keeps a bounded number of spans.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long the last batch may take when the program ends.
const FLUSH_MAX: Duration = Duration::from_millis(500);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// What collects spans for the exporter, if one of [`ENDPOINTS`] is set. To be called in the runtime.
///
/// # Errors
/// With a sentence, when the variables cannot be used.
pub fn collector<S>() -> Result<Option<impl Layer<S> + Send + Sync>, Sorry>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    if ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Ok(None);
    }
    // The error may repeat the endpoint, which may hold a password.
    let bad = |_| Sorry::new("OTEL_EXPORTER_OTLP_ENDPOINT: expected the address of an OTLP collector such as http://127.0.0.1:4318");
    let exporter = SpanExporter::builder().with_http().with_http_client(Courier::new()?).build().map_err(bad)?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("tidegate");
    }
    let provider =
        PROVIDER.get_or_init(|| SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build());
    let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == crate::logging::SPANS;
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tidegate")).with_location(false).with_threads(false);
    Ok(Some(layer.with_filter(filter_fn(is_ours))))
}

/// Sends what is left, before the program ends.
pub fn flush() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(FLUSH_MAX)
    {
        tracing::warn!(%error, "the last spans were not sent");
    }
}

/// Sends what the exporter's own thread has, on the program's runtime.
#[derive(Debug)]
struct Courier {
    client: reqwest::Client,
    runtime: Handle,
}

impl Courier {
    #[allow(clippy::disallowed_methods, reason = "the collector is nobody's webhook and no endpoint: its client has limits of its own")]
    fn new() -> Result<Self, Sorry> {
        // Says so if another provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER_MAX);
        let client = builder.build().map_err(|error| Sorry(format!("traces cannot be sent: {error}")))?;
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), reqwest::Request::try_from(request)?);
        let sent = self.runtime.spawn(async move { client.execute(request).await.map(|answer| answer.status()) });
        // Of what the collector answers only the status is used.
        Ok(Response::builder().status(sent.await??).body(Bytes::new())?)
    }
}
