//! What messages to the operator and to customers ask the store: the events to tell, the queue, the
//! texts that people wrote. How the queue changes is carried out here too, inside a commit.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tidegate_rules::amount::Amount;
use tidegate_rules::changes::{NewNotice, NoticeChange, NoticeState, TemplateChange, Told, ToldMark};
use tidegate_rules::id::{EventId, NoticeId};
use tidegate_rules::notification::{Channel, Language, NoticeStatus, Topic};
use tidegate_rules::time::Time;

use super::apply::{Applied, one, write_rows};
use super::instances::claim_text;
use super::read::{Arg, Where};
use super::rows::{Found, amount, named, number, parse, small, time, time_some};
use super::{Commit, Store};

/// Orders whose amounts are read at once for a digest.
const DIGEST_STEP: i64 = 500;

/// An event, as it may be told.
#[derive(Clone, Debug)]
pub struct TellingRow {
    /// Its place in the order of commits.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// What happened.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// When.
    pub at: Time,
    /// The body of its webhook.
    pub body: String,
}

/// A message in the queue, or one that has left it.
#[derive(Clone, Debug)]
pub struct NoticeRow {
    /// Its id.
    pub id: NoticeId,
    /// What it is about.
    pub topic: Topic,
    /// The event that it tells.
    pub event: Option<String>,
    /// The order that it is about.
    pub order: Option<String>,
    /// How it travels.
    pub channel: Channel,
    /// To whom.
    pub recipient: String,
    /// In which language.
    pub language: Language,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// What became of it.
    pub status: NoticeStatus,
    /// Tries made.
    pub tries: u32,
    /// When it was made.
    pub created_at: Time,
    /// When it is to be tried next.
    pub due_at: Time,
    /// When it was tried last.
    pub last_tried_at: Option<Time>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct NoticeFilter {
    /// With this status.
    pub status: Option<NoticeStatus>,
    /// On this channel.
    pub channel: Option<Channel>,
    /// About this topic.
    pub topic: Option<Topic>,
    /// About this order.
    pub order: Option<String>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

/// A text that a person wrote.
#[derive(Clone, Debug)]
pub struct TemplateRow {
    /// Of this topic.
    pub topic: Topic,
    /// On this channel.
    pub channel: Channel,
    /// In this language.
    pub language: Language,
    /// The subject.
    pub subject: String,
    /// The text.
    pub body: String,
    /// Since when.
    pub changed_at: Time,
}

/// How many events of a kind there were.
pub type EventCount = (String, u64);

fn notice(row: &AnyRow) -> Found<NoticeRow> {
    Ok(NoticeRow {
        id: parse(row, "id")?,
        topic: named(row, "topic", Topic::from_name)?,
        event: row.try_get("event_id")?,
        order: row.try_get("order_id")?,
        channel: named(row, "channel", Channel::from_name)?,
        recipient: row.try_get("recipient")?,
        language: named(row, "language", Language::from_name)?,
        subject: row.try_get("subject")?,
        body: row.try_get("body")?,
        status: named(row, "status", NoticeStatus::from_name)?,
        tries: small(row, "tries")?,
        created_at: time(row, "created_at")?,
        due_at: time(row, "due_at")?,
        last_tried_at: time_some(row, "last_tried_at")?,
        last_error: row.try_get("last_error")?,
    })
}

fn template(row: &AnyRow) -> Found<TemplateRow> {
    Ok(TemplateRow {
        topic: named(row, "topic", Topic::from_name)?,
        channel: named(row, "channel", Channel::from_name)?,
        language: named(row, "language", Language::from_name)?,
        subject: row.try_get("subject")?,
        body: row.try_get("body")?,
        changed_at: time(row, "changed_at")?,
    })
}

fn telling(row: &AnyRow) -> Found<TellingRow> {
    Ok(TellingRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        subject: row.try_get("subject_id")?,
        at: time(row, "at")?,
        body: row.try_get("body")?,
    })
}

/// The first id that an event of this time can have.
fn first_id(at: Time) -> String {
    EventId::new(at, [0; 10]).to_string()
}

impl Store {
    /// Where is the making of messages? `None` before the first step.
    pub async fn told_mark(&self) -> Found<Option<ToldMark>> {
        let row = sqlx::query("SELECT seq, digest_until FROM notice_mark WHERE id = 1").fetch_optional(&self.readers).await?;
        row.map(|row| Ok(ToldMark { seq: row.try_get("seq")?, digest_until: time(&row, "digest_until")? })).transpose()
    }

    /// Which events come after this one, in the order of commits? None that could still be followed by
    /// one with a smaller number.
    pub async fn events_to_tell(&self, after: i64, limit: i64) -> Found<Vec<TellingRow>> {
        let horizon = self.events_horizon(after).await?;
        let rows = sqlx::query("SELECT seq, id, kind, subject_id, at, body FROM events WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3")
            .bind(after)
            .bind(horizon)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(telling).collect()
    }

    /// How many events of each kind were there from one time until another?
    pub async fn count_events(&self, from: Time, to: Time) -> Found<Vec<EventCount>> {
        let rows = sqlx::query("SELECT kind, COUNT(*) AS count FROM events WHERE id >= $1 AND id < $2 GROUP BY kind ORDER BY kind")
            .bind(first_id(from))
            .bind(first_id(to))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok((row.try_get("kind")?, number(row, "count")?))).collect()
    }

    /// What has settled of the orders that were paid from one time until another? Added up here,
    /// where a sum that is too large is seen.
    pub async fn amount_paid(&self, from: Time, to: Time) -> Found<Amount> {
        let (mut after, end, mut sum) = (first_id(from), first_id(to), Amount::ZERO);
        loop {
            let rows = sqlx::query(
                "SELECT e.id, o.amount_confirmed FROM events e JOIN usdt_payment_orders o ON o.id = e.subject_id \
                 WHERE e.id > $1 AND e.id < $2 AND e.kind = 'order.paid' ORDER BY e.id LIMIT $3",
            )
            .bind(&after)
            .bind(&end)
            .bind(DIGEST_STEP)
            .fetch_all(&self.readers)
            .await?;
            let Some(last) = rows.last() else { return Ok(sum) };
            after = last.try_get("id")?;
            for row in &rows {
                sum = sum.checked_add(amount(row, "amount_confirmed")?).unwrap_or(Amount::MAX);
            }
        }
    }

    /// How many alerts are open?
    pub async fn count_open_alerts(&self) -> Found<u64> {
        number(&sqlx::query("SELECT COUNT(*) AS count FROM alerts WHERE status = 'open'").fetch_one(&self.readers).await?, "count")
    }

    /// Which messages are due on this channel, oldest first?
    pub async fn due_notices(&self, channel: Channel, now: Time, limit: i64) -> Found<Vec<NoticeRow>> {
        let rows = sqlx::query(
            "SELECT * FROM payment_notifications WHERE status = 'due' AND channel = $1 AND due_at <= $2 ORDER BY due_at, id LIMIT $3",
        )
        .bind(channel.name())
        .bind(now.millis())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(notice).collect()
    }

    /// When is the next message due on this channel?
    pub async fn next_notice_at(&self, channel: Channel) -> Found<Option<Time>> {
        let at: Option<i64> = sqlx::query_scalar("SELECT MIN(due_at) FROM payment_notifications WHERE status = 'due' AND channel = $1")
            .bind(channel.name())
            .fetch_one(&self.readers)
            .await?;
        Ok(at.map(Time::from_millis))
    }

    /// A page of messages, newest first.
    pub async fn notices(&self, filter: NoticeFilter, limit: i64) -> Found<Vec<NoticeRow>> {
        let mut query = Where::new("SELECT * FROM payment_notifications");
        query.and("status = ?", filter.status.map(|status| Arg::Text(status.name().into())));
        query.and("channel = ?", filter.channel.map(|channel| Arg::Text(channel.name().into())));
        query.and("topic = ?", filter.topic.map(|topic| Arg::Text(topic.name().into())));
        query.and("order_id = ?", filter.order.map(Arg::Text));
        query.and("id < ?", filter.before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(notice).collect()
    }

    /// Which message is this?
    pub async fn notice(&self, id: NoticeId) -> Found<Option<NoticeRow>> {
        let row =
            sqlx::query("SELECT * FROM payment_notifications WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(notice).transpose()
    }

    /// Which texts did people write?
    pub async fn templates(&self) -> Found<Vec<TemplateRow>> {
        let rows = sqlx::query("SELECT * FROM notice_templates ORDER BY topic, channel, language").fetch_all(&self.readers).await?;
        rows.iter().map(template).collect()
    }
}

pub(super) async fn move_mark(db: &mut AnyConnection, step: &Told) -> Applied {
    let moved = match step.from {
        None => {
            sqlx::query("INSERT INTO notice_mark (id, seq, digest_until) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING")
                .bind(step.to.seq)
                .bind(step.to.digest_until.millis())
                .execute(db)
                .await?
        }
        Some(from) => {
            sqlx::query("UPDATE notice_mark SET seq = $1, digest_until = $2 WHERE id = 1 AND seq = $3 AND digest_until = $4")
                .bind(step.to.seq)
                .bind(step.to.digest_until.millis())
                .bind(from.seq)
                .bind(from.digest_until.millis())
                .execute(db)
                .await?
        }
    };
    Ok(one(&moved))
}

pub(super) async fn insert_notices(db: &mut AnyConnection, notices: &[&NewNotice]) -> Result<(), sqlx::Error> {
    write_rows(
        db,
        notices,
        "(?,?,?,?,?,?,?,?,?,'due',0,?,?)",
        |rows| {
            format!(
                "INSERT INTO payment_notifications (id, topic, event_id, order_id, channel, recipient, language, subject, body, status, tries, \
                 created_at, due_at) VALUES {rows}"
            )
        },
        |statement, notice| {
            statement
                .bind(notice.id.to_string())
                .bind(notice.topic.name())
                .bind(notice.event.clone())
                .bind(notice.order.clone())
                .bind(notice.channel.name())
                .bind(notice.recipient.clone())
                .bind(notice.language.name())
                .bind(notice.subject.clone())
                .bind(notice.body.clone())
                .bind(notice.at.millis())
                .bind(notice.at.millis())
        },
    )
    .await?;
    Ok(())
}

pub(super) async fn change_notice(db: &mut AnyConnection, change: &NoticeChange) -> Applied {
    let (status, due_at) = match change.state {
        NoticeState::Sent => (NoticeStatus::Sent, None),
        NoticeState::Due(at) => (NoticeStatus::Due, Some(at.millis())),
        NoticeState::Failed => (NoticeStatus::Failed, None),
        NoticeState::Again => {
            let changed =
                sqlx::query("UPDATE payment_notifications SET status = 'due', tries = 0, due_at = $1 WHERE id = $2 AND status <> 'sent'")
                    .bind(change.at.millis())
                    .bind(change.id.to_string())
                    .execute(db)
                    .await?;
            return Ok(one(&changed));
        }
    };
    sqlx::query(
        "UPDATE payment_notifications SET status = $1, tries = $2, due_at = COALESCE($3, due_at), last_error = $4, last_tried_at = $5, \
         claimed_by = NULL, claimed_until = NULL WHERE id = $6 AND COALESCE(claimed_by, '') = $7",
    )
    .bind(status.name())
    .bind(i64::from(change.tries))
    .bind(due_at)
    .bind(change.error.as_deref())
    .bind(change.at.millis())
    .bind(change.id.to_string())
    .bind(claim_text(change.claim.as_deref()))
    .execute(db)
    .await?;
    Ok(Commit::Done)
}

pub(super) async fn change_template(db: &mut AnyConnection, change: &TemplateChange) -> Result<(), sqlx::Error> {
    let Some((subject, body)) = &change.text else {
        sqlx::query("DELETE FROM notice_templates WHERE topic = $1 AND channel = $2 AND language = $3")
            .bind(change.topic.name())
            .bind(change.channel.name())
            .bind(change.language.name())
            .execute(db)
            .await?;
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO notice_templates (topic, channel, language, subject, body, changed_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (topic, channel, language) DO UPDATE SET subject = excluded.subject, body = excluded.body, changed_at = excluded.changed_at",
    )
    .bind(change.topic.name())
    .bind(change.channel.name())
    .bind(change.language.name())
    .bind(subject.as_str())
    .bind(body.as_str())
    .bind(change.at.millis())
    .execute(db)
    .await?;
    Ok(())
}
