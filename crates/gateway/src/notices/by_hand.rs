//! What people do with messages: try a channel, send one again, write its text. Each leaves a row
//! in the audit log.

use serde_json::{Value, json};
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, NoticeChange, NoticeState, TemplateChange};
use tidegate_rules::id::NoticeId;
use tidegate_rules::notification::{About, Channel, Language, NoticeStatus, Topic};
use tidegate_rules::time::Time;

use super::outlets::{Letter, Outlets};
use super::template::{Template, Values, Wrong};
use super::texts::brought;
use super::values::{of_alert, of_installation, of_order, of_period, sample_alert, sample_order, sample_period};
use super::{Templates, installation};
use crate::clock;
use crate::config::{Config, Notifications, chat, mailbox, phone};
use crate::gateway::{Gateway, Wake};
use crate::people::Doer;
use crate::problem::Problem;
use crate::store::{Commit, NoticeRow, Store, TemplateRow};

/// How a test went.
#[derive(Clone, Debug)]
pub struct Tested {
    /// To whom.
    pub to: String,
    /// Why the channel did not take it, if it did not.
    pub failure: Option<String>,
}

/// Sends a test message through a running gateway.
///
/// # Errors
/// 409 for a channel that is not configured, 422 for a recipient that it cannot reach, 429 while it
/// has sent enough for now.
pub async fn test(gateway: &Gateway, channel: Channel, to: Option<&str>, doer: &Doer) -> Result<Tested, Problem> {
    let to = recipient(&gateway.config.notifications, channel, to)?;
    if let Err(wait) = gateway.outlets.take_place(channel) {
        let mut problem = Problem::new(
            axum::http::StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            format!("{} sends at most `per_minute`; wait, then try again", channel.name()),
        );
        problem.retry_after_s = Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1));
        return Err(problem);
    }
    send_test(&gateway.config, &gateway.store, &gateway.outlets, (channel, to), doer).await
}

/// Sends a test message from the command line, beside a running gateway or without one.
///
/// # Errors
/// As [`test`].
pub async fn test_from_shell(config: &Config, store: &Store, channel: Channel, to: Option<&str>, doer: &Doer) -> Result<Tested, Problem> {
    let to = recipient(&config.notifications, channel, to)?;
    send_test(config, store, &Outlets::new(&config.notifications), (channel, to), doer).await
}

/// Whom a test goes to: the one who was named, or the first operator.
fn recipient(config: &Notifications, channel: Channel, to: Option<&str>) -> Result<String, Problem> {
    if !config.channels().contains(&channel) {
        let detail = format!("[notifications.{}] is not configured; config.example.toml shows how", channel.name());
        return Err(Problem::conflict("channel_not_configured", detail));
    }
    let Some(to) = to else {
        let first = config.operators(channel).into_iter().next();
        return first.ok_or_else(|| {
            Problem::invalid("/to", format!("[notifications.{}] names no operator in `to`; say whom to send to", channel.name()))
        });
    };
    let (found, expected) = match channel {
        Channel::Smtp => (mailbox(to).map(|mailbox| mailbox.to_string()), "a mail address"),
        Channel::Telegram => (chat(to), "the number of a chat, or the @name of a channel"),
        Channel::Sms => (phone(to), "a telephone number such as +4915112345678"),
    };
    found.ok_or_else(|| Problem::invalid("/to", format!("expected {expected}")))
}

async fn send_test(
    config: &Config,
    store: &Store,
    outlets: &Outlets,
    (channel, to): (Channel, String),
    doer: &Doer,
) -> Result<Tested, Problem> {
    let now = clock::now();
    let id = NoticeId::new(now, clock::id_bytes());
    let values = of_installation(Topic::Test, now, &installation(config));
    let template = Templates::read(store).await?.get(Topic::Test, channel, config.notifications.language);
    let (subject, body) = template.fill(&values);
    let sent = outlets.send(channel, Letter { id: &id.to_string(), to: &to, subject: &subject, body: &body }).await;
    let failure = sent.err().map(|failure| failure.reason);
    let detail = json!({ "to": to, "ok": failure.is_none(), "detail": failure });
    let audit = doer.did(Action::NotificationTest, channel.name(), now).with(&detail);
    let _ = store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    Ok(Tested { to, failure })
}

/// Makes a message due again, as if it had never been tried.
///
/// # Errors
/// 404, or 409 for one that was sent.
pub async fn retry(gateway: &Gateway, id: NoticeId, doer: &Doer) -> Result<NoticeRow, Problem> {
    let row = gateway.store.notice(id).await?.ok_or_else(|| Problem::not_found("notification"))?;
    let sent = || Problem::conflict("notification_sent", "this notification was sent; nothing was changed");
    if row.status == NoticeStatus::Sent {
        return Err(sent());
    }
    let at = clock::now();
    let detail = json!({ "channel": row.channel.name(), "status": row.status.name(), "tries": row.tries });
    let changes = Changes {
        notices: vec![NoticeChange { id, claim: None, tries: 0, state: NoticeState::Again, error: None, at }],
        audit: vec![doer.did(Action::NotificationRetry, id, at).with(&detail)],
        ..Changes::default()
    };
    if gateway.store.commit(changes).await? == Commit::Conflict {
        return Err(sent());
    }
    gateway.signal(Wake::Notice);
    gateway.store.notice(id).await?.ok_or_else(|| Problem::not_found("notification"))
}

/// Which text, and what it is now.
#[derive(Clone, Debug)]
pub struct TemplateNow {
    /// Of this topic.
    pub topic: Topic,
    /// On this channel.
    pub channel: Channel,
    /// In this language.
    pub language: Language,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// Since when it is another than the one it came with.
    pub changed_at: Option<Time>,
}

/// Every text there is.
///
/// # Errors
/// When the store does not answer.
pub async fn templates(store: &Store) -> Result<Vec<TemplateNow>, Problem> {
    let written = store.templates().await?;
    let mut all = Vec::new();
    for topic in Topic::ALL {
        for channel in Channel::ALL.iter().filter(|channel| is_told_by(*topic, **channel)) {
            all.extend(Language::ALL.iter().map(|language| now(&written, *topic, *channel, *language)));
        }
    }
    Ok(all)
}

/// Customers have no chat with the bot.
fn is_told_by(topic: Topic, channel: Channel) -> bool {
    topic.audience() != tidegate_rules::notification::Audience::Customer || channel != Channel::Telegram
}

fn now(written: &[TemplateRow], topic: Topic, channel: Channel, language: Language) -> TemplateNow {
    let own = written.iter().find(|row| (row.topic, row.channel, row.language) == (topic, channel, language));
    let (subject, body) = own.map_or_else(|| brought(topic, channel, language), |row| (row.subject.clone(), row.body.clone()));
    TemplateNow { topic, channel, language, subject, body, changed_at: own.map(|row| row.changed_at) }
}

/// Which text is meant by these names?
///
/// # Errors
/// 404 for names that mean none.
pub fn named(topic: &str, channel: &str, language: &str) -> Result<(Topic, Channel, Language), Problem> {
    let named = Topic::from_name(topic).zip(Channel::from_name(channel)).zip(Language::from_name(language));
    let named = named.map(|((topic, channel), language)| (topic, channel, language));
    named.filter(|(topic, channel, _)| is_told_by(*topic, *channel)).ok_or_else(|| Problem::not_found("notification template"))
}

/// Puts a text in the place of another.
///
/// # Errors
/// 422 for one that does not read.
pub async fn put_template(
    gateway: &Gateway,
    (topic, channel, language): (Topic, Channel, Language),
    subject: &str,
    body: &str,
    doer: &Doer,
) -> Result<TemplateNow, Problem> {
    Template::parse(topic, channel, subject, body).map_err(refused)?;
    let text = Some((subject.to_owned(), body.to_owned()));
    change_template(gateway, (topic, channel, language), text, Action::TemplatePut, doer).await
}

/// Takes a text back to the one it came with.
///
/// # Errors
/// When the store does not answer.
pub async fn delete_template(gateway: &Gateway, which: (Topic, Channel, Language), doer: &Doer) -> Result<TemplateNow, Problem> {
    change_template(gateway, which, None, Action::TemplateDelete, doer).await
}

async fn change_template(
    gateway: &Gateway,
    (topic, channel, language): (Topic, Channel, Language),
    text: Option<(String, String)>,
    action: Action,
    doer: &Doer,
) -> Result<TemplateNow, Problem> {
    let at = clock::now();
    let before = now(&gateway.store.templates().await?, topic, channel, language);
    let subject = format!("{}/{}/{}", topic.name(), channel.name(), language.name());
    let detail = json!({ "before": { "subject": before.subject, "body": before.body },
        "after": text.as_ref().map_or(Value::Null, |(subject, body)| json!({ "subject": subject, "body": body })) });
    let changes = Changes {
        templates: vec![TemplateChange { topic, channel, language, text, at }],
        audit: vec![doer.did(action, subject, at).with(&detail)],
        ..Changes::default()
    };
    if gateway.store.commit(changes).await? == Commit::Conflict {
        return Err(Problem::unavailable("busy", "somebody else changed this text at the same moment; try again"));
    }
    Ok(now(&gateway.store.templates().await?, topic, channel, language))
}

/// How a text reads, filled in with a sample.
///
/// # Errors
/// 422 for one that does not read.
pub fn preview(config: &Config, (topic, channel): (Topic, Channel), subject: &str, body: &str) -> Result<(String, String), Problem> {
    let template = Template::parse(topic, channel, subject, body).map_err(refused)?;
    Ok(template.fill(&sample(topic, &installation(config))))
}

fn sample(topic: Topic, installation: &str) -> Values {
    let period = sample_period();
    match topic.about() {
        About::Order => of_order(topic, period.to, installation, &sample_order()),
        About::Alert => of_alert(topic, period.to, installation, &sample_alert()),
        About::Period => of_period(topic, period.to, installation, &period),
        About::Installation => of_installation(topic, period.to, installation),
    }
}

fn refused(wrong: Wrong) -> Problem {
    Problem::invalid(&format!("/{}", wrong.part), wrong.why)
}
