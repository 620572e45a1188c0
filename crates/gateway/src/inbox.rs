//! The inbox: what payment providers said. A message that is signed is kept, once, and answered; what
//! it names is looked at from the queue afterwards.
//!
//! It never credits anything and changes no order. A transaction that it names goes to
//! [`crate::hints`], which reads it from our own endpoints; an order that it names makes the
//! networks be looked at at once, as they would have been a little later anyway.

use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::block::Hash;
use tidegate_rules::id::{InboxId, OrderId};
use tidegate_rules::time::Time;
use tokio::sync::watch;

use crate::clock;
use crate::config::PaymentWebhook;
use crate::gateway::{Gateway, Wake};
use crate::providers::Verified;
use crate::signals::heard;
use crate::store::{InboxRow, NewInbox, Outcome, Queue, StoreError};

/// How much of a message is kept, in bytes.
pub const BODY_KEPT_MAX: usize = 16 * 1024;

/// Messages handled in one round.
const ROUND_MAX: i64 = 64;

/// How long to wait at most before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Keeps a verified message; false when it was kept before.
///
/// # Errors
/// When the store does not answer: then the sender tries again.
pub async fn take(gateway: &Gateway, door: &PaymentWebhook, verified: Verified, body: &[u8], now: Time) -> Result<bool, StoreError> {
    let transaction = door.transaction.as_ref().and_then(|(network, pointer)| Some((network.clone(), pointer.find(body)?)));
    let new = NewInbox {
        id: InboxId::new(now, clock::id_bytes()),
        provider: door.name.clone(),
        message_id: verified.id,
        digest: verified.digest,
        transaction,
        order_ref: door.order.as_ref().and_then(|pointer| pointer.find(body)),
        body: kept(body),
        body_bytes: body.len(),
        received_at: now,
    };
    let taken = gateway.store.put_inbox(&new).await?;
    if taken {
        gateway.signal(Wake::Inbox);
    }
    Ok(taken)
}

/// The body as text, cut, without the NUL that PostgreSQL's text does not hold.
fn kept(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).replace('\0', "\u{fffd}");
    let end = text.floor_char_boundary(BODY_KEPT_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Handles what waits, until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut signals = gateway.listen();
    loop {
        if let Err(error) = handle_waiting(&gateway).await {
            tracing::warn!(%error, "messages of payment providers could not be handled");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = heard(&mut signals, |wake| *wake == Wake::Inbox) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn handle_waiting(gateway: &Gateway) -> Result<(), StoreError> {
    loop {
        let waiting = gateway.store.waiting_inbox(ROUND_MAX).await?;
        let mut handled: usize = 0;
        for row in &waiting {
            // Another process may handle it.
            if gateway.store.claim(Queue::Inbox, &[row.id.to_string()], gateway.duties.holder()).await?.is_empty() {
                continue;
            }
            handled = handled.saturating_add(1);
            let (outcome, order) = handle(gateway, row).await?;
            gateway.store.handled_inbox(row.id, outcome, order, clock::now()).await?;
            tracing::info!(
                provider = row.provider,
                message = row.message_id,
                outcome = outcome.name(),
                "a payment provider said something"
            );
        }
        if handled == 0 || i64::try_from(waiting.len()).is_ok_and(|count| count < ROUND_MAX) {
            return Ok(());
        }
    }
}

/// Looks at what a message names. Done twice, it does no more than once.
async fn handle(gateway: &Gateway, row: &InboxRow) -> Result<(Outcome, Option<OrderId>), StoreError> {
    let mut looks = false;
    if let Some((network, named)) = &row.transaction
        && gateway.networks().contains_key(network)
        && let Ok(hash) = named.to_ascii_lowercase().parse::<Hash>()
    {
        gateway.store.put_hints(network, &format!("inbox:{}", row.id), &[hash], clock::now()).await?;
        looks = true;
    }
    let order = match &row.order_ref {
        Some(named) => order_named(gateway, named).await?,
        None => None,
    };
    if looks || order.is_some() {
        gateway.signal(Wake::Look);
        return Ok((Outcome::Looked, order));
    }
    let names_nothing = row.transaction.is_none() && row.order_ref.is_none();
    Ok((if names_nothing { Outcome::Kept } else { Outcome::Unknown }, None))
}

/// The order with this id, or with this number in one of the shops.
async fn order_named(gateway: &Gateway, named: &str) -> Result<Option<OrderId>, StoreError> {
    if let Ok(id) = named.parse::<OrderId>() {
        return Ok(gateway.store.order(id).await?.map(|row| row.id));
    }
    for merchant in gateway.store.merchants().await? {
        if let Some(row) = gateway.store.order_by_merchant_id(merchant.id, named).await? {
            return Ok(Some(row.id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_body_is_text_and_short() {
        let euros = "€".repeat(BODY_KEPT_MAX);
        for (body, expected) in [(&b"{\"a\":1}"[..], "{\"a\":1}"), (b"", ""), (b"a\0b\xff", "a\u{fffd}b\u{fffd}")] {
            assert_eq!(kept(body), expected);
        }
        let cut = kept(euros.as_bytes());
        assert!(cut.len() <= BODY_KEPT_MAX && cut.len() > BODY_KEPT_MAX - 3 && euros.starts_with(&cut));
    }
}
