//! Sends what is due on one channel, one message after the other, and notes what came of it. When a
//! message is tried again is decided in `rules::notification`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::alert::AlertKind;
use tidegate_rules::changes::{Changes, NoticeChange, NoticeState};
use tidegate_rules::notification::{Audience, Channel, NEWS_MAX, next_try};
use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;

use super::outlets::{Failure, Hope, Letter};
use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::outcome;
use crate::signals::heard;
use crate::store::{NoticeRow, Queue, StoreError};

/// Due messages read at once.
const READ_MAX: i64 = 64;

/// How long to wait at most before looking again without a signal.
const LOOK_AGAIN: Span = Span::from_secs(5);

/// Sends what is due on a channel until `stop` says so; a message under way then is finished.
pub(super) async fn run(gateway: Arc<Gateway>, channel: Channel, mut stop: watch::Receiver<bool>) {
    let mut signals = gateway.listen();
    loop {
        let pause = match send_due(&gateway, channel, &mut stop).await {
            Ok(Some(pause)) => pause,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, channel = channel.name(), "due notifications could not be read");
                LOOK_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.to_std()) => {}
            () = heard(&mut signals, |wake| *wake == Wake::Notice) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Sends what is due, and says how long to wait for more; `None` once it is to stop.
async fn send_due(gateway: &Gateway, channel: Channel, stop: &mut watch::Receiver<bool>) -> Result<Option<Span>, StoreError> {
    loop {
        let due = gateway.store.due_notices(channel, clock::now(), READ_MAX).await?;
        if due.is_empty() {
            let next = gateway.store.next_notice_at(channel).await?;
            return Ok(Some(next.map_or(LOOK_AGAIN, |next| next.since(clock::now())).min(LOOK_AGAIN)));
        }
        let mut sent: usize = 0;
        for notice in due {
            let id = notice.id.to_string();
            // Another process may have been first.
            if gateway.store.claim(Queue::Notices, std::slice::from_ref(&id), gateway.duties.holder()).await?.is_empty() {
                continue;
            }
            sent = sent.saturating_add(1);
            if clock::now().since(notice.due_at) > NEWS_MAX {
                let failure = Failure { reason: "nobody could send it for a day".to_owned(), hope: Hope::Refused };
                note(gateway, &notice, Err(failure), clock::now(), stop).await;
                continue;
            }
            while let Err(wait) = gateway.outlets.take_place(channel) {
                tokio::select! {
                    () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                }
            }
            if *stop.borrow() {
                return Ok(None);
            }
            let letter = Letter { id: &id, to: &notice.recipient, subject: &notice.subject, body: &notice.body };
            let outcome = gateway.outlets.send(channel, letter).await;
            note(gateway, &notice, outcome, clock::now(), stop).await;
        }
        if sent == 0 {
            return Ok(Some(LOOK_AGAIN));
        }
    }
}

/// What becomes of a message after a failed try.
fn after(tries: u32, hope: Hope, now: Time) -> NoticeState {
    match (hope, next_try(tries, now)) {
        (Hope::Refused, _) | (_, None) => NoticeState::Failed,
        (Hope::Later, Some(due)) => NoticeState::Due(due),
        (Hope::NotBefore(pause), Some(due)) => NoticeState::Due(due.max(now.plus(pause))),
    }
}

/// Notes what came of a try.
async fn note(gateway: &Gateway, notice: &NoticeRow, outcome: Result<(), Failure>, at: Time, stop: &mut watch::Receiver<bool>) {
    let tries = notice.tries.saturating_add(1);
    let (id, channel, topic) = (notice.id.to_string(), notice.channel.name(), notice.topic.name());
    let (state, error) = match outcome {
        Ok(()) => {
            tracing::info!(notification = id, channel, topic, tries, "notification sent");
            (NoticeState::Sent, None)
        }
        Err(Failure { reason, hope }) => {
            // What a mail server says repeats whom the message is for. It stands with the message.
            let order = notice.order.as_deref();
            tracing::warn!(
                notification = id,
                channel,
                topic,
                order,
                tries,
                ?hope,
                "notification not taken; the list of notifications says why"
            );
            (after(tries, hope, at), Some((reason, hope)))
        }
    };
    let mut changes = Changes::default();
    // A customer who gave a wrong address is nothing to wake an operator for.
    let own = error.as_ref().filter(|(_, hope)| *hope != Hope::Refused || notice.topic.audience() == Audience::Operator);
    if let Some((reason, _)) = own.filter(|_| state == NoticeState::Failed) {
        let detail = format!("a notification ({topic}) was not taken by {channel} in {tries} tries: {reason}");
        changes.alerts.push(Gateway::alert(AlertKind::NotificationFailed, channel, detail, at));
    }
    let error = error.map(|(reason, _)| reason);
    changes.notices.push(NoticeChange { id: notice.id, claim: gateway.duties.claim(), tries, state, error, at });
    tokio::select! {
        () = outcome::note(&gateway.store, &changes, &id) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_message_after_a_failed_try() {
        let now = Time::from_secs(1_000_000);
        let due = |seconds| NoticeState::Due(now.plus(Span::from_secs(seconds)));
        for (tries, hope, expected) in [
            (1, Hope::Later, due(60)),
            (5, Hope::Later, due(21_600)),
            (6, Hope::Later, NoticeState::Failed),
            (1, Hope::NotBefore(Span::from_secs(10)), due(60)),
            (1, Hope::NotBefore(Span::from_secs(90)), due(90)),
            (6, Hope::NotBefore(Span::from_secs(90)), NoticeState::Failed),
            (1, Hope::Refused, NoticeState::Failed),
        ] {
            assert_eq!(after(tries, hope, now), expected, "{tries} {hope:?}");
        }
    }
}
