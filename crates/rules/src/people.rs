//! The people who run a gateway: what each role may do, and what is stored of them.
//!
//! [`Role::may`] is the whole table. What may redirect money or notices is marked by
//! [`Permission::needs_proof`]: a person shows a second factor for it, each time. Nothing here knows
//! a password or reads a cookie.

use crate::id::{KeyId, MerchantId, SessionId, UserId};
use crate::time::Time;
use crate::wallet::names;

/// What somebody is, to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whose money it is.
    Owner,
    /// Keeps it running: wallets, alerts, orders.
    Operator,
    /// Answers to payers and shops.
    Support,
    /// Looks.
    Viewer,
}

names!(Role: Owner "owner", Operator "operator", Support "support", Viewer "viewer");

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See orders, networks and fees.
    OrdersRead,
    /// Make and change orders.
    OrdersWrite,
    /// See the orders of every merchant, their events and webhooks.
    AllOrdersRead,
    /// Decide about the orders of every merchant, and send webhooks again.
    AllOrdersWrite,
    /// See what came to the pool.
    TransactionsRead,
    /// See wallets and balances.
    WalletsRead,
    /// Make and change wallets.
    WalletsWrite,
    /// Bring in a wallet whose key is known elsewhere.
    WalletsImport,
    /// See alerts.
    AlertsRead,
    /// Deal with alerts.
    AlertsWrite,
    /// Read the audit log.
    AuditRead,
    /// Read the metrics.
    MetricsRead,
    /// See merchants.
    MerchantsRead,
    /// Make merchants, change where their webhooks go and what signs them.
    MerchantsWrite,
    /// See API keys, never their secrets.
    KeysRead,
    /// Make and end API keys.
    KeysWrite,
    /// See users.
    UsersRead,
    /// Make, change and remove users.
    UsersWrite,
    /// Whatever has no permission of its own.
    Everything,
}

names!(Permission:
    OrdersRead "orders.read",
    OrdersWrite "orders.write",
    AllOrdersRead "all_orders.read",
    AllOrdersWrite "all_orders.write",
    TransactionsRead "transactions.read",
    WalletsRead "wallets.read",
    WalletsWrite "wallets.write",
    WalletsImport "wallets.import",
    AlertsRead "alerts.read",
    AlertsWrite "alerts.write",
    AuditRead "audit.read",
    MetricsRead "metrics.read",
    MerchantsRead "merchants.read",
    MerchantsWrite "merchants.write",
    KeysRead "keys.read",
    KeysWrite "keys.write",
    UsersRead "users.read",
    UsersWrite "users.write",
    Everything "everything",
);

impl Role {
    /// Whether this role may do that.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        use Permission as P;
        match (permission, self) {
            (_, Self::Owner)
            | (P::OrdersRead | P::AllOrdersRead | P::TransactionsRead | P::WalletsRead | P::AlertsRead | P::MerchantsRead, _)
            | (P::OrdersWrite | P::AllOrdersWrite | P::AlertsWrite, Self::Operator | Self::Support)
            | (P::WalletsWrite | P::WalletsImport | P::AuditRead | P::MetricsRead | P::KeysRead | P::UsersRead, Self::Operator) => true,
            (
                P::OrdersWrite
                | P::AllOrdersWrite
                | P::AlertsWrite
                | P::WalletsWrite
                | P::WalletsImport
                | P::AuditRead
                | P::MetricsRead
                | P::KeysRead
                | P::UsersRead
                | P::MerchantsWrite
                | P::KeysWrite
                | P::UsersWrite
                | P::Everything,
                _,
            ) => false,
        }
    }
}

impl Permission {
    /// True for what decides where money or notices go, or who decides it: a person proves with a
    /// second factor that it is him, and the owner is told.
    #[must_use]
    pub const fn needs_proof(self) -> bool {
        matches!(self, Self::WalletsImport | Self::MerchantsWrite | Self::KeysWrite | Self::UsersWrite)
    }
}

/// Whether somebody may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserStatus {
    /// May log in.
    Active,
    /// May not, and has no session.
    Disabled,
}

names!(UserStatus: Active "active", Disabled "disabled");

/// A step in the life of people and of their credentials. Stored in the order given.
#[derive(Clone, Debug)]
pub enum PeopleChange {
    /// Somebody joins. Conflicts where the e-mail address is taken.
    NewUser(NewUser),
    /// Something about somebody changes. Conflicts unless the row has the version, and where no
    /// active owner would be left.
    User {
        /// Who.
        id: UserId,
        /// The version that was read.
        version: i64,
        /// What.
        kind: UserMove,
    },
    /// A second factor was shown. Conflicts unless its step is later than every one before, so that
    /// a code is good once.
    TotpUsed {
        /// By whom.
        user: UserId,
        /// The step of the code.
        step: u64,
    },
    /// Somebody logged in.
    NewSession(NewSession),
    /// A session ends. Conflicts unless it is one of this user's that goes on.
    EndSession {
        /// Which.
        id: SessionId,
        /// Whose.
        user: UserId,
        /// When.
        at: Time,
    },
    /// Every session of a user ends.
    EndSessions {
        /// Whose.
        user: UserId,
        /// All but this one.
        but: Option<SessionId>,
        /// When.
        at: Time,
    },
    /// An API key is void from now on. Conflicts unless it is good.
    RevokeKey {
        /// Which.
        id: KeyId,
        /// When.
        at: Time,
    },
    /// A merchant is called something else. Conflicts where the name is taken.
    RenameMerchant {
        /// Which.
        id: MerchantId,
        /// What it is called.
        name: String,
    },
    /// A merchant's webhooks are signed with another secret, and for a while with the old one too.
    /// Conflicts unless `old` is what signed.
    ReplaceSecret {
        /// Whose.
        merchant: MerchantId,
        /// The sealed secret that signed until now.
        old: String,
        /// The sealed secret that signs first from now on.
        new: String,
        /// Until when the old one signs too.
        until: Time,
    },
}

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// The e-mail address, in lower case: the name to log in with.
    pub email: String,
    /// What he may do.
    pub role: Role,
    /// The hash of the password.
    pub password_hash: String,
    /// Since when.
    pub created_at: Time,
}

/// What changes about somebody.
#[derive(Clone, Debug)]
pub enum UserMove {
    /// What he may do, and whether he may come in.
    Put {
        /// The role.
        role: Role,
        /// The status.
        status: UserStatus,
    },
    /// The hash of another password.
    Password(String),
    /// A second factor is offered: its sealed secret. It counts once a code of it was shown.
    OfferTotp(String),
    /// The second factor counts from now on. The step of the code that showed it.
    ConfirmTotp(u64),
    /// No second factor any more.
    DropTotp,
    /// Gone, with all sessions.
    Remove,
}

/// A session, by the hash of its token.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// The version of the user whose password was shown: it may have been changed since.
    pub version: i64,
    /// The SHA-256 of the token in the cookie.
    pub token_hash: String,
    /// From which address.
    pub address: String,
    /// With which program, cut short.
    pub agent: String,
    /// Since when.
    pub created_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
}
