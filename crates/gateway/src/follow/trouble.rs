//! How well a network's endpoints and its finality do, and what that means for money: the floor that
//! rises while they are in trouble, and the second witness that large amounts need.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Block, BlockRef, Network, Transfer, TransferKey};
use tidegate_rules::changes::{Changes, NewAlert};
use tidegate_rules::follow;
use tidegate_rules::id::{AlertId, EventId};
use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Follower, Trouble, cursor};
use crate::clock;
use crate::gateway::{Gateway, NetworkHealth, NetworkPart, Wake};
use crate::store::{Commit, NetworkRow, StoreError};

/// How often the endpoints are asked for the same block.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// How far below the tip: young blocks are told differently for a moment on every chain.
const COMPARE_BELOW_TIP: u64 = 3;

/// How often in a row they must differ to be in trouble.
const DIFFER_MAX: u32 = 2;

/// How many endpoints must show the block of a large amount.
const WITNESSES_MIN: usize = 2;

impl Follower {
    /// Looks at finality and at the other endpoints, and raises or lowers the network's floor.
    pub(super) async fn look_around(&mut self, row: &mut NetworkRow) -> Result<(), Trouble> {
        self.compare_endpoints(row).await;
        let Some(tip) = row.recent.last() else { return Ok(()) };
        let trouble = follow::Trouble {
            final_lag: self.final_shown.map(|shown| tip.time.since(shown.time)),
            heads_differ: self.differed >= DIFFER_MAX,
        };
        let floor = follow::floor(row.floor, trouble, self.part.config.final_lag_max);
        if floor == row.floor {
            return Ok(());
        }
        let alerts = if floor.is_some() { vec![self.floor_alert(trouble)] } else { Vec::new() };
        tracing::warn!(network = %row.name, ?floor, ?trouble, "how deep money must be buried has changed");
        row.floor = floor;
        let changes = Changes { cursor: Some(cursor(row, None, Vec::new(), None)), alerts, ..Changes::default() };
        if self.commit(changes).await? == Commit::Conflict {
            return Err(StoreError::Lost.into());
        }
        row.version = row.version.saturating_add(1);
        self.publish(row);
        Ok(())
    }

    fn floor_alert(&self, trouble: follow::Trouble) -> NewAlert {
        let name = &self.part.config.name;
        let why = if trouble.heads_differ {
            "its endpoints show different blocks at one height".to_owned()
        } else {
            format!("its final head is {} s behind its newest block", trouble.final_lag.map_or(0, Span::secs))
        };
        let detail = format!("{name} is in trouble: {why}. Money there settles only once it is final, until this is over");
        Gateway::alert(AlertKind::NetworkInTrouble, name.as_str(), detail, clock::now())
    }

    /// Asks every endpoint for the same block now and then, where there are several.
    async fn compare_endpoints(&mut self, row: &NetworkRow) {
        let several = self.part.chain.endpoints().len() > 1;
        if !several || self.compared.is_some_and(|compared| compared.elapsed() < COMPARE_EVERY) {
            return;
        }
        self.compared = Some(Instant::now());
        let below = row.recent.len().checked_sub(usize::try_from(COMPARE_BELOW_TIP).unwrap_or(0).saturating_add(1));
        let Some(block) = below.and_then(|index| row.recent.get(index)) else { return };
        match self.part.chain.witnesses(block).await {
            Ok(witnesses) if witnesses.other.is_empty() => self.differed = 0,
            Ok(witnesses) => {
                self.differed = self.differed.saturating_add(1);
                let (same, other) = (witnesses.same.join(", "), witnesses.other.join(", "));
                tracing::warn!(network = %row.name, block = block.number, same, other, "endpoints show different blocks");
            }
            // Who does not answer says nothing against anybody.
            Err(error) => tracing::debug!(network = %row.name, %error, "the endpoints could not be compared"),
        }
    }

    /// True for an amount that the operator wants two endpoints to show.
    pub(super) fn needs_agreement(&self, value: Raw) -> bool {
        let amount = value.to_amount_saturating(self.part.config.decimals);
        self.part.config.agree_above.is_some_and(|above| amount > above)
    }

    /// Whether enough endpoints show a block that was read again; asked only where it matters. What
    /// waits for it is told once.
    pub(super) async fn is_agreed(&mut self, block: &BlockRef, again: &Block, changes: &mut Changes, now: Time) -> bool {
        let is_large = |transfer: &&Transfer| self.watched.contains(&transfer.to) && self.needs_agreement(transfer.value);
        let large: Vec<TransferKey> = again.transfers.iter().filter(is_large).map(|transfer| transfer.key).collect();
        if large.is_empty() {
            return true;
        }
        let why = match self.part.chain.witnesses(block).await {
            Ok(witnesses) if witnesses.other.is_empty() && witnesses.same.len() >= WITNESSES_MIN => return true,
            Ok(witnesses) => format!(
                "it is shown by {}, another one by {}, and {} did not say",
                names(&witnesses.same),
                names(&witnesses.other),
                names(&witnesses.silent)
            ),
            Err(error) => error.to_string(),
        };
        self.tell_of_disagreement(block, &large, &why, changes, now);
        false
    }

    /// Tells once of each of these large transfers of a block that its endpoints do not agree.
    pub(super) fn tell_of_disagreement(&mut self, block: &BlockRef, large: &[TransferKey], why: &str, changes: &mut Changes, now: Time) {
        for key in large {
            if self.differing.insert(*key) {
                let about = format!("{} {}/{}", self.part.config.name, key.tx_hash, key.ordinal);
                let detail = format!(
                    "block {} holds an amount above agree_above, and two endpoints have to show the same block before it settles: {why}",
                    block.number
                );
                changes.alerts.push(Gateway::alert(AlertKind::AgreementMissing, about, detail, now));
            }
        }
    }
}

fn names(list: &[String]) -> String {
    if list.is_empty() { "nobody".to_owned() } else { list.join(", ") }
}

/// How often the networks are looked at for the operator.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// A head this far ahead of our clock is worth a look.
pub const AHEAD_MAX: Span = Span::from_secs(15);

/// Tells the operator of networks that fall behind, of heads ahead of the clock, and of endpoints
/// that were left for others, until `stop` says so.
pub async fn watch(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut switches: HashMap<Network, u64> = HashMap::new();
    let mut was_so: Vec<(AlertKind, String)> = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let now = clock::now();
        let mut alerts = Vec::new();
        for (name, part) in gateway.networks() {
            alerts.extend(behind(part, now));
            alerts.extend(ahead(part, now));
            alerts.extend(left(part, switches.entry(name.clone()).or_default(), now));
        }
        // Each is raised again for as long as it is so; only the beginning is news, for the log too.
        let now_so: Vec<(AlertKind, String)> = alerts.iter().map(|alert| (alert.kind, alert.about.clone())).collect();
        for alert in alerts.iter().filter(|alert| !was_so.contains(&(alert.kind, alert.about.clone()))) {
            tracing::warn!(alert = alert.kind.name(), about = alert.about, "alert raised: {}", alert.detail);
        }
        was_so = now_so;
        if alerts.is_empty() {
            continue;
        }
        match gateway.store.commit(Changes { alerts, ..Changes::default() }).await {
            Ok(_) => gateway.signal(Wake::Delivery),
            Err(error) => tracing::warn!(%error, "an alert could not be stored"),
        }
    }
}

/// The network is so far behind that it takes no new order.
fn behind(part: &NetworkPart, now: Time) -> Option<NewAlert> {
    if part.health(now) != NetworkHealth::Lagging {
        return None;
    }
    let (name, tip) = (&part.config.name, part.state().head?.tip);
    let best = part.chain.endpoints().iter().filter_map(|endpoint| endpoint.head).map(|head| head.number).max().unwrap_or(0);
    let blocks = best.saturating_sub(tip.number);
    let detail = if blocks > 0 {
        format!("{} is {blocks} blocks behind since {}", part.config.display_name, tip.time)
    } else {
        format!(
            "{} shows no block after {}, of {}: the chain or every endpoint stands still",
            part.config.display_name, tip.number, tip.time
        )
    };
    Some(raise(AlertKind::NetworkBehind, name.as_str(), detail, now))
}

fn ahead(part: &NetworkPart, now: Time) -> Option<NewAlert> {
    let newest = part.state().newest.filter(|newest| *newest > now.plus(AHEAD_MAX))?;
    let detail = format!(
        "the newest block of {} is {} s ahead of this machine's clock: set the clock, or distrust the endpoint",
        part.config.name,
        newest.since(now).secs()
    );
    Some(raise(AlertKind::HeadAhead, part.config.name.as_str(), detail, now))
}

/// Changes of the endpoint in use since the last look.
fn left(part: &NetworkPart, seen: &mut u64, now: Time) -> Vec<NewAlert> {
    let pool = part.chain.pool();
    let new = usize::try_from(pool.switches_total.saturating_sub(*seen)).unwrap_or(usize::MAX);
    *seen = pool.switches_total;
    let name = &part.config.name;
    let alert = |switch: &tidegate_chain::Switch| {
        let since = now.minus(Span::from_millis(u64::try_from(switch.age.as_millis()).unwrap_or(0)));
        let detail = format!("{name} is read from {} instead of {} since {since}: {}", switch.to, switch.from, switch.reason);
        raise(AlertKind::EndpointLeft, &format!("{name} {}", switch.from), detail, now)
    };
    pool.switches.iter().take(new).map(alert).collect()
}

/// An alert that may be raised again and again.
fn raise(kind: AlertKind, about: &str, detail: String, at: Time) -> NewAlert {
    NewAlert {
        id: AlertId::new(at, clock::id_bytes()),
        event: EventId::new(at, clock::id_bytes()),
        kind,
        about: about.to_owned(),
        detail,
        at,
    }
}
