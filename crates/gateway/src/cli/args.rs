//! What the command line takes: every command, its arguments and its example.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tidegate_rules::time::Time;
use url::Url;

use super::webhook_endpoints::EndpointCommand;
use crate::config::IpRange;
use crate::http::SCOPES;
use crate::pool::GENERATE_MAX;

/// A self-hosted USDT payment gateway: TRON, Ethereum and other EVM networks.
#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    propagate_version = true,
    after_help = "Example:\n  tidegate dev          the whole product in a sandbox, nothing to configure"
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command that reads the configuration takes.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfigArgs {
    /// The configuration file (default: tidegate.toml if there is one)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What commands take that need no configuration, so that scripts can pass it to every command.
#[derive(Args, Clone, Debug)]
pub(super) struct UnusedConfig {
    /// Accepted by every command; this one does not read it
    #[arg(long, value_name = "FILE")]
    #[allow(dead_code, reason = "accepted and not read")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the whole product in a sandbox: no network, no keys, no configuration
    #[command(after_help = "Example:\n  tidegate dev --data-dir ./sandbox --listen 127.0.0.1:8001 --block-time 1")]
    Dev {
        #[command(flatten)]
        config: UnusedConfig,
        /// Where it keeps its files
        #[arg(long, value_name = "DIR", default_value = "./.tidegate-dev")]
        data_dir: PathBuf,
        /// Where it listens; port 0 takes a free one
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8001")]
        listen: String,
        /// Seconds between blocks of the simulated chains
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        block_time: Duration,
        /// How much to log: error, warn, info, debug
        #[arg(long, value_name = "LEVEL", default_value = "warn")]
        log_level: String,
    },
    /// Watch orders being created, paid and confirmed, in a sandbox of its own
    #[command(after_help = "Example:\n  tidegate demo")]
    Demo(UnusedConfig),
    /// Run the gateway against real networks
    #[command(
        after_help = "Example:\n  TRON_RPC_URL=https://api.trongrid.io WALLET_MASTER_KEY_FILE=/etc/tidegate/key tidegate serve --config tidegate.toml"
    )]
    Serve {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where to listen (LISTEN_ADDR)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<String>,
        /// Refuse to start on an old schema instead of migrating it
        #[arg(long)]
        no_migrate: bool,
    },
    /// Check the configuration, the database and every endpoint
    #[command(after_help = "Examples:\n  tidegate check --config tidegate.toml\n  tidegate check --books")]
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Compare the books with the chain, wallet by wallet
        #[arg(long)]
        books: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Ask the gateway that runs here how it does; exit 0 when it is ready, 1 when not
    #[command(
        after_help = "Examples:\n  tidegate health\n  tidegate health --live\n  tidegate health --url https://pay.example.com/health/ready"
    )]
    Health {
        #[command(flatten)]
        config: ConfigArgs,
        /// Ask only whether it lives, whatever its database and networks do
        #[arg(long)]
        live: bool,
        /// Ask at this address instead of the listener of the configuration
        #[arg(long, value_name = "URL", conflicts_with = "live")]
        url: Option<Url>,
    },
    /// Read a range of blocks once more and take in what was missed; changes nothing that is known
    #[command(after_help = "Example:\n  tidegate scan --network tron --from 70000000 --to 70001000")]
    Scan {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where
        #[arg(long)]
        network: String,
        /// The first block
        #[arg(long, value_name = "BLOCK")]
        from: u64,
        /// The last block, not above the last one that was applied
        #[arg(long, value_name = "BLOCK")]
        to: u64,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Let a halted network go on from a block that both branches have; the audit log says so
    #[command(
        after_help = "Example:\n  tidegate resume --network tron --ancestor 70001000 --reason 'chain was rewritten, compared with two explorers'"
    )]
    Resume {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which network
        #[arg(long)]
        network: String,
        /// The highest block that is the same on the chain and here
        #[arg(long, value_name = "BLOCK")]
        ancestor: u64,
        /// Why; stands in the audit log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Bring the database's schema up to date, or move everything from SQLite to PostgreSQL
    #[command(
        after_help = "Examples:\n  tidegate migrate --config tidegate.toml\n  tidegate migrate --from sqlite:///var/lib/tidegate/tidegate.db --to postgres://tidegate@127.0.0.1/tidegate"
    )]
    Migrate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Move everything from this SQLite database, which nothing may be using
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// To this PostgreSQL database, which is empty (default: DATABASE_URL, so that no password is in a list of processes)
        #[arg(long, value_name = "URL", requires = "from")]
        to: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Work on the wallet pool
    #[command(subcommand, after_help = "Example:\n  tidegate wallet generate --network tron --count 100")]
    Wallet(WalletCommand),
    /// Work on the master key
    #[command(subcommand, after_help = "Example:\n  tidegate key new")]
    Key(KeyCommand),
    /// Make an encrypted, verified copy of the database (SQLite), while it is in use
    #[command(after_help = "Example:\n  tidegate backup /var/backups/tidegate-2026-11-23.backup --config tidegate.toml")]
    Backup {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where; a new file
        file: PathBuf,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in the place of a database that is not there
    #[command(after_help = "Example:\n  tidegate restore /var/backups/tidegate-2026-11-23.backup --config tidegate.toml")]
    Restore {
        #[command(flatten)]
        config: ConfigArgs,
        /// The backup
        file: PathBuf,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Work on the audit log
    #[command(subcommand, after_help = "Example:\n  tidegate audit verify")]
    Audit(AuditCommand),
    /// Work on messages to operators and customers
    #[command(subcommand, after_help = "Example:\n  tidegate notify test --channel smtp")]
    Notify(NotifyCommand),
    /// Work on API keys
    #[command(subcommand, after_help = "Example:\n  tidegate api-key create --merchant main --scope orders:read --scope orders:write")]
    ApiKey(ApiKeyCommand),
    /// Work on merchants
    #[command(subcommand, after_help = "Example:\n  tidegate merchant add my-shop --webhook-url https://shop.example/webhooks")]
    Merchant(MerchantCommand),
    /// Work on the people who may log in
    #[command(subcommand, after_help = "Example:\n  tidegate user add --email owner@shop.example --role owner")]
    User(UserCommand),
    /// Print the OpenAPI 3.1 document
    #[command(after_help = "Example:\n  tidegate openapi > openapi.json")]
    Openapi(UnusedConfig),
}

#[derive(Subcommand)]
pub(super) enum WalletCommand {
    /// Make wallets, all or none
    #[command(after_help = "Example:\n  tidegate wallet generate --network tron --count 100 --json")]
    Generate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where
        #[arg(long)]
        network: String,
        /// How many, 1 to 1000
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(GENERATE_MAX)))]
        count: u32,
        /// What their names start with
        #[arg(long)]
        name_prefix: Option<String>,
        /// random, hd or watch (default: what the configuration says for the network)
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["random", "hd", "watch"]))]
        kind: Option<String>,
        /// Which seed or extended public key, by name or id (default: the newest)
        #[arg(long)]
        source: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Make a BIP-39 seed whose words are shown once, or take one in; wallets of kind hd come from it
    #[command(after_help = "Examples:\n  tidegate wallet seed main\n  tidegate wallet seed old --import < words.txt")]
    Seed {
        #[command(flatten)]
        config: ConfigArgs,
        /// What to call it
        name: String,
        /// Read words from stdin or --file instead of making new ones
        #[arg(long)]
        import: bool,
        /// Read the words from this file instead of stdin; a second line is the passphrase
        #[arg(long, value_name = "FILE", requires = "import")]
        file: Option<PathBuf>,
        /// The hardened account of m/44'/coin'/account'/0/index
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=0x7fff_ffff))]
        account: u32,
        /// Do not ask for the words again
        #[arg(long)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Take in the extended public key (xpub) of an account; wallets of kind watch come from it
    #[command(after_help = "Example:\n  tidegate wallet watch cold --network tron < xpub.txt")]
    Watch {
        #[command(flatten)]
        config: ConfigArgs,
        /// What to call it
        name: String,
        /// Where
        #[arg(long)]
        network: String,
        /// Read the key from this file instead of stdin
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List seeds and extended public keys, and the next index on each network
    #[command(after_help = "Example:\n  tidegate wallet sources")]
    Sources {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the extended public key (xpub) of a seed, for another installation that only watches
    #[command(after_help = "Example:\n  tidegate wallet xpub main --network tron")]
    Xpub {
        #[command(flatten)]
        config: ConfigArgs,
        /// The seed, by name or id
        source: String,
        /// Whose coin: TRON and EVM networks have different accounts
        #[arg(long)]
        network: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Open keys, derive their addresses again, and compare: one wallet, or all
    #[command(after_help = "Example:\n  tidegate wallet verify\n  tidegate wallet verify wal_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which one; all without it
        wallet: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print a wallet's private key, after asking; the audit log says so
    #[command(after_help = "Example:\n  tidegate wallet export wal_019a5a0fca7e7bd0a3f2c8e1b4d96f70 --reason 'moving to a ledger'")]
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which one
        wallet: String,
        /// Why; stands in the audit log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Take in a wallet by its private key, read from stdin or from a file
    #[command(after_help = "Example:\n  tidegate wallet import --network ethereum --name hot-1 < key.txt")]
    Import {
        #[command(flatten)]
        config: ConfigArgs,
        /// Where
        #[arg(long)]
        network: String,
        /// Read the key from this file instead of stdin
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Ask the chain what wallets hold, keep it, and compare it with the records: one wallet, or all
    #[command(after_help = "Example:\n  tidegate wallet sync --network tron\n  tidegate wallet sync wal_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    Sync {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which one; without it all that may hold something
        wallet: Option<String>,
        /// On this network
        #[arg(long, conflicts_with = "wallet")]
        network: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List wallets, newest first
    #[command(after_help = "Example:\n  tidegate wallet list --network tron --status available")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// On this network
        #[arg(long)]
        network: Option<String>,
        /// available, occupied, cooldown, disabled or frozen
        #[arg(long)]
        status: Option<String>,
        /// random, hd, watch or imported
        #[arg(long)]
        kind: Option<String>,
        /// How many
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a master key
    #[command(after_help = "Example:\n  tidegate key new > master.key && chmod 600 master.key")]
    New {
        #[command(flatten)]
        config: UnusedConfig,
        /// Make it in two parts, to be kept apart; both are needed
        #[arg(long)]
        parts: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Seal everything under a new master key; killed, it goes on where it was
    #[command(
        after_help = "Example:\n  WALLET_MASTER_KEY_FILE=new.key WALLET_MASTER_KEY_PREVIOUS_FILE=old.key tidegate key rotate --config tidegate.toml"
    )]
    Rotate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Check that no row of the audit log was edited, removed or added
    #[command(after_help = "Example:\n  tidegate audit verify")]
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum NotifyCommand {
    /// Send a test message and say what happened
    #[command(after_help = "Example:\n  tidegate notify test --channel smtp --to ops@example.com")]
    Test {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which channel
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["smtp", "telegram", "sms"]))]
        channel: String,
        /// To whom (default: the first operator of the configuration)
        #[arg(long)]
        to: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum ApiKeyCommand {
    /// Make an API key; its secret is shown once
    #[command(after_help = "Example:\n  tidegate api-key create --merchant main --scope orders:read --scope orders:write --json")]
    Create {
        #[command(flatten)]
        config: ConfigArgs,
        /// Whose, by name or id
        #[arg(long)]
        merchant: String,
        /// What it may do; may be given several times
        #[arg(long = "scope", required = true, value_parser = clap::builder::PossibleValuesParser::new(SCOPES))]
        scopes: Vec<String>,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// An address or network it may be used from; may be given several times (default: everywhere)
        #[arg(long = "allow-from", value_name = "NETWORK", value_parser = network)]
        allowed_ips: Vec<IpRange>,
        /// Until when it is good, such as 2027-01-01T00:00:00Z (default: until somebody ends it)
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires_at: Option<Time>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List API keys, newest first, never their secrets
    #[command(after_help = "Example:\n  tidegate api-key list")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// Whose, by name or id
        #[arg(long)]
        merchant: Option<String>,
        /// How many
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End an API key; a running gateway follows within five seconds
    #[command(after_help = "Example:\n  tidegate api-key revoke key_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    Revoke {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which one
        id: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Add somebody who may log in; without a password on stdin or in a file one is made and shown once
    #[command(
        after_help = "Examples:\n  tidegate user add --email owner@shop.example --role owner\n  tidegate user add --email support@shop.example --role support --password-stdin < password.txt"
    )]
    Add {
        #[command(flatten)]
        config: ConfigArgs,
        /// The e-mail address: the name to log in with
        #[arg(long)]
        email: String,
        /// owner, operator, support or viewer
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["owner", "operator", "support", "viewer"]))]
        role: String,
        /// Read the password from stdin
        #[arg(long)]
        password_stdin: bool,
        /// Read the password from this file
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List who may log in
    #[command(after_help = "Example:\n  tidegate user list")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// How many
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// For somebody who is locked out: a new password, shown once, no second factor, no session
    #[command(after_help = "Example:\n  tidegate user reset --email owner@shop.example")]
    Reset {
        #[command(flatten)]
        config: ConfigArgs,
        /// Whose
        #[arg(long)]
        email: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum MerchantCommand {
    /// Further receivers of a merchant's webhooks, each with its own filter and secret
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Show a merchant and its webhook secret; the audit log says so
    #[command(after_help = "Example:\n  tidegate merchant show main --json")]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its name or id
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Change where a merchant's webhooks go; those of `main` tell of alerts too
    #[command(after_help = "Example:\n  tidegate merchant update main --webhook-url https://ops.example/tidegate")]
    Update {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its name or id
        name: String,
        /// Where its webhooks go; an empty text means nowhere
        #[arg(long, value_name = "URL")]
        webhook_url: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Add a merchant; its webhook secret is shown once
    #[command(after_help = "Example:\n  tidegate merchant add my-shop --webhook-url https://shop.example/webhooks --json")]
    Add {
        #[command(flatten)]
        config: ConfigArgs,
        /// Its name
        name: String,
        /// Where its webhooks go
        #[arg(long, value_name = "URL")]
        webhook_url: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Reads an address or a network of addresses.
fn network(text: &str) -> Result<IpRange, String> {
    text.parse().map_err(|()| "expected an IP address or range such as 203.0.113.7 or 10.0.0.0/8".to_owned())
}

/// Reads a time.
fn moment(text: &str) -> Result<Time, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Reads seconds with an optional fraction, such as `0.2`.
fn seconds(text: &str) -> Result<Duration, String> {
    let expected = || "expected seconds from 0.01 to 3600, such as 1 or 0.2".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(expected());
    }
    let secs: u64 = whole.parse().map_err(|_| expected())?;
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| expected())?;
    let found = Duration::new(secs, nanos);
    if found < Duration::from_millis(10) || found > Duration::from_secs(3_600) { Err(expected()) } else { Ok(found) }
}
