//! The load tool against the real program, for a few seconds: it works, and it can tell good from bad.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_load::own::Own;
use tidegate_load::{Outages, Pace, Plan, load};

use crate::gateway::BINARY;
use crate::postgres;

/// Blocks on the chains of this test.
const BLOCK_TIME: Duration = Duration::from_millis(100);

fn plan(pace: Pace) -> Plan {
    Plan {
        pace,
        lasts: Duration::from_secs(3),
        think: Duration::from_millis(20),
        pages_max: 20,
        settle_max: Duration::from_secs(90),
        seed: 7,
        outages: Outages::Fail,
    }
}

fn call<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["calls"].as_array().unwrap().iter().find(|row| row["call"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_load_on_the_sandbox_loses_nothing() {
    let (_own, stage) = Own::dev(Path::new(BINARY), BLOCK_TIME).await.unwrap();
    let report = load(&plan(Pace::PerSecond(10)), stage, |_| {}).await.unwrap();
    assert!(report.is_good(), "{}", report.text());
    let json = report.json();
    assert_eq!(json["visitors"], 30, "{json:#}");
    assert_eq!(call(&json, "create order")["answers"]["201"], 30, "{json:#}");
    for name in ["checkout page", "page stream", "read order", "sandbox pays", "webhook heard"] {
        assert!(call(&json, name)["count"].as_u64() > Some(0), "{json:#}");
    }
    // Most of thirty visitors pay, whatever the dice say.
    let paid = json["truth"]["orders"]["paid"].as_u64().unwrap();
    assert!(paid > 10 && json["truth"]["paid_by_us"] == paid, "{json:#}");
    assert!(json["usage"]["rss_kib"]["last"].as_u64() > Some(0), "{json:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_postgres_and_one_chain_lose_nothing() {
    let (_own, stage) = Own::serve(Path::new(BINARY), 2, Some(&postgres::fresh_database()), BLOCK_TIME).await.unwrap();
    assert_eq!(stage.target.urls.len(), 2);
    let report = load(&plan(Pace::Clients(8)), stage, |_| {}).await.unwrap();
    assert!(report.is_good(), "{}", report.text());
    assert!(report.json()["truth"]["paid_by_us"].as_u64() > Some(0), "{}", report.text());
}
