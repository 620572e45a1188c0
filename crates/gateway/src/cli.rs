//! The command line: one binary, `tidegate`.
//!
//! Every command says on stderr what was expected, what was found and what to do, and exits 0 when
//! it is done, 1 when it failed, 2 when it was called wrongly.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tidegate_rules::block::Network;
use tidegate_rules::wallet::{WalletKind, WalletStatus};
use tidegate_vault::{MasterKey, OsEntropy};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::backup;
use crate::clock;
use crate::config::{Config, LogFormat, Overrides};
use crate::demo;
use crate::dev;
use crate::gateway::Gateway;
use crate::http::{self, SCOPES, WalletPage, WalletView};
use crate::orders::part_named;
use crate::people::{Doer, REASON_MAX};
use crate::pool::{Batch, GENERATE_MAX};
use crate::rotate;
use crate::safe;
use crate::sources;
use crate::start::{self, Sorry};
use crate::store::{Migrate, WalletFilter};

/// How long everything may take to end after SIGTERM.
const END_MAX: Duration = Duration::from_millis(4_800);

/// A self-hosted USDT payment gateway: TRON, Ethereum and other EVM networks.
#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    propagate_version = true,
    after_help = "Example:\n  tidegate dev          the whole product in a sandbox, nothing to configure"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What every command that reads the configuration takes.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The configuration file (default: tidegate.toml if there is one)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What commands take that need no configuration, so that scripts can pass it to every command.
#[derive(Args, Clone, Debug)]
struct UnusedConfig {
    /// Accepted by every command; this one does not read it
    #[arg(long, value_name = "FILE")]
    #[allow(dead_code, reason = "accepted and not read")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
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
    #[command(after_help = "Example:\n  tidegate check --config tidegate.toml")]
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Bring the database's schema up to date
    #[command(after_help = "Example:\n  tidegate migrate --config tidegate.toml")]
    Migrate {
        #[command(flatten)]
        config: ConfigArgs,
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
    /// Work on API keys
    #[command(subcommand, after_help = "Example:\n  tidegate api-key create --merchant main --scope orders:read --scope orders:write")]
    ApiKey(ApiKeyCommand),
    /// Work on merchants
    #[command(subcommand, after_help = "Example:\n  tidegate merchant add my-shop --webhook-url https://shop.example/webhooks")]
    Merchant(MerchantCommand),
    /// Print the OpenAPI 3.1 document
    #[command(after_help = "Example:\n  tidegate openapi > openapi.json")]
    Openapi(UnusedConfig),
}

#[derive(Subcommand)]
enum WalletCommand {
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
enum KeyCommand {
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
enum AuditCommand {
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
enum ApiKeyCommand {
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
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum MerchantCommand {
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

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    keep_memory_private();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime could not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli.command));
    // Blocking threads, such as a read of stdin, must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(code) => code,
        Err(sorry) => {
            complain(&sorry.to_string());
            ExitCode::FAILURE
        }
    }
}

/// No core dump is made of this process, and no other process of its user reads its memory, in
/// which there are keys.
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let done = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = done {
        complain(&format!("core dumps could not be switched off: {error}; forbid them where the program is started"));
    }
}

#[cfg(not(target_os = "linux"))]
const fn keep_memory_private() {}

/// The one place that speaks on stderr.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "tidegate: {text}");
}

/// The one place that speaks on stdout. A closed pipe is nobody's failure.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

async fn run(command: Command) -> Result<ExitCode, Sorry> {
    let done = Ok(ExitCode::SUCCESS);
    match command {
        Command::Dev { config: _, data_dir, listen, block_time, log_level } => {
            log_to_stderr(&log_level, LogFormat::Pretty)?;
            run_dev(dev::Options { data_dir, listen, block_time, confirmations: (19, 12) }).await?;
            done
        }
        Command::Demo(_) => demo::run().await,
        Command::Serve { config, listen, no_migrate } => {
            let flags = Overrides { listen, ..Overrides::default() };
            serve(read_config(&config, flags)?, if no_migrate { Migrate::No } else { Migrate::Yes }).await?;
            done
        }
        Command::Check { config, json } => check(read_config(&config, Overrides::default())?, json).await,
        Command::Migrate { config } => {
            start::open_store(&read_config(&config, Overrides::default())?, Migrate::Yes).await?.close().await;
            say("the schema is up to date");
            done
        }
        Command::Wallet(WalletCommand::Verify { config, wallet, json }) => verify_wallets(&config, wallet.as_deref(), json).await,
        Command::Wallet(command) => {
            wallet(command).await?;
            done
        }
        Command::Key(KeyCommand::Rotate { config, json }) => {
            rotate_key(&config, json).await?;
            done
        }
        Command::Key(KeyCommand::New { config: _, parts: true, json }) => {
            let (part1, part2) = MasterKey::generate_parts(&mut OsEntropy);
            if json {
                say(&json!({ "master_key": *part1, "master_key_part2": *part2 }).to_string());
            } else {
                say(&format!("WALLET_MASTER_KEY        {}\nWALLET_MASTER_KEY_PART2  {}", *part1, *part2));
            }
            if std::io::stdout().is_terminal() {
                complain("keep the two parts apart, and both safe: without either no wallet can be opened, and there is no other way in");
            }
            done
        }
        Command::Key(KeyCommand::New { config: _, parts: false, json }) => {
            let key = MasterKey::generate(&mut OsEntropy).to_hex();
            if json {
                say(&json!({ "master_key": *key }).to_string());
            } else {
                say(&key);
            }
            if std::io::stdout().is_terminal() {
                complain(
                    "keep this key safe and apart from the database: without it no wallet can be opened, and there is no other way in",
                );
            }
            done
        }
        Command::ApiKey(ApiKeyCommand::Create { config, merchant, scopes, json }) => {
            create_api_key(&config, &merchant, &scopes, json).await?;
            done
        }
        Command::Merchant(MerchantCommand::Add { config, name, webhook_url, json }) => {
            add_merchant(&config, &name, webhook_url, json).await?;
            done
        }
        Command::Merchant(MerchantCommand::Show { config, name, json }) => {
            show_merchant(&config, &name, json).await?;
            done
        }
        Command::Backup { config, file, json } => {
            let bytes = backup::backup(&read_config(&config, Overrides::default())?, &file, &Doer::on_command_line()).await?;
            if json {
                say(&json!({ "ok": true, "file": file.display().to_string(), "bytes": bytes }).to_string());
            } else {
                say(&format!("{}: {bytes} bytes, opened again and compared. It is worth nothing without the master key.", file.display()));
            }
            done
        }
        Command::Restore { config, file, json } => {
            let header = backup::restore(&read_config(&config, Overrides::default())?, &file, &Doer::on_command_line()).await?;
            if json {
                say(&json!({ "ok": true, "backup": header }).to_string());
            } else {
                say(&format!("restored: {}. Orders and wallets that were made after it are not in it.", header.line()));
            }
            done
        }
        Command::Audit(AuditCommand::Verify { config, json }) => verify_audit(&config, json).await,
        Command::Openapi(_) => {
            say(&http::document());
            done
        }
    }
}

/// Reads the configuration and starts the log.
fn read_config(args: &ConfigArgs, flags: Overrides) -> Result<Config, Sorry> {
    let config = Config::from_process(flags, args.config.as_deref())?;
    log_to_stderr(&config.log.level, config.log.format)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if config.redis_url.is_some() {
        tracing::warn!("REDIS_URL is set, but this version keeps its caches in the process");
    }
    if config.metrics.addr.is_some() {
        tracing::warn!("METRICS_ADDR is set, but this version serves no metrics");
    }
    for network in config.networks.iter().filter(|network| network.webhook_secret.is_some()) {
        tracing::warn!(network = %network.name, "webhook_secret is set, but this version takes no hints from providers: it reads every block anyway");
    }
    Ok(config)
}

/// Logs to stderr. Stdout is for what a command has to say.
fn log_to_stderr(level: &str, format: LogFormat) -> Result<(), Sorry> {
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .map_err(|error| Sorry(format!("LOG_LEVEL: {error}; expected error, warn, info, debug or trace")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second call, as tests make, keeps the first subscriber.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.try_init(),
    };
    Ok(())
}

/// Says `true` once the process is asked to stop.
pub(crate) fn stop_on_signal() -> Result<watch::Receiver<bool>, Sorry> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sender.send(true);
        // Nothing may keep the process longer than this.
        tokio::time::sleep(END_MAX).await;
        std::process::exit(0);
    });
    Ok(receiver)
}

async fn serve(config: Config, migrate: Migrate) -> Result<(), Sorry> {
    config.refuse_insecure()?;
    config.require_networks()?;
    let stop = stop_on_signal()?;
    let mut config = config;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .map_err(|error| Sorry(format!("LISTEN_ADDR {}: {error}; choose an address and port that are free", config.server.listen)))?;
    let address = listener.local_addr()?;
    // Port 0 takes a free one: links must name it.
    config.server.listen = address;
    let gateway = start::checked_gateway(config, migrate).await?;
    let loops = tokio::spawn(Arc::clone(&gateway).run(stop.clone()));
    say(&format!("listening on http://{address}"));
    let store = gateway.store.clone();
    http::serve(gateway, listener, stop).await?;
    let _ = loops.await;
    store.close().await;
    Ok(())
}

async fn run_dev(options: dev::Options) -> Result<(), Sorry> {
    let stop = stop_on_signal()?;
    let dir = options.data_dir.clone();
    let running = dev::start(options, stop).await?;
    let dev::Credentials { base_url, api_key, webhook_secret, .. } = &running.credentials;
    say(&format!(
        "\nTidegate sandbox: simulated TRON and Ethereum, no real money.\n\n  \
         API             {base_url}/api/v1\n  \
         checkout        {base_url}/pay/<order id>\n  \
         docs            {base_url}/docs\n\n  \
         API key         {api_key}\n  \
         webhook secret  {webhook_secret}\n\n  \
         also in         {}\n\n\
         Create an order, then open its checkout_url and press a button of the sandbox panel:\n\n  \
         curl -s {base_url}/api/v1/orders -H 'Authorization: Bearer {api_key}' \\\n       \
         -H 'Content-Type: application/json' -d '{{\"amount\": \"12.5\", \"network\": \"tron\"}}'\n",
        dir.join("credentials.json").display(),
    ));
    say(&format!("listening on {base_url}"));
    running.ended.await.map_err(|error| Sorry(error.to_string()))?
}

/// A gateway that is only used, not run.
async fn quiet_gateway(config: &ConfigArgs) -> Result<Arc<Gateway>, Sorry> {
    start::gateway(read_config(config, Overrides::default())?, Migrate::Yes).await
}

async fn wallet(command: WalletCommand) -> Result<(), Sorry> {
    match command {
        WalletCommand::Generate { config, network, count, name_prefix, kind, source, json } => {
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let batch = Batch {
                count,
                name_prefix: name_prefix.as_deref(),
                kind: kind.as_deref().and_then(WalletKind::from_name),
                source: source.as_deref(),
            };
            let wallets = gateway.pool.generate(&gateway, part, &batch, &Doer::on_command_line(), |_| None).await?;
            show_wallets(&WalletPage::made(&wallets), json);
            gateway.store.clone().close().await;
        }
        WalletCommand::Import { config, network, file, name, json } => {
            let key = read_secret(file.as_deref())?;
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let wallet = gateway.pool.import(&gateway, part, key.trim(), name.as_deref(), &Doer::on_command_line(), |_| None).await?;
            if json {
                say(&serde_json::to_string_pretty(&WalletView::from(&wallet)).unwrap_or_default());
            } else {
                show_wallets(&WalletPage::made(std::slice::from_ref(&wallet)), false);
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Seed { config, name, import, file, account, yes, json } => {
            checked_source_name(&name)?;
            let words = if import { Some(read_secret(file.as_deref())?) } else { None };
            let gateway = quiet_gateway(&config).await?;
            let doer = Doer::on_command_line();
            match words {
                Some(words) => {
                    let (words, passphrase) = words.split_once('\n').unwrap_or((&words, ""));
                    let id = sources::import_seed(&gateway, &name, account, words.trim(), passphrase.trim_end_matches(['\r', '\n']), &doer)
                        .await?;
                    show_source(&id.to_string(), &name, "hd", None, json);
                }
                None => new_seed(&gateway, &name, account, yes, json, &doer).await?,
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Watch { config, name, network, file, json } => {
            checked_source_name(&name)?;
            let xpub = read_secret(file.as_deref())?;
            let gateway = quiet_gateway(&config).await?;
            let part = part_named(&gateway, &Network::new(&network))?;
            let id = sources::add_xpub(&gateway, &name, part, &xpub, &Doer::on_command_line()).await?;
            show_source(&id.to_string(), &name, "watch", None, json);
            gateway.store.clone().close().await;
        }
        WalletCommand::Export { config, wallet, reason, yes, json } => {
            let id = wallet.parse().map_err(|_| Sorry(format!("expected the id of a wallet, such as wal_…, found {wallet:?}")))?;
            if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
                return Err(Sorry(format!("--reason: expected 1 to {REASON_MAX} characters")));
            }
            let question = format!("This prints the private key of {wallet}. Whoever sees it can take what the wallet holds.");
            confirm(yes, &question, "export")?;
            let gateway = quiet_gateway(&config).await?;
            let key = safe::export(&gateway, id, &reason, &Doer::on_command_line()).await?;
            if json {
                say(&json!({ "id": wallet, "private_key": *key }).to_string());
            } else {
                say(&key);
            }
            gateway.store.clone().close().await;
        }
        WalletCommand::Sources { config, json } => list_sources(&config, json).await?,
        // Has an exit code of its own.
        WalletCommand::Verify { .. } => {}
        WalletCommand::List { config, network, status, kind, limit, json } => {
            let store = start::open_store(&read_config(&config, Overrides::default())?, Migrate::Yes).await?;
            let status = status.map(|name| {
                WalletStatus::from_name(&name)
                    .ok_or_else(|| Sorry::new("--status: expected available, occupied, cooldown, disabled or frozen"))
            });
            let kind =
                kind.map(|name| WalletKind::from_name(&name).ok_or_else(|| Sorry::new("--kind: expected random, hd, watch or imported")));
            let filter = WalletFilter {
                network: network.as_deref().map(Network::new),
                status: status.transpose()?,
                kind: kind.transpose()?,
                ..WalletFilter::default()
            };
            let rows = store.wallets(filter, i64::from(limit)).await?;
            show_wallets(&WalletPage::of(&rows), json);
            store.close().await;
        }
    }
    Ok(())
}

fn checked_source_name(name: &str) -> Result<(), Sorry> {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Sorry::new("NAME: expected 1 to 100 printable characters"));
    }
    Ok(())
}

fn show_source(id: &str, name: &str, kind: &str, words: Option<&str>, json: bool) {
    if json {
        say(&json!({ "id": id, "name": name, "kind": kind, "words": words }).to_string());
        return;
    }
    say(&format!("id    {id}\nname  {name}\nkind  {kind}"));
    if let Some(words) = words {
        say("\nThe words, this once. Write them on paper: they restore every address, and whoever has them has the money.\n");
        for (number, word) in (1..).zip(words.split(' ')) {
            say(&format!("{number:>4}  {word}"));
        }
    }
}

async fn list_sources(config: &ConfigArgs, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let mut rows = Vec::new();
    for source in gateway.store.sources().await? {
        let mut next = serde_json::Map::new();
        for network in gateway.networks().keys().filter(|name| source.network.as_ref().is_none_or(|of| of == *name)) {
            next.insert(network.to_string(), json!(gateway.store.next_index(source.id, network).await?));
        }
        rows.push(json!({ "id": source.id, "name": source.name, "kind": source.kind.name(), "account": source.account, "next_index": next, "created_at": source.created_at.to_string() }));
    }
    if json {
        say(&json!({ "data": rows }).to_string());
    } else {
        say(&format!("{:<37} {:<20} {:<6} {:<8} {}", "id", "name", "kind", "account", "next index"));
        for row in &rows {
            let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
            say(&format!("{:<37} {:<20} {:<6} {:<8} {}", text("id"), text("name"), text("kind"), row["account"], row["next_index"]));
        }
    }
    gateway.store.clone().close().await;
    Ok(())
}

/// Makes a seed, shows its words, and has them typed back, so that the paper is right.
async fn new_seed(gateway: &Gateway, name: &str, account: u32, yes: bool, json: bool, doer: &Doer) -> Result<(), Sorry> {
    let (id, words) = sources::new_seed(gateway, name, account, doer).await?;
    show_source(&id.to_string(), name, "hd", Some(words.as_str()), json);
    drop(words);
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    loop {
        let _ = write!(std::io::stderr(), "\nType all the words back, in one line: ");
        let mut typed = zeroize::Zeroizing::new(String::new());
        if std::io::stdin().read_line(&mut typed)? == 0 {
            return Err(Sorry(format!(
                "the words were not verified; the seed {id} is kept: if they are not on paper, make another and do not use this one"
            )));
        }
        if sources::words_match(gateway, id, typed.trim()).await? {
            say("They are right. The seed is ready.");
            return Ok(());
        }
        complain("these are not the words; look again");
    }
}

/// Asks before something that cannot be taken back.
fn confirm(yes: bool, question: &str, word: &str) -> Result<(), Sorry> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Sorry(format!("{question} Say --yes to do it without being asked.")));
    }
    let _ = write!(std::io::stderr(), "{question}\nType \"{word}\" to go on: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(Sorry::new("nothing was done")) }
}

/// A bar on stderr, where somebody looks.
fn bar(total: u64) -> indicatif::ProgressBar {
    let bar = if std::io::stderr().is_terminal() { indicatif::ProgressBar::new(total) } else { indicatif::ProgressBar::hidden() };
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

async fn verify_wallets(config: &ConfigArgs, wallet: Option<&str>, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let (checked, bad) = match wallet {
        Some(text) => {
            let id = text.parse().map_err(|_| Sorry(format!("expected the id of a wallet, such as wal_…, found {text:?}")))?;
            let verdict = safe::verify_one(&gateway, id, &Doer::on_command_line()).await?;
            (1, if verdict.wrong.is_some() { vec![verdict] } else { Vec::new() })
        }
        None => {
            let bar = bar(gateway.store.wallet_count().await?);
            let mut checked = 0;
            let bad = safe::verify_all(&gateway, |done, _| {
                bar.set_position(done);
                checked = done;
            })
            .await?;
            bar.finish_and_clear();
            (checked, bad)
        }
    };
    if json {
        let rows: Vec<_> = bad
            .iter()
            .map(|verdict| {
                let wallet = &verdict.wallet;
                json!({
                    "id": wallet.id,
                    "network": wallet.network.as_str(),
                    "address": wallet.address_text,
                    "status": wallet.status.name(),
                    "detail": verdict.wrong,
                })
            })
            .collect();
        say(&json!({ "ok": bad.is_empty(), "checked": checked, "failed": rows }).to_string());
    } else {
        for verdict in &bad {
            say(&format!("BAD  {}  {}  {}", verdict.wallet.id, verdict.wallet.address_text, verdict.wrong.as_deref().unwrap_or_default()));
        }
        say(&format!("{checked} wallets checked, {} failed{}", bad.len(), if bad.is_empty() { "" } else { "; they are frozen" }));
    }
    gateway.store.clone().close().await;
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn verify_audit(config: &ConfigArgs, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let found = safe::verify_audit(&gateway).await?;
    match (&found, json) {
        (Ok(rows), true) => say(&json!({ "ok": true, "rows": rows }).to_string()),
        (Err(wrong), true) => say(&json!({ "ok": false, "detail": wrong }).to_string()),
        (Ok(rows), false) => say(&format!("the audit log is whole: {rows} rows")),
        (Err(wrong), false) => complain(&format!("{wrong}; compare with a backup, and find out who can write to the database")),
    }
    gateway.store.clone().close().await;
    Ok(if found.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rotate_key(config: &ConfigArgs, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let bar = bar(gateway.store.wallet_count().await?.saturating_mul(2));
    let rotated = rotate::rotate(&gateway, &Doer::on_command_line(), |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    if json {
        say(&json!({ "ok": true, "texts": rotated.texts, "key_id": gateway.vault.current().key_id() }).to_string());
    } else {
        say(&format!(
            "{} texts are sealed under the new key, nothing is left under the old one. Remove WALLET_MASTER_KEY_PREVIOUS and restart `tidegate serve`; keep the old key as long as a backup is under it.",
            rotated.texts
        ));
    }
    gateway.store.clone().close().await;
    Ok(())
}

async fn show_merchant(config: &ConfigArgs, name: &str, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let merchants = gateway.store.merchants().await?;
    let row = merchants.iter().find(|row| row.name == name || row.id.to_string() == name).ok_or_else(|| {
        let names = merchants.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
        Sorry(format!("{name}: expected one of: {names}"))
    })?;
    safe::secret_shown(&gateway, row.id, &Doer::on_command_line()).await?;
    let secret = gateway.webhook_secret(row).map_err(Sorry)?;
    let secret = String::from_utf8_lossy(&secret);
    if json {
        say(&json!({ "id": row.id, "name": row.name, "webhook_url": row.webhook_url, "webhook_secret": secret }).to_string());
    } else {
        say(&format!(
            "id              {}\nname            {}\nwebhook_url     {}\nwebhook_secret  {secret}",
            row.id,
            row.name,
            row.webhook_url.as_deref().unwrap_or("-")
        ));
    }
    gateway.store.clone().close().await;
    Ok(())
}

fn show_wallets(page: &WalletPage, json: bool) {
    if json {
        say(&serde_json::to_string_pretty(page).unwrap_or_default());
        return;
    }
    say(&format!("{:<37} {:<28} {:<12} {:<44} {}", "id", "name", "network", "address", "status"));
    for wallet in &page.data {
        say(&wallet.line());
    }
}

/// A secret from a file or from stdin, never from an argument.
fn read_secret(file: Option<&Path>) -> Result<String, Sorry> {
    const MAX: u64 = 4_096;
    let mut text = String::new();
    match file {
        Some(path) => {
            std::fs::File::open(path).map_err(|error| Sorry(format!("{}: {error}", path.display())))?.take(MAX).read_to_string(&mut text)?
        }
        None => std::io::stdin().take(MAX).read_to_string(&mut text)?,
    };
    Ok(text)
}

async fn create_api_key(config: &ConfigArgs, merchant: &str, scopes: &[String], json: bool) -> Result<(), Sorry> {
    let config = read_config(config, Overrides::default())?;
    let live = start::is_live(&config);
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let merchants = store.merchants().await?;
    let found = merchants.iter().find(|row| row.name == merchant || row.id.to_string() == merchant);
    let names = || merchants.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = found
        .ok_or_else(|| Sorry(format!("--merchant {merchant}: expected one of: {}; `tidegate merchant add` makes a new one", names())))?;
    let (id, secret) = start::add_api_key(&store, found.id, scopes, live, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "id": id, "secret": secret }).to_string());
    } else {
        say(&format!("id      {id}\nsecret  {secret}\n\nThe secret is shown this once."));
    }
    store.close().await;
    Ok(())
}

async fn add_merchant(config: &ConfigArgs, name: &str, webhook_url: Option<String>, json: bool) -> Result<(), Sorry> {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Sorry::new("NAME: expected 1 to 100 printable characters"));
    }
    if let Some(url) = &webhook_url
        && !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
    {
        return Err(Sorry(format!("--webhook-url: expected an http or https URL, found {url:?}")));
    }
    let config = read_config(config, Overrides::default())?;
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    start::ensure_main_merchant(&store, &vault).await?;
    let (row, secret) = start::add_merchant(&store, &vault, name, webhook_url, &Doer::on_command_line())
        .await?
        .ok_or_else(|| Sorry(format!("there is a merchant {name:?} already; choose another name")))?;
    if json {
        say(&json!({ "id": row.id, "name": row.name, "webhook_url": row.webhook_url, "webhook_secret": secret }).to_string());
    } else {
        say(&format!(
            "id              {}\nname            {}\nwebhook_url     {}\nwebhook_secret  {secret}",
            row.id,
            row.name,
            row.webhook_url.as_deref().unwrap_or("-")
        ));
    }
    store.close().await;
    Ok(())
}

/// One line of what `check` found.
struct Finding {
    what: String,
    ok: bool,
    detail: String,
}

/// Opens everything and says what works.
async fn check(config: Config, as_json: bool) -> Result<ExitCode, Sorry> {
    let mut findings = Vec::new();
    let mut find = |what: String, outcome: Result<String, String>| {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        findings.push(Finding { what, ok, detail });
    };
    find("listener".into(), config.refuse_insecure().map(|()| config.server.listen.to_string()).map_err(|error| error.to_string()));
    find(
        "networks".into(),
        config.require_networks().map(|()| format!("{} configured", config.networks.len())).map_err(|error| error.to_string()),
    );
    match start::open_store(&config, Migrate::No).await {
        Ok(store) => {
            find("database".into(), store.ping().await.map(|()| config.database.url.to_string()).map_err(|error| error.to_string()));
            find("master key".into(), start::check_key(&config, &store).await.map(str::to_owned).map_err(|error| error.to_string()));
            store.close().await;
        }
        Err(error) => find("database".into(), Err(error.to_string())),
    }
    let chains = start::chains(&config)?;
    for network in &config.networks {
        let Some(chain) = chains.get(&network.name) else { continue };
        let outcome = match chain.identity().await {
            Err(error) => Err(error.to_string()),
            Ok(found) => match start::mismatch(network, &found) {
                Some(wrong) => Err(wrong),
                None => match chain.head().await {
                    Err(error) => Err(error.to_string()),
                    Ok(head) => {
                        let now = clock::now();
                        let (age, ahead) = (now.since(head.time).secs(), head.time.since(now).secs());
                        let place = format!(
                            "chain {}, token {} ({} decimals), block {}",
                            found.chain_id, found.symbol, found.decimals, head.number
                        );
                        if now.since(head.time) > network.max_lag {
                            Err(format!("{place}, which is {age} s old: expected at most max_lag, {} s", network.max_lag.secs()))
                        } else if ahead > 15 {
                            Err(format!("{place}, which is {ahead} s ahead of this machine's clock: set the clock"))
                        } else {
                            Ok(format!("{place}, {age} s old"))
                        }
                    }
                },
            },
        };
        find(format!("network {}", network.name), outcome);
    }
    let ok = findings.iter().all(|finding| finding.ok);
    if as_json {
        let rows: Vec<_> =
            findings.iter().map(|finding| json!({ "check": finding.what, "ok": finding.ok, "detail": finding.detail })).collect();
        say(&json!({ "ok": ok, "data": rows }).to_string());
    } else {
        for finding in &findings {
            say(&format!("{:<4} {:<20} {}", if finding.ok { "ok" } else { "BAD" }, finding.what, finding.detail));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
