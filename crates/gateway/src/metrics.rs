//! The gateway in numbers, for Prometheus.
//!
//! What happens is counted where it happens ([`Metrics`], [`Commits`], [`Lookups`]); what is so now
//! (networks, endpoints, the pool, queues) is read when somebody asks, from the same sources as
//! `/health/blockchain`. Names and labels are part of the outside: dashboards and alert rules rely on
//! them. No label comes from outside (a path, an address, an error in words), so their number is
//! bounded. Prometheus is answered while the database is not: what comes from it is missing then.

pub mod commits;
mod process;

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};
use tidegate_chain::{EndpointHealth, EndpointState};
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::block::Network;
use tidegate_rules::changes::Changes;
use tidegate_rules::id::Subject;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{Head, Status};
use tidegate_rules::time::{Span, Time};
use tokio::time::timeout;

pub use self::commits::{Brought, Commits};
use crate::cache::{Cached, RedisHealth};
use crate::clock;
use crate::config::DatabaseUrl;
use crate::gateway::{Gateway, NetworkHealth, NetworkPart};
use crate::problem::Problem;
use crate::safe;
use crate::single_flight::SingleFlight;
use crate::store::tally::Count;
use crate::store::{DatabaseHealth, Engine, Store};

/// The format of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds; a request is a few milliseconds, and slow from two seconds on.
const REQUEST_BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// Seconds from a block's time: chains differ from a second to half an hour.
const CHAIN_BUCKETS: [f64; 14] = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0];

/// How long what was counted in the database is good for: however often somebody scrapes, it is
/// counted once in this time.
pub const COUNTED_FOR: Duration = Duration::from_secs(10);

/// How long counting may take; what is not counted by then is missing from the answer.
const COUNT_MAX: Duration = Duration::from_secs(2);

/// The methods that have a name in the metrics. Whoever calls may make up others.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// The queues that [`Store::tally`] counts, as their labels.
const QUEUES: [&str; 4] = ["webhooks", "notifications", "payment_webhooks", "hints"];

/// What is counted where it happens.
pub struct Metrics {
    requests: IntCounterVec,
    took: HistogramVec,
    in_flight: IntGauge,
    seen: HistogramVec,
    paid: HistogramVec,
    started: Gauge,
    tally: SingleFlight<Option<Arc<Vec<Count>>>>,
}

/// A request that is being answered, for as long as this lives.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let started = sound(Gauge::with_opts(Opts::new("process_start_time_seconds", "When the process was started, since 1970")));
        started.set(clock::now().since(Time::from_millis(0)).to_std().as_secs_f64());
        Self {
            requests: counter("http_requests_total", "Requests that were answered", &["method", "route", "status"]),
            took: histogram(
                "http_request_duration_seconds",
                "How long requests took until their answer began",
                &["method", "route"],
                &REQUEST_BUCKETS,
            ),
            in_flight: sound(IntGauge::with_opts(opts("http_requests_in_flight", "Requests whose answer has not begun"))),
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
            started,
            tally: SingleFlight::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that has arrived.
    #[must_use]
    pub fn arrived(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts a request that was answered. `route` is the pattern of the path, never the path itself.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.took.with_label_values(&[method, route]).observe(took.as_secs_f64());
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
        let http = [self.requests.collect(), self.took.collect(), self.in_flight.collect()];
        [http.concat(), self.seen.collect(), self.paid.collect(), self.started.collect()].concat()
    }

    /// What is counted in the database, at most [`COUNTED_FOR`] old. `None` when it does not answer.
    async fn tally(&self, store: &Store) -> Option<Arc<Vec<Count>>> {
        let store = store.clone();
        let count = async move {
            match timeout(COUNT_MAX, store.tally()).await {
                Ok(Ok(counts)) => Some(Arc::new(counts)),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "what is open could not be counted for the metrics");
                    None
                }
                Err(_) => {
                    tracing::warn!(limit_s = COUNT_MAX.as_secs(), "counting what is open for the metrics took too long");
                    None
                }
            }
        };
        self.tally.get(COUNTED_FOR, count).await.flatten()
    }
}

/// How look-ups in the cache ended.
pub struct Lookups(IntCounterVec);

/// How one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was kept in this process.
    Hit,
    /// Somebody was asking for it already.
    Joined,
    /// Another process had left it in Redis.
    Shared,
    /// Its source was asked.
    Miss,
}

impl Lookup {
    const ALL: [Self; 4] = [Self::Hit, Self::Joined, Self::Shared, Self::Miss];

    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Shared => "shared",
            Self::Miss => "miss",
        }
    }
}

impl Default for Lookups {
    fn default() -> Self {
        let help = "Look-ups in the cache: kept here (hit), asked for by somebody else just then (joined), found in Redis (shared), asked for at its source (miss)";
        let lookups = counter("cache_lookups_total", help, &["kind", "outcome"]);
        for kind in Cached::ALL {
            for outcome in Lookup::ALL {
                let _ = lookups.with_label_values(&[kind.name(), outcome.name()]);
            }
        }
        Self(lookups)
    }
}

impl Lookups {
    /// Counts one.
    pub fn ended(&self, kind: Cached, outcome: Lookup) {
        self.0.with_label_values(&[kind.name(), outcome.name()]).inc();
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.collect()
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

/// Everything, as Prometheus reads it. Ends within a few seconds, whatever the database does.
///
/// # Errors
/// 500 when it cannot be written down.
pub async fn render(gateway: &Gateway, now: Time) -> Result<String, Problem> {
    let mut families = gateway.metrics.collect();
    families.extend(gateway.store.commits().collect());
    families.extend(gateway.cache.lookups().collect());
    families.extend(process::collect());
    if let DatabaseUrl::Sqlite(path) = &gateway.config.database.url {
        families.extend(process::database_file(path));
    }
    families.extend(Now::read(gateway, now).await.families());
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
    build: IntGaugeVec = "build_info", "1, with the versions of the program and of its compiler, and the kind of database", ["version", "rust", "engine"];
    database: IntGaugeVec = "database_up", "1 while the database answers in time and takes what is written", [];
    database_answer: GaugeVec = "database_answer_seconds", "How long the last look at the database took, waiting for a free connection included", [];
    connections: IntGaugeVec = "database_connections", "Open connections to the database, by what they do", ["state"];
    connections_max: IntGaugeVec = "database_connections_max", "How many of them there may be", [];
    redis: IntGaugeVec = "redis_up", "1 while Redis answers; without REDIS_URL there is no line", [];
    loop_well: IntGaugeVec = "loop_well", "1 for a loop that runs; 0 after it broke, until it has run for a minute again", ["loop"];
    loop_breaks: IntCounterVec = "loop_breaks_total", "How often a loop broke", ["loop"];
    orders: IntGaugeVec = "orders", "Orders that are not done with, by status", ["status"];
    queue: IntGaugeVec = "queue_length", "What waits in a queue, what is to be tried again later included", ["queue"];
    queue_age: GaugeVec = "queue_oldest_seconds", "How long the oldest has been due; 0 when nothing is", ["queue"];
    alerts: IntGaugeVec = "alerts", "Alerts that nobody has closed, by kind", ["kind", "severity", "status"];
    unmatched: IntGaugeVec = "unmatched_transfers", "Transfers to our wallets that count for no order", ["disposition"];
    unsettled: IntGaugeVec = "unsettled_transfers", "Transfers that are recorded and have not settled", ["network"];
    event: IntGaugeVec = "event_sequence", "The number of the newest event", [];
    wallets_max: IntGaugeVec = "wallets_max", "How many wallets a network may have", ["network"];
    watermark: IntGaugeVec = "wallets_low_watermark", "How many of them should be free", ["network"];
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
    async fn read(gateway: &Gateway, now: Time) -> Self {
        let all = Self::empty();
        let engine = match gateway.store.engine() {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        };
        all.build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("TIDEGATE_RUST_VERSION"), engine]).set(1);
        for part in gateway.networks().values() {
            all.network(part, now);
            let name = &[part.config.name.as_str()];
            set_some(&all.wallets_max, name, Some(gateway.config.pool.max_wallets));
            set_some(&all.watermark, name, Some(gateway.config.pool.low_watermark));
        }
        for one in gateway.loops.health() {
            all.loop_well.with_label_values(&[&one.name]).set(i64::from(one.is_well));
            all.loop_breaks.with_label_values(&[&one.name]).inc_by(one.breaks);
        }
        match gateway.cache.redis().await {
            RedisHealth::Unused => {}
            redis => all.redis.with_label_values(NONE).set(i64::from(redis == RedisHealth::Healthy)),
        }
        all.database(gateway, now).await;
        all
    }

    /// What the database says, and how it does itself. It is asked nothing more when it is down.
    async fn database(&self, gateway: &Gateway, now: Time) {
        let store = &gateway.store;
        let health = store.health().await;
        self.database.with_label_values(NONE).set(i64::from(health.is_healthy()));
        let (open, idle, most) = store.connections();
        let open = usize::try_from(open).unwrap_or(usize::MAX);
        for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle))] {
            set_some(&self.connections, &[state], u64::try_from(count).ok());
        }
        set_some(&self.connections_max, NONE, Some(most.into()));
        if let DatabaseHealth::Healthy { took } = health {
            self.database_answer.with_label_values(NONE).set(took.as_secs_f64());
        }
        if matches!(health, DatabaseHealth::Silent | DatabaseHealth::Down) {
            return;
        }
        if let Some(counts) = gateway.metrics.tally(store).await {
            for name in gateway.networks().keys() {
                self.unsettled.with_label_values(&[name.as_str()]).set(0);
            }
            self.counted(&counts, now);
        }
        if let Ok(Ok(stats)) = timeout(COUNT_MAX, safe::stats(gateway)).await {
            for (network, status, count) in stats.counts() {
                self.wallets.with_label_values(&[network, status]).set(count);
            }
        }
    }

    /// What was counted in the database. What it has none of is 0.
    fn counted(&self, counts: &[Count], now: Time) {
        for status in [Status::Pending, Status::Confirming] {
            self.orders.with_label_values(&[status.name()]).set(0);
        }
        for queue in QUEUES {
            self.queue.with_label_values(&[queue]).set(0);
            self.queue_age.with_label_values(&[queue]).set(0.0);
        }
        for disposition in ["late", "stray", "unreadable"] {
            self.unmatched.with_label_values(&[disposition]).set(0);
        }
        let severity_of = |kind: &str| AlertKind::from_name(kind).map_or("warning", |kind| kind.severity().name());
        for kind in AlertKind::ALL {
            for status in [AlertStatus::Open, AlertStatus::Acknowledged] {
                self.alerts.with_label_values(&[kind.name(), kind.severity().name(), status.name()]).set(0);
            }
        }
        for Count { what, label, label2, n, oldest } in counts {
            match what.as_str() {
                "orders" => self.orders.with_label_values(&[label]).set(*n),
                "queue" => {
                    self.queue.with_label_values(&[label]).set(*n);
                    let age = oldest.map_or(Span::ZERO, |oldest| now.since(Time::from_millis(oldest)));
                    self.queue_age.with_label_values(&[label]).set(age.to_std().as_secs_f64());
                }
                "alerts" => self.alerts.with_label_values(&[label.as_str(), severity_of(label), label2]).set(*n),
                "unmatched" => self.unmatched.with_label_values(&[label]).set(*n),
                "unsettled" => self.unsettled.with_label_values(&[label]).set(*n),
                "events" => self.event.with_label_values(NONE).set(*n),
                _ => {}
            }
        }
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

/// The labels of what has none.
const NONE: &[&str] = &[];

/// What is not known has no line.
fn set_some(gauge: &IntGaugeVec, labels: &[&str], value: Option<u64>) {
    if let Some(value) = value {
        gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("tidegate")
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    sound(IntCounterVec::new(opts(name, help), labels))
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
