//! What the operator decides: read from flags, the environment and one TOML file, in that order of
//! precedence, checked as a whole, and never changed afterwards.
//!
//! [`Config::load`] is pure; [`Config::from_process`] brings it the file and the environment. All
//! problems are reported at once, each with its place, what was expected, what was found and what
//! to do. No secret is in an error or in a `Debug` text.

mod doors;
mod file;
mod notices;
mod presets;
mod secret;
mod server;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::order::{Depth, EXPIRES_IN_MAX};
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;
use toml::Spanned;
use toml::de::DeTable;
use url::Url;

use self::file::{Field, Problems, Section, Source};
pub use self::notices::{Notifications, Security, Sms, SmsMethod, Smtp, Telegram, chat, mailbox, phone};
use self::presets::Preset;
pub use self::secret::{SecretText, SecretUrl};
pub use self::server::{ProxyHeader, Server, TlsFiles};
use self::values::{Echo, Form, show_span};
pub use self::values::{IpRange, wallet_name};
use crate::providers::{Pointer, Scheme};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "tidegate.toml";

/// A master key as it was given: one text, or two that are kept apart.
#[derive(Clone, Debug)]
pub struct KeyText {
    /// The key, or its first part.
    pub text: SecretText,
    /// Its second part.
    pub part2: Option<SecretText>,
}

/// What may be called slow. Nothing is quicker, and nobody waits longer.
const SLOW: RangeInclusive<Span> = Span::from_millis(1)..=Span::from_secs(300);

/// Levels as they are configured, such as `info,sqlx=warn`, in the words of the log.
///
/// # Errors
/// What was expected and what was found.
pub fn log_level(text: &str) -> Result<String, String> {
    values::LOG_LEVEL.read(text)
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the books are.
    pub database: Database,
    /// A cache that several instances share.
    pub redis_url: Option<SecretUrl>,
    /// The master key as it was given; what it must look like is the vault's business.
    pub master_key: Option<KeyText>,
    /// The master key that is being left, while `tidegate key rotate` is under way.
    pub previous_key: Option<KeyText>,
    /// The salt as it was given.
    pub salt: Option<SecretText>,
    /// What is logged, and how.
    pub log: Log,
    /// Where the gateway listens, and what is in front of it.
    pub server: Server,
    /// The numbers for Prometheus.
    pub metrics: Metrics,
    /// The active networks, in the order of the file. None at all is possible.
    pub networks: Vec<NetworkConfig>,
    /// The terms of new orders.
    pub orders: Orders,
    /// The wallet pool.
    pub pool: Pool,
    /// Outgoing webhooks.
    pub webhooks: Webhooks,
    /// Doors for the webhooks of payment providers, by the name in the URL.
    pub payment_webhooks: BTreeMap<String, PaymentWebhook>,
    /// Reading what the wallets hold.
    pub balances: Balances,
    /// What leaves the database, and when.
    pub retention: Retention,
    /// Messages to the operator and to customers.
    pub notifications: Notifications,
    /// How much is answered.
    pub limits: Limits,
    /// Sentences for the log: what is set and has no effect, and what is allowed and looks wrong.
    pub warnings: Vec<String>,
}

/// Where the books are.
#[derive(Clone, Debug)]
pub struct Database {
    /// Which database.
    pub url: DatabaseUrl,
    /// A read replica of it, for lists and statistics.
    pub replica: Option<SecretUrl>,
    /// The most connections that are open at a time.
    pub pool_size: u32,
    /// How long a request waits for a free connection.
    pub pool_timeout: Span,
    /// From when on a statement is a slow one, which is a warning in the log.
    pub slow_query: Span,
}

/// Which database, whatever spelling it was given in. `Display` leaves out user and password.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file, made when it is missing.
    Sqlite(PathBuf),
    /// `postgres://…`
    Postgres(SecretUrl),
}

impl DatabaseUrl {
    /// The whole address as `sqlx` reads it, for the one place that opens the database.
    ///
    /// `sqlite:PATH` without slashes in front: a URL's host and path may not begin with `../`.
    #[must_use]
    pub fn expose(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", values::percent_encoded(&path.to_string_lossy())),
            Self::Postgres(url) => url.expose().as_str().to_owned(),
        }
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = String;

    /// As in `DATABASE_URL`; the error says what was expected and quotes nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        values::DATABASE_URL.read(text)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Levels as `tracing_subscriber::EnvFilter` reads them: `info,sqlx=warn`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The numbers for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether there are any.
    pub enabled: bool,
    /// A listener of their own.
    pub addr: Option<SocketAddr>,
}

/// A network that payments are watched on.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The `network` of the API.
    pub name: Network,
    /// What payers read.
    pub display_name: String,
    /// How to talk to it.
    pub kind: Kind,
    /// Where the keys of its new wallets come from: `random`, `hd` or `watch`.
    pub wallets: WalletKind,
    /// What every endpoint must answer to be the right chain.
    pub chain_id: u64,
    /// At least one, in order of preference.
    pub rpc: Vec<RpcEndpoint>,
    /// The token contract's address as it was written.
    pub token: String,
    /// The token's decimals, 0 to 36.
    pub decimals: u8,
    /// What the contract must call itself, where that is not one of the names of USDT.
    pub symbol: Option<String>,
    /// How deep money must be buried, below every tier.
    pub confirmations: Depth,
    /// More money, more confirmations: ascending in both.
    pub tiers: Vec<Tier>,
    /// Where a network that was never seen before begins.
    pub start_block: StartBlock,
    /// How often the chain is asked for a new block.
    pub poll_interval: Span,
    /// Beyond this lag the network takes no new lease.
    pub max_lag: Span,
    /// How far the chain's final head may be behind its newest block, in block time, before money
    /// waits for it whatever the terms of its order say.
    pub final_lag_max: Span,
    /// The least order that may be paid here.
    pub min_amount: Option<Amount>,
    /// The largest order that may be paid here.
    pub max_amount: Option<Amount>,
    /// A transfer above this settles only once two endpoints of different hosts show its block.
    pub agree_above: Option<Amount>,
    /// Whether what has settled is read a second time.
    pub reconcile: Reconcile,
    /// The secret of `POST /webhook/blockchain/{network}`; without it there is no such door.
    pub webhook_secret: Option<SecretText>,
    /// The signing key of an Alchemy webhook that posts to the same door.
    pub alchemy_signing_key: Option<SecretText>,
    /// The most blocks that are read at once while catching up.
    pub range_max: u32,
    /// What each endpoint may be asked in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// What each endpoint may be asked in any 24 hours.
    pub requests_per_day: Option<u64>,
}

/// Whether what has settled is read a second time, by another method, and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconcile {
    /// Every block, once it has settled.
    Settled,
    /// No block: only those that hold money of ours are read twice.
    Off,
}

/// The kinds of chain that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ethereum and its like.
    Evm,
    /// TRON.
    Tron,
}

impl Kind {
    /// The name in the configuration and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evm => "evm",
            Self::Tron => "tron",
        }
    }
}

/// One URL of a network.
#[derive(Clone, Debug)]
pub struct RpcEndpoint {
    /// Where to send requests.
    pub url: SecretUrl,
    /// Sent with each of them.
    pub headers: Vec<(String, SecretText)>,
    /// What it may be asked in a second, where that differs from the network's.
    pub requests_per_second: Option<NonZeroU32>,
    /// What it may be asked in any 24 hours, where that differs from the network's.
    pub requests_per_day: Option<u64>,
}

impl RpcEndpoint {
    const fn new(url: SecretUrl) -> Self {
        Self { url, headers: Vec::new(), requests_per_second: None, requests_per_day: None }
    }
}

/// Orders above an amount wait longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The tier is for amounts strictly above this one.
    pub above: Amount,
    /// How deep their money must be buried.
    pub depth: Depth,
}

/// Where a network that was never seen before begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartBlock {
    /// At the head of first contact.
    Latest,
    /// At this height.
    Number(u64),
}

/// The terms of new orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// How long an order lives unless the request says otherwise.
    pub expires_in: Span,
    /// The shortest life that a request may ask for.
    pub min_expires_in: Span,
    /// The least amount that a request may ask for.
    pub min_amount: Amount,
    /// How much less still pays an order.
    pub underpayment_tolerance: Amount,
    /// How long after expiry a payment is still its order's.
    pub late_window: Span,
    /// Whether late money that completes an order pays it.
    pub accept_late: bool,
}

/// The wallet pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How many wallets are made at once.
    pub batch_size: u64,
    /// How many wallets are worked on at a time.
    pub max_concurrent: usize,
    /// For [`wallet_name`].
    pub name_template: String,
    /// Below this many free wallets the pool grows.
    pub low_watermark: u64,
    /// Growth stops here.
    pub max_wallets: u64,
    /// How long a wallet rests after the last order's late window is over.
    pub cooldown: Span,
    /// A transfer to a wallet that no order owns, below this, is dust.
    pub dust_below: Amount,
}

/// Reading what the wallets hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balances {
    /// How often every wallet that ever held something is asked for; zero for never.
    pub sync_every: Span,
    /// How long snapshots are kept.
    pub keep: Span,
}

/// What leaves the database, and when. Money never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Where rows go before they are deleted; without it they are only deleted.
    pub archive_dir: Option<PathBuf>,
    /// How long webhooks that are done are kept, with their tries; zero for ever.
    pub webhooks: Span,
}

/// How much is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second for each API key, and for each address.
    pub requests_per_second: u32,
    /// How many of them may come at once.
    pub burst: u32,
    /// Requests that are answered at the same time.
    pub concurrent_requests: u32,
}

/// Outgoing webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// Whether private, loopback and link-local addresses may be called.
    pub allow_private_targets: bool,
}

/// A door for the webhooks of a payment provider: `POST /webhook/payment/{name}`.
#[derive(Clone, Debug)]
pub struct PaymentWebhook {
    /// The provider, as the operator calls it.
    pub name: String,
    /// How it signs.
    pub scheme: Scheme,
    /// With what.
    pub secret: SecretText,
    /// The network and the place in the body of the transaction that a message names.
    pub transaction: Option<(Network, Pointer)>,
    /// The place in the body of the order that a message names.
    pub order: Option<Pointer>,
}

/// What the command line said, as text.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--public-url`
    pub public_url: Option<String>,
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// All that a configuration is made of.
pub struct Sources<'a> {
    /// The command line.
    pub flags: Overrides,
    /// The environment. A variable that is set to nothing counts as not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What the file is called, and its text.
    pub file: Option<(&'a Path, &'a str)>,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", in_one(.problems))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One sentence for each thing to change; at least one.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn one(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

fn in_one(problems: &[String]) -> String {
    match problems {
        [problem] => problem.clone(),
        _ => format!("{} things in the configuration need a change:\n  - {}", problems.len(), problems.join("\n  - ")),
    }
}

impl Config {
    /// Reads the environment of this process and the file: `config_path`, or [`DEFAULT_FILE`] if it
    /// is there.
    ///
    /// # Errors
    /// A named file that is missing, a file that cannot be read, and all that [`Config::load`] finds.
    pub fn from_process(flags: Overrides, config_path: Option<&Path>) -> Result<Self, ConfigError> {
        let not_unicode = VARIABLES.iter().find(|name| std::env::var_os(name).is_some_and(|value| value.to_str().is_none()));
        if let Some(name) = not_unicode {
            return Err(ConfigError::one(format!("{name}: expected text in UTF-8, found other bytes (not shown)")));
        }
        Self::from_files(flags, config_path, &|name| std::env::var(name).ok())
    }

    fn from_files(flags: Overrides, config_path: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let var = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let path = config_path.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match read_text(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && config_path.is_none() => None,
            Err(error) => {
                let asked = if config_path.is_some() { "--config" } else { "the configuration" };
                return Err(ConfigError::one(format!(
                    "{asked}: expected a readable file at {}, found none: {error}; config.example.toml is a good start",
                    path.display()
                )));
            }
        };

        // A file stands in for the key that is in it.
        let mut keys = BTreeMap::new();
        for (name, in_file) in KEY_VARIABLES {
            let (None, Some(path)) = (var(name), var(in_file)) else { continue };
            let key = read_text(Path::new(&path)).map_err(|error| {
                ConfigError::one(format!(
                    "{in_file}: expected a readable file at {path}, found none: {error}; `tidegate key new` makes a key"
                ))
            })?;
            if key.trim().is_empty() {
                return Err(ConfigError::one(format!(
                    "{in_file}: expected a file with a master key in it, found an empty one; `tidegate key new` makes a key"
                )));
            }
            keys.insert(name, key);
            keys.insert(in_file, String::new());
        }
        for (name, in_file) in SECRET_VARIABLES {
            let Some(path) = var(in_file) else { continue };
            if var(name).is_some() {
                return Err(ConfigError::one(format!("{name}: expected this variable or {in_file}, found both; unset one of them")));
            }
            let secret = read_text(Path::new(&path))
                .map_err(|error| ConfigError::one(format!("{in_file}: expected a readable file at {path}, found none: {error}")))?;
            if secret.trim().is_empty() {
                return Err(ConfigError::one(format!("{in_file}: expected a file with a secret in it, found an empty one")));
            }
            keys.insert(name, secret);
            keys.insert(in_file, String::new());
        }
        let env = |name: &str| match keys.get(name) {
            Some(read) if read.is_empty() => None,
            Some(key) => Some(key.clone()),
            None => var(name),
        };
        Self::load(Sources { flags, env: &env, file: text.as_deref().map(|text| (path, text)) })
    }

    /// Makes a configuration of what was said. Reads nothing else.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let config = Self::read(sources, &mut problems).map_err(ConfigError::one)?;
        let problems = problems.into_sentences();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// The configuration, with defaults in the place of what is wrong.
    fn read(sources: Sources<'_>, problems: &mut Problems) -> Result<Self, String> {
        let Sources { flags, env, file } = sources;
        let env = Env(env);
        let name = file.map(|(path, _)| path.display().to_string()).unwrap_or_default();
        let source = Source { name: &name, text: file.map_or("", |(_, text)| text) };
        let table: Spanned<DeTable<'_>> = source.parse()?;
        let mut root = Section::root(source, table.get_ref());
        let mut warnings = Vec::new();

        let mut section = root.section("database", problems);
        let url = said("--database-url", flags.database_url)
            .or_else(|| env.get("DATABASE_URL"))
            .read(&values::DATABASE_URL, ("url", &mut section), problems)
            .unwrap_or_else(|| DatabaseUrl::Sqlite(PathBuf::from("./usdt_payments.db")));
        // Each of SQLite's has a thread and a megabyte, and reads in microseconds.
        let connections = if matches!(url, DatabaseUrl::Sqlite(_)) { 4 } else { 10 };
        let mut database = Database {
            url,
            replica: env.get("DATABASE_REPLICA_URL").read(&values::REPLICA_URL, ("replica_url", &mut section), problems),
            pool_size: section.u32("pool_size", connections, 1..=1_000, problems),
            pool_timeout: section.span("pool_timeout", Span::from_secs(5), Span::from_millis(100)..=Span::from_secs(300), problems),
            slow_query: section.span("slow_query", Span::from_secs(1), SLOW, problems),
        };
        if matches!(database.url, DatabaseUrl::Sqlite(_)) && database.replica.take().is_some() {
            warnings.push("database.replica_url has no effect: a SQLite file has no replicas".to_owned());
        }
        section.finish(problems);

        let mut section = root.section("log", problems);
        let log = Log {
            level: said("--log-level", flags.log_level)
                .or_else(|| env.get("LOG_LEVEL"))
                .read(&values::LOG_LEVEL, ("level", &mut section), problems)
                .unwrap_or_else(|| "info".to_owned()),
            format: said("--log-format", flags.log_format)
                .or_else(|| env.get("LOG_FORMAT"))
                .read(&values::LOG_FORMAT, ("format", &mut section), problems)
                .unwrap_or(LogFormat::Pretty),
        };
        section.finish(problems);

        let mut section = root.section("server", problems);
        let server = server::server(&mut section, (flags.listen, flags.public_url), &env, problems, &mut warnings);
        section.finish(problems);

        let metrics = Metrics {
            enabled: env.read("METRICS_ENABLED", &values::FLAG, problems).unwrap_or(true),
            addr: env.read("METRICS_ADDR", &values::SOCKET, problems),
        };
        let redis_url = env.read("REDIS_URL", &values::REDIS_URL, problems);

        let mut section = root.section("networks", problems);
        let networks = networks(&mut section, &env, problems, &mut warnings);

        let mut section = root.section("orders", problems);
        let orders = orders(&mut section, problems);
        section.finish(problems);

        let mut section = root.section("pool", problems);
        let pool = Pool {
            batch_size: section.integer("batch_size", 1..=1_000, problems).unwrap_or(100),
            max_concurrent: section
                .integer("max_concurrent", 1..=1_000, problems)
                .and_then(|number| usize::try_from(number).ok())
                .unwrap_or(10),
            name_template: section
                .text("name_template", &values::NAME_TEMPLATE, problems)
                .unwrap_or_else(|| "{network}_wallet_{index:04}".to_owned()),
            low_watermark: section.integer("low_watermark", 0..=1_000_000, problems).unwrap_or(20),
            max_wallets: section.integer("max_wallets", 1..=100_000_000, problems).unwrap_or(1_000_000),
            cooldown: section.span("cooldown", Span::from_secs(3_600), Span::ZERO..=WINDOW_MAX, problems),
            dust_below: section.text("dust_below", &values::AMOUNT, problems).unwrap_or(Amount::from_micros(10_000)),
        };
        section.finish(problems);

        let mut section = root.section("webhooks", problems);
        let webhooks = Webhooks { allow_private_targets: section.boolean("allow_private_targets", problems).unwrap_or(false) };
        section.finish(problems);

        let section = root.section("payment_webhooks", problems);
        let payment_webhooks = doors::payment_webhooks(section, &networks, problems);

        let mut section = root.section("balances", problems);
        let balances = Balances {
            sync_every: section.span("sync_every", Span::from_secs(6 * 3_600), Span::ZERO..=Span::from_secs(30 * 86_400), problems),
            keep: section.span("keep", Span::from_secs(90 * 86_400), Span::from_secs(86_400)..=Span::from_secs(3_650 * 86_400), problems),
        };
        section.finish(problems);

        let mut section = root.section("retention", problems);
        let retention = Retention {
            archive_dir: section.text("archive_dir", &values::TEXT, problems).map(PathBuf::from),
            webhooks: section.span("webhooks", Span::from_secs(90 * 86_400), Span::ZERO..=Span::from_secs(3_650 * 86_400), problems),
        };
        if retention.webhooks > Span::ZERO && retention.webhooks < WEBHOOKS_MIN {
            problems.add(
                "`retention.webhooks`",
                "expected \"0s\" for ever or at least \"7d\", found less; a webhook may be sent again for that long",
            );
        }
        section.finish(problems);

        let mut section = root.section("notifications", problems);
        let notifications = notices::notifications(&mut section, &env, problems, &mut warnings);
        let mut section = root.section("limits", problems);
        let limits = Limits {
            requests_per_second: section.u32("requests_per_second", 1_000, 1..=1_000_000, problems),
            burst: section.u32("burst", 2_000, 1..=1_000_000, problems),
            concurrent_requests: section.u32("concurrent_requests", 1_024, 1..=100_000, problems),
        };
        section.finish(problems);
        root.finish(problems);

        let mut key = |name: &'static str, in_file: &'static str| {
            let said = env.get(name).0.map(|said| SecretText::new(said.text));
            if said.is_some() && env.get(in_file).0.is_some() {
                problems.add(name, &format!("expected this variable or {in_file}, found both; unset one of them"));
            }
            said
        };
        let [key_1, key_2, previous_1, previous_2] = KEY_VARIABLES.map(|(name, in_file)| key(name, in_file));
        if key_1.is_none() && key_2.is_some() {
            problems
                .add(MASTER_KEY_PART2, &format!("expected the first part in {MASTER_KEY} or {MASTER_KEY_FILE} too, found only the second"));
        }
        if previous_1.is_none() && previous_2.is_some() {
            problems
                .add(MASTER_KEY_PREVIOUS_PART2, &format!("expected the first part in {MASTER_KEY_PREVIOUS} too, found only the second"));
        }
        let master_key = key_1.map(|text| KeyText { text, part2: key_2 });
        let previous_key = previous_1.map(|text| KeyText { text, part2: previous_2 });
        let salt = env.get("ENCRYPTION_SALT").0.map(|said| SecretText::new(said.text));
        Ok(Self {
            database,
            redis_url,
            master_key,
            previous_key,
            salt,
            log,
            server,
            metrics,
            networks,
            orders,
            pool,
            webhooks,
            payment_webhooks,
            balances,
            retention,
            notifications,
            limits,
            warnings,
        })
    }

    /// Refuses a listener that others can reach while payers have no https address to come to: neither
    /// a certificate here nor a proxy that has one.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn refuse_insecure(&self) -> Result<(), ConfigError> {
        if !self.server.is_public() || self.server.is_https() {
            return Ok(());
        }
        let Server { listen, public_url, .. } = &self.server;
        let found = public_url.as_ref().map_or_else(|| "none".to_owned(), |url| url.origin().ascii_serialization());
        Err(ConfigError::one(format!(
            "LISTEN_ADDR: other machines can reach {listen}, so expected tls_cert and tls_key or an https PUBLIC_URL, found {found}; \
             name a certificate in [server], or put a proxy that ends TLS in front and set PUBLIC_URL to its https address, or listen \
             on 127.0.0.1"
        )))
    }

    /// Refuses a configuration in which nothing would be watched.
    ///
    /// # Errors
    /// A sentence that says what to set.
    pub fn require_networks(&self) -> Result<(), ConfigError> {
        if self.networks.is_empty() {
            return Err(ConfigError::one(
                "expected at least one network, found none; set TRON_RPC_URL, TRONGRID_API_KEY, ETHEREUM_RPC_URL or \
                 INFURA_PROJECT_ID, or add a table such as [networks.tron] to tidegate.toml"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl NetworkConfig {
    /// True for a network whose token is worth money.
    #[must_use]
    pub fn is_live(&self) -> bool {
        presets::LIVE_CHAINS.contains(&self.chain_id)
    }

    /// How deep the money of an order of that amount must be buried.
    #[must_use]
    pub fn depth_for(&self, amount: Amount) -> Depth {
        self.tiers.iter().rev().find(|tier| amount > tier.above).map_or(self.confirmations, |tier| tier.depth)
    }

    /// Whether an order of that amount may be paid here.
    #[must_use]
    pub fn takes(&self, amount: Amount) -> bool {
        self.min_amount.is_none_or(|min| amount >= min) && self.max_amount.is_none_or(|max| amount <= max)
    }

    /// The least depth that any amount needs here.
    #[must_use]
    pub fn shallowest(&self) -> Depth {
        self.tiers.iter().map(|tier| tier.depth).fold(self.confirmations, Ord::min)
    }

    /// The greatest depth that any amount needs here.
    #[must_use]
    pub fn deepest(&self) -> Depth {
        self.tiers.iter().map(|tier| tier.depth).fold(self.confirmations, Ord::max)
    }
}

/// A key is 64 characters; a configuration is a page or two.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long a wallet may be kept from its next order, by the late window and again by the cooldown.
const WINDOW_MAX: Span = Span::from_secs(365 * 86_400);
/// A webhook that is done is kept at least for so long: people may want it to be sent again.
const WEBHOOKS_MIN: Span = Span::from_secs(7 * 86_400);
/// More than this many blocks are not kept to judge by.
const CONFIRMATIONS_MAX: u64 = 4_000;

const MASTER_KEY: &str = "WALLET_MASTER_KEY";
const MASTER_KEY_FILE: &str = "WALLET_MASTER_KEY_FILE";
const MASTER_KEY_PART2: &str = "WALLET_MASTER_KEY_PART2";
const MASTER_KEY_PART2_FILE: &str = "WALLET_MASTER_KEY_PART2_FILE";
const MASTER_KEY_PREVIOUS: &str = "WALLET_MASTER_KEY_PREVIOUS";
const MASTER_KEY_PREVIOUS_FILE: &str = "WALLET_MASTER_KEY_PREVIOUS_FILE";
const MASTER_KEY_PREVIOUS_PART2: &str = "WALLET_MASTER_KEY_PREVIOUS_PART2";
const MASTER_KEY_PREVIOUS_PART2_FILE: &str = "WALLET_MASTER_KEY_PREVIOUS_PART2_FILE";

/// Each key, and the variable that names a file with it.
const KEY_VARIABLES: [(&str, &str); 4] = [
    (MASTER_KEY, MASTER_KEY_FILE),
    (MASTER_KEY_PART2, MASTER_KEY_PART2_FILE),
    (MASTER_KEY_PREVIOUS, MASTER_KEY_PREVIOUS_FILE),
    (MASTER_KEY_PREVIOUS_PART2, MASTER_KEY_PREVIOUS_PART2_FILE),
];

/// Each other variable that may hold a secret, and the one that names a file with it.
const SECRET_VARIABLES: [(&str, &str); 11] = [
    ("DATABASE_REPLICA_URL", "DATABASE_REPLICA_URL_FILE"),
    ("DATABASE_URL", "DATABASE_URL_FILE"),
    ("ENCRYPTION_SALT", "ENCRYPTION_SALT_FILE"),
    ("ETHEREUM_RPC_URL", "ETHEREUM_RPC_URL_FILE"),
    ("INFURA_PROJECT_ID", "INFURA_PROJECT_ID_FILE"),
    ("REDIS_URL", "REDIS_URL_FILE"),
    ("TRONGRID_API_KEY", "TRONGRID_API_KEY_FILE"),
    ("TRON_RPC_URL", "TRON_RPC_URL_FILE"),
    (notices::SMTP_PASSWORD, notices::SMTP_PASSWORD_FILE),
    (notices::TELEGRAM_BOT_TOKEN, notices::TELEGRAM_BOT_TOKEN_FILE),
    (notices::SMS_SECRET, notices::SMS_SECRET_FILE),
];

/// Every variable that is read.
const VARIABLES: [&str; 40] = [
    "DATABASE_REPLICA_URL",
    "DATABASE_REPLICA_URL_FILE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "ENCRYPTION_SALT",
    "ENCRYPTION_SALT_FILE",
    "ETHEREUM_RPC_URL",
    "ETHEREUM_RPC_URL_FILE",
    "INFURA_PROJECT_ID",
    "INFURA_PROJECT_ID_FILE",
    "LISTEN_ADDR",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "METRICS_ADDR",
    "METRICS_ENABLED",
    "PUBLIC_URL",
    "REDIRECT_LISTEN_ADDR",
    "REDIS_URL",
    "REDIS_URL_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TRONGRID_API_KEY",
    "TRONGRID_API_KEY_FILE",
    "TRON_RPC_URL",
    "TRON_RPC_URL_FILE",
    "TRUSTED_PROXIES",
    MASTER_KEY,
    MASTER_KEY_FILE,
    MASTER_KEY_PART2,
    MASTER_KEY_PART2_FILE,
    MASTER_KEY_PREVIOUS,
    MASTER_KEY_PREVIOUS_FILE,
    MASTER_KEY_PREVIOUS_PART2,
    MASTER_KEY_PREVIOUS_PART2_FILE,
    notices::SMS_SECRET,
    notices::SMS_SECRET_FILE,
    notices::SMTP_PASSWORD,
    notices::SMTP_PASSWORD_FILE,
    notices::TELEGRAM_BOT_TOKEN,
    notices::TELEGRAM_BOT_TOKEN_FILE,
];

fn read_text(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length < FILE_BYTES_MAX) {
        return Ok(text);
    }
    Err(std::io::Error::other("it is larger than 1 MiB"))
}

/// A text from outside the file, and who said it.
struct Said {
    place: String,
    text: String,
}

/// A text from outside the file, if there was one.
struct MaybeSaid(Option<Said>);

fn said(place: &str, text: Option<String>) -> MaybeSaid {
    MaybeSaid(text.map(|text| Said { place: place.to_owned(), text }))
}

impl MaybeSaid {
    fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.0.is_some() { self } else { other() }
    }

    /// What was said, or else what stands in the file.
    fn read<T>(self, form: &Form<T>, (key, section): (&'static str, &mut Section<'_>), problems: &mut Problems) -> Option<T> {
        match self.0 {
            Some(said) => {
                // The key is known, though its value is overruled.
                let _ = section.field(key);
                problems.keep(&said.place, form.read(&said.text))
            }
            None => section.text(key, form, problems),
        }
    }
}

struct Env<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    fn get(&self, name: &str) -> MaybeSaid {
        let text = (self.0)(name).map(|text| text.trim().to_owned());
        said(name, text.filter(|text| !text.is_empty()))
    }

    fn read<T>(&self, name: &str, form: &Form<T>, problems: &mut Problems) -> Option<T> {
        let said = self.get(name).0?;
        problems.keep(&said.place, form.read(&said.text))
    }

    fn is_set(&self, name: &str) -> bool {
        self.get(name).0.is_some()
    }
}

/// Readings with a default and a range.
impl Section<'_> {
    fn u32(&mut self, key: &'static str, default: u32, range: std::ops::RangeInclusive<u32>, problems: &mut Problems) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.integer(key, range, problems).and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    fn span(&mut self, key: &'static str, default: Span, range: std::ops::RangeInclusive<Span>, problems: &mut Problems) -> Span {
        let Some(field) = self.field(key) else { return default };
        let span = field.text(&values::SPAN).and_then(|span| {
            if range.contains(&span) {
                return Ok(span);
            }
            let (start, end) = (show_span(*range.start()), show_span(*range.end()));
            Err(format!("expected from \"{start}\" to \"{end}\", found \"{}\"", show_span(span)))
        });
        problems.keep(&field.place, span).unwrap_or(default)
    }
}

fn orders(section: &mut Section<'_>, problems: &mut Problems) -> Orders {
    let second = Span::from_secs(1);
    let orders = Orders {
        expires_in: section.span("expires_in", Span::from_secs(30 * 60), second..=EXPIRES_IN_MAX, problems),
        min_expires_in: section.span("min_expires_in", Span::from_secs(60), second..=EXPIRES_IN_MAX, problems),
        min_amount: section.text("min_amount", &values::AMOUNT, problems).unwrap_or(Amount::from_micros(1_000_000)),
        underpayment_tolerance: section.text("underpayment_tolerance", &values::AMOUNT, problems).unwrap_or(Amount::ZERO),
        late_window: section.span("late_window", Span::from_secs(86_400), Span::ZERO..=WINDOW_MAX, problems),
        accept_late: section.boolean("accept_late", problems).unwrap_or(true),
    };
    let (shortest, usual) = (show_span(orders.min_expires_in), show_span(orders.expires_in));
    if orders.min_expires_in > orders.expires_in {
        let problem = format!(
            "expected `min_expires_in` to be at most `expires_in`, found \"{shortest}\" and \"{usual}\"; lower the first or raise the second"
        );
        problems.add(&section.place, &problem);
    }
    let (least, tolerance) = (orders.min_amount, orders.underpayment_tolerance);
    if least.is_zero() {
        problems.add(&section.place, "expected `min_amount` to be at least \"0.000001\", found \"0\"");
    } else if tolerance >= least {
        let problem = format!(
            "expected `underpayment_tolerance` to be below `min_amount`, or the smallest orders would be paid by nothing, \
             found \"{tolerance}\" and \"{least}\"; lower the first or raise the second"
        );
        problems.add(&section.place, &problem);
    }
    orders
}

/// The networks that the file has tables for; without any, those with a variable.
fn networks(section: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems, warnings: &mut Vec<String>) -> Vec<NetworkConfig> {
    let from_file = !section.is_empty();
    let place = std::mem::take(&mut section.place);
    let section = std::mem::replace(section, Section::empty(String::new(), String::new()));
    let mut networks = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    if from_file {
        for (name, field) in section.children() {
            names.push(name);
            let place = field.place.clone();
            if let Some(mut table) = problems.keep(&place, field.into_section()) {
                networks.extend(network(name, &mut table, env, problems));
                table.finish(problems);
            }
        }
    } else {
        for provider in &PROVIDERS {
            if provider.variables.iter().any(|name| env.is_set(name)) {
                names.push(provider.preset);
                let mut table = Section::empty(format!("networks.{}", provider.preset), format!("the network {}", provider.preset));
                networks.extend(network(provider.preset, &mut table, env, problems));
            }
        }
    }
    for (index, name) in names.iter().enumerate() {
        if let Some(twin) = names.iter().take(index).find(|other| other.eq_ignore_ascii_case(name)) {
            problems.add(&place, &format!("expected names that differ by more than case, found `{twin}` and `{name}`; rename one"));
        }
    }
    warn(&networks, &names, env, warnings);
    networks
}

/// The variables that give a preset its endpoints: first one that lists URLs, then one that holds a
/// provider's key.
struct Provider {
    preset: &'static str,
    variables: [&'static str; 2],
}

const PROVIDERS: [Provider; 2] = [
    Provider { preset: "tron", variables: ["TRON_RPC_URL", "TRONGRID_API_KEY"] },
    Provider { preset: "ethereum", variables: ["ETHEREUM_RPC_URL", "INFURA_PROJECT_ID"] },
];

const TRONGRID_HEADER: &str = "TRON-PRO-API-KEY";

fn network(name: &str, table: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Option<NetworkConfig> {
    if !values::is_network_name(name) {
        let problem = "expected a network's name to be 1 to 32 letters, digits, - or _, found another one; rename the table";
        problems.add(&table.place, problem);
    }
    let preset = presets::find(name);
    let mut missing: Vec<&'static str> = Vec::new();
    let mut wanted = |key: &'static str, is_there: bool| {
        if !is_there {
            missing.push(key);
        }
    };

    let kind_given = table.field("kind");
    wanted("kind", kind_given.is_some() || preset.is_some());
    let kind = kind_given
        .and_then(|field| Some((problems.keep(&field.place, field.text(&values::KIND))?, field.place)))
        .inspect(|(kind, place)| {
            if let Some(preset) = preset.filter(|preset| preset.kind != *kind) {
                let problem = format!(
                    "expected {}, as the preset `{name}` is, found {}; give the table another name",
                    preset.kind.text(),
                    kind.text()
                );
                problems.add(place, &problem);
            }
        })
        .map(|(kind, _)| kind)
        .or(preset.map(|preset| preset.kind));

    let has_chain_id = table.field("chain_id").is_some();
    wanted("chain_id", has_chain_id || preset.is_some());
    let chain_id = table.integer("chain_id", 1..=u64::MAX, problems).or(preset.filter(|_| !has_chain_id).map(|preset| preset.chain_id));
    // Another chain than the preset's has another token, and none of its endpoints.
    let preset_chain = preset.filter(|preset| chain_id.is_none_or(|chain_id| chain_id == preset.chain_id));

    let rpc = endpoints(name, preset_chain, kind, table, env, problems);
    wanted("rpc", rpc.is_some());

    let token_given = table.field("token").is_some();
    let preset_token = preset_chain.and_then(|preset| preset.token);
    wanted("token", token_given || preset_token.is_some());
    let token = table.text("token", &values::TEXT, problems).or(preset_token.map(str::to_owned));

    let decimals_given = table.field("decimals").is_some();
    let preset_decimals = preset.and_then(|preset| preset.decimals);
    wanted("decimals", decimals_given || preset_decimals.is_some());
    let decimals = table.integer("decimals", 0..=36, problems).and_then(|decimals| u8::try_from(decimals).ok()).or(preset_decimals);

    let symbol = table.text("symbol", &values::SYMBOL, problems);

    let confirmations_given = table.field("confirmations");
    wanted("confirmations", confirmations_given.is_some() || preset.is_some());
    let confirmations =
        confirmations_given.and_then(|field| problems.keep(&field.place, depth(&field))).or(preset.map(|preset| preset.confirmations));
    let tiers = tiers(confirmations, table, problems);

    let start_block = table.field("start_block").and_then(|field| problems.keep(&field.place, start_block(&field)));
    let poll_interval = preset.map_or(Span::from_secs(if kind == Some(Kind::Tron) { 3 } else { 2 }), |preset| preset.poll_interval);
    let poll_interval = table.span("poll_interval", poll_interval, Span::from_millis(10)..=Span::from_secs(3_600), problems);
    let max_lag = table.span("max_lag", Span::from_secs(120), Span::from_secs(1)..=Span::from_secs(3_650 * 86_400), problems);
    let wallets = table.text("wallets", &values::WALLETS, problems).unwrap_or(WalletKind::Random);
    if max_lag <= poll_interval {
        let (lag, poll) = (show_span(max_lag), show_span(poll_interval));
        let problem = format!(
            "expected `max_lag` to be longer than `poll_interval`, or the network would never take an order, found \"{lag}\" and \"{poll}\""
        );
        problems.add(&table.place, &problem);
    }
    let webhook_secret = table.text("webhook_secret", &values::WEBHOOK_SECRET, problems);
    let range_max = table.u32("range_max", 50, 1..=10_000, problems);
    let (requests_per_second, requests_per_day) = budget(table, problems);
    let final_lag_max = preset.map_or(Span::from_secs(if kind == Some(Kind::Tron) { 300 } else { 7_200 }), |preset| preset.final_lag_max);
    let final_lag_max = table.span("final_lag_max", final_lag_max, Span::from_secs(1)..=Span::from_secs(3_650 * 86_400), problems);
    let agree_above = table.text("agree_above", &values::AMOUNT, problems);
    let (min_amount, max_amount) =
        (table.text("min_amount", &values::AMOUNT, problems), table.text("max_amount", &values::AMOUNT, problems));
    if let (Some(min), Some(max)) = (min_amount, max_amount)
        && min > max
    {
        problems.add(&table.place, &format!("expected `max_amount` to be at least `min_amount`, {min}, found \"{max}\""));
    }
    let reconcile = table.text("reconcile", &values::RECONCILE, problems).unwrap_or(Reconcile::Settled);
    let alchemy_signing_key = table.text("alchemy_signing_key", &values::HEADER_VALUE, problems);
    if agree_above.is_some() && rpc.as_ref().is_some_and(|rpc| hosts(rpc) < 2) {
        problems.add(
            &table.place,
            "expected endpoints of at least two hosts in `rpc` for `agree_above`, found one: nothing above it would ever settle",
        );
    }
    let display_name = table
        .text("display_name", &values::DISPLAY_NAME, problems)
        .unwrap_or_else(|| preset.map_or(name, |preset| preset.display_name).to_owned());

    if !missing.is_empty() {
        problems.add(&table.place, &missing_keys(&missing, name, preset));
    }
    Some(NetworkConfig {
        name: Network::new(name),
        display_name,
        kind: kind?,
        wallets,
        chain_id: chain_id?,
        rpc: rpc?,
        token: token?,
        decimals: decimals?,
        symbol,
        confirmations: confirmations?,
        tiers,
        start_block: start_block.unwrap_or(StartBlock::Latest),
        poll_interval,
        max_lag,
        final_lag_max,
        min_amount,
        max_amount,
        agree_above,
        reconcile,
        webhook_secret,
        alchemy_signing_key,
        range_max,
        requests_per_second,
        requests_per_day,
    })
}

/// How many different hosts these endpoints are on.
fn hosts(rpc: &[RpcEndpoint]) -> usize {
    let mut hosts: Vec<&str> = rpc.iter().filter_map(|rpc| rpc.url.expose().host_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Self::Evm => "\"evm\"",
            Self::Tron => "\"tron\"",
        }
    }
}

fn missing_keys(missing: &[&str], name: &str, preset: Option<&Preset>) -> String {
    let keys: Vec<String> = missing.iter().map(|key| format!("`{key}`")).collect();
    let keys = keys.join(", ");
    let provider = PROVIDERS.iter().find(|provider| provider.preset == name);
    match (preset, provider) {
        (None, _) => match presets::nearest(name) {
            Some(nearest) => format!("missing {keys}; did you mean the preset `{nearest}`, which knows what may be left out?"),
            None => {
                format!(
                    "missing {keys}; only a table that is named like a preset ({}) may leave out what the preset knows",
                    presets::names()
                )
            }
        },
        (Some(_), Some(provider)) if missing.contains(&"rpc") => {
            format!("missing {keys}, which the preset `{name}` does not know here; for `rpc`, {} would do", provider.variables.join(" or "))
        }
        (Some(_), _) => format!("missing {keys}, which the preset `{name}` does not know here"),
    }
}

/// The endpoints from the environment, else from the file, else from a provider's key alone. `None`
/// when nobody named any.
fn endpoints(
    name: &str,
    preset: Option<&Preset>,
    kind: Option<Kind>,
    table: &mut Section<'_>,
    env: &Env<'_>,
    problems: &mut Problems,
) -> Option<Vec<RpcEndpoint>> {
    let provider = PROVIDERS.iter().find(|provider| provider.preset == name);
    let listed = table.field("rpc");
    let mut found = match (provider.and_then(|provider| env.get(provider.variables[0]).0), listed) {
        (Some(said), _) => endpoints_from_variable(&said, problems),
        (None, Some(field)) => endpoints_from_file(field, problems),
        (None, None) => match preset.map(|preset| preset.name) {
            Some("tron") if env.is_set("TRONGRID_API_KEY") => vec![endpoint("https://api.trongrid.io")?],
            Some("ethereum") => infura(&env.get("INFURA_PROJECT_ID").0?, problems).into_iter().collect(),
            _ => return None,
        },
    };
    if kind == Some(Kind::Tron)
        && let Some(key) = env.read("TRONGRID_API_KEY", &values::HEADER_VALUE, problems)
    {
        for endpoint in found.iter_mut().filter(|endpoint| is_trongrid(endpoint)) {
            if !endpoint.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRONGRID_HEADER)) {
                endpoint.headers.push((TRONGRID_HEADER.to_owned(), key.clone()));
            }
        }
    }
    Some(found)
}

fn endpoint(url: &str) -> Option<RpcEndpoint> {
    Some(RpcEndpoint::new(SecretUrl::new(Url::parse(url).ok()?)))
}

/// Only over TLS: a key is not sent in the open.
fn is_trongrid(endpoint: &RpcEndpoint) -> bool {
    let url = endpoint.url.expose();
    url.scheme() == "https" && url.host_str().is_some_and(|host| host == "trongrid.io" || host.ends_with(".trongrid.io"))
}

fn infura(said: &Said, problems: &mut Problems) -> Option<RpcEndpoint> {
    let is_id = said.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_id {
        problems
            .add(&said.place, "expected the project's id alone, found other characters (not shown); an address goes into ETHEREUM_RPC_URL");
        return None;
    }
    endpoint(&format!("https://mainnet.infura.io/v3/{}", said.text))
}

fn endpoints_from_variable(said: &Said, problems: &mut Problems) -> Vec<RpcEndpoint> {
    let urls: Vec<&str> = said.text.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        problems.add(&said.place, "expected one or more http:// or https:// URLs with commas between them, found none");
    }
    let mut found = Vec::new();
    for (index, url) in urls.into_iter().enumerate() {
        let place = format!("{}, URL {}", said.place, index.saturating_add(1));
        let url = problems.keep(&place, values::RPC_URL.read(url));
        found.extend(url.map(RpcEndpoint::new));
    }
    found
}

fn endpoints_from_file(field: Field<'_>, problems: &mut Problems) -> Vec<RpcEndpoint> {
    let place = field.place.clone();
    let Some(list) = problems.keep(&place, field.into_list("a list of URLs such as [\"https://node.example\"]")) else { return Vec::new() };
    if list.is_empty() {
        problems.add(&place, "expected at least one URL, found an empty list");
    }
    let mut found = Vec::new();
    for entry in list {
        let place = entry.place.clone();
        if entry.is_text() {
            let url = problems.keep(&place, entry.text(&values::RPC_URL));
            found.extend(url.map(RpcEndpoint::new));
        } else {
            let wrong = entry.wrong("a URL in quotes, or { url = \"…\", headers = { NAME = \"…\" } }", Echo::Hide);
            let Some(mut table) = problems.keep(&place, entry.into_section().map_err(|_| wrong)) else { continue };
            if table.field("url").is_none() {
                problems.add(&place, "missing `url`");
            }
            let url = table.text("url", &values::RPC_URL, problems);
            let headers = headers(&mut table, problems);
            let (requests_per_second, requests_per_day) = budget(&mut table, problems);
            table.finish(problems);
            found.extend(url.map(|url| RpcEndpoint { url, headers, requests_per_second, requests_per_day }));
        }
    }
    found
}

/// What an endpoint may be asked in a second and in a day.
fn budget(table: &mut Section<'_>, problems: &mut Problems) -> (Option<NonZeroU32>, Option<u64>) {
    let per_second = table.integer("requests_per_second", 1..=1_000_000, problems);
    let per_day = table.integer("requests_per_day", 1..=u64::MAX, problems);
    (per_second.and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?)), per_day)
}

fn headers(table: &mut Section<'_>, problems: &mut Problems) -> Vec<(String, SecretText)> {
    let mut found = Vec::new();
    for (name, field) in table.section("headers", problems).children() {
        if !values::is_header_name(name) {
            problems.add(&field.place, "expected a name that HTTP allows for a header, such as TRON-PRO-API-KEY");
        }
        let value = problems.keep(&field.place, field.text(&values::HEADER_VALUE));
        found.extend(value.map(|value| (name.to_owned(), value)));
    }
    found
}

fn depth(field: &Field<'_>) -> Result<Depth, String> {
    const FORM: Form<Depth> = Form {
        expected: "a number of blocks from 1 to 10000, or \"final\"",
        echo: Echo::Quote,
        parse: |text| if text == "final" { Ok(Depth::Final) } else { Err(values::Found::Text) },
    };
    if !field.is_integer() {
        return field.text(&FORM);
    }
    let blocks = field.integer(1..=CONFIRMATIONS_MAX).ok().and_then(|blocks| u32::try_from(blocks).ok());
    blocks.map(Depth::Blocks).ok_or_else(|| field.wrong(FORM.expected, Echo::Quote))
}

fn start_block(field: &Field<'_>) -> Result<StartBlock, String> {
    const FORM: Form<StartBlock> = Form {
        expected: "a block's number, or \"latest\"",
        echo: Echo::Quote,
        parse: |text| if text == "latest" { Ok(StartBlock::Latest) } else { Err(values::Found::Text) },
    };
    if !field.is_integer() {
        return field.text(&FORM);
    }
    field.integer(0..=u64::MAX).map(StartBlock::Number).map_err(|_| field.wrong(FORM.expected, Echo::Quote))
}

fn tiers(confirmations: Option<Depth>, table: &mut Section<'_>, problems: &mut Problems) -> Vec<Tier> {
    let Some(field) = table.field("confirmation_tiers") else { return Vec::new() };
    let place = field.place.clone();
    let expected = "tables: [[networks.NAME.confirmation_tiers]] with `above` and `confirmations`";
    let list = problems.keep(&place, field.into_list(expected)).unwrap_or_default();
    let mut tiers: Vec<Tier> = Vec::new();
    for entry in list {
        let place = entry.place.clone();
        let Some(mut tier) = problems.keep(&place, entry.into_section()) else { continue };
        let above = tier.text("above", &values::AMOUNT, problems);
        let depth = tier.field("confirmations").and_then(|field| problems.keep(&field.place, depth(&field)));
        if tier.field("above").is_none() || tier.field("confirmations").is_none() {
            problems.add(&place, "missing `above` or `confirmations`; a tier needs both");
        }
        tier.finish(problems);
        tiers.extend(above.zip(depth).map(|(above, depth)| Tier { above, depth }));
    }
    tiers.sort_by_key(|tier| tier.above);
    let mut last: Option<(Option<Amount>, Depth)> = confirmations.map(|depth| (None, depth));
    for tier in &tiers {
        if last.is_some_and(|(above, depth)| above == Some(tier.above) || tier.depth < depth) {
            let problem = format!(
                "expected each tier to start above the one before and to ask for at least as many confirmations, found one above \
                 \"{}\" that does not",
                tier.above
            );
            problems.add(&place, &problem);
        }
        last = Some((Some(tier.above), tier.depth));
    }
    tiers
}

/// What is set and has no effect, and what is allowed and looks like a mistake.
fn warn(networks: &[NetworkConfig], names: &[&str], env: &Env<'_>, warnings: &mut Vec<String>) {
    for Provider { preset, variables } in &PROVIDERS {
        for variable in variables.iter().filter(|name| env.is_set(name) && !names.contains(preset)) {
            let tron_key = *variable == "TRONGRID_API_KEY" && networks.iter().any(|network| network.kind == Kind::Tron);
            if !tron_key {
                warnings.push(format!(
                    "{variable} is set, but the configuration names its networks and `{preset}` is not one of them; add [networks.{preset}] to use it"
                ));
            }
        }
    }
    let tron = |network: &&NetworkConfig| network.kind == Kind::Tron;
    let trongrid = networks.iter().filter(tron).any(|network| network.rpc.iter().any(is_trongrid));
    if env.is_set("TRONGRID_API_KEY") && networks.iter().any(|network| tron(&network)) && !trongrid {
        warnings.push("TRONGRID_API_KEY is set, but no endpoint is https and of trongrid.io, so it is sent nowhere".to_owned());
    }
    let ethereum = networks.iter().find(|network| network.name.as_str() == "ethereum");
    let infura = |endpoint: &RpcEndpoint| endpoint.url.expose().host_str() == Some("mainnet.infura.io");
    if env.is_set("INFURA_PROJECT_ID") && ethereum.is_some_and(|network| !network.rpc.iter().any(infura)) {
        warnings.push("INFURA_PROJECT_ID is set, but the endpoints of `ethereum` are named elsewhere, so it is not used".to_owned());
    }
    for (index, network) in networks.iter().enumerate() {
        let same = |other: &&NetworkConfig| {
            other.kind == network.kind && other.chain_id == network.chain_id && other.token.eq_ignore_ascii_case(&network.token)
        };
        if let Some(twin) = networks.iter().take(index).find(same) {
            warnings.push(format!(
                "`{}` and `{}` have the same chain id and token; on one chain, one of them is enough",
                twin.name, network.name
            ));
        }
    }
}

#[cfg(test)]
mod tests;
