//! Messages that come in from providers and go out to people.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _};
use tidegate::clock::id_bytes;
use tidegate::store::{Engine, EventFilter, NoticeFilter};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Hash, Network};
use tidegate_rules::changes::{Changes, NewEvent, NewNotice, NoticeChange, NoticeState, TemplateChange, Told, ToldMark};
use tidegate_rules::id::{EventId, NoticeId, OrderId};
use tidegate_rules::notification::{Channel, Language, NoticeStatus, Topic};
use tidegate_rules::notify::EventType;
use tidegate_rules::time::{Span, Time};

use super::{Ground, add_order, at, done, hash, merchant_id, micros, new_event, new_order, order_change, refused, tron};

contract!(
    a_message_is_taken_once_and_its_hints_come_due,
    notices_are_made_once_and_come_due_by_channel,
    no_event_is_told_before_one_with_a_smaller_number,
    a_digest_counts_what_happened_in_its_time,
);

async fn a_message_is_taken_once_and_its_hints_come_due(ground: Ground) {
    let store = ground.open().await;
    let (first, second) = (hash(), hash());
    let due = async |second: i64| -> BTreeSet<Hash> {
        store.due_hints(at(second), 10).await.unwrap().into_iter().map(|hint| hint.hash).collect()
    };
    assert!(store.put_hints(&tron(), "own:1", &[first, second], at(10)).await.unwrap());
    assert!(!store.put_hints(&tron(), "own:1", &[hash()], at(11)).await.unwrap(), "said before");
    assert_eq!((due(9).await, due(10).await), (BTreeSet::new(), [first, second].into()));

    // One is looked for again later; another message that names it does not change that.
    let hint = store.due_hints(at(10), 10).await.unwrap().into_iter().find(|hint| hint.hash == first).unwrap();
    assert_eq!((hint.tries, &hint.network), (0, &tron()));
    store.put_hint(&hint.id, 1, Some(at(40)), at(12)).await.unwrap();
    assert!(store.put_hints(&tron(), "own:2", &[first], at(13)).await.unwrap());
    assert_eq!((due(39).await, due(40).await), ([second].into(), [first, second].into()));
    // What is done is looked at again when it is named again, as if for the first time.
    store.put_hint(&hint.id, 2, None, at(41)).await.unwrap();
    assert_eq!(due(100).await, [second].into());
    assert!(store.put_hints(&tron(), "own:3", &[first], at(50)).await.unwrap());
    let again = store.due_hints(at(50), 10).await.unwrap().into_iter().find(|hint| hint.hash == first).unwrap();
    assert_eq!(again.tries, 0);
    // The same id of another network's sender is another message; of many at once, one is first.
    assert!(store.put_hints(&Network::new("ethereum"), "own:1", &[first], at(51)).await.unwrap());
    assert_eq!(store.due_hints(at(60), 1).await.unwrap().len(), 1);
    let new = [hash()];
    let (name, at) = (tron(), at(52));
    let taken = join_all((0..20).map(|_| store.put_hints(&name, "own:4", &new, at))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
}

fn new_notice(event: &NewEvent, channel: Channel, second: i64) -> NewNotice {
    NewNotice {
        id: NoticeId::new(at(second), id_bytes()),
        topic: Topic::Paid,
        event: Some(event.id.to_string()),
        order: Some(event.subject.to_string()),
        channel,
        recipient: "ops@example.com".into(),
        language: Language::Chinese,
        subject: "订单".into(),
        body: "已支付\n".into(),
        at: at(second),
    }
}

async fn notices_are_made_once_and_come_due_by_channel(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let mark = |seq, second| ToldMark { seq, digest_until: at(second) };
    assert_eq!((store.told_mark().await.unwrap(), store.events_horizon(0).await.unwrap()), (None, 0));
    let begin = || Changes { told: Some(Told { from: None, to: mark(0, 1) }), ..Changes::default() };
    done(&store, begin()).await;
    refused(&store, begin()).await;

    let event = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![event.clone()], ..Changes::default() }).await;
    let seq = store.events_horizon(0).await.unwrap();
    let (mail, chat) = (new_notice(&event, Channel::Smtp, 10), new_notice(&event, Channel::Telegram, 20));
    let step = |from, to, new_notices: &[&NewNotice]| {
        let new_notices = new_notices.iter().map(|notice| (*notice).clone()).collect();
        Changes { told: Some(Told { from: Some(from), to }), new_notices, ..Changes::default() }
    };
    refused(&store, step(mark(0, 2), mark(seq, 2), &[&mail])).await;
    refused(&store, step(mark(1, 1), mark(seq, 1), &[&mail])).await;
    assert!(store.notices(NoticeFilter::default(), 9).await.unwrap().is_empty(), "all or nothing");
    done(&store, step(mark(0, 1), mark(seq, 1), &[&mail, &chat])).await;
    refused(&store, step(mark(0, 1), mark(seq, 1), &[])).await;
    let twice = NewNotice { id: NoticeId::new(at(11), id_bytes()), ..mail.clone() };
    refused(&store, step(mark(seq, 1), mark(seq, 2), &[&twice])).await;
    assert_eq!(store.told_mark().await.unwrap(), Some(mark(seq, 1)));

    // Due by channel, and only from its time on.
    assert!(store.due_notices(Channel::Smtp, at(9), 9).await.unwrap().is_empty());
    let due = store.due_notices(Channel::Smtp, at(10), 9).await.unwrap();
    assert_eq!(due.len(), 1);
    let row = &due[0];
    assert_eq!(
        (row.id, row.topic, row.channel, row.language, row.status),
        (mail.id, Topic::Paid, Channel::Smtp, Language::Chinese, NoticeStatus::Due)
    );
    assert_eq!((&row.event, &row.order, &row.recipient), (&mail.event, &mail.order, &mail.recipient));
    assert_eq!((row.subject.as_str(), row.body.as_str(), row.tries, row.created_at, row.due_at), ("订单", "已支付\n", 0, at(10), at(10)));
    assert_eq!(store.next_notice_at(Channel::Telegram).await.unwrap(), Some(at(20)));
    assert_eq!(store.next_notice_at(Channel::Sms).await.unwrap(), None);

    let change = |id, tries, state, error: Option<&str>| {
        let change = NoticeChange { id, claim: None, tries, state, error: error.map(str::to_owned), at: at(30) };
        Changes { notices: vec![change], ..Changes::default() }
    };
    done(&store, change(mail.id, 1, NoticeState::Due(at(90)), Some("busy"))).await;
    assert!(store.due_notices(Channel::Smtp, at(89), 9).await.unwrap().is_empty());
    assert_eq!(store.next_notice_at(Channel::Smtp).await.unwrap(), Some(at(90)));
    done(&store, change(mail.id, 6, NoticeState::Failed, Some("gone"))).await;
    let row = store.notice(mail.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.tries, row.last_error.as_deref(), row.last_tried_at),
        (NoticeStatus::Failed, 6, Some("gone"), Some(at(30)))
    );
    done(&store, change(mail.id, 0, NoticeState::Again, None)).await;
    assert_eq!(store.due_notices(Channel::Smtp, at(30), 9).await.unwrap()[0].tries, 0);
    done(&store, change(mail.id, 1, NoticeState::Sent, None)).await;
    refused(&store, change(mail.id, 0, NoticeState::Again, None)).await;
    assert_eq!(store.next_notice_at(Channel::Smtp).await.unwrap(), None);

    // Listed, newest first, page by page.
    let list = async |filter: NoticeFilter| store.notices(filter, 1).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(list(NoticeFilter::default()).await, [chat.id]);
    assert_eq!(list(NoticeFilter { before: Some(chat.id.to_string()), ..NoticeFilter::default() }).await, [mail.id]);
    assert_eq!(list(NoticeFilter { status: Some(NoticeStatus::Sent), ..NoticeFilter::default() }).await, [mail.id]);
    assert_eq!(list(NoticeFilter { channel: Some(Channel::Telegram), ..NoticeFilter::default() }).await, [chat.id]);
    assert!(list(NoticeFilter { topic: Some(Topic::Expired), ..NoticeFilter::default() }).await.is_empty());
    assert_eq!(list(NoticeFilter { order: Some(order.id.to_string()), ..NoticeFilter::default() }).await, [chat.id]);

    // Forgotten after ninety days. What nobody has sent for two is not sent any more: its channel was
    // taken out of the configuration.
    let days = |days: u64| Span::from_secs(days * 86_400);
    store.forget_old(at(20).plus(days(2))).await.unwrap();
    assert_eq!(store.notice(chat.id).await.unwrap().unwrap().status, NoticeStatus::Due);
    store.forget_old(at(21).plus(days(2))).await.unwrap();
    let row = store.notice(chat.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.last_error.as_deref()), (NoticeStatus::Failed, Some("nobody sends by this channel any more")));
    store.forget_old(at(10).plus(days(90))).await.unwrap();
    assert!(store.notice(mail.id).await.unwrap().is_some());
    store.forget_old(at(40).plus(days(90))).await.unwrap();
    assert!(store.notice(mail.id).await.unwrap().is_none() && store.notice(chat.id).await.unwrap().is_none());

    // A text is written over, and taken back.
    let text = |text: Option<&str>, second| {
        let text = text.map(|text| (text.to_owned(), "body".to_owned()));
        let change = TemplateChange { topic: Topic::Paid, channel: Channel::Smtp, language: Language::English, text, at: at(second) };
        Changes { templates: vec![change], ..Changes::default() }
    };
    let texts =
        async || -> Vec<(String, Time)> { store.templates().await.unwrap().into_iter().map(|row| (row.subject, row.changed_at)).collect() };
    done(&store, text(Some("one"), 1)).await;
    done(&store, text(Some("two"), 2)).await;
    assert_eq!(texts().await, [("two".to_owned(), at(2))]);
    done(&store, text(None, 3)).await;
    assert!(texts().await.is_empty());
}

/// On PostgreSQL a number is drawn before the commit, and one that was rolled back is missing for
/// ever: whoever lists waits for a writer and not for a number.
async fn no_event_is_told_before_one_with_a_smaller_number(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let told =
        async |after: i64| -> Vec<String> { store.events_to_tell(after, 9).await.unwrap().into_iter().map(|event| event.id).collect() };
    let events: Vec<NewEvent> = (0..4).map(|_| new_event(order.id, EventType::Underpaid)).collect();
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    let commit = async |index: usize| done(&store, Changes { events: vec![events[index].clone()], ..Changes::default() }).await;
    commit(0).await;
    assert_eq!(told(0).await, ids[..1]);
    if store.engine() == Engine::Postgres {
        // Somebody else writes, slowly: what comes after it waits.
        let mut slow = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT pg_advisory_xact_lock_shared(8388346167610994292)").execute(&mut slow).await.unwrap();
        let insert = format!(
            "INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES ('{}', 'order.underpaid', '{}', '{}', 1, '{{}}')",
            ids[1],
            merchant_id(),
            order.id
        );
        sqlx::query(AssertSqlSafe(insert)).execute(&mut slow).await.unwrap();
        commit(2).await;
        assert!(store.events_to_tell(1, 9).await.is_err(), "nobody is told behind somebody who writes");
        assert!(store.events(EventFilter::default(), 1, 9).await.unwrap().is_empty(), "what is new is listed the next time");
        sqlx::query("COMMIT").execute(&mut slow).await.unwrap();
        // A number that nobody ever shows.
        sqlx::query("SELECT nextval(pg_get_serial_sequence('events', 'seq'))").execute(&mut slow).await.unwrap();
        slow.close().await.unwrap();
    } else {
        commit(1).await;
        commit(2).await;
    }
    assert_eq!(told(1).await, ids[1..3]);
    commit(3).await;
    let after = store.events_to_tell(1, 9).await.unwrap().iter().filter(|event| ids[1..3].contains(&event.id)).map(|event| event.seq).max();
    assert_eq!(told(after.unwrap()).await, ids[3..]);
    assert!(told(store.events_horizon(0).await.unwrap()).await.is_empty());
}

async fn a_digest_counts_what_happened_in_its_time(ground: Ground) {
    let store = ground.open().await;
    let mut orders = Vec::new();
    for amount in [1_500_000, 2_250_000, 9_000_000] {
        let mut order = new_order();
        order.order.tally.confirmed = micros(amount);
        done(&store, Changes { new_orders: vec![order.clone()], ..Changes::default() }).await;
        done(&store, Changes { orders: vec![order_change(order.id, 1, order.order)], ..Changes::default() }).await;
        orders.push(order.id);
    }
    let event =
        |order: OrderId, kind, second| NewEvent { id: EventId::new(at(second), id_bytes()), at: at(second), ..new_event(order, kind) };
    let events = vec![
        event(orders[0], EventType::Paid, 99),
        event(orders[0], EventType::Paid, 100),
        event(orders[1], EventType::Paid, 150),
        event(orders[1], EventType::Overpaid, 150),
        event(orders[2], EventType::Expired, 199),
        event(orders[2], EventType::Paid, 200),
    ];
    done(&store, Changes { events, ..Changes::default() }).await;
    let counts = store.count_events(at(100), at(200)).await.unwrap();
    let counts: Vec<(&str, u64)> = counts.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(counts, [("order.expired", 1), ("order.overpaid", 1), ("order.paid", 2)]);
    assert_eq!(store.amount_paid(at(100), at(200)).await.unwrap(), micros(3_750_000));
    assert_eq!(store.amount_paid(at(300), at(400)).await.unwrap(), Amount::ZERO);
    assert_eq!(store.count_open_alerts().await.unwrap(), 0);
}
