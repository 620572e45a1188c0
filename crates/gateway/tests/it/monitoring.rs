//! What ships in `deploy/` for Prometheus and Grafana: it reads well, fires on what it should, names
//! only what a real scrape has, and every alert tells its reader what to do.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::operator::Operator;
use crate::redis::Redis;
use crate::shop::Shop;
use crate::tools;

/// Where `runbook_url` leads.
const RUNBOOK: &str = "https://github.com/tidegate/tidegate/blob/main/docs/operating.md#";

/// Runs `promtool` in a folder of the repository; gives what it said where it found something wrong.
pub fn promtool(folder: &str, args: &[&str], input: &str) -> Result<(), String> {
    let mut promtool = Command::new(tools::promtool())
        .args(args)
        .current_dir(tools::repo().join(folder))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(()) } else { Err(format!("promtool {args:?}: {said}")) }
}

fn file(path: &str) -> String {
    std::fs::read_to_string(tools::repo().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows `key: ` on the lines of a YAML file that begin with it.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    yaml.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(": ")).collect()
}

/// The names of metrics in an expression: those of ours, and the process's. What is in quotes is none.
fn names(expression: &str) -> BTreeSet<String> {
    let outside: String = expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let words = outside.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tidegate_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn the_rules_are_sound_and_fire_on_what_they_should() {
    promtool("deploy/prometheus", &["check", "rules", "alerts.yml"], "").unwrap();
    promtool("deploy/prometheus", &["test", "rules", "tests.yml"], "").unwrap();
    let (rules, tests) = (file("deploy/prometheus/alerts.yml"), file("deploy/prometheus/tests.yml"));
    let alerts = values(&rules, "alert");
    assert!(alerts.len() > 20, "{alerts:?}");
    assert_eq!(alerts, values(&tests, "alertname"), "every alert has its test, in the same order");
    let severities = values(&rules, "severity");
    assert_eq!(severities.len(), alerts.len());
    assert!(severities.iter().all(|severity| ["critical", "warning", "info"].contains(severity)), "{severities:?}");
}

#[test]
fn every_alert_says_what_to_do() {
    let (rules, runbook) = (file("deploy/prometheus/alerts.yml"), file("docs/operating.md"));
    let (alerts, urls) = (values(&rules, "alert"), values(&rules, "runbook_url"));
    let paragraph = |alert: &&str| {
        let after = runbook.split_once(&format!("\n### {alert}\n"))?.1;
        after.trim_start().lines().next().filter(|line| line.len() > 60 && !line.starts_with('#'))
    };
    let without: Vec<&str> = alerts.iter().filter(|alert| paragraph(alert).is_none()).copied().collect();
    assert!(without.is_empty(), "no paragraph in docs/operating.md: {without:?}");
    let expected: Vec<String> = alerts.iter().map(|alert| format!("{RUNBOOK}{}", alert.to_lowercase())).collect();
    assert_eq!(urls, expected);
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### Tidegate"));
    let gone: Vec<&str> = headings.filter(|name| !alerts.contains(&format!("Tidegate{name}").as_str())).collect();
    assert!(gone.is_empty(), "in docs/operating.md, but no alert: {gone:?}");
}

/// Every expression of a dashboard, wherever it stands in it.
fn expressions(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(members) => {
            found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| expressions(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_rules_name_only_what_a_real_scrape_has() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|settings| {
        settings.env.push(("REDIS_URL", redis.url()));
        settings.network = "requests_per_day = 1000000".to_owned();
    })
    .await;
    let order = shop.order("5").await;
    shop.pay(&order, "5").await;
    shop.settled().await;
    shop.order_is(&order, "paid").await;
    let scrape = Operator::of(&shop).api(&shop).get("/metrics").await.expect(200).text();
    promtool(".", &["check", "metrics"], &scrape).unwrap();
    let mut there: BTreeSet<&str> =
        scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    // What has happened to nobody has no line: it has its place in the program's own text.
    let declared = file("crates/gateway/src/metrics.rs");
    for rare in ["tidegate_endpoint_switches_total", "tidegate_network_reconciled_block"] {
        assert!(declared.contains(&format!("\"{}\"", rare.trim_start_matches("tidegate_"))), "{rare}");
        there.insert(rare);
    }

    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/tidegate.json")).unwrap();
    let mut shown = Vec::new();
    expressions(&dashboard, &mut shown);
    let rules = file("deploy/prometheus/alerts.yml");
    let asked = values(&rules, "expr");
    assert!(shown.len() > 40 && asked.len() > 20);
    let named: BTreeSet<String> = shown.iter().map(String::as_str).chain(asked).flat_map(names).collect();
    let missing: Vec<&String> = named.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "nobody scrapes {missing:?}");
    // Ids of panels are theirs alone, or Grafana drops one.
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
}
