//! Alerts: one for one thing, a step at a time, told once.

use tidegate::clock::id_bytes;
use tidegate::store::{AlertFilter, Busy, Commit};
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::changes::{AlertChange, Changes};
use tidegate_rules::id::EventId;

use super::{Ground, at, done, new_alert, new_merchant};

contract!(an_alert_takes_a_step_from_where_it_was, an_alert_is_told_to_the_owner_once_for_each_step, one_alert_for_one_thing,);

async fn an_alert_takes_a_step_from_where_it_was(ground: Ground) {
    let store = ground.open().await;
    done(&store, Changes { alerts: vec![new_alert(AlertKind::StrayMoney, "tx 1")], ..Changes::default() }).await;
    let row = store.alerts(AlertFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!((row.status, row.changed_by.clone()), (AlertStatus::Open, None));
    let step = |from: AlertStatus, to: AlertStatus| Changes {
        alert_changes: vec![AlertChange {
            id: row.id,
            event: EventId::new(at(9), id_bytes()),
            from,
            to,
            by: "key_1".into(),
            reason: Some("looked".into()),
            at: at(9),
        }],
        ..Changes::default()
    };
    assert_eq!(store.commit(step(AlertStatus::Acknowledged, AlertStatus::Closed)).await.unwrap(), Commit::Conflict);
    assert_eq!(store.commit(step(AlertStatus::Open, AlertStatus::Closed)).await.unwrap(), Commit::Done);
    let row = store.alert(row.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.changed_by.as_deref(), row.reason.as_deref()), (AlertStatus::Closed, Some("key_1"), Some("looked")));
    let open = AlertFilter { status: Some(AlertStatus::Open), ..AlertFilter::default() };
    assert!(store.alerts(open.clone(), 10).await.unwrap().is_empty());

    // What happened once stays closed; a state of things that begins again opens its alert again.
    let again = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, again(AlertKind::StrayMoney)).await;
    done(&store, again(AlertKind::PoolExhausted)).await;
    let row = store.alerts(open.clone(), 10).await.unwrap().remove(0);
    assert_eq!(row.kind, AlertKind::PoolExhausted);
    let close = AlertChange {
        id: row.id,
        event: EventId::new(at(9), id_bytes()),
        from: AlertStatus::Open,
        to: AlertStatus::Closed,
        by: "key_1".into(),
        reason: None,
        at: at(9),
    };
    done(&store, Changes { alert_changes: vec![close], ..Changes::default() }).await;
    assert!(store.alerts(open.clone(), 10).await.unwrap().is_empty());
    done(&store, again(AlertKind::PoolExhausted)).await;
    assert_eq!(store.alerts(open, 10).await.unwrap().len(), 1);
}

async fn an_alert_is_told_to_the_owner_once_for_each_step(ground: Ground) {
    let store = ground.open().await;
    let raise = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, raise(AlertKind::DustFlood)).await;
    assert!(store.due_deliveries(at(99), &Busy::default(), 10).await.unwrap().is_empty(), "there is no owner yet");
    let owner = new_merchant("main", Some("https://owner.example/hook"));
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;

    // Raised, seen again, closed, and back: what changed is told, with the alert as it is then.
    done(&store, raise(AlertKind::PoolLow)).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    let row = store.alerts(AlertFilter::default(), 10).await.unwrap().remove(0);
    let close = AlertChange {
        id: row.id,
        event: EventId::new(at(4), id_bytes()),
        from: AlertStatus::Open,
        to: AlertStatus::Closed,
        by: "key_1".into(),
        reason: Some("grown".into()),
        at: at(4),
    };
    done(&store, Changes { alert_changes: vec![close], ..Changes::default() }).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    // That a receiver accepts nothing is not sent to a receiver.
    done(&store, raise(AlertKind::WebhookFailed)).await;

    let due = store.due_deliveries(at(99), &Busy::default(), 10).await.unwrap();
    let mut told = Vec::new();
    for delivery in &due {
        assert_eq!((delivery.kind.as_str(), delivery.merchant, delivery.subject), ("wallet.alert", owner.id, row.id.into()));
        assert_eq!(delivery.url, "https://owner.example/hook");
        let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
        let text = |member: &str| body["data"][member].as_str().unwrap_or("-").to_owned();
        assert_eq!((text("id"), text("severity"), body["type"].as_str()), (row.id.to_string(), "warning".into(), Some("wallet.alert")));
        told.push(format!("{} {} {}", text("kind"), text("status"), text("reason")));
    }
    told.sort_unstable();
    assert_eq!(told, ["pool_low closed grown", "pool_low open -", "pool_low open grown"]);
}

async fn one_alert_for_one_thing(ground: Ground) {
    let store = ground.open().await;
    for about in ["a", "b", "a"] {
        done(&store, Changes { alerts: vec![new_alert(AlertKind::StrayMoney, about)], ..Changes::default() }).await;
    }
    done(&store, Changes { alerts: vec![new_alert(AlertKind::LateMoney, "a")], ..Changes::default() }).await;
    let open = store.open_alerts(10).await.unwrap();
    let pairs: Vec<(&str, &str)> = open.iter().map(|(kind, about)| (kind.as_str(), about.as_str())).collect();
    assert_eq!(pairs, [("late_money", "a"), ("stray_money", "b"), ("stray_money", "a")]);
    assert_eq!(store.open_alerts(1).await.unwrap().len(), 1);
}
