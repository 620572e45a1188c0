//! Messages to the operator and to customers: by mail, Telegram and SMS.
//!
//! Events are read in the order of commits and made into messages; the mark of how far that went
//! moves in the commit that stores them, so nothing is lost and nothing told twice, whenever the
//! process ends. Each channel then sends what is due by itself: one that is slow or dead delays no
//! other. A message is sent at least once.

pub mod by_hand;
pub mod outlets;
mod send;
pub mod template;
mod texts;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::changes::{Changes, NewNotice, Told, ToldMark};
use tidegate_rules::id::NoticeId;
use tidegate_rules::notification::{About, Channel, Digest, Language, NEWS_MAX, Topic, digest_due};
use tidegate_rules::time::Time;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::template::{Template, Values};
use self::values::Period;
use crate::clock;
use crate::config::{Config, Notifications, mailbox, phone};
use crate::gateway::{Gateway, Wake};
use crate::signals::heard;
use crate::store::{Commit, Store, StoreError, TellingRow};

/// Events read at once.
const STEP: i64 = 256;

/// How long to wait at most before looking again without a signal.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Between two readings, however many signals there are.
const REST: Duration = Duration::from_millis(100);

/// Makes and sends messages until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, stop: watch::Receiver<bool>) {
    let channels = gateway.config.notifications.channels();
    if channels.is_empty() {
        return;
    }
    let mut loops = JoinSet::new();
    for channel in channels {
        loops.spawn(send::run(Arc::clone(&gateway), channel, stop.clone()));
    }
    loops.spawn(tell(gateway, stop));
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            // All of them are begun again: each goes on from the queue.
            tracing::error!(%error, "a loop of the notifications broke");
            return;
        }
    }
}

/// Makes messages of what happens.
async fn tell(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut signals = gateway.listen();
    loop {
        match tell_once(&gateway).await {
            Ok(Reading::More) if !*stop.borrow() => continue,
            Ok(Reading::More | Reading::All) => {}
            Err(error) => tracing::warn!(%error, "events could not be made into notifications"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = async { heard(&mut signals, |wake| matches!(wake, Wake::Delivery | Wake::Order(_))).await; tokio::time::sleep(REST).await } => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There may be.
    More,
    /// There was nothing more.
    All,
}

/// One step: some events, or a digest.
async fn tell_once(gateway: &Gateway) -> Result<Reading, StoreError> {
    let (store, config, now) = (&gateway.store, &gateway.config.notifications, clock::now());
    let Some(mark) = store.told_mark().await? else {
        // Nobody is told of what was before there was anybody to tell.
        let to = ToldMark { seq: store.events_horizon(0).await?, digest_until: now };
        let _ = store.commit(Changes { told: Some(Told { from: None, to }), ..Changes::default() }).await?;
        return Ok(Reading::More);
    };
    let events = store.events_to_tell(mark.seq, STEP).await?;
    let digest = digest_due(config.digest, mark.digest_until, now);
    let Some(seq) = events.last().map(|event| event.seq).or(digest.map(|_| mark.seq)) else { return Ok(Reading::All) };

    let desk = Desk { config, templates: Templates::read(store).await?, installation: installation(&gateway.config), now };
    let mut new_notices: Vec<NewNotice> = events.iter().flat_map(|event| desk.of_event(event)).collect();
    let mut to = ToldMark { seq, digest_until: mark.digest_until };
    if let Some((from, until)) = digest {
        let period = Period {
            from,
            to: until,
            counts: store.count_events(from, until).await?,
            paid: store.amount_paid(from, until).await?,
            alerts_open: store.count_open_alerts().await?,
        };
        new_notices.extend(desk.of_period(&period));
        to.digest_until = until;
    }
    if config.digest == Digest::Off {
        // Switched on one day, it begins about then.
        to.digest_until = now;
    }
    let made = !new_notices.is_empty();
    let changes = Changes { told: Some(Told { from: Some(mark), to }), new_notices, ..Changes::default() };
    if store.commit(changes).await? == Commit::Conflict {
        return Ok(Reading::More);
    }
    if made {
        gateway.signal(Wake::Notice);
    }
    Ok(if i64::try_from(events.len()).is_ok_and(|count| count < STEP) { Reading::All } else { Reading::More })
}

/// What people call this installation: the host that payers see.
#[must_use]
pub fn installation(config: &Config) -> String {
    let host = config.server.public_url.as_ref().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| config.server.listen.to_string())
}

/// The texts that people wrote, checked; the program's own for all the others.
pub struct Templates(HashMap<(Topic, Channel, Language), Template>);

impl Templates {
    /// Reads what people wrote.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut written = HashMap::new();
        for row in store.templates().await? {
            match Template::parse(row.topic, row.channel, &row.subject, &row.body) {
                Ok(template) => drop(written.insert((row.topic, row.channel, row.language), template)),
                // Checked when it was written: an older version knew other names, or somebody edited
                // the database.
                Err(wrong) => tracing::warn!(
                    topic = row.topic.name(),
                    channel = row.channel.name(),
                    language = row.language.name(),
                    "a stored template is not used: {}: {}",
                    wrong.part,
                    wrong.why
                ),
            }
        }
        Ok(Self(written))
    }

    /// The text of a topic on a channel.
    #[must_use]
    pub fn get(&self, topic: Topic, channel: Channel, language: Language) -> Template {
        self.0.get(&(topic, channel, language)).cloned().unwrap_or_else(|| {
            let (subject, body) = texts::brought(topic, channel, language);
            // A test reads every one of them.
            Template::parse(topic, channel, &subject, &body).unwrap_or_default()
        })
    }
}

/// What messages are made with.
struct Desk<'a> {
    config: &'a Notifications,
    templates: Templates,
    installation: String,
    now: Time,
}

/// What a message tells: the event and the order, where there are any.
#[derive(Clone, Copy, Default)]
struct Cause<'a> {
    event: Option<&'a str>,
    order: Option<&'a str>,
}

impl Desk<'_> {
    /// The messages that an event makes.
    fn of_event(&self, event: &TellingRow) -> Vec<NewNotice> {
        let Some(topic) = Topic::of_event(&event.kind) else { return Vec::new() };
        if self.now.since(event.at) > NEWS_MAX {
            return Vec::new();
        }
        let Ok(body) = serde_json::from_str::<Value>(&event.body) else {
            tracing::warn!(event = event.id, "an event does not read and is told to nobody");
            return Vec::new();
        };
        let data = body.get("data").unwrap_or(&Value::Null);
        match topic.about() {
            About::Alert => self.of_alert(topic, event, data),
            _ => self.of_order(topic, event, data),
        }
    }

    fn of_alert(&self, topic: Topic, event: &TellingRow, alert: &Value) -> Vec<NewNotice> {
        let text = |name: &str| alert.get(name).and_then(Value::as_str).unwrap_or_default();
        // Operators know what they themselves acknowledged and closed.
        let raised = text("status") == AlertStatus::Open.name();
        let kind = AlertKind::from_name(text("kind"));
        if !raised || self.config.alerts.is_none_or(|least| kind.is_some_and(|kind| kind.severity() < least)) {
            return Vec::new();
        }
        // That a channel takes nothing is told by the others.
        let silent = kind.filter(|kind| *kind == AlertKind::NotificationFailed).and_then(|_| Channel::from_name(text("about")));
        let values = values::of_alert(topic, event.at, &self.installation, alert);
        let cause = Cause { event: Some(&event.id), order: None };
        self.to_operators(topic, &values, cause).into_iter().filter(|notice| Some(notice.channel) != silent).collect()
    }

    fn of_order(&self, topic: Topic, event: &TellingRow, order: &Value) -> Vec<NewNotice> {
        let cause = Cause { event: Some(&event.id), order: Some(&event.subject) };
        let mut made = Vec::new();
        if self.config.events.contains(&topic) {
            made.extend(self.to_operators(topic, &values::of_order(topic, event.at, &self.installation, order), cause));
        }
        let Some(topic) = topic.for_customer().filter(|topic| self.config.customer_events.contains(topic)) else { return made };
        let said = |name: &str| order.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
        let language = said("language").and_then(Language::from_tag).unwrap_or(self.config.language);
        let values = values::of_order(topic, event.at, &self.installation, order);
        let mail = said("email").filter(|_| self.config.smtp.is_some()).and_then(mailbox);
        let number = said("phone").filter(|_| self.config.sms.is_some()).and_then(phone);
        let reached = [(Channel::Smtp, mail.map(|mail| mail.email.to_string())), (Channel::Sms, number)];
        for (channel, to) in reached.into_iter().filter_map(|(channel, to)| Some((channel, to?))) {
            made.push(self.write((topic, channel, language), to, &values, cause));
        }
        made
    }

    /// The messages that a period makes. An hour in which nothing happened makes none.
    fn of_period(&self, period: &Period) -> Vec<NewNotice> {
        if self.config.digest == Digest::Hourly && period.counts.is_empty() {
            return Vec::new();
        }
        let values = values::of_period(Topic::Digest, self.now, &self.installation, period);
        self.to_operators(Topic::Digest, &values, Cause::default())
    }

    fn to_operators(&self, topic: Topic, values: &Values, cause: Cause<'_>) -> Vec<NewNotice> {
        let channels = self.config.channels();
        let reached = channels.into_iter().flat_map(|channel| self.config.operators(channel).into_iter().map(move |to| (channel, to)));
        reached.map(|(channel, to)| self.write((topic, channel, self.config.language), to, values, cause)).collect()
    }

    fn write(&self, (topic, channel, language): (Topic, Channel, Language), to: String, values: &Values, cause: Cause<'_>) -> NewNotice {
        let (subject, body) = self.templates.get(topic, channel, language).fill(values);
        NewNotice {
            id: NoticeId::new(self.now, clock::id_bytes()),
            topic,
            event: cause.event.map(str::to_owned),
            order: cause.order.map(str::to_owned),
            channel,
            recipient: to,
            language,
            subject,
            body,
            at: self.now,
        }
    }
}
