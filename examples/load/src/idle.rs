//! What a gateway takes that has nothing to do: with so many wallets, right after they were made and
//! after it was started again on them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::own::Own;
use crate::tally::Call;
use crate::usage::{self, Usage, shown};
use crate::{Stage, networks};

/// Wallets that one call makes, at most.
const BATCH_MAX: u64 = 1_000;

/// What was measured.
pub struct Idle {
    /// For machines.
    pub json: Value,
    /// For people.
    pub text: String,
}

/// Makes `wallets` wallets, evenly on all networks, and looks after `rest`, twice.
///
/// # Errors
/// With a sentence, when the gateway refuses, or is not our own `serve`.
pub async fn cost(mut own: Own, mut stage: Stage, wallets: u64, rest: Duration) -> Result<Idle, String> {
    let client = Client::new(stage.target.clone())?;
    let networks = networks(&client, &stage.payer).await?;
    let share = wallets.div_ceil(u64::try_from(networks.len()).unwrap_or(1));
    for network in &networks {
        let mut left = share;
        while left > 0 {
            let count = left.min(BATCH_MAX);
            let wish = json!({ "network": network, "count": count });
            let answer = client.send(Call::Create, client.shop(0, Method::POST, "/api/v1/admin/wallets/generate").json(&wish)).await;
            let answer = answer.ok_or("the gateway does not answer")?;
            if !answer.is_good() {
                return Err(format!("{network}: {}", answer.text));
            }
            left -= count;
        }
    }
    let made = look(&stage, rest).await?;
    own.begin_again(&mut stage).await?;
    let again = look(&stage, rest).await?;
    drop(own);
    let total = share * u64::try_from(networks.len()).unwrap_or(1);
    let part =
        |usage: Usage, cpu_ms: u64| json!({ "rss_kib": usage.rss_kib, "anon_kib": usage.anon_kib, "files": usage.files, "cpu_ms": cpu_ms });
    let json = json!({
        "networks": networks, "wallets": total, "seconds": rest.as_secs(),
        "after_making_them": part(made.0, made.1), "after_a_new_start": part(again.0, again.1),
    });
    let line = |what: &str, (usage, cpu_ms): (Usage, u64)| {
        format!(
            "  {what:<18} {:>6} KiB resident: {:>6} heap and stacks, {:>6} the program; {} file handles, {cpu_ms} ms of processor\n",
            usage.rss_kib,
            usage.anon_kib,
            usage.rss_kib - usage.anon_kib,
            shown(usage.files)
        )
    };
    let text = format!(
        "{} networks, {total} wallets, nothing to do for {} s\n{}{}",
        networks.len(),
        rest.as_secs(),
        line("having made them", made),
        line("started on them", again)
    );
    Ok(Idle { json, text })
}

/// What the processes take after `rest`, and how much processor time they took meanwhile.
async fn look(stage: &Stage, rest: Duration) -> Result<(Usage, u64), String> {
    let usage = || usage::together(&stage.pids).ok_or("the gateway is gone".to_owned());
    let before = usage()?;
    tokio::time::sleep(rest).await;
    let after = usage()?;
    Ok((after, after.cpu_ms - before.cpu_ms))
}
