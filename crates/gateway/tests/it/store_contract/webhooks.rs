//! Webhooks and their endpoints: what is due, to whom, under which secret.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _};
use tidegate::clock::id_bytes;
use tidegate::store::{Busy, Commit, DeliveryFilter, Store};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::changes::{Changes, DeliveryChange, DeliveryState, NewEvent, Reseal, SealedIn};
use tidegate_rules::id::{DeliveryId, EndpointId, MerchantId};
use tidegate_rules::notify::EventType;
use tidegate_rules::people::PeopleChange;
use tidegate_rules::time::Span;
use tidegate_rules::webhook_endpoint::{ENDPOINTS_MAX, EndpointChange, EndpointState, EndpointTerms, NewEndpoint, REMOVED_KEPT};

use super::{Ground, add_order, at, done, merchant_id, new_alert, new_event, new_merchant, people, refused, with_delivery};

contract!(
    deliveries_come_due_and_busy_receivers_are_left_out,
    a_webhook_secret_is_replaced_where_it_stands,
    an_event_goes_to_every_endpoint_that_takes_it,
    endpoints_change_from_where_they_were_read,
    a_removed_endpoint_takes_nothing_but_the_notice_of_it,
);

async fn deliveries_come_due_and_busy_receivers_are_left_out(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), None);
    let told = |second: i64, url: &str| {
        let event = new_event(order.id, EventType::Paid);
        with_delivery(NewEvent { at: at(second), ..event }, url)
    };
    let shop = ["https://a.example/one", "https://a.example/two?x=1", "https://a.example:8443/", "https://b.example/hook"];
    let events: Vec<NewEvent> = shop.iter().zip([30, 10, 20, 40]).map(|(url, second)| told(second, url)).collect();
    done(&store, Changes { events: events.clone(), ..Changes::default() }).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(10)));

    let due = async |second: i64, busy: &[&str], limit: i64| {
        let busy = Busy { origins: busy.iter().map(|origin| (*origin).to_owned()).collect(), subjects: vec![] };
        let found = store.due_deliveries(at(second), &busy, limit).await.unwrap();
        found.into_iter().map(|delivery| delivery.url).collect::<Vec<_>>()
    };
    assert!(due(9, &[], 10).await.is_empty());
    assert_eq!(due(10, &[], 10).await, [shop[1]], "due at its very moment");
    assert_eq!(due(99, &[], 10).await, [shop[1], shop[2], shop[0], shop[3]], "oldest first");
    assert_eq!(due(99, &[], 2).await, [shop[1], shop[2]]);
    assert_eq!(due(99, &["https://a.example"], 10).await, [shop[2], shop[3]], "a receiver is scheme, host and port");
    assert_eq!(due(99, &["https://a.example", "https://a.example:8443", "https://b.example"], 10).await.len(), 0);
    // Of what one is told already it is told nothing more, however much there is; others are.
    let busy = |subjects| Busy { origins: vec![], subjects };
    let another = add_order(&store).await;
    let of_another = with_delivery(NewEvent { at: at(99), ..new_event(another.id, EventType::Paid) }, shop[0]);
    done(&store, Changes { events: vec![of_another], ..Changes::default() }).await;
    let left = async |subjects| store.due_deliveries(at(99), &busy(subjects), 10).await.unwrap().len();
    assert_eq!(left(vec![(order.id.into(), None)]).await, 1);
    assert_eq!(left(vec![(order.id.into(), None), (another.id.into(), None)]).await, 0);
    assert_eq!(left(vec![(order.id.into(), Some(EndpointId::new(at(1), id_bytes())))]).await, 5, "another endpoint");

    let first = store.due_deliveries(at(99), &Busy::default(), 1).await.unwrap().remove(0);
    assert_eq!((first.id, first.event_id.clone()), (events[1].delivery.clone().unwrap().0, events[1].id.to_string()));
    assert_eq!((first.body.as_str(), first.kind.as_str(), first.tries), (events[1].body.as_str(), "order.paid", 0));
    assert_eq!((first.merchant, first.subject, first.event_at), (merchant_id(), order.id.into(), at(10)));
    let tried = |index: usize, tries: u32, state: DeliveryState| DeliveryChange {
        id: events[index].delivery.clone().unwrap().0,
        claim: None,
        tries,
        state,
        code: Some(500),
        error: Some("no".into()),
        at: at(50),
        url: "https://a.example/hook".into(),
        took: Span::from_millis(120),
        answer: Some("try later".into()),
    };
    let changes = vec![tried(1, 1, DeliveryState::Due(at(55))), tried(2, 1, DeliveryState::Delivered), tried(0, 10, DeliveryState::Failed)];
    done(&store, Changes { deliveries: changes, ..Changes::default() }).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(40)));
    assert_eq!(due(54, &[], 10).await, [shop[3]]);
    assert_eq!(due(55, &[], 10).await, [shop[3], shop[1]]);
    assert_eq!(store.due_deliveries(at(55), &Busy::default(), 10).await.unwrap()[1].tries, 1);

    // Every try is kept, and what somebody asks to send again is due now and remembers what it was.
    let (failed, waiting) = (events[0].delivery.clone().unwrap().0, events[1].delivery.clone().unwrap().0);
    let attempts = store.attempts(failed).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let attempt = &attempts[0];
    assert_eq!((attempt.number, attempt.code, attempt.took.millis(), attempt.answer.as_deref()), (1, Some(500), 120, Some("try later")));
    store.send_again(&[failed, waiting], at(60)).await.unwrap();
    store.send_again(&[failed], at(61)).await.unwrap();
    let again = store.due_deliveries(at(61), &Busy::default(), 10).await.unwrap();
    let before = |id: DeliveryId| again.iter().find(|delivery| delivery.id == id).unwrap().before;
    assert_eq!((before(failed), before(waiting)), (Some(DeliveryState::Failed), Some(DeliveryState::Due(at(55)))));
    let back = vec![tried(0, 10, DeliveryState::Failed), tried(1, 1, DeliveryState::Due(at(55)))];
    done(&store, Changes { deliveries: back, ..Changes::default() }).await;
    assert_eq!(store.attempts(failed).await.unwrap().iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    let filter = DeliveryFilter { status: Some("failed".into()), ..DeliveryFilter::default() };
    let shown = store.deliveries(filter, 10).await.unwrap();
    assert_eq!(shown.iter().map(|row| (row.id, row.state, row.tries)).collect::<Vec<_>>(), [(failed, DeliveryState::Failed, 10)]);
    assert!(store.due_deliveries(at(61), &Busy::default(), 10).await.unwrap().iter().all(|delivery| delivery.before.is_none()));
}

async fn a_webhook_secret_is_replaced_where_it_stands(ground: Ground) {
    let store = ground.open().await;
    let main = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![main.clone(), new_merchant("second", None)], ..Changes::default() }).await;
    let replace = |old: &str, new: &str, until| {
        people(vec![PeopleChange::ReplaceSecret { merchant: main.id, old: old.into(), new: new.into(), until }])
    };
    let secrets = async || {
        let row = store.merchants().await.unwrap().into_iter().find(|row| row.id == main.id).unwrap();
        (row.webhook_secret, row.previous_secret)
    };
    assert_eq!(secrets().await, ("sealed".into(), None));
    refused(&store, replace("another", "v1.aaaaaaaa.new", at(100))).await;
    done(&store, replace("sealed", "v1.aaaaaaaa.new", at(100))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.new".into(), Some(("sealed".into(), at(100)))));
    done(&store, replace("v1.aaaaaaaa.new", "v1.aaaaaaaa.newer", at(200))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.newer".into(), Some(("v1.aaaaaaaa.new".into(), at(200)))));
    let sealed = store.sealed_by_others(SealedIn::PreviousSecret, "bbbbbbbb", "", 10).await.unwrap();
    assert_eq!(sealed, [(main.id.to_string(), "v1.aaaaaaaa.new".to_owned())]);
    store.forget_old(at(199)).await.unwrap();
    assert!(secrets().await.1.is_some());
    store.forget_old(at(201)).await.unwrap();
    assert_eq!(secrets().await, ("v1.aaaaaaaa.newer".into(), None));

    refused(&store, people(vec![PeopleChange::RenameMerchant { id: main.id, name: "second".into() }])).await;
    done(&store, people(vec![PeopleChange::RenameMerchant { id: main.id, name: "first".into() }])).await;
    let page = store.merchant_page(None, 10).await.unwrap();
    assert_eq!(page.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!(store.merchant_page(Some(page[0].id.to_string()), 10).await.unwrap().len(), 1);
}

fn new_endpoint(merchant: MerchantId, url: &str, events: Option<&str>) -> NewEndpoint {
    NewEndpoint {
        id: EndpointId::new(at(1), id_bytes()),
        merchant,
        terms: EndpointTerms {
            url: url.into(),
            description: Some("of the tests".into()),
            events: events.map(str::to_owned),
            state: EndpointState::Enabled,
        },
        secret: "v1.aaaaaaaa.one".into(),
        created_at: at(1),
    }
}

fn endpoints(changes: Vec<EndpointChange>) -> Changes {
    Changes { endpoints: changes, ..Changes::default() }
}

/// What is due of an event: where to, and to which endpoint.
async fn due_of(store: &Store, event: &NewEvent) -> BTreeSet<(String, Option<EndpointId>)> {
    let due = store.due_deliveries(at(9_999), &Busy::default(), 1_000).await.unwrap();
    due.into_iter().filter(|delivery| delivery.event_id == event.id.to_string()).map(|delivery| (delivery.url, delivery.endpoint)).collect()
}

async fn an_event_goes_to_every_endpoint_that_takes_it(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let all = new_endpoint(merchant_id(), "https://all.example/", None);
    let paid = new_endpoint(merchant_id(), "https://paid.example/", Some("order.expired order.paid"));
    let mut off = new_endpoint(merchant_id(), "https://off.example/", None);
    off.terms.state = EndpointState::Disabled;
    let other = new_endpoint(MerchantId::new(at(0), [8; 10]), "https://other.example/", None);
    for endpoint in [&all, &paid, &off, &other] {
        done(&store, endpoints(vec![EndpointChange::New(endpoint.clone())])).await;
    }
    let to = |endpoint: &NewEndpoint| (endpoint.terms.url.clone(), Some(endpoint.id));

    // Two of one commit, one of them with a URL of its own beside.
    let pending = with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/");
    let settled = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![pending.clone(), settled.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &pending).await, [("https://shop.example/".to_owned(), None), to(&all)].into());
    assert_eq!(due_of(&store, &settled).await, [to(&all), to(&paid)].into());
    let foreign = NewEvent { merchant: other.merchant, ..new_event(order.id, EventType::Paid) };
    done(&store, Changes { events: vec![foreign.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &foreign).await, [to(&other)].into());
    let of_all = store.deliveries(DeliveryFilter { endpoint: Some(all.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    let told: Vec<_> = of_all.iter().map(|delivery| (delivery.endpoint, delivery.event_id.clone())).collect();
    assert_eq!(told, [(Some(all.id), settled.id.to_string()), (Some(all.id), pending.id.to_string())]);

    // An event that is refused goes nowhere.
    refused(&store, Changes { events: vec![settled.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &settled).await.len(), 2);

    // Alerts are told to the owner's, but for the one that a receiver accepts nothing.
    let owner = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;
    let ops = new_endpoint(owner.id, "https://ops.example/", Some("wallet.alert"));
    done(&store, endpoints(vec![EndpointChange::New(ops.clone())])).await;
    let raise = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, raise(AlertKind::WebhookFailed)).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    let of_ops = store.deliveries(DeliveryFilter { endpoint: Some(ops.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    assert_eq!(of_ops.iter().map(|delivery| delivery.body.contains("pool_low")).collect::<Vec<_>>(), [true]);
}

async fn endpoints_change_from_where_they_were_read(ground: Ground) {
    let store = ground.open().await;
    let made = new_endpoint(merchant_id(), "https://one.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(made.clone())])).await;
    let row = store.endpoint(made.id).await.unwrap().unwrap();
    assert_eq!((row.merchant, &row.terms, row.secret.as_str(), row.version), (merchant_id(), &made.terms, "v1.aaaaaaaa.one", 1));
    let to = EndpointTerms {
        url: "https://two.example/".into(),
        description: None,
        events: Some("order.paid".into()),
        state: EndpointState::Disabled,
    };
    let put = |version| endpoints(vec![EndpointChange::Put { id: made.id, version, to: to.clone() }]);
    refused(&store, put(2)).await;
    done(&store, put(1)).await;
    refused(&store, put(1)).await;
    assert_eq!(store.endpoint(made.id).await.unwrap().unwrap().terms, to);

    let replace = |old: &str, new: &str, until| {
        endpoints(vec![EndpointChange::ReplaceSecret { id: made.id, old: old.into(), new: new.into(), until }])
    };
    let secrets = async || {
        let row = store.endpoint(made.id).await.unwrap().unwrap();
        (row.secret, row.previous_secret)
    };
    refused(&store, replace("another", "v1.aaaaaaaa.two", at(100))).await;
    done(&store, replace("v1.aaaaaaaa.one", "v1.aaaaaaaa.two", at(100))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.two".into(), Some(("v1.aaaaaaaa.one".into(), at(100)))));
    // Both are found by whoever changes the master key.
    for (place, old) in [(SealedIn::EndpointSecret, "v1.aaaaaaaa.two"), (SealedIn::PreviousEndpointSecret, "v1.aaaaaaaa.one")] {
        let found = store.sealed_by_others(place, "bbbbbbbb", "", 10).await.unwrap();
        assert_eq!(found, [(made.id.to_string(), old.to_owned())]);
        let reseal = Reseal { place, id: made.id.to_string(), old: old.into(), new: old.replace("aaaaaaaa", "bbbbbbbb") };
        done(&store, Changes { reseals: vec![reseal], ..Changes::default() }).await;
        assert!(store.sealed_by_others(place, "bbbbbbbb", "", 10).await.unwrap().is_empty());
    }
    store.forget_old(at(101)).await.unwrap();
    assert_eq!(secrets().await, ("v1.bbbbbbbb.two".into(), None));

    // As many as there may be, and not one more, whoever else adds at the same moment.
    let adding = join_all((0..ENDPOINTS_MAX + 3).map(|n| {
        let (store, endpoint) = (store.clone(), new_endpoint(merchant_id(), &format!("https://{n}.example/"), None));
        async move { store.commit(endpoints(vec![EndpointChange::New(endpoint)])).await.unwrap() }
    }))
    .await;
    assert_eq!(adding.iter().filter(|outcome| **outcome == Commit::Done).count(), ENDPOINTS_MAX - 1);
    let page = store.endpoints(merchant_id(), None, 100).await.unwrap();
    assert!(page.len() == ENDPOINTS_MAX && page.is_sorted_by(|a, b| a.id > b.id), "{page:?}");
    let rest = store.endpoints(merchant_id(), Some(page[9].id.to_string()), 100).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), page[10..].iter().map(|row| row.id).collect::<Vec<_>>());
    let elsewhere = new_endpoint(MerchantId::new(at(0), [8; 10]), "https://other.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(elsewhere)])).await;
}

async fn a_removed_endpoint_takes_nothing_but_the_notice_of_it(ground: Ground) {
    let store = ground.open().await;
    let owner = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;
    let order = add_order(&store).await;
    let gone = new_endpoint(owner.id, "https://gone.example/", None);
    let stays = new_endpoint(owner.id, "https://stays.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(gone.clone()), EndpointChange::New(stays.clone())])).await;
    let event = |kind| NewEvent { merchant: owner.id, ..new_event(order.id, kind) };
    let (before, taken, after) = (event(EventType::Pending), event(EventType::Confirming), event(EventType::Paid));
    done(&store, Changes { events: vec![before.clone(), taken.clone()], ..Changes::default() }).await;
    // One that was taken is being sent again.
    let of_taken = |endpoint| DeliveryFilter { endpoint: Some(endpoint), event: Some(taken.id.to_string()), ..DeliveryFilter::default() };
    let sent = store.deliveries(of_taken(gone.id), 1).await.unwrap().remove(0);
    let outcome = DeliveryChange {
        id: sent.id,
        claim: None,
        tries: 1,
        state: DeliveryState::Delivered,
        code: Some(204),
        error: None,
        at: at(2),
        url: sent.url.clone(),
        took: Span::ZERO,
        answer: None,
    };
    done(&store, Changes { deliveries: vec![outcome], ..Changes::default() }).await;
    assert_eq!(store.send_again(&[sent.id], at(2)).await.unwrap(), 1);

    let remove = || Changes {
        endpoints: vec![EndpointChange::Remove { id: gone.id, at: at(3) }],
        alerts: vec![new_alert(AlertKind::CredentialsChanged, "it is removed")],
        ..Changes::default()
    };
    done(&store, remove()).await;
    refused(&store, remove()).await;
    done(&store, Changes { events: vec![after.clone()], ..Changes::default() }).await;
    assert_eq!(store.endpoints(owner.id, None, 10).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [stays.id]);
    let of_gone = store.deliveries(DeliveryFilter { endpoint: Some(gone.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    let told: BTreeSet<(String, String)> = of_gone.iter().map(|row| (row.kind.clone(), format!("{:?}", row.state))).collect();
    let expected = [("order.pending", "Failed"), ("order.confirming", "Delivered"), ("wallet.alert", &format!("Due({:?})", at(3)))];
    assert_eq!(told, expected.map(|(kind, state)| (kind.to_owned(), state.to_owned())).into());
    let failed = of_gone.iter().find(|row| row.kind == "order.pending").unwrap();
    assert_eq!((failed.last_error.as_deref(), store.send_again(&[failed.id], at(4)).await.unwrap()), (Some("the endpoint was removed"), 0));
    for event in [&before, &after] {
        assert_eq!(due_of(&store, event).await, [(stays.terms.url.clone(), Some(stays.id))].into());
    }

    // Its row is kept as long as the notice may be tried, and a place is free at once.
    store.forget_old(at(3).plus(REMOVED_KEPT)).await.unwrap();
    assert_eq!(store.endpoint(gone.id).await.unwrap().unwrap().removed_at, Some(at(3)));
    store.forget_old(at(4).plus(REMOVED_KEPT)).await.unwrap();
    assert!(store.endpoint(gone.id).await.unwrap().is_none());
}

/// On PostgreSQL who adds an endpoint and who writes events wait for each other, so that what commits
/// after the endpoint is there goes to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_there_for_whatever_commits_after_it() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let order = add_order(&store).await;
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut watcher = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    let mut one_waits = async |what: &str| {
        crate::wait::eventually(what, async || {
            let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(waits)).fetch_one(&mut watcher).await.unwrap();
            if waiting == 1 { Ok(()) } else { Err(waiting) }
        })
        .await;
    };
    let mut other = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    const LOCK: i64 = 8_388_346_167_610_994_292;

    // Somebody writes an event: the endpoint comes after it.
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(LOCK).execute(&mut *transaction).await.unwrap();
    let endpoint = new_endpoint(merchant_id(), "https://all.example/", None);
    let adding = tokio::spawn({
        let (store, endpoint) = (store.clone(), endpoint.clone());
        async move { done(&store, endpoints(vec![EndpointChange::New(endpoint)])).await }
    });
    one_waits("the endpoint waits for the event").await;
    transaction.commit().await.unwrap();
    adding.await.unwrap();

    // Somebody adds an endpoint: the event comes after it, and goes there.
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await.unwrap();
    let second = EndpointId::new(at(1), id_bytes());
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO webhook_endpoints (id, merchant_id, url, secret, enabled, created_at, version) \
         VALUES ('{second}', '{}', 'https://second.example/', 's', 1, 1, 1)",
        merchant_id()
    )))
    .execute(&mut *transaction)
    .await
    .unwrap();
    let event = new_event(order.id, EventType::Paid);
    let telling = tokio::spawn({
        let (store, event) = (store.clone(), event.clone());
        async move { done(&store, Changes { events: vec![event], ..Changes::default() }).await }
    });
    one_waits("the event waits for the endpoint").await;
    transaction.commit().await.unwrap();
    telling.await.unwrap();
    let told: BTreeSet<EndpointId> = due_of(&store, &event).await.into_iter().filter_map(|(_, endpoint)| endpoint).collect();
    assert_eq!(told, [endpoint.id, second].into());
}
