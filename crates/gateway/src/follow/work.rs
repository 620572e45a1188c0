//! The rows that a pass works on: as they were read, and as they are becoming. What differs in the
//! end is what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash, Network, Transfer, TransferKey, Unreadable};
use tidegate_rules::changes::{Changes, JournalEntry, NewAlert, OrderChange, Recorded, TransferChange, WalletChange, WalletMove};
use tidegate_rules::id::{OrderId, TransferId, WalletId};
use tidegate_rules::lease::{self, Incoming, Window};
use tidegate_rules::order::{self, Depth, Disposition, Head, Heads, Payment, Refusal, Step, Terms};
use tidegate_rules::time::Time;

use super::Follower;
use crate::clock;
use crate::gateway::Gateway;
use crate::orders::{self, mark};
use crate::store::{NetworkRow, OrderRow, StoreError, TransferRow, WalletRow};

/// Unreadable logs that concern none of our addresses and are recorded all the same, per block.
const FOREIGN_UNREADABLE_MAX: usize = 8;

/// What becomes of a transfer that was never seen before.
struct Fate {
    order: Option<OrderId>,
    recorded: Recorded,
    wallet: Option<WalletId>,
}

/// A transfer that a person names to confirm an order with, and why.
pub(crate) struct Linked<'a> {
    pub(crate) network: &'a Network,
    pub(crate) key: TransferKey,
    pub(crate) reason: &'a str,
}

/// The rows a pass works on: as they were read, and as they are becoming.
#[derive(Default)]
pub(crate) struct Work {
    orders: BTreeMap<OrderId, OrderRow>,
    /// Transfers that no order owns, and new ones until their order takes them.
    loose: BTreeMap<TransferKey, TransferRow>,
    /// Everything as it was read.
    orders_before: BTreeMap<OrderId, OrderRow>,
    transfers_before: HashMap<TransferId, TransferRow>,
    wallets: HashMap<Address, WalletRow>,
    windows: HashMap<WalletId, Vec<Window>>,
    /// The highest block that paid to a wallet in this pass.
    paid_at: BTreeMap<WalletId, (i64, u64)>,
    raw_logs: HashMap<TransferId, String>,
}

impl Work {
    /// Reads what the blocks, and the branch they may replace, concern.
    pub(super) async fn gather(
        follower: &Follower,
        row: &NetworkRow,
        rewind_to: Option<u64>,
        blocks: &[Block],
    ) -> Result<Self, StoreError> {
        let store = &follower.gateway.store;
        let watched = &follower.watched;
        let hits: Vec<&Transfer> =
            blocks.iter().flat_map(|block| &block.transfers).filter(|transfer| watched.contains(&transfer.to)).collect();
        let mentioned = blocks
            .iter()
            .flat_map(|block| &block.unreadable)
            .flat_map(|log| &log.mentions)
            .filter(|address| watched.contains(address))
            .copied();
        let mut addresses: Vec<Address> = hits.iter().map(|hit| hit.to).chain(mentioned).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut work = Self::default();
        let mut keys: Vec<TransferKey> = hits.iter().map(|hit| hit.key).collect();
        keys.extend(blocks.iter().flat_map(|block| &block.unreadable).map(|log| log.key));
        let mut ids: BTreeSet<OrderId> = BTreeSet::new();
        if !addresses.is_empty() {
            let wallets = store.wallets_at(&row.name, &addresses).await?;
            let wallet_ids: Vec<WalletId> = wallets.iter().map(|wallet| wallet.id).collect();
            let heights = || blocks.iter().map(|block| block.at.number);
            let (first, last) = (heights().min().unwrap_or(0), heights().max().unwrap_or(0));
            work.windows = store.windows(&wallet_ids, first..=last).await?;
            work.wallets = wallets.into_iter().map(|wallet| (wallet.address, wallet)).collect();
            ids.extend(work.windows.values().flatten().map(|window| window.order));
        }
        let mut known = if keys.is_empty() { Vec::new() } else { store.transfers_by_key(&row.name, &keys).await? };
        if let Some(to) = rewind_to {
            known.append(&mut store.transfers_above(&row.name, to).await?);
        }
        ids.extend(known.iter().filter_map(|transfer| transfer.order));
        let ids: Vec<OrderId> = ids.into_iter().collect();
        work.load_orders(store.orders(&ids).await?);
        work.load_loose(known);
        Ok(work)
    }

    pub(crate) fn load_orders(&mut self, orders: Vec<OrderRow>) {
        for order in orders {
            for transfer in &order.transfers {
                self.transfers_before.insert(transfer.id, transfer.clone());
            }
            self.orders_before.insert(order.id, order.clone());
            self.orders.insert(order.id, order);
        }
    }

    /// Keeps those that no loaded order owns.
    pub(crate) fn load_loose(&mut self, transfers: Vec<TransferRow>) {
        for transfer in transfers {
            if transfer.order.is_none_or(|order| !self.orders.contains_key(&order)) {
                self.transfers_before.insert(transfer.id, transfer.clone());
                self.loose.insert(transfer.payment.key, transfer);
            }
        }
    }

    /// A transfer as it was read, if it was.
    pub(super) fn known(&self, key: TransferKey) -> Option<&TransferRow> {
        let listed = || self.orders.values().flat_map(|order| &order.transfers).find(|transfer| transfer.payment.key == key);
        self.loose.get(&key).or_else(listed)
    }

    /// Every transfer at hand.
    fn all(&mut self) -> impl Iterator<Item = &mut TransferRow> {
        self.loose.values_mut().chain(self.orders.values_mut().flat_map(|order| &mut order.transfers))
    }

    /// The branch above this height is gone: its transfers are orphaned until seen again.
    pub(super) fn orphan_above(&mut self, network: &Network, rewind_to: Option<u64>) {
        let Some(to) = rewind_to else { return };
        for transfer in self.all() {
            // An order's transfers may be of several networks, whose heights have nothing in common.
            if transfer.payment.network == *network && transfer.payment.block.number > to {
                transfer.payment.standing = false;
                transfer.payment.settled = false;
                transfer.payment.proven = false;
            }
        }
    }

    /// The orders that were told of money which a branch includes again as something else: what they were
    /// told is taken back first.
    pub(super) fn told_of_other_money(&self, network: &Network, blocks: &[Block]) -> BTreeSet<OrderId> {
        let again: HashMap<TransferKey, &Transfer> =
            blocks.iter().flat_map(|block| &block.transfers).map(|transfer| (transfer.key, transfer)).collect();
        let is_other = |row: &TransferRow| {
            let payment = &row.payment;
            let differs = |now: &&Transfer| (now.from, now.to, now.value) != (payment.from, payment.to, payment.value);
            payment.network == *network && !payment.standing && payment.late_told && again.get(&payment.key).is_some_and(differs)
        };
        self.orders.values().filter(|order| order.transfers.iter().any(is_other)).map(|order| order.id).collect()
    }

    pub(super) fn orphaned_orders(&self) -> BTreeSet<OrderId> {
        let orphaned = |order: &&OrderRow| order.transfers.iter().any(|transfer| !transfer.payment.standing);
        self.orders.values().filter(orphaned).map(|order| order.id).collect()
    }

    /// Gives every transfer of a block that concerns us its owner. The orders that have money in it.
    pub(super) fn take_block(&mut self, follower: &Follower, block: &Block, now: Time) -> BTreeSet<OrderId> {
        let mut touched = BTreeSet::new();
        for transfer in &block.transfers {
            let Some(wallet) = self.wallets.get(&transfer.to) else { continue };
            let (wallet_id, version) = (wallet.id, wallet.version);
            let decimals = follower.part.config.decimals;
            let incoming = Incoming {
                value: transfer.value,
                decimals,
                number: block.at.number,
                time: block.at.time,
                from_own: follower.watched.contains(&transfer.from),
            };
            let windows = self.windows.get(&wallet_id).map_or(&[][..], Vec::as_slice);
            let claim = lease::claim(windows, &incoming, follower.gateway.config.pool.dust_below);
            let (order, recorded) = Recorded::of(claim);
            let fate = Fate { order, recorded, wallet: Some(wallet_id) };
            let paid_at = self.paid_at.entry(wallet_id).or_insert((version, block.at.number));
            paid_at.1 = paid_at.1.max(block.at.number);
            touched.extend(self.place(follower, transfer, &block.at, &fate, now));
        }
        self.take_unreadable(follower, block, now);
        touched
    }

    /// Puts a transfer where it belongs: one that was seen before stays where it was, whatever block
    /// it is in now, for a deep fork must not pay a stranger's order. On another branch it may move
    /// something else, though, as the price of a swap does, or to another wallet: then what it is on
    /// that branch counts. The orders it concerns.
    fn place(&mut self, follower: &Follower, transfer: &Transfer, at: &BlockRef, fate: &Fate, now: Time) -> BTreeSet<OrderId> {
        let known = self.find(&follower.part.config.name, transfer.key);
        let format = |address: &Address| follower.part.chain.format_address(address);
        let mut concerned: BTreeSet<OrderId> = known.iter().filter_map(|row| row.order).collect();
        let known = known.map(|mut row| {
            let is_read = fate.recorded != Recorded::Unreadable && row.recorded != Recorded::Unreadable;
            if row.block_hash != at.hash && is_read {
                let is_elsewhere = row.payment.to != transfer.to || (row.recorded == Recorded::Own) != (fate.recorded == Recorded::Own);
                if is_elsewhere {
                    (row.order, row.recorded, row.wallet) = (fate.order, fate.recorded, fate.wallet);
                    (row.payment.by_hand, row.payment.promoted, row.payment.late_told) = (false, false, false);
                } else if row.order.is_none() && fate.order.is_none() {
                    // What was dust may be money now.
                    row.recorded = fate.recorded;
                }
                (row.payment.from, row.payment.to, row.payment.value) = (transfer.from, transfer.to, transfer.value);
                row.address_texts = (format(&transfer.from), format(&transfer.to));
            }
            row
        });
        let mut row = known.unwrap_or_else(|| TransferRow {
            id: TransferId::new(now, clock::id_bytes()),
            payment: Payment {
                network: follower.part.config.name.clone(),
                key: transfer.key,
                from: transfer.from,
                to: transfer.to,
                value: transfer.value,
                decimals: follower.part.config.decimals,
                block: mark(at),
                standing: true,
                proven: false,
                settled: false,
                promoted: false,
                by_hand: false,
                late_told: false,
                failed: false,
            },
            block_hash: at.hash,
            recorded: fate.recorded,
            order: fate.order,
            wallet: fate.wallet,
            address_texts: (format(&transfer.from), format(&transfer.to)),
            seen_at: now,
            version: 0,
        });
        if row.block_hash != at.hash {
            (row.payment.settled, row.payment.proven) = (false, false);
        }
        row.payment.block = mark(at);
        (row.payment.standing, row.payment.failed) = (true, false);
        row.block_hash = at.hash;
        concerned.extend(row.order);
        match row.order.and_then(|owner| self.orders.get_mut(&owner)) {
            Some(order) => order.transfers.push(row),
            None => {
                self.loose.insert(row.payment.key, row);
            }
        }
        concerned
    }

    /// Takes a transfer out of where it is.
    fn find(&mut self, network: &Network, key: TransferKey) -> Option<TransferRow> {
        if let Some(row) = self.loose.remove(&key) {
            return Some(row);
        }
        self.orders.values_mut().find_map(|order| {
            let named = |transfer: &TransferRow| transfer.payment.network == *network && transfer.payment.key == key;
            let index = order.transfers.iter().position(named)?;
            Some(order.transfers.remove(index))
        })
    }

    /// A log that cannot be read never stops the cursor: it becomes a row (I14).
    fn take_unreadable(&mut self, follower: &Follower, block: &Block, now: Time) {
        let mut foreign: usize = 0;
        for Unreadable { key, raw, mentions } in &block.unreadable {
            let ours = mentions.iter().find(|address| self.wallets.contains_key(address)).copied();
            if ours.is_none() {
                foreign = foreign.saturating_add(1);
                if foreign > FOREIGN_UNREADABLE_MAX {
                    continue;
                }
            }
            let to = ours.unwrap_or(Address([0; 20]));
            let wallet = self.wallets.get(&to).map(|wallet| wallet.id);
            let transfer = Transfer { key: *key, from: Address([0; 20]), to, value: Raw::ZERO };
            self.place(follower, &transfer, &block.at, &Fate { order: None, recorded: Recorded::Unreadable, wallet }, now);
            if let Some(row) = self.loose.get(key) {
                self.raw_logs.insert(row.id, raw.clone());
            }
        }
    }

    /// Which transfers are deep enough and not proven yet, by block, lowest first.
    pub(super) fn deep_unproven(&mut self, head: &Head, network: &Network, loose_depth: Depth) -> BTreeMap<(u64, Hash), Vec<TransferKey>> {
        let mut deep: BTreeMap<(u64, Hash), Vec<TransferKey>> = BTreeMap::new();
        let mut add = |transfer: &TransferRow, depth: Depth| {
            let payment = &transfer.payment;
            if payment.network == *network && payment.standing && !payment.proven && head.buries(payment.block.number, depth) {
                deep.entry((payment.block.number, transfer.block_hash)).or_default().push(payment.key);
            }
        };
        for order in self.orders.values() {
            let depth = order.order.terms.depth(network);
            order.transfers.iter().for_each(|transfer| add(transfer, depth));
        }
        self.loose.values().for_each(|transfer| add(transfer, loose_depth));
        deep
    }

    /// Marks a transfer as proven if the second reading shows it as it was.
    pub(super) fn prove(&mut self, network: &Network, key: TransferKey, shown: impl Fn(&Payment) -> bool) -> bool {
        let Some(row) = self.all().find(|row| row.payment.network == *network && row.payment.key == key) else { return false };
        row.payment.proven = shown(&row.payment);
        row.payment.proven
    }

    /// Money without an order settles at the network's own depth.
    pub(super) fn settle_loose(&mut self, head: &Head, depth: Depth) {
        for transfer in self.loose.values_mut() {
            let payment = &mut transfer.payment;
            if payment.standing && payment.proven && head.buries(payment.block.number, depth) {
                payment.settled = true;
            }
        }
    }

    /// Takes orders one step forward and notes what there is to tell.
    pub(crate) async fn step(
        &mut self,
        gateway: &Gateway,
        ids: &BTreeSet<OrderId>,
        heads: &Heads,
        now: Time,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        for id in ids {
            let Some(row) = self.orders.get_mut(id) else { continue };
            let step = order::advance(&row.order, &row.payments(), heads, now);
            let told = (step.events.clone(), step.alerts.clone());
            let left = absorb(row, step);
            let owner = gateway.merchant(row.merchant).await?;
            orders::tell(gateway, row, &owner, (&told.0, &told.1), heads, now, changes);
            for mut transfer in left {
                (transfer.order, transfer.recorded, transfer.payment.by_hand) = (None, Recorded::Stray, false);
                self.loose.insert(transfer.payment.key, transfer);
            }
        }
        Ok(())
    }

    /// A person confirms an order with a transfer, which moves to it from wherever it is. The order
    /// that had it takes a step too.
    pub(crate) async fn confirm(
        &mut self,
        gateway: &Gateway,
        id: OrderId,
        Linked { network, key, reason }: Linked<'_>,
        heads: &Heads,
        now: Time,
        changes: &mut Changes,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let counts = |row: &OrderRow| {
            row.transfers.iter().any(|transfer| transfer.payment.is(network, key) && order::may_count(&row.order, &transfer.payment))
        };
        if self.orders.values().any(counts) {
            return Ok(Err(Refusal::TransferCounted));
        }
        let (Some(mut linked), Some(row)) = (self.find(network, key), self.orders.get_mut(&id)) else {
            return Err(StoreError::Lost);
        };
        let step = match order::confirm(&row.order, &row.payments(), reason, Some(linked.payment.clone()), heads, now) {
            Ok(step) => step,
            Err(refused) => return Ok(Err(refused)),
        };
        let before = linked.order.replace(id);
        row.transfers.push(linked);
        let told = (step.events.clone(), step.alerts.clone());
        // The order takes the linked one; nothing else leaves it by a confirmation.
        let left = absorb(row, step);
        self.loose.extend(left.into_iter().map(|transfer| (transfer.payment.key, transfer)));
        if let Some(row) = self.orders.get(&id) {
            let owner = gateway.merchant(row.merchant).await?;
            orders::tell(gateway, row, &owner, (&told.0, &told.1), heads, now, changes);
        }
        if let Some(before) = before.filter(|before| *before != id) {
            self.step(gateway, &BTreeSet::from([before]), heads, now, changes).await?;
        }
        Ok(Ok(()))
    }

    /// Gives an order its new terms, and the money that is its own by them.
    pub(crate) async fn extend(
        &mut self,
        gateway: &Gateway,
        id: OrderId,
        (terms, strays): (Terms, Vec<TransferRow>),
        heads: &Heads,
        now: Time,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let Some(row) = self.orders.get_mut(&id) else { return Ok(()) };
        row.order.terms = terms;
        for mut stray in strays {
            self.loose.remove(&stray.payment.key);
            // Another depth settles it now.
            (stray.order, stray.payment.settled) = (Some(id), false);
            row.transfers.push(stray);
        }
        self.step(gateway, &BTreeSet::from([id]), heads, now, changes).await
    }

    /// An order at hand, as it is becoming.
    pub(crate) fn order(&self, id: OrderId) -> Option<&OrderRow> {
        self.orders.get(&id)
    }

    /// Writes down what differs from what was read, and books what settled or was taken back.
    pub(crate) async fn finish(self, gateway: &Gateway, now: Time, changes: &mut Changes) -> Result<(), StoreError> {
        let mut booked = Vec::new();
        let is_same = |row: &TransferRow| {
            self.transfers_before.get(&row.id).is_some_and(|before| {
                before.payment == row.payment
                    && before.recorded == row.recorded
                    && before.order == row.order
                    && before.block_hash == row.block_hash
            })
        };
        for row in self.orders.values() {
            let before = self.orders_before.get(&row.id);
            // With its transfers too, those that left it included: who decides on the order meanwhile
            // must not miss them.
            let same_money = |before: &OrderRow| before.transfers.len() == row.transfers.len() && row.transfers.iter().all(is_same);
            if before.is_none_or(|before| before.order != row.order || !same_money(before)) {
                changes.orders.push(OrderChange {
                    id: row.id,
                    version: row.version,
                    order: row.order.clone(),
                    cancel_reason: None,
                    edited: None,
                });
            }
        }
        let transfers = self.orders.values().flat_map(|order| &order.transfers).chain(self.loose.values());
        for row in transfers {
            let before = self.transfers_before.get(&row.id);
            if is_same(row) {
                continue;
            }
            let was_settled = before.filter(|before| before.payment.settled && is_money(before));
            let is_settled = row.payment.settled && is_money(row);
            // Settled money that goes to another owner is taken from the one and booked to the other. What
            // is taken back is what was booked, from where it was booked to, whatever it is now.
            let stays = was_settled.is_some_and(|before| is_settled && source(before) == source(row));
            if let Some(before) = was_settled.filter(|_| !stays) {
                booked.push(TransferRow { payment: Payment { settled: false, ..before.payment.clone() }, ..before.clone() });
            }
            if is_settled && !stays {
                booked.push(row.clone());
            }
            if before.is_none_or(|before| before.recorded != row.recorded) {
                changes.alerts.extend(loose_alert(row, now));
            }
            let moved = |row: &TransferRow| (row.payment.from, row.payment.to, row.payment.value, row.wallet);
            let rewritten = before.is_some_and(|before| moved(before) != moved(row));
            changes.transfers.push(TransferChange { rewritten, ..transfer_change(row, self.raw_logs.get(&row.id).cloned()) });
        }
        for (id, (version, number)) in &self.paid_at {
            changes.wallets.push(WalletChange { id: *id, version: *version, kind: WalletMove::PaidAt(*number) });
        }
        if !booked.is_empty() {
            let ids: Vec<TransferId> = booked.iter().map(|row| row.id).collect();
            let mut turns = gateway.store.journal_turns(&ids).await?;
            for row in &booked {
                let turn = turns.entry(row.id).or_default();
                changes.journal.push(journal_entry(row, *turn, now));
                *turn = turn.saturating_add(1);
            }
        }
        Ok(())
    }
}

/// Takes a step over into the row of its order. What left the order by it: linked by a person to an
/// order whose address it did not pay, and void now.
fn absorb(row: &mut OrderRow, step: Step) -> Vec<TransferRow> {
    row.order = step.order;
    let name = |payment: &Payment| (payment.network.clone(), payment.key);
    let mut payments: HashMap<(Network, TransferKey), Payment> =
        step.payments.into_iter().map(|payment| (name(&payment), payment)).collect();
    let mut left = Vec::new();
    row.transfers.retain_mut(|transfer| match payments.remove(&name(&transfer.payment)) {
        Some(payment) => {
            transfer.recorded = recorded_of(&row.order, &payment);
            transfer.payment = payment;
            true
        }
        None => {
            left.push(transfer.clone());
            false
        }
    });
    left
}

/// What became of a transfer that an order owns.
pub(super) fn recorded_of(order: &order::Order, payment: &Payment) -> Recorded {
    match order::disposition(order, payment) {
        Disposition::Matched => Recorded::Matched,
        Disposition::Late => Recorded::Late,
    }
}

/// Unmatched money is never silent.
fn loose_alert(row: &TransferRow, now: Time) -> Option<NewAlert> {
    let payment = &row.payment;
    let about = format!("{} {}/{}", payment.network, payment.key.tx_hash, payment.key.ordinal);
    match row.recorded {
        Recorded::Stray => {
            let amount = payment.value.to_amount_saturating(payment.decimals);
            Some(Gateway::alert(
                AlertKind::StrayMoney,
                about,
                format!("{amount} arrived at {} and no order owns that wallet then", row.address_texts.1),
                now,
            ))
        }
        Recorded::Unreadable => Some(Gateway::alert(
            AlertKind::UnreadableLog,
            about,
            "a Transfer log of the token could not be read; its raw form is kept",
            now,
        )),
        Recorded::Matched | Recorded::Late | Recorded::Dust | Recorded::Own => None,
    }
}

/// A transfer as it is to be stored.
pub fn transfer_change(row: &TransferRow, raw_log: Option<String>) -> TransferChange {
    TransferChange {
        id: row.id,
        version: (row.version > 0).then_some(row.version),
        payment: row.payment.clone(),
        block_hash: row.block_hash,
        recorded: row.recorded,
        order: row.order,
        wallet: row.wallet,
        address_texts: row.address_texts.clone(),
        rewritten: false,
        raw_log,
        seen_at: row.seen_at,
    }
}

/// The double entry of a transfer that settled, or its reverse when it was taken back.
fn journal_entry(row: &TransferRow, turn: i64, now: Time) -> JournalEntry {
    let wallet = format!("wallet:{}", row.address_texts.1);
    let source = source(row);
    let (debit, credit) = if row.payment.settled { (wallet, source) } else { (source, wallet) };
    JournalEntry { transfer: row.id, turn, network: row.payment.network.clone(), debit, credit, value: row.payment.value, at: now }
}

/// A value that no token moves is not money.
fn is_money(row: &TransferRow) -> bool {
    !row.payment.value.is_zero() && row.recorded != Recorded::Unreadable
}

/// The account that a transfer's money comes from.
fn source(row: &TransferRow) -> String {
    match (row.recorded, row.order) {
        (Recorded::Own, _) => format!("wallet:{}", row.address_texts.0),
        (_, Some(order)) => format!("order:{order}"),
        _ => "unmatched".to_owned(),
    }
}
