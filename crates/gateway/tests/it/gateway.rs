//! The program under test: its home (a directory with configuration, master key and database),
//! its commands, and its `serve` process, which can be killed and started again on the same data.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::api::{Answer, Api};
use crate::evm::{self, Address};
use crate::postgres;
use crate::process::Process;
use crate::wait::eventually;

/// Where payers reach the shop, whatever port the process has today.
pub const PUBLIC_URL: &str = "https://pay.example.test";

/// The one network's name.
pub const NETWORK: &str = "anvil";

/// The program, built by cargo for this test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// What a test wants of the configuration. The rest is the same for all.
#[derive(Clone)]
pub struct Settings {
    pub rpc: String,
    /// Endpoints after the first.
    pub more_rpc: Vec<String>,
    pub token: Address,
    pub chain_id: u64,
    pub decimals: usize,
    pub confirmations: String,
    pub poll_interval: &'static str,
    pub max_lag: &'static str,
    /// Further lines of the network.
    pub network: String,
    /// Further lines of `[orders]`.
    pub orders: String,
    /// Further text at the end of the file.
    pub more: String,
    pub postgres: bool,
    /// A database of the test's own, in the place of a fresh one.
    pub database_url: Option<String>,
    /// Further variables of the environment.
    pub env: Vec<(&'static str, String)>,
}

impl Settings {
    pub fn new(rpc: &str, token: Address) -> Self {
        Self {
            rpc: rpc.to_owned(),
            more_rpc: Vec::new(),
            token,
            chain_id: crate::anvil::CHAIN_ID,
            decimals: 6,
            confirmations: "3".to_owned(),
            poll_interval: "100ms",
            max_lag: "1000h",
            network: String::new(),
            orders: String::new(),
            more: String::new(),
            postgres: false,
            database_url: None,
            env: Vec::new(),
        }
    }

    /// The configuration file. `max_lag` and `final_lag_max` are large because the chain mines on demand
    /// only, and its time is moved.
    pub fn toml(&self) -> String {
        format!(
            r#"
[networks.{NETWORK}]
kind = "evm"
chain_id = {chain_id}
rpc = {rpc:?}
token = "{token}"
decimals = {decimals}
confirmations = {confirmations}
start_block = "latest"
poll_interval = "{poll_interval}"
max_lag = "{max_lag}"
{network}
{final_lag_max}

[orders]
min_expires_in = "1s"
min_amount = "0.000001"
{orders}

[webhooks]
allow_private_targets = true

{more}
"#,
            chain_id = self.chain_id,
            rpc = [std::slice::from_ref(&self.rpc), &self.more_rpc].concat(),
            token = evm::text(self.token),
            decimals = self.decimals,
            confirmations = self.confirmations,
            poll_interval = self.poll_interval,
            max_lag = self.max_lag,
            network = self.network,
            final_lag_max = if self.network.contains("final_lag_max") { "" } else { "final_lag_max = \"1000h\"" },
            orders = self.orders,
            more = self.more,
        )
    }
}

/// A directory with all that one gateway owns.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub master_key: String,
    pub database_url: String,
    pub log_level: &'static str,
    /// Further variables of the environment; they win.
    pub env: Vec<(&'static str, String)>,
}

/// A finished command.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A merchant as the command line shows it once.
#[derive(Clone)]
pub struct Merchant {
    pub id: String,
    pub name: String,
    pub webhook_secret: String,
}

impl Home {
    /// A new home with a master key and an empty, migrated database.
    pub fn new(settings: &Settings) -> Self {
        let home = Self::unmigrated(settings);
        home.run(&["migrate"]).succeeded();
        home
    }

    /// The same without the database.
    pub fn unmigrated(settings: &Settings) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-it-").tempdir().unwrap();
        let database_url = match &settings.database_url {
            Some(url) => url.clone(),
            None if settings.postgres => postgres::fresh_database(),
            None => format!("sqlite://{}", dir.path().join("books.db").display()),
        };
        let mut home = Self { dir, master_key: String::new(), database_url, log_level: "info", env: settings.env.clone() };
        home.configure(&settings.toml());
        home.master_key = home.new_key();
        home
    }

    /// Replaces the configuration file.
    pub fn configure(&self, toml: &str) {
        std::fs::write(self.config_file(), toml).unwrap();
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("tidegate.toml")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new master key, which is not yet used for anything.
    pub fn new_key(&self) -> String {
        let done = self.run(&["key", "new"]).succeeded();
        let is_key = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let key = done.stdout.split_whitespace().find(is_key);
        key.unwrap_or_else(|| panic!("no 64 hex digits in {done:?}")).to_owned()
    }

    /// The program with these arguments and nothing but its own environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().current_dir(self.path());
        for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("DATABASE_URL", &self.database_url)
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("PUBLIC_URL", PUBLIC_URL)
            .env("LOG_LEVEL", self.log_level);
        if !self.master_key.is_empty() {
            command.env("WALLET_MASTER_KEY", &self.master_key);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end. The configuration file is named, unless it is a command that
    /// must do without.
    pub fn run(&self, args: &[&str]) -> Done {
        let config = self.config_file();
        let mut all = args.to_vec();
        all.extend(["--config", config.to_str().unwrap()]);
        Done::of(&mut self.command(&all))
    }

    /// Runs a command that prints one JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        let done = self.run(&[args, &["--json"]].concat()).succeeded();
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {done:?}"))
    }

    /// Adds a merchant whose webhooks go to `webhook_url`.
    pub fn merchant(&self, name: &str, webhook_url: &str) -> Merchant {
        let added = self.json(&["merchant", "add", name, "--webhook-url", webhook_url]);
        let text = |member: &str| added[member].as_str().unwrap_or_else(|| panic!("{added}")).to_owned();
        assert_eq!(added["webhook_url"], webhook_url);
        Merchant { id: text("id"), name: text("name"), webhook_secret: text("webhook_secret") }
    }

    /// Makes a key for a merchant, by his name.
    pub fn api_key(&self, merchant: &str, scopes: &[&str]) -> String {
        let mut args = vec!["api-key", "create", "--merchant", merchant];
        for scope in scopes {
            args.extend(["--scope", scope]);
        }
        let created = self.json(&args);
        assert!(created["id"].as_str().is_some_and(|id| id.starts_with("key_")), "{created}");
        created["secret"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned()
    }

    /// Starts `serve` and waits until it answers.
    pub async fn serve(&self) -> Gateway {
        let config = self.config_file();
        let args = ["serve", "--config", config.to_str().unwrap()];
        Gateway::start(&mut self.command(&args)).await
    }
}

impl Done {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    pub fn output(&self) -> String {
        let mut all = self.stdout.clone();
        let _ = writeln!(all, "{}", self.stderr);
        all
    }
}

/// A running `serve` or `dev`.
pub struct Gateway {
    pub base: String,
    pub process: Process,
}

impl Gateway {
    /// Starts a serving command and waits for its address.
    pub async fn start(command: &mut Command) -> Self {
        let mut process = Process::start("tidegate", command);
        let base = process
            .line("listening on http…", |line| {
                let address = line.strip_prefix("listening on ")?.trim();
                (address.starts_with("http://") || address.starts_with("https://")).then(|| address.to_owned())
            })
            .await;
        Self { base, process }
    }

    pub fn api(&self, key: &str) -> Api {
        Api::new(&self.base, key)
    }

    /// Waits until every network is followed or known to be unreachable.
    pub async fn ready(&self) {
        let api = self.api("").with_key(None);
        eventually("the gateway is ready", async || {
            let answer: Answer = api.get("/health/ready").await;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM: must end within 5 s with exit code 0.
    pub async fn terminate(&mut self) {
        let status = self.process.terminate(Duration::from_secs(5)).await;
        assert_eq!(status.code(), Some(0), "after SIGTERM: {status}\n{}", self.process.output());
    }
}
