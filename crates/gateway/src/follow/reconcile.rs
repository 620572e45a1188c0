//! The second reader of a network: reads everything that has settled once more, by another method
//! than the follower did, and compares. A difference is an alert, and money that was missed is
//! taken in.
//!
//! Its place is durable and never ahead of the settled head, so downtime delays it and loses
//! nothing. It pays for a few requests in a hundred blocks (EVM) or one a block (TRON), and can be
//! switched off for a network (`reconcile = "off"`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_chain::{SECOND_READING_MAX, SecondReading};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::block::{Address, Block, BlockRef, TransferKey};
use tidegate_rules::changes::{Changes, NewAlert, Reconciled, Recorded};
use tidegate_rules::order::Head;
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::WalletKind;
use tokio::sync::watch;

use super::{Follower, Then, Trouble};
use crate::clock;
use crate::config::Reconcile;
use crate::duties::Duty;
use crate::gateway::{Gateway, NetworkPart};
use crate::store::{TransferRow, WalletRow};

/// How long to rest once everything that has settled was read again.
const REST: Span = Span::from_secs(15);

/// How far the clock of a chain may be from ours.
const CLOCKS_DIFFER: Span = Span::from_secs(60);

/// How long to rest after trouble: the follower needs the endpoints more.
const REST_AFTER_TROUBLE: Span = Span::from_secs(60);

/// Reads again until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, part: Arc<NetworkPart>, mut stop: watch::Receiver<bool>) {
    if part.config.reconcile == Reconcile::Off {
        return;
    }
    let mut reader = Follower::new(gateway, part);
    let duty = Duty::Follow(reader.part.config.name.clone());
    let mut duties = reader.gateway.duties.watch();
    loop {
        let hold = reader.gateway.duties.hold(&duty);
        if !hold.is_here() {
            tokio::select! {
                _ = duties.changed() => continue,
                () = tokio::time::sleep(REST.to_std()) => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        reader.fence = hold.fence();
        let pause = match reader.reconcile().await {
            Ok(Then::GoOn) => reader.part.config.poll_interval,
            Ok(Then::Rest) => REST,
            Err(trouble) => {
                tracing::warn!(network = %reader.part.config.name, "reading again what has settled failed: {trouble}");
                REST_AFTER_TROUBLE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.to_std()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Follower {
    /// Compares the next blocks that have settled.
    async fn reconcile(&mut self) -> Result<Then, Trouble> {
        let part = Arc::clone(&self.part);
        let name = &part.config.name;
        // The follower has not begun, and will in a moment.
        let Some(head) = part.state().head else { return Ok(Then::GoOn) };
        // As deep as the most careful order wants it: what is read now was settled for everybody.
        let Some(settled) = head.settled(part.config.deepest()) else { return Ok(Then::Rest) };
        self.identify().await?;
        let known = self.gateway.store.reconciled(name).await?;
        let Some(first) = first_after(known, &head) else { return Ok(Then::Rest) };
        if first > settled.number {
            return Ok(Then::Rest);
        }
        let last = settled.number.min(first.saturating_add(u64::try_from(SECOND_READING_MAX).unwrap_or(1)).saturating_sub(1));
        let blocks = self.gateway.store.blocks(name, first, last).await?;
        let Some(end) = blocks.last().copied() else { return Ok(Then::Rest) };

        let read = part.chain.second_reading(&blocks).await?;
        let mut whole: Vec<Block> = Vec::new();
        let mut alerts = Vec::new();
        for (block, reading) in blocks.iter().zip(read) {
            match reading {
                SecondReading::Same(found) => whole.push(found),
                SecondReading::Replaced(_) => alerts.push(replaced(&part, block)),
            }
        }
        self.learn_addresses(name).await?;
        let recorded = self.gateway.store.transfers_between(name, first, end.number).await?;
        alerts.extend(whole.iter().flat_map(|block| self.vanished(block, &recorded)));
        let wallets = self.gateway.store.wallets_at(name, &self.paid_in(&whole)).await?;
        let since: HashMap<Address, Time> = wallets.iter().map(|wallet| (wallet.address, ours_since(wallet))).collect();
        let ours = whole.into_iter().map(|mut block| {
            block.transfers.retain(|transfer| since.get(&transfer.to).is_some_and(|since| *since <= block.at.time));
            block
        });
        let ours: Vec<Block> = ours.filter(|block| !block.transfers.is_empty()).collect();
        if !ours.is_empty()
            && let Some(row) = self.gateway.store.network(name).await?
        {
            let (_, mended) = self.take_again(&row, &ours).await?;
            if mended > 0 {
                tracing::error!(network = %name, mended, "transfers that the first reading had missed are recorded now");
            }
        }
        let reconciled = Some(Reconciled { network: name.clone(), from: known, to: end.number });
        // A conflict means that another process was first, which is as good.
        let _ = self.commit(Changes { reconciled, alerts, ..Changes::default() }).await?;
        part.tell(|state| state.reconciled = Some(end.number));
        Ok(if end.number < settled.number { Then::GoOn } else { Then::Rest })
    }

    /// What is recorded in this block and not in it when it is read again. Money that was not
    /// settled yet stays so: the follower's own second look does not prove it.
    fn vanished(&self, block: &Block, recorded: &[TransferRow]) -> Vec<NewAlert> {
        let shown: BTreeSet<TransferKey> =
            block.transfers.iter().map(|transfer| transfer.key).chain(block.unreadable.iter().map(|log| log.key)).collect();
        let gone = |row: &&TransferRow| {
            row.block_hash == block.at.hash
                && row.payment.standing
                && row.recorded != Recorded::Unreadable
                && !shown.contains(&row.payment.key)
        };
        let alert = |row: &TransferRow| {
            let key = row.payment.key;
            let about = format!("{} {}/{}", self.part.config.name, key.tx_hash, key.ordinal);
            let detail = format!("block {} was read again by another way, and this recorded transfer is not in it", block.at.number);
            Gateway::alert(AlertKind::RereadDiffers, about, detail, clock::now())
        };
        recorded.iter().filter(gone).map(alert).collect()
    }

    /// Addresses of ours that these blocks pay to.
    fn paid_in(&self, blocks: &[Block]) -> Vec<Address> {
        let to: BTreeSet<_> =
            blocks.iter().flat_map(|block| &block.transfers).map(|transfer| transfer.to).filter(|to| self.watched.contains(to)).collect();
        to.into_iter().collect()
    }
}

/// The block to go on with: the one after the last that was compared, or, where nothing was yet or
/// more was forgotten meanwhile, the oldest that is kept.
fn first_after(known: Option<u64>, head: &Head) -> Option<u64> {
    let oldest = head.marks.first()?.number;
    let next = known.map_or(oldest, |known| known.saturating_add(1));
    if next < oldest {
        tracing::warn!(from = next, to = oldest, "blocks were forgotten before they were read again; `tidegate scan` reads them");
    }
    Some(next.max(oldest))
}

/// What came to an address before it was ours is nobody's business. Nobody knew that of a key made
/// here at random; for the others the clocks may differ a little.
fn ours_since(wallet: &WalletRow) -> Time {
    match wallet.kind {
        WalletKind::Random => Time::from_millis(0),
        WalletKind::Hd | WalletKind::Watch | WalletKind::Imported => wallet.created_at.minus(CLOCKS_DIFFER),
    }
}

fn replaced(part: &NetworkPart, block: &BlockRef) -> NewAlert {
    let about = format!("{} block {}", part.config.name, block.number);
    let detail = format!(
        "block {} had settled, and an endpoint shows another in its place now: compare the endpoints with an explorer",
        block.number
    );
    Gateway::alert(AlertKind::RereadDiffers, about, detail, clock::now())
}
