//! The gateway in numbers, for Prometheus.
//!
//! What happens is counted where it happens ([`Metrics`]); what is so now (networks, endpoints, the
//! pool) is read when somebody asks, from the same sources as `/health/blockchain`. Names and labels
//! are part of the outside: dashboards and alert rules rely on them. No label comes from outside
//! (a path, an address, an error in words), so their number is bounded.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};
use tidegate_chain::{EndpointHealth, EndpointState};
use tidegate_rules::block::Network;
use tidegate_rules::changes::Changes;
use tidegate_rules::id::Subject;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::Head;
use tidegate_rules::time::{Span, Time};

use crate::gateway::{Gateway, NetworkHealth, NetworkPart};
use crate::problem::Problem;
use crate::safe;

/// The format of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds; a request is a few milliseconds, and slow from two seconds on.
const REQUEST_BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// Seconds from a block's time: chains differ from a second to half an hour.
const CHAIN_BUCKETS: [f64; 14] = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0];

/// What is counted where it happens.
pub struct Metrics {
    requests: HistogramVec,
    seen: HistogramVec,
    paid: HistogramVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: histogram(
                "http_request_duration_seconds",
                "How long requests took until their answer began",
                &["method", "route", "status"],
                &REQUEST_BUCKETS,
            ),
            seen: histogram(
                "transfer_seen_seconds",
                "From the time of a transfer's block until it was recorded here",
                &["network"],
                &CHAIN_BUCKETS,
            ),
            paid: histogram(
                "order_paid_seconds",
                "From the time of an order's last block with money until it was paid",
                &["network"],
                &CHAIN_BUCKETS,
            ),
        }
    }
}

impl Metrics {
    /// Counts a request. `route` is the pattern of the path, never the path itself.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[method, route, &status.to_string()]).observe(took.as_secs_f64());
    }

    /// Counts what a commit has brought.
    pub fn committed(&self, told: &Told) {
        for (network, took) in &told.seen {
            self.seen.with_label_values(&[network.as_str()]).observe(took.to_std().as_secs_f64());
        }
        for (network, took) in &told.paid {
            self.paid.with_label_values(&[network.as_str()]).observe(took.to_std().as_secs_f64());
        }
    }

    fn collect(&self) -> Vec<MetricFamily> {
        [self.requests.collect(), self.seen.collect(), self.paid.collect()].concat()
    }
}

/// What is to be counted of a commit, once it is done.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Told {
    /// Transfers that were never seen before, and how old their blocks are.
    seen: Vec<(Network, Span)>,
    /// Orders that are paid now, and how old the last block with money of theirs is.
    paid: Vec<(Network, Span)>,
}

impl Told {
    /// Reads it off the changes of a follower.
    #[must_use]
    pub fn of(changes: &Changes, now: Time) -> Self {
        let new = changes.transfers.iter().filter(|transfer| transfer.version.is_none());
        let paid = changes.events.iter().filter(|event| event.kind == EventType::Paid).filter_map(|event| {
            let Subject::Order(id) = event.subject else { return None };
            let money = changes.transfers.iter().filter(|transfer| transfer.order == Some(id) && transfer.payment.standing);
            let last = money.max_by_key(|transfer| transfer.payment.block.time)?;
            Some((last.payment.network.clone(), now.since(last.payment.block.time)))
        });
        Self {
            seen: new.map(|transfer| (transfer.payment.network.clone(), now.since(transfer.payment.block.time))).collect(),
            paid: paid.collect(),
        }
    }
}

/// Everything, as Prometheus reads it.
///
/// # Errors
/// When the store does not answer.
pub async fn render(gateway: &Gateway, now: Time) -> Result<String, Problem> {
    let mut families = gateway.metrics.collect();
    families.extend(Now::read(gateway, now).await?.families());
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    TextEncoder::new().encode_to_string(&families).map_err(|error| {
        tracing::error!(%error, "the metrics could not be written down");
        Problem::internal()
    })
}

/// Declares the families that are filled anew for each reading.
macro_rules! families {
    ($($field:ident: $kind:ident = $name:literal, $help:literal, [$($label:literal),*];)+) => {
        /// What is so now.
        struct Now {
            $($field: $kind,)+
        }

        impl Now {
            fn empty() -> Self {
                Self { $($field: sound($kind::new(opts($name, $help), &[$($label),*])),)+ }
            }

            fn families(&self) -> Vec<MetricFamily> {
                [$(self.$field.collect()),+].concat()
            }
        }
    };
}

families! {
    build: IntGaugeVec = "build_info", "1, with the version as label", ["version"];
    state: IntGaugeVec = "network_state", "1 for the state that a network is in", ["network", "state"];
    head: IntGaugeVec = "network_head_block", "The highest block that is applied", ["network"];
    finalized: IntGaugeVec = "network_final_block", "The highest applied block that the chain calls final", ["network"];
    reconciled: IntGaugeVec = "network_reconciled_block", "The highest block that the second reader has compared", ["network"];
    behind: IntGaugeVec = "network_blocks_behind", "Blocks between the best head that an endpoint showed and the highest that is applied", ["network"];
    lag: GaugeVec = "network_lag_seconds", "The age of the highest applied block", ["network"];
    settled_lag: GaugeVec = "network_settled_lag_seconds", "The age of the highest block whose money has settled, at the network's own confirmations", ["network"];
    failing: IntGaugeVec = "network_failing", "1 while the last look at the network failed", ["network"];
    floor: IntGaugeVec = "network_floor_raised", "1 while money settles only once it is final, because the network is in trouble", ["network"];
    in_use: IntGaugeVec = "endpoint_in_use", "1 for the endpoint that the network is read from", ["network", "endpoint"];
    switches: IntCounterVec = "endpoint_switches_total", "Changes of the endpoint in use, by cause", ["network", "cause"];
    endpoint_state: IntGaugeVec = "endpoint_state", "1 for the state that an endpoint is in", ["network", "endpoint", "state"];
    score: IntGaugeVec = "endpoint_score", "From 0 to 100: failures, latency and lag taken together", ["network", "endpoint"];
    endpoint_head: IntGaugeVec = "endpoint_head_block", "The newest block that an endpoint has shown", ["network", "endpoint"];
    endpoint_behind: IntGaugeVec = "endpoint_blocks_behind", "How far an endpoint was behind the best head known, when last compared", ["network", "endpoint"];
    calls: IntCounterVec = "endpoint_calls_total", "Requests made", ["network", "endpoint"];
    failures: IntCounterVec = "endpoint_failures_total", "Operations that failed", ["network", "endpoint"];
    hedges: IntCounterVec = "endpoint_hedges_total", "Operations begun because another endpoint was slow", ["network", "endpoint"];
    hedges_won: IntCounterVec = "endpoint_hedges_won_total", "Those of them that were done sooner", ["network", "endpoint"];
    latency: GaugeVec = "endpoint_latency_seconds", "How long a request takes: on average, the newer ones weighing more, and nine of ten at most", ["network", "endpoint", "of"];
    left: IntGaugeVec = "endpoint_requests_left", "What is left of today's budget of requests", ["network", "endpoint"];
    wallets: IntGaugeVec = "wallets", "Wallets by status, counted at most every three minutes", ["network", "status"];
}

impl Now {
    async fn read(gateway: &Gateway, now: Time) -> Result<Self, Problem> {
        let all = Self::empty();
        all.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for part in gateway.networks().values() {
            all.network(part, now);
        }
        for (network, status, count) in safe::stats(gateway).await?.counts() {
            all.wallets.with_label_values(&[network, status]).set(count);
        }
        Ok(all)
    }

    fn network(&self, part: &NetworkPart, now: Time) {
        let name = part.config.name.as_str();
        let (state, health) = (part.state(), part.health(now));
        for one in NetworkHealth::ALL {
            self.state.with_label_values(&[name, one.name()]).set(i64::from(one == health));
        }
        let floor = state.head.as_ref().is_some_and(|head| head.floor.is_some());
        self.floor.with_label_values(&[name]).set(i64::from(floor));
        self.failing.with_label_values(&[name]).set(i64::from(state.failing.is_some()));
        set_some(&self.reconciled, &[name], state.reconciled);
        let endpoints = part.chain.endpoints();
        if let Some(head) = &state.head {
            self.head(part, head, &endpoints, now);
        }
        let pool = part.chain.pool();
        for (cause, count) in &pool.switches_by_cause {
            self.switches.with_label_values(&[name, cause.name()]).inc_by(*count);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            self.in_use.with_label_values(&[name, &endpoint.name]).set(i64::from(index == pool.current));
            self.endpoint(name, endpoint);
        }
    }

    fn head(&self, part: &NetworkPart, head: &Head, endpoints: &[EndpointHealth], now: Time) {
        let name = &[part.config.name.as_str()];
        let best = endpoints.iter().filter_map(|endpoint| endpoint.head).map(|head| head.number).max().unwrap_or(0);
        set_some(&self.head, name, Some(head.tip.number));
        set_some(&self.finalized, name, head.finalized);
        set_some(&self.behind, name, Some(best.saturating_sub(head.tip.number)));
        self.lag.with_label_values(name).set(now.since(head.tip.time).to_std().as_secs_f64());
        if let Some(settled) = head.settled(part.config.confirmations) {
            self.settled_lag.with_label_values(name).set(now.since(settled.time).to_std().as_secs_f64());
        }
    }

    fn endpoint(&self, network: &str, endpoint: &EndpointHealth) {
        let names = &[network, endpoint.name.as_str()];
        for state in EndpointState::NAMES {
            let is_so = endpoint.state.name() == state;
            self.endpoint_state.with_label_values(&[network, &endpoint.name, state]).set(i64::from(is_so));
        }
        self.score.with_label_values(names).set(endpoint.score.into());
        set_some(&self.endpoint_head, names, endpoint.head.map(|head| head.number));
        set_some(&self.endpoint_behind, names, Some(endpoint.behind));
        set_some(&self.left, names, endpoint.requests_left);
        self.calls.with_label_values(names).inc_by(endpoint.calls);
        self.failures.with_label_values(names).inc_by(endpoint.failures);
        self.hedges.with_label_values(names).inc_by(endpoint.hedges);
        self.hedges_won.with_label_values(names).inc_by(endpoint.hedges_won);
        for (of, ms) in [("mean", endpoint.latency_mean_ms), ("p90", endpoint.latency_bound_ms)] {
            if let Some(ms) = ms {
                self.latency.with_label_values(&[network, &endpoint.name, of]).set(Duration::from_millis(ms).as_secs_f64());
            }
        }
    }
}

/// What is not known has no line.
fn set_some(gauge: &IntGaugeVec, labels: &[&str], value: Option<u64>) {
    if let Some(value) = value {
        gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("tidegate")
}

fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
    sound(HistogramVec::new(options, labels))
}

/// Names and labels are written in this file; a wrong one shows in the first test.
#[allow(clippy::expect_used, reason = "constant names, made at every start")]
fn sound<T>(made: prometheus::Result<T>) -> T {
    made.expect("the name of a metric and its labels are well formed")
}
