//! A new master key: everything that is sealed is sealed again under it.
//!
//! While it goes on both keys are known, and each text names the one it is under, so nothing stops
//! working and nothing is lost when the process is killed: the next run finds what is left by
//! asking for texts that are not under the new key. The check value that binds the database to a
//! key moves last, and only when nothing is left.

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, Reseal, SealedIn};
use tidegate_rules::id::WalletId;
use tidegate_vault::{Binding, OsEntropy, Sealed, SealedSeed, Vault, Wallet};

use crate::clock;
use crate::gateway::Gateway;
use crate::keyring::setting_binding;
use crate::people::{Doer, totp_binding};
use crate::sources;
use crate::start::{Sorry, VAULT_CHECK};
use crate::store::{Commit, WalletRow};

/// How many rows are sealed again in one commit.
pub const BATCH: i64 = 250;

/// What a rotation did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotated {
    /// How many texts were sealed again.
    pub texts: u64,
    /// How many there are that nobody could open and that were left.
    pub left: u64,
}

/// Every place that holds something sealed, in the order they are gone through.
const PLACES: [SealedIn; 11] = [
    SealedIn::Setting,
    SealedIn::WebhookSecret,
    SealedIn::PreviousSecret,
    SealedIn::EndpointSecret,
    SealedIn::PreviousEndpointSecret,
    SealedIn::TotpSecret,
    SealedIn::Seed,
    SealedIn::SourceMac,
    SealedIn::WalletKey,
    SealedIn::WalletTag,
    SealedIn::LeaseTag,
];

/// Seals everything under the current master key. `progress` hears how many texts are done.
///
/// # Errors
/// Without a previous key, when a text opens under neither, or when the store does not answer. Run
/// it again: it goes on where it was.
pub async fn rotate(gateway: &Gateway, doer: &Doer, mut progress: impl FnMut(u64)) -> Result<Rotated, Sorry> {
    let current = gateway.vault.current();
    let previous = gateway.vault.previous().ok_or_else(|| {
        Sorry::new("WALLET_MASTER_KEY_PREVIOUS is missing: set WALLET_MASTER_KEY to the new key and WALLET_MASTER_KEY_PREVIOUS to the one in use, restart `tidegate serve` with both, then rotate")
    })?;
    if current.key_id() == previous.key_id() {
        return Err(Sorry::new(
            "WALLET_MASTER_KEY and WALLET_MASTER_KEY_PREVIOUS are the same key: expected a new one, made by `tidegate key new`",
        ));
    }
    let ids = json!({ "from": previous.key_id(), "to": current.key_id() });
    log(gateway, doer, Action::KeyRotateBegin, &ids).await?;
    let mut rotated = Rotated::default();
    // Again until nothing is left: whoever runs with the old key alone may still be sealing.
    loop {
        let before = rotated.texts;
        for place in PLACES {
            go_through(gateway, previous, place, &mut rotated, &mut progress).await?;
        }
        if rotated.texts == before {
            break;
        }
    }
    gateway.store.set_setting(VAULT_CHECK, &current.check_value()).await?;
    log(gateway, doer, Action::KeyRotateEnd, &json!({ "from": previous.key_id(), "to": current.key_id(), "texts": rotated.texts })).await?;
    Ok(rotated)
}

async fn log(gateway: &Gateway, doer: &Doer, action: Action, detail: &serde_json::Value) -> Result<(), Sorry> {
    let audit = doer.did(action, "master key", clock::now()).with(detail);
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    Ok(())
}

async fn go_through(
    gateway: &Gateway,
    previous: &Vault,
    place: SealedIn,
    rotated: &mut Rotated,
    progress: &mut impl FnMut(u64),
) -> Result<(), Sorry> {
    let current = gateway.vault.current();
    let mut after = String::new();
    loop {
        let found = gateway.store.sealed_by_others(place, current.key_id(), &after, BATCH).await?;
        let Some((last, _)) = found.last() else { return Ok(()) };
        let next = last.clone();
        let reseals = seal_again(gateway, previous, place, &found).await?;
        let count = u64::try_from(reseals.len()).unwrap_or(0);
        match gateway.store.commit(Changes { reseals, ..Changes::default() }).await? {
            Commit::Done => {
                rotated.texts = rotated.texts.saturating_add(count);
                progress(rotated.texts);
                after = next;
            }
            // Somebody else is rotating too, or a row went: read the same ones again.
            Commit::Conflict => {}
        }
    }
}

/// The new texts of some rows of a place.
async fn seal_again(gateway: &Gateway, previous: &Vault, place: SealedIn, found: &[(String, String)]) -> Result<Vec<Reseal>, Sorry> {
    let current = gateway.vault.current();
    let wallets = match place {
        SealedIn::WalletKey | SealedIn::WalletTag => by_id(gateway, found.iter().map(|(id, _)| id.clone()).collect()).await?,
        SealedIn::LeaseTag => of_leases(gateway, found).await?,
        _ => Vec::new(),
    };
    let sources = if matches!(place, SealedIn::Seed | SealedIn::SourceMac) { gateway.store.sources().await? } else { Vec::new() };
    let mut reseals = Vec::with_capacity(found.len());
    for (id, old) in found {
        let stuck = |error: &dyn std::fmt::Display| {
            Sorry(format!("{place:?} of {id} stays under the old key: {error}; nothing was lost, mend it and rotate again"))
        };
        let wallet = || wallets.iter().find(|(of, _)| of == id).map(|(_, row)| row).ok_or_else(|| stuck(&"its wallet is missing"));
        let new = match place {
            SealedIn::Setting => adopt_secret(current, previous, old, &setting_binding(id)).map_err(|error| stuck(&error))?,
            SealedIn::WebhookSecret | SealedIn::PreviousSecret | SealedIn::EndpointSecret | SealedIn::PreviousEndpointSecret => {
                adopt_secret(current, previous, old, &Binding::webhook_secret(id)).map_err(|error| stuck(&error))?
            }
            SealedIn::TotpSecret => adopt_secret(current, previous, old, &totp_binding(id)).map_err(|error| stuck(&error))?,
            SealedIn::Seed => current
                .adopt_seed(previous, id, &SealedSeed::from_text(old.clone()), &mut OsEntropy)
                .map(|sealed| sealed.as_str().to_owned())
                .map_err(|error| stuck(&error))?,
            SealedIn::SourceMac => {
                let source = sources.iter().find(|source| source.id.to_string() == *id).ok_or_else(|| stuck(&"its source is missing"))?;
                sources::remac(current, previous, source, old).map_err(|error| stuck(&error))?
            }
            SealedIn::WalletKey => {
                let row = wallet()?;
                let sealed = row.sealed_key.as_ref().ok_or_else(|| stuck(&"the key is missing"))?;
                let bound = Wallet { id, network: row.network.as_str(), address: &row.address.0 };
                let adopted =
                    current.adopt_wallet(previous, &bound, sealed, &previous.tag(&bound), &mut OsEntropy).map_err(|error| stuck(&error))?;
                adopted.sealed.map(|sealed| sealed.as_str().to_owned()).ok_or_else(|| stuck(&"the key is missing"))?
            }
            SealedIn::WalletTag | SealedIn::LeaseTag => {
                let row = wallet()?;
                let of = row.id.to_string();
                let bound = Wallet { id: &of, network: row.network.as_str(), address: &row.address.0 };
                current.adopt_tag(previous, &bound, old).map_err(|error| stuck(&error))?
            }
        };
        reseals.push(Reseal { place, id: id.clone(), old: old.clone(), new });
    }
    Ok(reseals)
}

fn adopt_secret(current: &Vault, previous: &Vault, old: &str, binding: &Binding) -> Result<String, tidegate_vault::OpenError> {
    Ok(current.adopt_secret(previous, &Sealed::from_text(old), binding, &mut OsEntropy)?.as_str().to_owned())
}

async fn by_id(gateway: &Gateway, ids: Vec<String>) -> Result<Vec<(String, WalletRow)>, Sorry> {
    Ok(gateway.store.wallets_by_id(&ids).await?.into_iter().map(|row| (row.id.to_string(), row)).collect())
}

/// The wallet of each lease.
async fn of_leases(gateway: &Gateway, found: &[(String, String)]) -> Result<Vec<(String, WalletRow)>, Sorry> {
    let leases: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
    let lent: Vec<(String, WalletId)> = gateway.store.wallets_of_leases(&leases).await?;
    let mut ids: Vec<String> = lent.iter().map(|(_, wallet)| wallet.to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    let wallets = by_id(gateway, ids).await?;
    let row = |wallet: &WalletId| wallets.iter().find(|(_, row)| row.id == *wallet).map(|(_, row)| row.clone());
    Ok(lent.into_iter().filter_map(|(lease, wallet)| Some((lease, row(&wallet)?))).collect())
}
