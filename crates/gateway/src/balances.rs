//! What the wallets hold: asked of the chain, kept as snapshots, and compared with the records of
//! what came.
//!
//! A difference that was not there before is an alert. Nothing here moves or credits money: what
//! was missed is found by the reconciler and by `scan`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate_chain::BALANCES_MAX;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::Address;
use tidegate_rules::books::{self, Difference};
use tidegate_rules::changes::{Changes, NewAlert, NewBalance};
use tidegate_rules::id::{JobId, WalletId};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::WalletKind;
use tokio::sync::watch;

use crate::clock;
use crate::duties::Duty;
use crate::gateway::{Gateway, NetworkPart, Wake};
use crate::problem::Problem;
use crate::signals::heard;
use crate::store::{BalanceRow, JobRow, JobStatus, WalletRow};

/// Calls for balances that are under way at once.
pub const AT_ONCE_MAX: usize = 10;

/// How often a reading is tried, and the rest after the first that failed; it doubles.
const TRIES: u32 = 3;
const REST_FIRST: Duration = Duration::from_millis(500);

/// How long to wait for the follower to apply the block that a balance was read at.
const FOLLOWER_WAIT: Duration = Duration::from_secs(30);
const FOLLOWER_LOOK: Duration = Duration::from_millis(250);

/// A snapshot is taken of what did not change, too, when the last one is older than this.
const SNAPSHOT_EVERY: Span = Span::from_secs(24 * 3_600);

/// How long after the start the wallets are asked for first.
const FIRST: Duration = Duration::from_secs(300);

/// A job that says nothing for so long has lost its process.
pub const JOB_SILENT_MAX: Span = Span::from_secs(180);

/// A wallet as the chain and the records see it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The wallet.
    pub wallet: WalletRow,
    /// What it holds, in base units.
    pub value: Raw,
    /// The block that it was read at.
    pub block: u64,
    /// What the records say; `None` while the block was not applied here yet.
    pub records: Option<Records>,
}

/// What the records of a wallet add up to, up to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// What came.
    pub incoming: Raw,
    /// What went to another wallet of ours.
    pub outgoing: Raw,
}

impl Reading {
    /// How the chain differs from the records, where they can be compared. What a wallet with a past
    /// held before its books began is no difference.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        self.plain_difference().map(|found| if self.opening() == Some(found) { Difference::None } else { found })
    }

    fn plain_difference(&self) -> Option<Difference> {
        self.records.map(|records| books::difference(records.incoming, records.outgoing, self.value))
    }

    /// Where the books of a wallet with a past begin: at its first reading.
    fn opening(&self) -> Option<Difference> {
        match self.wallet.kind {
            WalletKind::Random => None,
            WalletKind::Hd | WalletKind::Watch | WalletKind::Imported => self.wallet.opening.or_else(|| self.plain_difference()),
        }
    }
}

/// How far a synchronisation came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Wallets that were asked for.
    pub wallets: u64,
    /// Those whose records do not explain what they hold.
    pub differing: u64,
    /// Those that could not be compared: their block was not applied here yet.
    pub unknown: u64,
    /// Networks that did not answer to the end.
    pub silent: u64,
}

/// Reads what these wallets of one network hold, at most [`BALANCES_MAX`] of them. Waits for the
/// follower, of this process or of another, for as long as `patience` to apply their block.
///
/// # Errors
/// 503 when no endpoint answers after some tries; when the store does not answer.
pub async fn read(gateway: &Gateway, part: &NetworkPart, wallets: &[WalletRow], patience: Duration) -> Result<Vec<Reading>, Problem> {
    let addresses: Vec<Address> = wallets.iter().map(|wallet| wallet.address).collect();
    let found = ask(gateway, part, &addresses).await?;
    let known = wait_for(gateway, part, found.at, patience).await?;
    let mut sums = if known { gateway.store.movements(&part.config.name, wallets, found.at).await? } else { HashMap::new() };
    let reading = |(wallet, value): (&WalletRow, Raw)| {
        let (incoming, outgoing) = sums.remove(&wallet.id).unwrap_or_default();
        Reading { wallet: wallet.clone(), value, block: found.at, records: known.then_some(Records { incoming, outgoing }) }
    };
    Ok(wallets.iter().zip(found.values).map(reading).collect())
}

/// Asks the chain, again after a rest where it does not answer.
async fn ask(gateway: &Gateway, part: &NetworkPart, addresses: &[Address]) -> Result<tidegate_chain::Balances, Problem> {
    let mut rest = REST_FIRST;
    let mut tries: u32 = 0;
    loop {
        let outcome = {
            let _place = gateway.balance_calls.acquire().await.map_err(|_| Problem::internal())?;
            part.chain.balances(addresses).await
        };
        tries = tries.saturating_add(1);
        match outcome {
            Ok(found) => return Ok(found),
            Err(error) if error.is_transient() && tries < TRIES => tokio::time::sleep(rest).await,
            Err(error) => {
                tracing::warn!(network = %part.config.name, %error, "balances could not be read");
                let detail = format!("{} could not be asked for balances; try again later", part.config.name);
                return Err(Problem::unavailable("network_unavailable", detail));
            }
        }
        rest = rest.saturating_mul(2);
    }
}

/// What any address holds, in base units, and at which block.
///
/// # Errors
/// 503 when no endpoint answers after some tries.
pub async fn of_address(gateway: &Gateway, part: &NetworkPart, address: Address) -> Result<(Raw, u64), Problem> {
    let found = ask(gateway, part, &[address]).await?;
    let value = found.values.first().copied().ok_or_else(Problem::internal)?;
    Ok((value, found.at))
}

/// Whether the follower has applied this block.
async fn wait_for(gateway: &Gateway, part: &NetworkPart, block: u64, patience: Duration) -> Result<bool, Problem> {
    let deadline = tokio::time::Instant::now().checked_add(patience);
    loop {
        if gateway.store.tip(&part.config.name).await?.is_some_and(|tip| tip >= block) {
            return Ok(true);
        }
        if deadline.is_none_or(|deadline| tokio::time::Instant::now() >= deadline) {
            return Ok(false);
        }
        tokio::time::sleep(FOLLOWER_LOOK).await;
    }
}

/// Reads what these wallets of one network hold, keeps it, and raises an alert for each whose
/// records do not explain a change. `progress` hears how many are done.
///
/// # Errors
/// As [`read`]; what was read before is kept.
pub async fn sync(
    gateway: &Gateway,
    part: &NetworkPart,
    wallets: &[WalletRow],
    mut progress: impl FnMut(u64),
) -> Result<(Synced, Vec<Reading>), Problem> {
    let (mut synced, mut differing) = (Synced::default(), Vec::new());
    for group in wallets.chunks(BALANCES_MAX) {
        // A follower that did not come in time for the others is not there.
        let patience = if synced.unknown == 0 { FOLLOWER_WAIT } else { Duration::ZERO };
        let readings = read(gateway, part, group, patience).await?;
        let ids: Vec<WalletId> = group.iter().map(|wallet| wallet.id).collect();
        let last = gateway.store.last_balances(&ids).await?;
        let doubtful: Vec<WalletRow> =
            readings.iter().filter(|reading| is_news(reading, &last)).map(|reading| reading.wallet.clone()).collect();
        // A node may have answered a block late, or TRON a block early: only what a second reading
        // shows too is believed.
        let again: HashMap<WalletId, Reading> = if doubtful.is_empty() {
            HashMap::new()
        } else {
            read(gateway, part, &doubtful, patience).await?.into_iter().map(|reading| (reading.wallet.id, reading)).collect()
        };
        let now = clock::now();
        let mut changes = Changes::default();
        for reading in readings {
            let reading = again.get(&reading.wallet.id).cloned().unwrap_or(reading);
            synced.wallets = synced.wallets.saturating_add(1);
            match reading.difference() {
                None => synced.unknown = synced.unknown.saturating_add(1),
                Some(Difference::None) => {}
                Some(_) => synced.differing = synced.differing.saturating_add(1),
            }
            if is_news(&reading, &last) {
                changes.alerts.extend(alert(part, &reading, now));
            }
            changes.balances.push(kept(part, &reading, last.get(&reading.wallet.id), now));
            if reading.difference().is_some_and(|difference| difference != Difference::None) {
                differing.push(reading);
            }
        }
        let _ = gateway.store.commit(changes).await?;
        progress(synced.wallets);
    }
    Ok((synced, differing))
}

fn is_news(reading: &Reading, last: &HashMap<WalletId, BalanceRow>) -> bool {
    let before = last.get(&reading.wallet.id).and_then(|row| row.difference());
    reading.difference().is_some_and(|now| books::is_news(reading.wallet.kind, before, now))
}

fn kept(part: &NetworkPart, reading: &Reading, last: Option<&BalanceRow>, now: Time) -> NewBalance {
    let amount = reading.value.to_amount_saturating(part.config.decimals);
    let same = last.is_some_and(|last| {
        last.value == reading.value && last.difference() == reading.plain_difference() && now.since(last.taken_at) < SNAPSHOT_EVERY
    });
    NewBalance {
        wallet: reading.wallet.id,
        value: reading.value,
        amount,
        block: reading.block,
        records: reading.records.map(|records| (records.incoming, records.outgoing)),
        at: now,
        opening: reading.opening(),
        is_snapshot: !same,
    }
}

fn alert(part: &NetworkPart, reading: &Reading, now: Time) -> Option<NewAlert> {
    let amount = |raw: Raw| raw.to_amount_saturating(part.config.decimals);
    let how = match reading.difference()? {
        Difference::None => return None,
        Difference::More(more) => format!("{} more than what came to it by our records: `tidegate scan` reads blocks again", amount(more)),
        Difference::Less(less) => format!("{} less than what came to it by our records: money left it, and not by us", amount(less)),
    };
    let wallet = &reading.wallet;
    let detail = format!(
        "wallet {} ({}, {}) holds {} at block {}, {how}",
        wallet.name,
        wallet.network,
        wallet.address_text,
        amount(reading.value),
        reading.block
    );
    Some(Gateway::alert(AlertKind::BalanceDiffers, format!("{} {}", wallet.id, amount(reading.value)), detail, now))
}

/// Walks through every wallet of these networks that may hold something, and synchronises it.
/// `progress` hears how many are done. A network that does not answer keeps no other waiting.
///
/// # Errors
/// When the store does not answer; what was read before is kept.
pub async fn sync_all(
    gateway: &Gateway,
    parts: &[Arc<NetworkPart>],
    mut progress: impl FnMut(u64) + Send,
) -> Result<(Synced, Vec<Reading>), Problem> {
    let (mut all, mut differing) = (Synced::default(), Vec::new());
    for part in parts {
        let mut after = None;
        loop {
            let wallets = gateway.store.wallets_to_ask(&part.config.name, after, i64::try_from(BALANCES_MAX).unwrap_or(i64::MAX)).await?;
            let Some(last) = wallets.last() else { break };
            after = Some(last.id);
            let (synced, mut differ) = match sync(gateway, part, &wallets, |_| {}).await {
                Ok(found) => found,
                Err(problem) if problem.code == "network_unavailable" => {
                    all.silent = all.silent.saturating_add(1);
                    break;
                }
                Err(problem) => return Err(problem),
            };
            all.wallets = all.wallets.saturating_add(synced.wallets);
            all.differing = all.differing.saturating_add(synced.differing);
            all.unknown = all.unknown.saturating_add(synced.unknown);
            differing.append(&mut differ);
            progress(all.wallets);
        }
    }
    Ok((all, differing))
}

/// Starts a walk through these networks in the background, or finds the one that is under way. Any
/// process on the database may do it, and another goes on with it should that one end.
///
/// # Errors
/// When the store does not answer.
pub async fn start_job(gateway: &Gateway, parts: Vec<Arc<NetworkPart>>) -> Result<JobRow, Problem> {
    let now = clock::now();
    let mut total: u64 = 0;
    for part in &parts {
        total = total.saturating_add(gateway.store.count_to_ask(&part.config.name).await?);
    }
    let networks: Vec<&str> = parts.iter().map(|part| part.config.name.as_str()).collect();
    let job = JobRow {
        id: JobId::new(now, clock::id_bytes()),
        kind: JOB_KIND.to_owned(),
        status: JobStatus::Running,
        done: 0,
        total,
        detail: json!({ "networks": networks }).to_string(),
        created_at: now,
        changed_at: now,
    };
    // One that ended between the two looks is followed by this one.
    for _ in 0..TRIES {
        if gateway.store.add_job(&job).await? {
            gateway.signal(Wake::Job);
            return Ok(job);
        }
        if let Some(running) = gateway.store.running_job(JOB_KIND).await? {
            return Ok(running);
        }
    }
    Err(Problem::unavailable("busy", "another walk began and ended at this moment; try again"))
}

/// Does the jobs that nobody does, until `stop` says so.
pub async fn run_jobs(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut signals = gateway.listen();
    loop {
        let now = clock::now();
        match gateway.store.claim_job(JOB_KIND, gateway.duties.holder(), now.minus(JOB_SILENT_MAX), now).await {
            Ok(Some(job)) => tokio::select! {
                () = work(&gateway, job) => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "jobs could not be read"),
        }
        tokio::select! {
            () = tokio::time::sleep(JOBS_LOOK) => {}
            () = heard(&mut signals, |wake| *wake == Wake::Job) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Does a job and stores how far it is, for as long as it is ours.
async fn work(gateway: &Gateway, mut running: JobRow) {
    let holder = gateway.duties.holder();
    let detail: serde_json::Value = serde_json::from_str(&running.detail).unwrap_or_default();
    let wanted = detail.get("networks").and_then(serde_json::Value::as_array);
    let is_wanted = |part: &&Arc<NetworkPart>| wanted.is_none_or(|names| names.iter().any(|name| *name == part.config.name.as_str()));
    let parts: Vec<Arc<NetworkPart>> = gateway.networks().values().filter(is_wanted).cloned().collect();
    let (sender, mut done) = watch::channel(0);
    let walk = sync_all(gateway, &parts, |wallets| {
        sender.send_replace(wallets);
    });
    tokio::pin!(walk);
    let mut breath = tokio::time::interval(JOB_BREATH);
    let outcome = loop {
        tokio::select! {
            outcome = &mut walk => break outcome,
            _ = done.changed() => running.done = *done.borrow_and_update(),
            // That it is alive is said while a slow endpoint is waited for, too.
            _ = breath.tick() => {}
        }
        running.changed_at = clock::now();
        match gateway.store.put_job(&running, holder).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "the progress of a job could not be stored"),
        }
    };
    running.changed_at = clock::now();
    match outcome {
        Ok((Synced { wallets, differing, unknown, silent }, _)) => {
            running.status = if silent == 0 { JobStatus::Done } else { JobStatus::Failed };
            (running.done, running.total) = (wallets, running.total.max(wallets));
            running.detail =
                json!({ "wallets": wallets, "differing": differing, "unknown": unknown, "silent_networks": silent }).to_string();
        }
        Err(problem) => {
            running.status = JobStatus::Failed;
            running.detail = json!({ "error": problem.detail }).to_string();
        }
    }
    if let Err(error) = gateway.store.put_job(&running, holder).await {
        tracing::warn!(%error, "the end of a job could not be stored");
    }
}

/// How long to wait at most before looking for jobs again.
const JOBS_LOOK: Duration = Duration::from_secs(30);

/// How often a job says that it is alive.
const JOB_BREATH: Duration = Duration::from_secs(30);

/// The kind of job that reads every balance.
const JOB_KIND: &str = "wallet_sync";

/// Reads every balance now and then, until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let every = gateway.config.balances.sync_every;
    if every == Span::ZERO {
        return;
    }
    let mut wait = FIRST.min(every.to_std());
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // Done by one process for all.
        if !gateway.duties.hold(&Duty::House).is_here() {
            wait = FIRST.min(every.to_std());
            continue;
        }
        let parts: Vec<Arc<NetworkPart>> = gateway.networks().values().cloned().collect();
        tokio::select! {
            outcome = sync_all(&gateway, &parts, |_| {}) => match outcome {
                Ok((synced, _)) => tracing::info!(wallets = synced.wallets, differing = synced.differing, unknown = synced.unknown, silent = synced.silent, "balances read"),
                Err(problem) => tracing::warn!(code = problem.code, "balances could not be read: {}", problem.detail),
            },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        wait = every.to_std();
    }
}
