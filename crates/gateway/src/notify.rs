//! Delivers webhooks: takes what is due from the outbox, signs it, sends it, notes the outcome.
//!
//! At least once, with the same id in every try (I10). A receiver is an origin; each has a few
//! places of its own, so one that is slow or dead delays nobody else. When a try is due is decided
//! in `rules::notify`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::json;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::changes::{Changes, DeliveryChange, DeliveryState};
use tidegate_rules::id::{DeliveryId, EndpointId, EventId, Subject};
use tidegate_rules::notify::{next_try, secret_bytes, signature, test_body};
use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::outcome;
use crate::signals::heard;
use crate::store::{Busy, DueDelivery, EndpointRow, Queue, REMOVED, StoreError};

/// How long a receiver may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Deliveries under way at once to one receiver.
const PER_ORIGIN_MAX: usize = 8;

/// Deliveries under way at once to all receivers.
const AT_ONCE_MAX: usize = 512;

/// How much of the body of an answer is kept.
const ANSWER_BYTES_MAX: usize = 1_024;

/// Due deliveries read at once.
const READ_MAX: i64 = 256;

/// How long the database may take to say what is due.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// How long to wait at most before looking again without a signal.
const LOOK_AGAIN: Span = Span::from_secs(5);

/// How long after a look that found nothing to start a signal is heeded. Most events are sent to nobody,
/// and a shop that makes many orders must not have the outbox read for each.
const QUIET: Duration = Duration::from_millis(5);

/// Delivers until `stop` says so; what is under way then is finished or left to the next start.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let client = match client(gateway.config.webhooks.allow_private_targets) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "webhooks cannot be sent");
            return;
        }
    };
    let mut signals = gateway.listen();
    let mut under_way = UnderWay::default();
    loop {
        let (started, pause) = match start_due(&gateway, &client, &mut under_way).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(%error, "due webhooks could not be read");
                (0, LOOK_AGAIN)
            }
        };
        let signal = async {
            if started == 0 {
                tokio::time::sleep(QUIET).await;
            }
            heard(&mut signals, |wake| *wake == Wake::Delivery).await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause.to_std()) => {}
            () = signal => {}
            Some(ended) = under_way.tasks.join_next(), if !under_way.tasks.is_empty() => under_way.ended(ended.ok()),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What a delivery takes up while it is under way.
struct Place {
    id: DeliveryId,
    subject: (Subject, Option<EndpointId>),
    origin: String,
}

impl Place {
    fn of(delivery: &DueDelivery) -> Self {
        Self { id: delivery.id, subject: (delivery.subject, delivery.endpoint), origin: delivery.origin.clone() }
    }
}

/// What is being delivered now.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<Place>,
    ids: HashSet<DeliveryId>,
    /// One at a time for an order and an endpoint, so that a receiver that answers hears of things in
    /// their order.
    subjects: HashSet<(Subject, Option<EndpointId>)>,
    per_origin: HashMap<String, usize>,
}

impl UnderWay {
    /// What is left out of the reading. Else a receiver with much to be told, and nothing else, would
    /// fill all that is read for as long as it takes.
    fn busy(&self) -> Busy {
        let full = self.per_origin.iter().filter(|(_, count)| **count >= PER_ORIGIN_MAX);
        Busy { origins: full.map(|(origin, _)| origin.clone()).collect(), subjects: self.subjects.iter().copied().collect() }
    }

    fn ended(&mut self, place: Option<Place>) {
        let Some(Place { id, subject, origin }) = place else { return };
        self.ids.remove(&id);
        self.subjects.remove(&subject);
        if let Some(count) = self.per_origin.get_mut(&origin) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_origin.remove(&origin);
            }
        }
    }
}

/// Starts what is due and has a place: how many that were, and how long to wait for the next.
async fn start_due(gateway: &Arc<Gateway>, client: &reqwest::Client, under_way: &mut UnderWay) -> Result<(usize, Span), StoreError> {
    while let Some(ended) = under_way.tasks.try_join_next() {
        under_way.ended(ended.ok());
    }
    let now = clock::now();
    let room = AT_ONCE_MAX.saturating_sub(under_way.tasks.len());
    if room == 0 {
        return Ok((0, LOOK_AGAIN));
    }
    let due = in_time(gateway.store.due_deliveries(now, &under_way.busy(), READ_MAX)).await?;
    let there_is_more = i64::try_from(due.len()).is_ok_and(|count| count >= READ_MAX);
    let mut starting = Vec::new();
    for delivery in due {
        if starting.len() >= room {
            break;
        }
        let places = under_way.per_origin.get(&delivery.origin).copied().unwrap_or(0);
        let subject = (delivery.subject, delivery.endpoint);
        if places >= PER_ORIGIN_MAX || under_way.ids.contains(&delivery.id) || !under_way.subjects.insert(subject) {
            continue;
        }
        under_way.ids.insert(delivery.id);
        under_way.per_origin.insert(delivery.origin.clone(), places.saturating_add(1));
        starting.push(delivery);
    }
    // Another process may have been first with some of them.
    let ids: Vec<String> = starting.iter().map(|delivery| delivery.id.to_string()).collect();
    let claimed = in_time(gateway.store.claim(Queue::Deliveries, &ids, gateway.duties.holder())).await.inspect_err(|_| {
        starting.iter().for_each(|delivery| under_way.ended(Some(Place::of(delivery))));
    })?;
    let started = claimed.len();
    let look_at_once = there_is_more && started > 0;
    for delivery in starting {
        if !claimed.contains(&delivery.id.to_string()) {
            under_way.ended(Some(Place::of(&delivery)));
            continue;
        }
        let (gateway, client) = (Arc::clone(gateway), client.clone());
        under_way.tasks.spawn(async move {
            let place = Place::of(&delivery);
            // A bug in one try must not keep its place for ever; it is made again when its time has come.
            if AssertUnwindSafe(deliver(&gateway, &client, &delivery)).catch_unwind().await.is_err() {
                tracing::error!(event = delivery.event_id, "a webhook broke while it was sent");
            }
            place
        });
    }
    if look_at_once {
        return Ok((started, Span::ZERO));
    }
    let next = in_time(gateway.store.next_delivery_at()).await?;
    let until_next = next.map_or(LOOK_AGAIN, |next| next.since(now));
    // What is due now and not started waits for a place: a task that ends wakes us.
    Ok((started, if until_next == Span::ZERO { LOOK_AGAIN } else { until_next.min(LOOK_AGAIN) }))
}

/// A database whose machine was switched off in the middle of an answer says nothing for ever: whoever
/// asked gives up, and asks again.
async fn in_time<T>(asking: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(ASKED_MAX, asking).await.unwrap_or(Err(StoreError::Lost))
}

/// Makes one try and notes what came of it.
async fn deliver(gateway: &Gateway, client: &reqwest::Client, delivery: &DueDelivery) {
    let sent_at = clock::now();
    let span = tracing::debug_span!(target: crate::logging::SPANS, "webhook", "otel.kind" = "client", kind = delivery.kind, tries = delivery.tries);
    let outcome = send(gateway, client, delivery, sent_at).instrument(span).await;
    let at = clock::now();
    // A try that somebody asked for is beside the schedule.
    let tries = if delivery.before.is_some() { delivery.tries } else { delivery.tries.saturating_add(1) };
    let is_gone = matches!(&outcome, Err(Failure { then: Then::NeverAgain, .. }));
    let (code, error, answer) = told(outcome);
    let state = match (&error, delivery.before, next_try(delivery.event_at, tries, at)) {
        (None, ..) => DeliveryState::Delivered,
        (Some(_), Some(DeliveryState::Delivered), _) if is_gone => DeliveryState::Delivered,
        (Some(_), ..) if is_gone => DeliveryState::Failed,
        (Some(_), Some(before), _) => before,
        (Some(_), None, Some(due)) => DeliveryState::Due(due),
        (Some(_), None, None) => DeliveryState::Failed,
    };
    match &error {
        None => tracing::info!(event = delivery.event_id, kind = delivery.kind, origin = delivery.origin, tries, "webhook delivered"),
        Some(reason) => tracing::warn!(
            event = delivery.event_id,
            kind = delivery.kind,
            origin = delivery.origin,
            tries,
            "webhook not accepted: {reason}"
        ),
    }
    let (url, took) = (delivery.url.clone(), at.since(sent_at));
    let change = DeliveryChange { id: delivery.id, claim: gateway.duties.claim(), tries, state, code, error, at, url, took, answer };
    let mut changes = Changes { deliveries: vec![change], ..Changes::default() };
    if state == DeliveryState::Failed && delivery.before.is_none() && !is_gone {
        let detail = format!("{} was not accepted by {} in {tries} tries over 24 hours", delivery.kind, delivery.origin);
        // An alert for each receiver that missed it.
        let about = delivery.endpoint.map_or_else(|| delivery.event_id.clone(), |endpoint| format!("{} {endpoint}", delivery.event_id));
        changes.alerts.push(Gateway::alert(AlertKind::WebhookFailed, about, detail, at));
    }
    outcome::note(&gateway.store, &changes, &delivery.event_id).await;
}

/// What a receiver answered.
struct Answered {
    code: u16,
    /// The beginning of the body, without what a terminal or a database would choke on.
    body: String,
}

/// Why a try failed.
struct Failure {
    answer: Option<Answered>,
    reason: String,
    then: Then,
}

/// What follows a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The next one, by the schedule.
    BySchedule,
    /// Nothing: there is nobody to send it to.
    NeverAgain,
}

impl Failure {
    fn because(reason: impl Into<String>) -> Self {
        Self { answer: None, reason: reason.into(), then: Then::BySchedule }
    }
}

/// What came of a try, as it is noted: the status code, why it failed, and the beginning of the body.
fn told(outcome: Result<Answered, Failure>) -> (Option<u16>, Option<String>, Option<String>) {
    match outcome {
        Ok(answer) => (Some(answer.code), None, Some(answer.body)),
        Err(Failure { answer, reason, .. }) => {
            let (code, body) = answer.map_or((None, None), |answer| (Some(answer.code), Some(answer.body)));
            (code, Some(reason), body)
        }
    }
}

/// What is sent: where to, under which id, and the body.
struct Letter<'a> {
    url: &'a str,
    id: &'a str,
    body: &'a str,
}

/// Signs and sends; the answer, if it accepts.
async fn send(gateway: &Gateway, client: &reqwest::Client, delivery: &DueDelivery, at: Time) -> Result<Answered, Failure> {
    let secrets = signing_secrets(gateway, delivery, at).await?;
    let letter = Letter { url: &delivery.url, id: &delivery.event_id, body: &delivery.body };
    post(gateway, client, &letter, &secrets, at).await
}

/// What signs a delivery: the secrets of its endpoint, or those of the merchant.
async fn signing_secrets(gateway: &Gateway, delivery: &DueDelivery, at: Time) -> Result<Vec<Zeroizing<Vec<u8>>>, Failure> {
    let unread = |error: StoreError| Failure::because(error.to_string());
    let Some(id) = delivery.endpoint else {
        let merchant = gateway.merchant(delivery.merchant).await.map_err(unread)?;
        return gateway.signing_secrets(&merchant, at).map_err(Failure::because);
    };
    // What tells of its own removal happened at that moment, and is still its.
    let is_its = |removed_at: Option<Time>| removed_at.is_none_or(|removed_at| removed_at <= delivery.event_at);
    let endpoint = gateway.store.endpoint(id).await.map_err(unread)?.filter(|row| is_its(row.removed_at));
    let endpoint = endpoint.ok_or_else(|| Failure { then: Then::NeverAgain, ..Failure::because(REMOVED) })?;
    gateway.endpoint_secrets(&endpoint, at).map_err(Failure::because)
}

async fn post(
    gateway: &Gateway,
    client: &reqwest::Client,
    letter: &Letter<'_>,
    secrets: &[Zeroizing<Vec<u8>>],
    at: Time,
) -> Result<Answered, Failure> {
    let url = reqwest::Url::parse(letter.url).map_err(|_| Failure::because("the address is not a URL"))?;
    if !gateway.config.webhooks.allow_private_targets && literal_ip(&url).is_some_and(|ip| !is_public(ip)) {
        return Err(Failure::because(PRIVATE_TARGET));
    }
    let mut signatures = Vec::new();
    for secret in secrets {
        let text = std::str::from_utf8(secret).unwrap_or_default();
        let secret = secret_bytes(text).ok_or_else(|| Failure::because("the webhook secret is damaged"))?;
        signatures.push(signature(&secret, letter.id, at.secs(), letter.body.as_bytes()));
    }
    let answer = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", letter.id)
        .header("webhook-timestamp", at.secs().to_string())
        .header("webhook-signature", signatures.join(" "))
        .body(letter.body.to_owned())
        .send()
        .await
        .map_err(|error| Failure::because(reason(&error)))?;
    let status = answer.status();
    let answered = Answered { code: status.as_u16(), body: beginning(answer).await };
    if status.is_success() {
        return Ok(answered);
    }
    Err(Failure { answer: Some(answered), ..Failure::because(format!("the receiver answered {status}")) })
}

/// What came of a webhook that was sent to see what an endpoint answers.
pub struct Trial {
    /// The `webhook-id` that it had.
    pub id: EventId,
    /// When it was sent.
    pub at: Time,
    /// How long the answer took.
    pub took: Span,
    /// The status code of the answer, if one came.
    pub code: Option<u16>,
    /// Why it was not accepted, if it was not.
    pub error: Option<String>,
    /// The beginning of the body that came back.
    pub answer: Option<String>,
}

/// Sends an endpoint a webhook of no consequence, once, and waits for its answer. It is signed, limited
/// and sent as all are, whether the endpoint is enabled or not; nothing of it is stored.
pub async fn try_endpoint(gateway: &Gateway, endpoint: &EndpointRow) -> Trial {
    let at = clock::now();
    let id = EventId::new(at, clock::id_bytes());
    let data = json!({ "endpoint_id": endpoint.id, "merchant_id": endpoint.merchant });
    let body = serde_json::to_string(&test_body(at, &data)).unwrap_or_default();
    let sent = async {
        let client = client(gateway.config.webhooks.allow_private_targets).map_err(|error| Failure::because(error.to_string()))?;
        let secrets = gateway.endpoint_secrets(endpoint, at).map_err(Failure::because)?;
        post(gateway, &client, &Letter { url: &endpoint.terms.url, id: &id.to_string(), body: &body }, &secrets, at).await
    };
    let (code, error, answer) = told(sent.await);
    Trial { id, at, took: clock::now().since(at), code, error, answer }
}

/// The beginning of a body. What it says decides nothing, so one that breaks off is as good.
async fn beginning(mut answer: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        bytes.extend(part.into_iter().take(ANSWER_BYTES_MAX.saturating_sub(bytes.len())));
        if bytes.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    let is_plain = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    String::from_utf8_lossy(&bytes).chars().map(|letter| if is_plain(&letter) { letter } else { '\u{fffd}' }).collect()
}

/// The innermost cause of a failed request, without its URL, which may hold a secret.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", ANSWER_MAX.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause, std::ptr::from_ref(error).cast::<reqwest::Error>()) {
        "the request failed".to_owned()
    } else {
        cause.to_string()
    }
}

const PRIVATE_TARGET: &str = "the address is private, loopback or link-local; webhooks.allow_private_targets allows such receivers";

/// A client that follows no redirects, uses no proxy of the environment, and connects to public
/// addresses only unless told otherwise. Names are checked where they are resolved, so a name that
/// changes its mind between check and use gains nothing.
#[allow(clippy::disallowed_methods, reason = "webhooks have their own client with its own limits")]
fn client(allow_private: bool) -> Result<reqwest::Client, reqwest::Error> {
    // Says so if another provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .timeout(ANSWER_MAX)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    if allow_private { builder.build() } else { builder.dns_resolver(Arc::new(PublicOnly)).build() }
}

/// The address a URL names without a name to resolve.
fn literal_ip(url: &reqwest::Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|address| is_public(address.ip())).collect();
            if found.is_empty() {
                return Err(PRIVATE_TARGET.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// True for an address on the public internet (the registries of RFC 6890, and what embeds others).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b == 18 || b == 19));
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_documentation() || shared || reserved)
        }
        IpAddr::V6(ip) => {
            if let Some(embedded) = ip.to_ipv4() {
                return is_public(IpAddr::V4(embedded));
            }
            let [first, second, ..] = ip.segments();
            let unique_local = first & 0xfe00 == 0xfc00;
            let link_local = first & 0xffc0 == 0xfe80;
            // 6to4, NAT64 and Teredo embed IPv4 addresses; documentation is nobody's.
            let embeds = first == 0x2002 || (first == 0x0064 && second == 0xff9b) || (first == 0x2001 && second == 0);
            let documentation = first == 0x2001 && second == 0x0db8;
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || unique_local || link_local || embeds || documentation)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let table = "
            8.8.8.8             public
            1.1.1.1             public
            2606:4700::1111     public
            127.0.0.1           private
            10.1.2.3            private
            172.16.0.1          private
            192.168.1.1         private
            169.254.169.254     private
            100.64.0.1          private
            0.0.0.0             private
            255.255.255.255     private
            224.0.0.1           private
            198.18.0.1          private
            ::1                 private
            ::                  private
            fe80::1             private
            fd00::1             private
            ::ffff:127.0.0.1    private
            ::ffff:10.0.0.1     private
            64:ff9b::7f00:1     private
            2002:7f00:1::       private";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (ip, expected) = line.split_once(' ').unwrap();
            let found = if is_public(ip.parse().unwrap()) { "public" } else { "private" };
            assert_eq!(found, expected.trim(), "{ip}");
        }
    }
}
