//! What people did, as a log in which every row is chained to all rows before it by a hash, so that
//! no row can be changed, taken out, put in or moved without every later hash telling.
//!
//! The hash has no key, for nothing secret is in this crate: whoever may rewrite the whole table can
//! compute it too, and whoever may delete can cut rows off the end. So the store keeps the newest
//! hash apart, under a MAC of the vault, and [`Head::reaches`] compares what was read with it.
//!
//! ```
//! use tidegate_rules::audit::{self, Action, Entry, Head};
//! use tidegate_rules::time::Time;
//!
//! let entry = Entry {
//!     seq: 1,
//!     at: Time::from_secs(1_800_000_000),
//!     actor: "key_7f".into(),
//!     action: Action::WalletExport.name().into(),
//!     subject: "wal_1".into(),
//!     origin: "command line".into(),
//!     reason: "moving to a hardware wallet".into(),
//!     detail: "{}".into(),
//! };
//! let hash = audit::link(audit::GENESIS, &entry);
//! assert_eq!(audit::verify([(&entry, hash.as_str())]), Ok(Head { seq: 1, hash }));
//! ```

use sha2::{Digest as _, Sha256};

use crate::time::Time;
use crate::wallet::names;

/// The hash before the first row: 64 zeros.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Set before everything that is hashed, so that no hash of another purpose, or of another form of
/// this log, is ever one of its.
const DOMAIN: &[u8] = b"tidegate audit 1";

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A wallet's status.
    WalletStatus,
    /// A wallet's risk level.
    WalletRisk,
    /// A cooldown cut short.
    WalletRelease,
    /// A private key shown.
    WalletExport,
    /// A private key brought in.
    WalletImport,
    /// New wallets.
    WalletGenerate,
    /// A wallet's name.
    WalletRename,
    /// A wallet's key opened and its address derived again.
    WalletVerify,
    /// A seed made here.
    SeedCreate,
    /// A seed brought in.
    SeedImport,
    /// The extended public key of a seed was shown.
    SeedXpub,
    /// An extended public key brought in.
    WatchAdd,
    /// A new merchant.
    MerchantCreate,
    /// A merchant's webhook secret shown.
    MerchantSecretShown,
    /// Where a merchant's webhooks go.
    MerchantUpdate,
    /// A new API key.
    ApiKeyCreate,
    /// An API key made void.
    ApiKeyRevoke,
    /// A merchant's webhook secret replaced by another.
    MerchantSecretRotate,
    /// A further receiver of a merchant's webhooks.
    EndpointCreate,
    /// Where it is, what it hears, and whether it does.
    EndpointUpdate,
    /// It hears nothing any more.
    EndpointDelete,
    /// Its secret replaced by another.
    EndpointSecretRotate,
    /// A webhook sent to it to see what it answers.
    EndpointTest,
    /// Somebody may log in from now on.
    UserCreate,
    /// Somebody's role or status.
    UserUpdate,
    /// Somebody may log in no more.
    UserDelete,
    /// Another password.
    UserPassword,
    /// A second factor that counts from now on.
    TotpEnable,
    /// No second factor any more.
    TotpDisable,
    /// Somebody came in.
    Login,
    /// Somebody wanted to come in and could not show who he is.
    LoginFailed,
    /// A session ended by whoever had it.
    SessionEnd,
    /// The move to another master key begun.
    KeyRotateBegin,
    /// Everything sealed by the new master key.
    KeyRotateEnd,
    /// A backup written.
    BackupCreate,
    /// A backup read back.
    BackupRestore,
    /// Everything moved to another database.
    DatabaseMove,
    /// An alert taken up.
    AlertAcknowledge,
    /// An alert closed.
    AlertClose,
    /// An order confirmed by a person.
    OrderConfirm,
    /// An order cancelled.
    OrderCancel,
    /// An order's terms or note changed.
    OrderUpdate,
    /// A halted network taken back to a block that both branches have.
    NetworkResume,
    /// A new plan.
    PlanCreate,
    /// A plan's name, price or duration, or whether it is sold.
    PlanUpdate,
    /// What an order added to a membership taken back.
    MembershipWithdraw,
    /// A message sent to see whether its channel works.
    NotificationTest,
    /// A message to be sent again.
    NotificationRetry,
    /// The text of a message changed.
    TemplatePut,
    /// The text of a message taken back to the one that it came with.
    TemplateDelete,
    /// How much is logged.
    LogLevel,
}

names!(Action:
    WalletStatus "wallet.status",
    WalletRisk "wallet.risk",
    WalletRelease "wallet.release",
    WalletExport "wallet.export",
    WalletImport "wallet.import",
    WalletGenerate "wallet.generate",
    WalletRename "wallet.rename",
    WalletVerify "wallet.verify",
    SeedCreate "seed.create",
    SeedImport "seed.import",
    SeedXpub "seed.xpub",
    WatchAdd "watch.add",
    MerchantCreate "merchant.create",
    MerchantSecretShown "merchant.secret_shown",
    MerchantUpdate "merchant.update",
    ApiKeyCreate "api_key.create",
    ApiKeyRevoke "api_key.revoke",
    MerchantSecretRotate "merchant.secret_rotate",
    EndpointCreate "webhook_endpoint.create",
    EndpointUpdate "webhook_endpoint.update",
    EndpointDelete "webhook_endpoint.delete",
    EndpointSecretRotate "webhook_endpoint.secret_rotate",
    EndpointTest "webhook_endpoint.test",
    UserCreate "user.create",
    UserUpdate "user.update",
    UserDelete "user.delete",
    UserPassword "user.password",
    TotpEnable "totp.enable",
    TotpDisable "totp.disable",
    Login "user.login",
    LoginFailed "user.login_failed",
    SessionEnd "session.end",
    KeyRotateBegin "key.rotate_begin",
    KeyRotateEnd "key.rotate_end",
    BackupCreate "backup.create",
    BackupRestore "backup.restore",
    DatabaseMove "database.move",
    AlertAcknowledge "alert.acknowledge",
    AlertClose "alert.close",
    OrderConfirm "order.confirm",
    OrderCancel "order.cancel",
    OrderUpdate "order.update",
    NetworkResume "network.resume",
    PlanCreate "plan.create",
    PlanUpdate "plan.update",
    MembershipWithdraw "membership.withdraw",
    NotificationTest "notification.test",
    NotificationRetry "notification.retry",
    TemplatePut "notification_template.put",
    TemplateDelete "notification_template.delete",
    LogLevel "log.level",
);

/// A row of the log, without its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place: 1 is the first, without gaps.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// Who: an API key, or a user of the machine.
    pub actor: String,
    /// What: the name of an [`Action`], also of one that a later version knows.
    pub action: String,
    /// To what: an id.
    pub subject: String,
    /// From where: an address, or `command line`.
    pub origin: String,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// What else there is to know, as the text of a JSON object. Never a secret.
    pub detail: String,
}

/// The hash of a row: 64 lower-case hex digits of SHA-256 over the hash of the row before
/// ([`GENESIS`] for the first) and every field, each with its length in front, so that no byte can
/// move from one field to the next.
#[must_use]
pub fn link(previous: &str, entry: &Entry) -> String {
    let Entry { seq, at, actor, action, subject, origin, reason, detail } = entry;
    let (seq, at) = (seq.to_be_bytes(), at.millis().to_be_bytes());
    let texts = [actor, action, subject, origin, reason, detail].map(String::as_bytes);
    let mut hash = Sha256::new();
    for field in [DOMAIN, previous.as_bytes(), &seq, &at].into_iter().chain(texts) {
        hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(field);
    }
    hex::encode(hash.finalize())
}

/// An end of the log: its newest row and, through its hash, all before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The newest row; 0 for an empty log.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Head {
    /// The head of an empty log.
    #[must_use]
    pub fn genesis() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }

    /// Compares the head that reading the log led to with the one that is vouched for. Both must be
    /// of the same moment.
    ///
    /// # Errors
    /// [`Fault::Missing`] when rows were cut off the end, [`Fault::Unvouched`] when there are more,
    /// [`Fault::Edited`] when some row was changed and every hash since made to fit.
    pub fn reaches(&self, vouched: &Self) -> Result<(), Broken> {
        let next = |seq: u64| seq.saturating_add(1);
        match self.seq.cmp(&vouched.seq) {
            std::cmp::Ordering::Less => Err(Broken { seq: next(self.seq), what: Fault::Missing }),
            std::cmp::Ordering::Greater => Err(Broken { seq: next(vouched.seq), what: Fault::Unvouched }),
            std::cmp::Ordering::Equal if self.hash != vouched.hash => Err(Broken { seq: self.seq, what: Fault::Edited }),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }
}

/// The log is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {seq} of the audit log {}", match .what {
    Fault::Missing => "is missing",
    Fault::Edited => "is not as it was written",
    Fault::OutOfOrder => "stands in a wrong place",
    Fault::Unvouched => "follows the newest row that is vouched for",
})]
pub struct Broken {
    /// The first row that is not as it should be.
    pub seq: u64,
    /// What is wrong with it.
    pub what: Fault,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It, its hash, or what it is chained to is not what was written.
    Edited,
    /// It comes again, or after a later one.
    OutOfOrder,
    /// It follows the newest row that is vouched for.
    Unvouched,
}

names!(Fault: Missing "missing", Edited "edited", OutOfOrder "out_of_order", Unvouched "unvouched");

/// Verifies the log row by row, however long it is and in as many parts as one likes.
#[derive(Clone, Debug)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    /// Begins after `start`: [`Head::genesis`], or a head that was verified before.
    #[must_use]
    pub const fn new(start: Head) -> Self {
        Self { head: start }
    }

    /// Verifies the next row and the hash that is stored with it.
    ///
    /// # Errors
    /// [`Broken`] names the first row that is wrong. The head stays at the last good one; nothing
    /// after it can be judged.
    pub fn next(&mut self, entry: &Entry, stored_hash: &str) -> Result<(), Broken> {
        let expected = self.head.seq.saturating_add(1);
        if entry.seq > expected {
            return Err(Broken { seq: expected, what: Fault::Missing });
        }
        if entry.seq < expected {
            return Err(Broken { seq: entry.seq, what: Fault::OutOfOrder });
        }
        let hash = link(&self.head.hash, entry);
        if hash != stored_hash {
            return Err(Broken { seq: entry.seq, what: Fault::Edited });
        }
        self.head = Head { seq: entry.seq, hash };
        Ok(())
    }

    /// The last row that was verified.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }
}

/// Verifies a whole log, oldest row first, and says where it ends: [`Head::reaches`] compares that.
///
/// # Errors
/// [`Broken`] names the first row that is wrong.
pub fn verify<'a>(rows: impl IntoIterator<Item = (&'a Entry, &'a str)>) -> Result<Head, Broken> {
    let mut verifier = Verifier::new(Head::genesis());
    for (entry, hash) in rows {
        verifier.next(entry, hash)?;
    }
    Ok(verifier.head)
}
