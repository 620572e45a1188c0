//! What the blocks say of the safety of our wallets: money that leaves without us, amounts and
//! floods that are unusual, and what the token's issuer does. `rules::risk` judges; what follows is
//! stored with the blocks.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Address, Block, Transfer};
use tidegate_rules::changes::{Changes, WalletChange, WalletMove};
use tidegate_rules::id::WalletId;
use tidegate_rules::risk::{self, History, Verdict, Whose};
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{WalletStatus, queue_rank};

use super::Follower;
use crate::gateway::Gateway;
use crate::people::Doer;
use crate::store::{StoreError, WalletRow};

/// Adds to `changes` what follows from these blocks.
pub(super) async fn suspect(follower: &Follower, blocks: &[Block], now: Time, changes: &mut Changes) -> Result<(), StoreError> {
    let watched = &follower.watched;
    let ours = |transfer: &&Transfer| watched.contains(&transfer.from) || watched.contains(&transfer.to);
    let noticed = blocks.iter().any(|block| !block.notices.is_empty());
    if !noticed && !blocks.iter().flat_map(|block| &block.transfers).any(|transfer| ours(&transfer)) {
        return Ok(());
    }
    let mut suspects = Suspects::read(follower, blocks).await?;
    for block in blocks {
        for transfer in block.transfers.iter().filter(ours) {
            suspects.judge(follower, transfer, block.at.time);
        }
        for notice in &block.notices {
            let at = block.at.time;
            match risk::concerns(notice) {
                None => {
                    let about = format!("{} block {}", follower.part.config.name, block.at.number);
                    suspects.tell(
                        risk::notice(notice, Whose::Stranger),
                        None,
                        &about,
                        &format!("the issuer of the token says: {notice:?}"),
                    );
                }
                Some(address) if suspects.wallets.contains_key(&address) => {
                    let about = suspects.wallets.get(&address).map(|row| row.id.to_string()).unwrap_or_default();
                    suspects.tell(
                        risk::notice(notice, Whose::Ours),
                        Some(address),
                        &about,
                        "the issuer of the token acted against this wallet",
                    );
                }
                Some(address) => {
                    for (wallet, paid_at) in follower.gateway.store.paid_by(&follower.part.config.name, &address).await? {
                        let (about, row) = (format!("{} {}", follower.part.chain.format_address(&address), wallet.id), wallet.address);
                        suspects.wallets.insert(row, wallet);
                        let text = "who paid to this wallet is on the issuer's blacklist now";
                        suspects.tell(risk::notice(notice, Whose::payer(paid_at, at)), Some(row), &about, text);
                    }
                }
            }
        }
    }
    suspects.finish(now, changes);
    Ok(())
}

/// The wallets that the blocks concern, and what was found about them.
#[derive(Default)]
struct Suspects {
    wallets: HashMap<Address, WalletRow>,
    histories: HashMap<WalletId, History>,
    found: Vec<(Verdict, Option<Address>, String, String)>,
}

impl Suspects {
    async fn read(follower: &Follower, blocks: &[Block]) -> Result<Self, StoreError> {
        let store = &follower.gateway.store;
        let sides = blocks.iter().flat_map(|block| &block.transfers).flat_map(|transfer| [transfer.from, transfer.to]);
        let named = blocks.iter().flat_map(|block| &block.notices).filter_map(risk::concerns);
        let mut addresses: Vec<Address> = sides.chain(named).filter(|address| follower.watched.contains(address)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let wallets = store.wallets_at(&follower.part.config.name, &addresses).await?;
        let paid: HashSet<Address> = blocks.iter().flat_map(|block| &block.transfers).map(|transfer| transfer.to).collect();
        let ids: Vec<WalletId> = wallets.iter().filter(|row| paid.contains(&row.address)).map(|row| row.id).collect();
        let since = blocks.first().map_or(Time::from_millis(0), |block| block.at.time.minus(risk::DUST_WINDOW));
        let histories = store.histories(&ids, follower.gateway.config.pool.dust_below, since).await?;
        Ok(Self { wallets: wallets.into_iter().map(|row| (row.address, row)).collect(), histories, found: Vec::new() })
    }

    fn judge(&mut self, follower: &Follower, transfer: &Transfer, at: Time) {
        let about = format!("{} {}/{}", follower.part.config.name, transfer.key.tx_hash, transfer.key.ordinal);
        let amount = transfer.value.to_amount_saturating(follower.part.config.decimals);
        let format = |address: &Address| follower.part.chain.format_address(address);
        let sender = self.wallets.get(&transfer.from).map(|row| (row.kind, row.name.clone()));
        if let Some((kind, name)) = sender {
            // Nothing is signed here yet, so nothing that leaves is ours.
            let verdict = risk::outgoing(kind, transfer, &HashSet::new());
            let text = format!(
                "{amount} left wallet {name} ({}) for {}, and no sweep of ours did it",
                format(&transfer.from),
                format(&transfer.to)
            );
            self.tell(verdict, Some(transfer.from), &about, &text);
            return;
        }
        let Some((id, name)) = self.wallets.get(&transfer.to).map(|row| (row.id, row.name.clone())) else { return };
        let dust_below = follower.gateway.config.pool.dust_below;
        let history = self.histories.entry(id).or_default();
        let verdict = risk::incoming(history, amount, dust_below);
        let largest = history.largest;
        if amount < dust_below {
            history.dust = history.dust.saturating_add(1);
            let text = format!("many amounts below {dust_below} came to wallet {name} ({}) within a day", format(&transfer.to));
            self.tell(verdict, Some(transfer.to), &risk::flood_about(id, at), &text);
        } else {
            history.incoming = history.incoming.saturating_add(1);
            history.largest = largest.max(amount);
            let text = format!("{amount} came to wallet {name} ({}), whose largest payment was {largest}", format(&transfer.to));
            self.tell(verdict, Some(transfer.to), &about, &text);
        }
    }

    fn tell(&mut self, verdict: Verdict, wallet: Option<Address>, about: &str, text: &str) {
        if verdict != Verdict::default() {
            self.found.push((verdict, wallet, about.to_owned(), text.to_owned()));
        }
    }

    /// One alert for each thing, and one change of risk and of status for each wallet.
    fn finish(self, now: Time, changes: &mut Changes) {
        let mut verdicts: BTreeMap<Address, (Verdict, String)> = BTreeMap::new();
        for (verdict, wallet, about, text) in self.found {
            changes.alerts.extend(verdict.alerts.iter().map(|kind| Gateway::alert(*kind, about.clone(), text.clone(), now)));
            let Some(wallet) = wallet else { continue };
            let (all, why) = verdicts.entry(wallet).or_default();
            all.risk = all.risk.max(verdict.risk);
            if verdict.freeze || why.is_empty() {
                *why = text;
            }
            all.freeze |= verdict.freeze;
        }
        for (address, (verdict, why)) in verdicts {
            let Some(row) = self.wallets.get(&address) else { continue };
            // Another change of this commit may come before.
            let before = changes.wallets.iter().filter(|change| change.id == row.id).count();
            let mut version = row.version.saturating_add(i64::try_from(before).unwrap_or(0));
            let mut push = |kind: WalletMove| {
                changes.wallets.push(WalletChange { id: row.id, version, kind });
                version = version.saturating_add(1);
            };
            let level = verdict.risk.map_or(row.risk_level, |to| risk::raise(row.risk_level, to));
            if level != row.risk_level {
                push(WalletMove::Risk(level));
                let detail = json!({ "from": row.risk_level.name(), "to": level.name() });
                changes.audit.push(Doer::program().did(Action::WalletRisk, row.id, now).because(&why).with(&detail));
            }
            if verdict.freeze && row.status != WalletStatus::Frozen {
                push(WalletMove::Put {
                    status: WalletStatus::Frozen,
                    queue_rank: queue_rank(row.kind, row.ever_leased, now),
                    rested_at: None,
                });
                let detail = json!({ "from": row.status.name(), "to": "frozen" });
                changes.audit.push(Doer::program().did(Action::WalletStatus, row.id, now).because(&why).with(&detail));
            }
        }
    }
}
