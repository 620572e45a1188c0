//! What the operator decides: read from flags, the environment and one TOML file, in that order of
//! precedence, checked as a whole, and never changed afterwards.
//!
//! [`Config::load`] is pure; [`Config::from_process`] brings it the file and the environment. All
//! problems are reported at once, each with its place, what was expected, what was found and what
//! to do. No secret is in an error or in a `Debug` text.

mod doors;
mod file;
mod networks;
mod notices;
mod presets;
mod secret;
mod server;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::order::EXPIRES_IN_MAX;
use tidegate_rules::time::Span;
use toml::Spanned;
use toml::de::DeTable;

use self::file::{Problems, Section, Source};
use self::networks::networks;
pub use self::networks::{Kind, NetworkConfig, Reconcile, RpcEndpoint, StartBlock, Tier};
pub use self::notices::{Notifications, Security, Sms, SmsMethod, Smtp, Telegram, chat, mailbox, phone};
pub use self::secret::{SecretText, SecretUrl};
pub use self::server::{ProxyHeader, Server, TlsFiles};
use self::values::{Form, show_span};
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

/// A key is 64 characters; a configuration is a page or two.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long a wallet may be kept from its next order, by the late window and again by the cooldown.
const WINDOW_MAX: Span = Span::from_secs(365 * 86_400);
/// A webhook that is done is kept at least for so long: people may want it to be sent again.
const WEBHOOKS_MIN: Span = Span::from_secs(7 * 86_400);

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

/// The headers that a table gives to what is sent somewhere: name and value.
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

#[cfg(test)]
mod tests;
