//! Work that several processes share: jobs, queues, duties.

use std::collections::HashSet;

use futures_util::future::join_all;
use sqlx::Connection as _;
use tidegate::clock::id_bytes;
use tidegate::store::{Busy, Commit, JobRow, JobStatus, Queue, presence};
use tidegate_rules::changes::{Changes, DeliveryChange, DeliveryState, Fence, NewEvent};
use tidegate_rules::id::JobId;
use tidegate_rules::notify::EventType;
use tidegate_rules::time::{Span, Time};

use super::{Ground, add_order, at, done, new_event, new_wallet, tron, with_delivery};

contract!(a_job_is_one_processs_until_it_is_silent, a_row_of_a_queue_is_claimed_by_one,);

async fn a_job_is_one_processs_until_it_is_silent(ground: Ground) {
    let store = ground.open().await;
    let mut job = JobRow {
        id: JobId::new(at(0), id_bytes()),
        kind: "wallet_sync".into(),
        status: JobStatus::Running,
        done: 0,
        total: 7,
        detail: "{}".into(),
        created_at: at(0),
        changed_at: at(0),
    };
    assert!(store.add_job(&job).await.unwrap());
    let second = JobRow { id: JobId::new(at(1), id_bytes()), ..job.clone() };
    assert!(!store.add_job(&second).await.unwrap(), "one of a kind at a time");
    assert!(store.add_job(&JobRow { kind: "another".into(), id: JobId::new(at(3), id_bytes()), ..second.clone() }).await.unwrap());
    assert_eq!(store.running_job("wallet_sync").await.unwrap().map(|job| job.id), Some(job.id));
    let claim =
        async |who: &str, silent: i64, now: i64| store.claim_job("wallet_sync", who, at(silent), at(now)).await.unwrap().map(|job| job.id);
    assert!(!store.put_job(&job, "one").await.unwrap(), "nobody has claimed it");
    assert_eq!(claim("one", 0, 10).await, Some(job.id));
    assert_eq!(claim("two", 9, 11).await, None);
    (job.done, job.changed_at) = (3, at(50));
    assert!(store.put_job(&job, "one").await.unwrap());
    assert_eq!(claim("two", 50, 51).await, None);
    assert_eq!(claim("two", 51, 60).await, Some(job.id), "silent for too long: its process is gone");
    assert!(!store.put_job(&job, "one").await.unwrap(), "another has it now");
    (job.status, job.done, job.detail) = (JobStatus::Done, 7, r#"{"wallets":7}"#.into());
    assert!(store.put_job(&job, "two").await.unwrap());
    assert_eq!(claim("one", 99, 99).await, None);
    assert_eq!(store.running_job("wallet_sync").await.unwrap().map(|job| job.id), None);
    assert!(store.add_job(&JobRow { id: JobId::new(at(2), id_bytes()), ..second }).await.unwrap());
    let found = store.job(job.id).await.unwrap().unwrap();
    assert_eq!((found.status, found.done, found.total, found.detail), (JobStatus::Done, 7, 7, job.detail));
    assert_eq!((found.created_at, found.changed_at), (at(0), at(50)));
}

async fn a_row_of_a_queue_is_claimed_by_one(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    // By the database's clock: long due.
    let long_ago = Time::from_secs(1_000_000);
    let events: Vec<NewEvent> = (0..40)
        .map(|_| with_delivery(NewEvent { at: long_ago, ..new_event(order.id, EventType::Paid) }, "https://a.example/hook"))
        .collect();
    done(&store, Changes { events: events.clone(), ..Changes::default() }).await;
    let ids: Vec<String> = events.iter().map(|event| event.delivery.clone().unwrap().0.to_string()).collect();

    if store.is_shared() {
        assert!(store.claim(Queue::Deliveries, &ids, "nobody").await.unwrap().is_empty(), "whoever claims has to be there");
        for name in ["process 0", "process 1", "process 2", "process 3", "another"] {
            store.take_duties(&[presence(name)], name, Span::from_secs(600)).await.unwrap();
        }
    }
    let claims = (0..4).map(|number| {
        let (store, ids) = (store.clone(), ids.clone());
        tokio::spawn(async move { store.claim(Queue::Deliveries, &ids, &format!("process {number}")).await.unwrap() })
    });
    let claimed: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
    if !store.is_shared() {
        // A file has one process: it asks nobody.
        assert!(claimed.iter().all(|claimed| claimed.len() == ids.len()));
        return;
    }
    assert_eq!(claimed.iter().map(HashSet::len).sum::<usize>(), ids.len(), "each has gone to one");
    let all: HashSet<&String> = claimed.iter().flatten().collect();
    assert_eq!(all.len(), ids.len());
    assert!(store.due_deliveries(at(0), &Busy::default(), 100).await.unwrap().is_empty(), "what is claimed is not offered");

    // What one says who has no claim on it (any more) changes nothing but the list of tries.
    let owner = claimed.iter().position(|claimed| claimed.contains(&ids[0])).unwrap();
    let outcome = |number: usize, state: DeliveryState| DeliveryChange {
        id: events[0].delivery.clone().unwrap().0,
        claim: Some(format!("process {number}")),
        tries: 1,
        state,
        code: Some(200),
        error: None,
        at: at(1),
        url: "https://a.example/hook".into(),
        took: Span::from_millis(1),
        answer: None,
    };
    let status = async || ground.look(&format!("SELECT status FROM payment_webhooks WHERE id = '{}'", ids[0])).await;
    let tried = |number: usize, state| Changes { deliveries: vec![outcome(number, state)], ..Changes::default() };
    done(&store, tried((owner + 1) % 4, DeliveryState::Failed)).await;
    assert_eq!(status().await, ["due"]);
    done(&store, tried(owner, DeliveryState::Delivered)).await;
    assert_eq!(status().await, ["delivered"]);
    assert!(store.claim(Queue::Deliveries, &ids[..1], "another").await.unwrap().is_empty(), "it does not wait any more");

    // A claim ends with the presence of its process, and by itself.
    let (gone, left) = ((owner + 1) % 4, ids.len() - 1);
    store.leave_duties(&format!("process {gone}")).await.unwrap();
    assert_eq!(store.due_deliveries(at(0), &Busy::default(), 100).await.unwrap().len(), claimed[gone].len());
    assert_eq!(store.claim(Queue::Deliveries, &ids, "another").await.unwrap(), claimed[gone]);
    ground.look("UPDATE payment_webhooks SET claimed_until = 0 RETURNING id").await;
    assert_eq!(store.claim(Queue::Deliveries, &ids, "another").await.unwrap().len(), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duty_has_one_holder_and_its_fence_keeps_out_the_one_before() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let duties = ["follow tron".to_owned(), "house".to_owned()];
    let take = async |holder: &str, term: u64| {
        let mut fences = store.take_duties(&duties, holder, Span::from_secs(term)).await.unwrap();
        fences.sort_by(|a, b| a.duty.cmp(&b.duty));
        fences.into_iter().map(|fence| fence.number).collect::<Vec<_>>()
    };
    assert_eq!(take("one", 600).await, [1, 1]);
    assert_eq!(take("two", 600).await, [0; 0]);
    assert_eq!(take("one", 600).await, [1, 1], "renewed");
    let write = async |number: i64| {
        let wallets = vec![new_wallet(&tron())];
        let fence = Some(Fence { duty: duties[0].clone(), number });
        store.commit(Changes { fence, new_wallets: wallets, ..Changes::default() }).await.unwrap()
    };
    assert_eq!(write(1).await, Commit::Done);
    // Not renewed in time: whoever asks next has it, and the one before writes nothing.
    assert_eq!(take("one", 0).await, [1, 1]);
    crate::wait::eventually("the term is over", async || match take("two", 600).await.as_slice() {
        [2, 2] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!((write(1).await, write(2).await), (Commit::Conflict, Commit::Done));
    assert_eq!(ground.look("SELECT CAST(COUNT(*) AS TEXT) FROM usdt_wallets").await, ["2"]);
    // Given up, it is free at once.
    store.leave_duties("two").await.unwrap();
    assert_eq!(take("one", 600).await, [3, 3]);

    // Nobody holds one for longer than a term: the clock of the database was set back since.
    store.leave_duties("one").await.unwrap();
    assert_eq!(take("gone", 3_600).await, [4, 4]);
    assert_eq!(take("one", 1_800).await, [0; 0]);
    assert_eq!(take("one", 600).await, [5, 5]);

    // A take-over waits for what is being written on behalf of the duty.
    store.leave_duties("one").await.unwrap();
    let mut writer = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut writer).await.unwrap();
    sqlx::query("SELECT fence FROM duties WHERE name = 'follow tron' AND fence = 5 FOR SHARE").fetch_one(&mut writer).await.unwrap();
    let taker = tokio::spawn({
        let (store, duties) = (store.clone(), duties.clone());
        async move { store.take_duties(&duties, "four", Span::from_secs(600)).await.unwrap() }
    });
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    crate::wait::eventually("the take-over waits", async || {
        let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut writer).await.unwrap();
        if waiting > 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert!(!taker.is_finished());
    sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
    assert_eq!(taker.await.unwrap().len(), 2);
    assert_eq!((write(5).await, write(6).await), (Commit::Conflict, Commit::Done));
}
