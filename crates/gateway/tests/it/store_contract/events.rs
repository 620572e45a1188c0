//! Events: in the order of commits, and found by whom they concern.

use std::collections::HashSet;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _};
use tidegate::store::EventFilter;
use tidegate_rules::changes::{Changes, NewEvent};
use tidegate_rules::id::MerchantId;
use tidegate_rules::notify::EventType;

use super::{Ground, add_order, at, done, merchant_id, new_event, new_order, refused};
use crate::postgres;

contract!(
    i10_events_keep_the_order_of_commits,
    events_are_found_by_whose_they_are_by_order_and_by_type,
    every_filter_of_events_has_an_index,
);

async fn i10_events_keep_the_order_of_commits(ground: Ground) {
    let store = ground.open().await;
    let orders = [add_order(&store).await, add_order(&store).await, add_order(&store).await];
    let tasks = orders.iter().map(|order| {
        let (store, id) = (store.clone(), order.id);
        tokio::spawn(async move {
            let mut told = Vec::new();
            for round in 0..15_u32 {
                // Two in one commit, then one alone, all of the same millisecond.
                let count = if round.is_multiple_of(2) { 2 } else { 1 };
                let events: Vec<NewEvent> = (0..count).map(|_| new_event(id, EventType::Underpaid)).collect();
                told.extend(events.iter().map(|event| event.id.to_string()));
                done(&store, Changes { events, ..Changes::default() }).await;
            }
            (id, told)
        })
    });
    let mut places = HashSet::new();
    for told in join_all(tasks).await {
        let (id, told) = told.unwrap();
        let found = store.order_events(id, 0).await.unwrap();
        assert_eq!(found.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), told);
        assert!(found.is_sorted_by(|a, b| a.seq < b.seq));
        assert!(found.iter().all(|event| places.insert(event.seq)), "a place was given twice");
        let middle = &found[7];
        assert_eq!(store.event_seq(&middle.id).await.unwrap(), Some(middle.seq));
        let after: Vec<String> = store.order_events(id, middle.seq).await.unwrap().into_iter().map(|event| event.id).collect();
        assert_eq!(after, told[8..]);
    }
    assert_eq!(store.event_seq("evt_unknown").await.unwrap(), None);
    let known = new_event(orders[0].id, EventType::Paid);
    done(&store, Changes { events: vec![known.clone()], ..Changes::default() }).await;
    refused(&store, Changes { events: vec![NewEvent { subject: orders[1].id.into(), ..known }], ..Changes::default() }).await;
}

async fn events_are_found_by_whose_they_are_by_order_and_by_type(ground: Ground) {
    let store = ground.open().await;
    let (one, two) = (add_order(&store).await, add_order(&store).await);
    let other = MerchantId::new(at(0), [8; 10]);
    let events = vec![
        new_event(one.id, EventType::Pending),
        NewEvent { merchant: other, ..new_event(two.id, EventType::Pending) },
        new_event(one.id, EventType::Paid),
        NewEvent { merchant: other, ..new_event(two.id, EventType::Paid) },
    ];
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    for event in events {
        done(&store, Changes { events: vec![event], ..Changes::default() }).await;
    }
    let places: Vec<i64> = store.events(EventFilter::default(), 0, 10).await.unwrap().into_iter().map(|event| event.seq).collect();
    let (all, paid) = (EventFilter::default(), Some(EventType::Paid));
    for (filter, after, expected) in [
        (all.clone(), 0, vec![0, 1, 2, 3]),
        (all.clone(), places[1], vec![2, 3]),
        (EventFilter { kind: paid, ..all.clone() }, 0, vec![2, 3]),
        (EventFilter { kind: paid, ..all.clone() }, places[2], vec![3]),
        (EventFilter { merchant: Some(other), ..all.clone() }, 0, vec![1, 3]),
        (EventFilter { merchant: Some(other), kind: paid, ..all.clone() }, 0, vec![3]),
        (EventFilter { order: Some(one.id), ..all.clone() }, 0, vec![0, 2]),
        (EventFilter { order: Some(one.id), merchant: Some(merchant_id()), kind: paid }, 0, vec![2]),
        (EventFilter { order: Some(one.id), merchant: Some(other), kind: None }, 0, vec![]),
    ] {
        let found = store.events(filter.clone(), after, 10).await.unwrap();
        let expected: Vec<&String> = expected.into_iter().map(|index: usize| &ids[index]).collect();
        assert_eq!(found.iter().map(|event| &event.id).collect::<Vec<_>>(), expected, "{filter:?} after {after}");
        assert!(found.iter().all(|event| event.merchant == if event.subject == one.id.to_string() { merchant_id() } else { other }));
    }
    assert_eq!(store.events(all, 0, 3).await.unwrap().len(), 3);
}

/// PostgreSQL prefers to read an empty table whole, so it is asked for what it would do otherwise. Of
/// several filters it chooses by what it knows of the rows, which is nothing here: any index will do.
async fn every_filter_of_events_has_an_index(ground: Ground) {
    if ground.url.starts_with("postgres") {
        let name = ground.url.rsplit('/').next().unwrap();
        postgres::query(
            &ground.url,
            &format!("ALTER DATABASE {name} SET enable_seqscan = off; ALTER DATABASE {name} SET enable_bitmapscan = off"),
        );
    }
    let store = ground.open().await;
    let all = EventFilter::default();
    let (merchant, order, kind) = (Some(merchant_id()), Some(new_order().id), Some(EventType::Paid));
    for (name, filter, index) in [
        ("nothing", all.clone(), "PRIMARY KEY|events_pkey"),
        ("merchant", EventFilter { merchant, ..all.clone() }, "idx_events_merchant "),
        ("type", EventFilter { kind, ..all.clone() }, "idx_events_kind"),
        (
            "type of a merchant",
            EventFilter { merchant, kind, ..all.clone() },
            "idx_events_merchant (|idx_events_merchant on|idx_events_kind on",
        ),
        ("order", EventFilter { order, ..all.clone() }, "idx_events_order"),
        ("order of a merchant", EventFilter { order, merchant, ..all.clone() }, "idx_events_order|idx_events_merchant on"),
        ("everything", EventFilter { order, merchant, kind }, "idx_events_order|idx_events_merchant on|idx_events_kind on"),
    ] {
        let plan = store.explain_events(filter, 50).await.unwrap().join("; ");
        assert!(index.split('|').any(|index| plan.contains(index)), "{name}: {plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{name} is sorted: {plan}");
    }
}

/// On PostgreSQL a number is given before the commit that shows it: whoever lists events waits for the
/// lower one, and does not go on behind its back.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_events_waits_for_the_number_that_is_given_and_not_committed() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let order = add_order(&store).await;
    let slow = new_event(order.id, EventType::Underpaid);
    let mut other = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SELECT pg_advisory_xact_lock_shared(8388346167610994292); \
         INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES ('{}', 'order.underpaid', '{}', '{}', 1, '{{}}')",
        slow.id,
        merchant_id(),
        order.id
    )))
    .execute(&mut *transaction)
    .await
    .unwrap();
    let quick = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![quick.clone()], ..Changes::default() }).await;
    let listing = tokio::spawn({
        let store = store.clone();
        async move { store.events(EventFilter::default(), 0, 10).await.unwrap() }
    });
    // The lister stands in line before the other goes on.
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut watcher = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    crate::wait::eventually("the list waits", async || {
        let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(waits)).fetch_one(&mut watcher).await.unwrap();
        if waiting == 1 && !listing.is_finished() { Ok(()) } else { Err(waiting) }
    })
    .await;
    transaction.commit().await.unwrap();
    let listed: Vec<String> = listing.await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(listed, [slow.id.to_string(), quick.id.to_string()]);
}
