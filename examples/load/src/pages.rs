//! What open checkout pages cost: the same gateway for the same time without them and with them.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Client;
use crate::tally::{Call, Spread, ms};
use crate::{Stage, networks, usage};

/// Pages that are opened at a time.
const OPENED_AT_ONCE: u64 = 50;

/// How long the gateway may rest between what is measured.
const REST: Duration = Duration::from_secs(2);

/// What was measured.
pub struct Cost {
    /// For machines.
    pub json: Value,
    /// For people.
    pub text: String,
}

/// Opens `count` pages, each of an order of its own, and keeps them for `lasts`.
///
/// # Errors
/// With a sentence, when the gateway refuses an order or a page.
pub async fn cost(stage: &Stage, count: u64, lasts: Duration) -> Result<Cost, String> {
    let client = Client::new(stage.target.clone())?;
    let networks = networks(&client, &stage.payer).await?;
    let network = networks.first().ok_or("the gateway offers no network")?;
    let mut ids = Vec::new();
    for number in 0..count {
        let wish = json!({ "amount": "12.5", "network": network, "expires_in": 7_200 });
        let answer = client.send(Call::Create, client.shop(number, Method::POST, "/api/v1/orders").json(&wish)).await;
        let order = answer.filter(|answer| answer.status == 201).ok_or("an order was refused")?.json();
        let id = order.get("id").and_then(Value::as_str).ok_or("an order has no id")?.to_owned();
        ids.push(id);
    }
    tokio::time::sleep(REST).await;
    let usage = || usage::together(&stage.pids).ok_or("expected the process of the gateway: name it with --pid".to_owned());

    let before = usage()?;
    tokio::time::sleep(lasts).await;
    let without = usage()?;

    let mut times = Spread::default();
    let mut open = Vec::new();
    for group in ids.chunks(usize::try_from(OPENED_AT_ONCE).unwrap_or(1)) {
        let mut opening = JoinSet::new();
        for id in group {
            let request = client.payer(0, Method::GET, &format!("/pay/{id}/events"));
            let client = client.clone();
            opening.spawn(async move {
                let began = Instant::now();
                let mut response = client.open(request).await?;
                response.chunk().await.ok().flatten()?;
                Some((response, began.elapsed()))
            });
        }
        while let Some(opened) = opening.join_next().await {
            let (response, took) = opened.ok().flatten().ok_or("a page did not open")?;
            times.add(took);
            open.push(response);
        }
    }
    tokio::time::sleep(REST).await;
    let opened = usage()?;
    let (events, still_open) = hold(open, lasts).await;
    let with = usage()?;

    let per_page = |kib: u64| kib.saturating_mul(1_024).checked_div(count).unwrap_or(0);
    let (quiet_ms, busy_ms) = (without.cpu_ms - before.cpu_ms, with.cpu_ms - opened.cpu_ms);
    let more_ms = busy_ms.saturating_sub(quiet_ms);
    let us_per_page_second = (more_ms * 1_000).checked_div(count * lasts.as_secs()).unwrap_or(0);
    let bytes = per_page(opened.rss_kib.saturating_sub(without.rss_kib));
    let files = opened.files.zip(without.files).map(|(opened, without)| opened.saturating_sub(without));
    let json = json!({
        "pages": count, "seconds": lasts.as_secs(), "still_open": still_open, "events": events,
        "open_p50_us": times.percentile_us(50), "open_p99_us": times.percentile_us(99),
        "rss_kib_without": without.rss_kib, "rss_kib_open": opened.rss_kib, "rss_kib_after": with.rss_kib,
        "bytes_per_page": bytes, "file_handles": files,
        "cpu_ms_without": quiet_ms, "cpu_ms_with": busy_ms, "cpu_us_per_page_and_second": us_per_page_second,
    });
    let text = format!(
        "{count} pages for {} s, {still_open} still open at the end, {events} parts of streams came\n  \
         first event   p50 {} ms, p99 {} ms\n  \
         memory        {} KiB without, {} KiB open ({bytes} bytes a page), {} KiB at the end\n  \
         file handles  {} more\n  \
         processor     {quiet_ms} ms without, {busy_ms} ms with: {us_per_page_second} µs for each page and second\n",
        lasts.as_secs(),
        ms(times.percentile_us(50)),
        ms(times.percentile_us(99)),
        without.rss_kib,
        opened.rss_kib,
        with.rss_kib,
        usage::shown(files),
    );
    Ok(Cost { json, text })
}

/// Reads the streams for that long: how many parts came, and how many are open at the end.
async fn hold(open: Vec<Response>, lasts: Duration) -> (u64, u64) {
    let end = Instant::now() + lasts;
    let mut pages = JoinSet::new();
    for mut response in open {
        pages.spawn(async move {
            let mut parts = 0;
            loop {
                match tokio::time::timeout_at(end, response.chunk()).await {
                    Ok(Ok(Some(_))) => parts += 1,
                    Ok(_) => return (parts, 0),
                    Err(_) => return (parts, 1),
                }
            }
        });
    }
    let mut sums = (0, 0);
    while let Some(page) = pages.join_next().await {
        let (parts, is_open) = page.unwrap_or((0, 0));
        sums = (sums.0 + parts, sums.1 + is_open);
    }
    sums
}
