//! Where keys come from besides chance: seeds that are kept here sealed, and extended public keys
//! whose private side is somewhere else.
//!
//! Wallets of a source have indexes without a gap. The index moves in the commit that stores them,
//! so a crash neither skips one nor uses one twice, and it never goes back.

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, Derivation, NewSource};
use tidegate_rules::id::{SourceId, WalletId};
use tidegate_rules::time::Time;
use tidegate_rules::wallet::WalletKind;
use tidegate_vault::{AccountXpub, Coin, OsEntropy, Vault, VerifyError, Wallet, Words};

use crate::clock;
use crate::config::Kind;
use crate::gateway::{Gateway, NetworkPart};
use crate::people::Doer;
use crate::problem::Problem;
use crate::start::Sorry;
use crate::store::{Commit, SourceRow};

/// The BIP-44 coin of a kind of network (SLIP-44: 195 TRON, 60 Ethereum and every EVM chain).
#[must_use]
pub const fn coin(kind: Kind) -> Coin {
    match kind {
        Kind::Tron => Coin::Tron,
        Kind::Evm => Coin::Evm,
    }
}

/// Makes a seed and keeps it sealed. Its words are shown once, by the caller.
///
/// # Errors
/// When the name is taken or the store does not answer.
pub async fn new_seed(gateway: &Gateway, name: &str, account: u32, doer: &Doer) -> Result<(SourceId, Words), Sorry> {
    let at = clock::now();
    let id = SourceId::new(at, clock::id_bytes());
    let (words, sealed) = gateway.vault.current().generate_seed(&id.to_string(), &mut OsEntropy);
    keep(gateway, seed(id, name, account, sealed.as_str(), at), Action::SeedCreate, doer).await?;
    Ok((id, words))
}

/// Takes in a seed by its words.
///
/// # Errors
/// For words that are none, a name that is taken, or a store that does not answer.
pub async fn import_seed(
    gateway: &Gateway,
    name: &str,
    account: u32,
    words: &str,
    passphrase: &str,
    doer: &Doer,
) -> Result<SourceId, Sorry> {
    let at = clock::now();
    let id = SourceId::new(at, clock::id_bytes());
    let sealed = gateway
        .vault
        .current()
        .import_seed(words, passphrase, &id.to_string(), &mut OsEntropy)
        .map_err(|error| Sorry(error.to_string()))?;
    keep(gateway, seed(id, name, account, sealed.as_str(), at), Action::SeedImport, doer).await?;
    Ok(id)
}

/// Whether these are the words of a seed.
///
/// # Errors
/// When the seed does not open or the store does not answer.
pub async fn words_match(gateway: &Gateway, id: SourceId, words: &str) -> Result<bool, Sorry> {
    let source = gateway.store.sources().await?.into_iter().find(|source| source.id == id);
    let sealed = source.and_then(|source| source.sealed).ok_or_else(|| Sorry(format!("there is no seed {id}")))?;
    gateway.vault.of(sealed.as_str()).words_match(&sealed, &id.to_string(), words, "").map_err(|error| Sorry(error.to_string()))
}

fn seed(id: SourceId, name: &str, account: u32, sealed: &str, created_at: Time) -> NewSource {
    NewSource {
        id,
        kind: WalletKind::Hd,
        name: name.to_owned(),
        network: None,
        account,
        sealed: Some(sealed.to_owned()),
        xpub: None,
        mac: None,
        created_at,
    }
}

/// Takes in an account's extended public key: its wallets can be paid, and nothing here can spend
/// what they hold.
///
/// # Errors
/// For a text that is none, a name that is taken, or a store that does not answer.
pub async fn add_xpub(gateway: &Gateway, name: &str, part: &NetworkPart, xpub: &str, doer: &Doer) -> Result<SourceId, Sorry> {
    let xpub = xpub.trim();
    AccountXpub::parse(xpub).map_err(|error| Sorry(error.to_string()))?;
    let at = clock::now();
    let id = SourceId::new(at, clock::id_bytes());
    let source = NewSource {
        id,
        kind: WalletKind::Watch,
        name: name.to_owned(),
        network: Some(part.config.name.clone()),
        account: 0,
        sealed: None,
        xpub: Some(xpub.to_owned()),
        mac: Some(xpub_mac(gateway, id, &part.config.name, xpub)),
        created_at: at,
    };
    keep(gateway, source, Action::WatchAdd, doer).await?;
    Ok(id)
}

/// The extended public key of a seed on a network, which shows every address of it and spends
/// nothing. The log says that it was shown.
///
/// # Errors
/// When there is no such seed, or it does not open.
pub async fn xpub_of(gateway: &Gateway, part: &NetworkPart, name: &str, doer: &Doer) -> Result<String, Sorry> {
    let sources = gateway.store.sources().await?;
    let found = sources.iter().find(|source| source.name == name || source.id.to_string() == name);
    let (source, sealed) = found.and_then(|source| Some((source, source.sealed.as_ref()?))).ok_or_else(|| {
        Sorry(format!("{name}: expected the name or id of a seed that is kept here; `tidegate wallet sources` lists them"))
    })?;
    let (id, coin) = (source.id.to_string(), coin(part.config.kind));
    let vault = gateway.vault.of(sealed.as_str());
    let xpub = vault.account_xpub(&id, sealed, coin, source.account).map_err(|error| Sorry(error.to_string()))?;
    let audit = doer.did(Action::SeedXpub, &id, clock::now()).with(&json!({ "network": part.config.name.as_str() }));
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    Ok(xpub)
}

/// Binds an extended public key to its source, as a tag binds an address to its wallet: who can
/// write to the database alone cannot put a key of their own in its place.
fn xpub_mac(gateway: &Gateway, id: SourceId, network: &Network, xpub: &str) -> String {
    gateway.vault.current().tag(&xpub_wallet(&id.to_string(), network, &xpub_digest(xpub)))
}

/// The MAC of an extended public key is the tag of a "wallet" whose address is the key's digest.
fn xpub_wallet<'a>(id: &'a str, network: &'a Network, digest: &'a [u8; 20]) -> Wallet<'a> {
    Wallet { id, network: network.as_str(), address: digest }
}

/// The MAC of a source's extended public key under the current key, given the one under the previous.
///
/// # Errors
/// When the stored key is not the one that was taken in.
pub fn remac(current: &Vault, previous: &Vault, source: &SourceRow, old: &str) -> Result<String, VerifyError> {
    let (Some(xpub), Some(network)) = (&source.xpub, &source.network) else { return Err(VerifyError::Tag) };
    current.adopt_tag(previous, &xpub_wallet(&source.id.to_string(), network, &xpub_digest(xpub)), old)
}

fn xpub_digest(xpub: &str) -> [u8; 20] {
    use sha2::Digest as _;
    let mut digest = [0; 20];
    digest.iter_mut().zip(sha2::Sha256::digest(xpub.as_bytes())).for_each(|(to, from)| *to = from);
    digest
}

async fn keep(gateway: &Gateway, source: NewSource, action: Action, doer: &Doer) -> Result<(), Sorry> {
    let detail = json!({ "name": source.name, "account": source.account, "network": source.network.as_ref().map(Network::as_str) });
    let changes = Changes { audit: vec![doer.did(action, source.id, source.created_at).with(&detail)], ..Changes::default() };
    let name = source.name.clone();
    match gateway.store.commit(Changes { new_sources: vec![source], ..changes }).await? {
        Commit::Done => Ok(()),
        Commit::Conflict => Err(Sorry(format!("there is a source {name:?} already; choose another name"))),
    }
}

/// The source that makes wallets of this kind on this network.
///
/// # Errors
/// 422 with what to do when there is none, or more than one and none is named.
pub async fn choose(gateway: &Gateway, part: &NetworkPart, kind: WalletKind, name: Option<&str>) -> Result<SourceRow, Problem> {
    let network = &part.config.name;
    let fits = |source: &SourceRow| source.kind == kind && source.network.as_ref().is_none_or(|of| of == network);
    let mut sources: Vec<SourceRow> = gateway.store.sources().await?.into_iter().filter(fits).collect();
    if let Some(name) = name {
        sources.retain(|source| source.name == name || source.id.to_string() == name);
    }
    let how = match kind {
        WalletKind::Watch => "`tidegate wallet watch` takes in an extended public key",
        _ => "`tidegate wallet seed` makes or takes in a seed",
    };
    // The newest is the one in use; the older ones are named to go on with them.
    sources.pop().ok_or_else(|| Problem::invalid("/source", format!("there is no {} source for {network}; {how}", kind.name())))
}

/// A wallet that was derived: it has no key of its own to store.
pub struct Derived {
    /// Its address.
    pub address: [u8; 20],
    /// The tag that lets its address be shown.
    pub tag: String,
}

/// Derives the next `count` wallets of a source: the wallets, and the move of its index that must
/// be stored with them.
///
/// # Errors
/// When the source does not open, or has no index left.
pub async fn derive(
    gateway: &Gateway,
    part: &NetworkPart,
    source: &SourceRow,
    ids: &[WalletId],
) -> Result<(Vec<(u32, Derived)>, Derivation), Problem> {
    let network = &part.config.name;
    let from = gateway.store.next_index(source.id, network).await?;
    let branch = Branch::open(gateway, part, source)?;
    let mut made = Vec::with_capacity(ids.len());
    let mut index = from;
    for id in ids {
        loop {
            let this = index;
            index = index.checked_add(1).filter(|next| *next < 1 << 31).ok_or_else(|| {
                Problem::unavailable("pool_exhausted", format!("source {} has no index left; make another seed or account", source.name))
            })?;
            // One child in 2¹²⁷ is no key: BIP-32 goes on with the next index.
            if let Some(wallet) = branch.wallet(gateway, &id.to_string(), network, this) {
                made.push((this, wallet));
                break;
            }
        }
        if made.len().is_multiple_of(16) {
            tokio::task::yield_now().await;
        }
    }
    Ok((made, Derivation { source: source.id, network: network.clone(), from, to: index }))
}

/// A source that is open for deriving.
pub enum Branch {
    /// With private keys.
    Seed(tidegate_vault::Branch),
    /// Without.
    Watch(tidegate_vault::PublicBranch),
}

impl Branch {
    /// Opens a source for a network.
    ///
    /// # Errors
    /// 500 when a stored source was altered, is under another key, or is not whole.
    pub fn open(gateway: &Gateway, part: &NetworkPart, source: &SourceRow) -> Result<Self, Problem> {
        let broken = |what: String| {
            tracing::error!(source = %source.id, "a source of wallets cannot be used: {what}");
            Problem::internal()
        };
        let id = source.id.to_string();
        match (&source.sealed, &source.xpub) {
            (Some(sealed), _) => gateway
                .vault
                .open_branch(&id, sealed, coin(part.config.kind), source.account)
                .map(Self::Seed)
                .map_err(|error| broken(format!("the seed does not open: {error}"))),
            (None, Some(xpub)) => {
                let network = source.network.as_ref().unwrap_or(&part.config.name);
                let digest = xpub_digest(xpub);
                if !source.mac.as_ref().is_some_and(|mac| gateway.vault.verify_tag(&xpub_wallet(&id, network, &digest), mac)) {
                    return Err(broken("the extended public key is not the one that was taken in".into()));
                }
                let account = AccountXpub::parse(xpub).map_err(|error| broken(error.to_string()))?;
                account.branch().map(Self::Watch).map_err(|error| broken(error.to_string()))
            }
            (None, None) => Err(broken("the source has neither a seed nor a public key".into())),
        }
    }

    /// The address at an index, `None` for the one in 2¹²⁷ that is no key.
    pub fn address(&self, index: u32) -> Option<Address> {
        match self {
            Self::Seed(branch) => branch.address(index).ok().map(Address),
            Self::Watch(branch) => branch.address(index).ok().map(Address),
        }
    }

    fn wallet(&self, gateway: &Gateway, id: &str, network: &Network, index: u32) -> Option<Derived> {
        let Address(address) = self.address(index)?;
        let tag = gateway.vault.current().tag(&Wallet { id, network: network.as_str(), address: &address });
        Some(Derived { address, tag })
    }
}
