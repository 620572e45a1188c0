//! Gateways of our own, fresh ones in a directory of their own: one `tidegate dev`, or several
//! `tidegate serve` on one database and two simulated chains. They end with this program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidegate_example_shop::Credentials;
use tokio::time::Instant;

use crate::client::{Client, Target};
use crate::node::{Chain, Node, TOKEN};
use crate::pay::Payer;
use crate::tally::Call;
use crate::{Stage, node};

/// How long a gateway may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long one may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// Blocks until a payment on our own chains counts.
const CONFIRMATIONS: u32 = 6;

/// The processes, killed and waited for when this is dropped, and what they keep, removed then.
pub struct Own {
    processes: Vec<Process>,
    /// What a `serve` is started with; None for `dev`.
    program: Option<(Program, String)>,
    dir: tempfile::TempDir,
}

struct Process {
    child: Child,
    /// Kept open: a process that cannot write to it would complain.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// SIGTERM, and waits.
    async fn end(&mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").arg(&pid).status().map_err(|error| format!("kill: {error}"))?;
        if !sent.success() {
            return Err(format!("process {pid} is gone"));
        }
        let began = Instant::now();
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if began.elapsed() > END_MAX {
                return Err(format!("process {pid} does not end within {} s", END_MAX.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Own {
    /// Starts `tidegate dev`, whose chains make a block every `block_time`.
    ///
    /// # Errors
    /// With a sentence and the end of its log, when it does not start.
    pub async fn dev(binary: &Path, block_time: Duration) -> Result<(Self, Stage), String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let data = dir.path().join("sandbox");
        let mut command = fresh(binary, dir.path());
        let seconds = format!("{}.{:03}", block_time.as_secs(), block_time.subsec_millis());
        command.args(["dev", "--listen", "127.0.0.1:0", "--block-time", &seconds, "--data-dir"]).arg(&data);
        let process = start(command, dir.path().join("log")).await?;
        let credentials = Credentials::read(&data.join("credentials.json"))?;
        let target = Target {
            urls: vec![process.url.clone()],
            api_key: credentials.api_key.clone(),
            webhook_secret: credentials.webhook_secret.clone(),
        };
        let stage = Stage { target, payer: Payer::Panel, pids: vec![process.child.id()] };
        let own = Self { processes: vec![process], program: None, dir };
        own.until_ready(&stage).await?;
        Ok((own, stage))
    }

    /// Starts so many `tidegate serve` on one database: an empty one at `database`, or without it a
    /// new SQLite file.
    ///
    /// # Errors
    /// With a sentence and what the program said, when one does not start.
    pub async fn serve(binary: &Path, count: usize, database: Option<&str>, block_time: Duration) -> Result<(Self, Stage), String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        // USDT has eighteen decimals on some chains, so one of ours has them too.
        let wanted = [("ethereum-like", 31_337, 6), ("bsc-like", 31_338, 18)];
        let mut chains = BTreeMap::new();
        let mut config = CONFIG.to_owned();
        for (name, chain_id, decimals) in wanted {
            let chain = Chain { chain_id, decimals, block_time };
            let node = Node::start(chain, "127.0.0.1:0").await?;
            config.push_str(&network(name, chain, &node.url));
            chains.insert(name.to_owned(), node);
        }
        let file = dir.path().join("tidegate.toml");
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        let database = database.map_or_else(|| format!("sqlite://{}", dir.path().join("books.db").display()), str::to_owned);
        let program = Program { binary: binary.to_owned(), dir: dir.path().to_owned(), config: file, database };
        let key = program.run(&["key", "new"], None)?;
        let key = key.split_whitespace().find(|word| word.len() == 64).ok_or("`key new` printed no key")?.to_owned();
        program.run(&["migrate"], Some(&key))?;
        let merchant = program.json(&["merchant", "show", "main", "--json"], &key)?;
        let api_key = program.json(&["api-key", "create", "--merchant", "main", "--scope", "admin", "--json"], &key)?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(format!("no {name}"));
        let mut processes = Vec::new();
        for number in 0..count.max(1) {
            processes.push(start(program.command(&["serve"], Some(&key)), dir.path().join(format!("log-{number}"))).await?);
        }
        let target = Target {
            urls: processes.iter().map(|process| process.url.clone()).collect(),
            api_key: text(&api_key, "secret")?,
            webhook_secret: text(&merchant, "webhook_secret")?,
        };
        let pids = processes.iter().map(|process| process.child.id()).collect();
        let stage = Stage { target, payer: Payer::Chains(chains), pids };
        let own = Self { processes, program: Some((program, key)), dir };
        own.until_ready(&stage).await?;
        Ok((own, stage))
    }

    /// Ends each `serve` as an operator does, and starts it again on what it left; its address is
    /// another then.
    ///
    /// # Errors
    /// With a sentence, when one does not end or does not start, and for `dev`.
    pub async fn begin_again(&mut self, stage: &mut Stage) -> Result<(), String> {
        let (program, key) = self.program.as_ref().ok_or("expected --serve: a sandbox is not started again")?;
        for (number, process) in self.processes.iter_mut().enumerate() {
            process.end().await?;
            let log = self.dir.path().join(format!("log-{number}-again"));
            *process = start(program.command(&["serve"], Some(key)), log).await?;
        }
        stage.target.urls = self.processes.iter().map(|process| process.url.clone()).collect();
        stage.pids = self.processes.iter().map(|process| process.child.id()).collect();
        self.until_ready(stage).await
    }

    async fn until_ready(&self, stage: &Stage) -> Result<(), String> {
        let client = Client::new(stage.target.clone())?;
        let began = Instant::now();
        for turn in (0..).take(self.processes.len()) {
            loop {
                let request = client.payer(turn, reqwest::Method::GET, "/health/ready");
                if client.send(Call::Read, request).await.is_some_and(|answer| answer.status == 200) {
                    break;
                }
                if began.elapsed() > READY_MAX {
                    return Err(format!("a gateway is not ready after {} s", READY_MAX.as_secs()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

/// What our own `serve` runs with: no limit on the rate, and short terms, so that wallets are lent
/// again while a run lasts.
const CONFIG: &str = r#"
[orders]
min_expires_in = "1s"
late_window = "20s"

[pool]
cooldown = "5s"

[webhooks]
allow_private_targets = true

[limits]
requests_per_second = 1000000
burst = 1000000

[balances]
sync_every = "0s"
"#;

fn network(name: &str, chain: node::Chain, url: &str) -> String {
    let poll_ms = (chain.block_time.as_millis() / 4).clamp(100, 2_000);
    format!(
        r#"
[networks.{name}]
kind = "evm"
chain_id = {}
rpc = ["{url}"]
token = "{TOKEN}"
decimals = {}
confirmations = {CONFIRMATIONS}
poll_interval = "{poll_ms}ms"
final_lag_max = "1h"
"#,
        chain.chain_id, chain.decimals
    )
}

/// The program, and what it is started with.
struct Program {
    binary: PathBuf,
    dir: PathBuf,
    config: PathBuf,
    database: String,
}

impl Program {
    fn command(&self, args: &[&str], master_key: Option<&str>) -> Command {
        let mut command = fresh(&self.binary, &self.dir);
        command.args(args).arg("--config").arg(&self.config);
        command.env("DATABASE_URL", &self.database).env("LISTEN_ADDR", "127.0.0.1:0");
        command.envs(master_key.map(|key| ("WALLET_MASTER_KEY", key)));
        command
    }

    /// Runs a command to its end; what it printed.
    fn run(&self, args: &[&str], master_key: Option<&str>) -> Result<String, String> {
        let done = self.command(args, master_key).output().map_err(|error| no_binary(&self.binary, &error))?;
        if !done.status.success() {
            return Err(format!("tidegate {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr)));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn json(&self, args: &[&str], master_key: &str) -> Result<Value, String> {
        serde_json::from_str(&self.run(args, Some(master_key))?).map_err(|error| format!("tidegate {}: {error}", args.join(" ")))
    }
}

fn no_binary(binary: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}; build it with `cargo build --release`, or name it with --binary", binary.display())
}

/// A command in a directory of its own, with nothing of our environment.
fn fresh(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().current_dir(dir).env("LOG_LEVEL", "warn");
    for name in ["PATH", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// Starts a process that serves, and waits until it says where.
async fn start(command: Command, log: PathBuf) -> Result<Process, String> {
    tokio::task::spawn_blocking(move || start_blocking(command, &log)).await.map_err(|error| error.to_string())?
}

fn start_blocking(mut command: Command, log: &Path) -> Result<Process, String> {
    let program = PathBuf::from(command.get_program());
    let file = File::create(log).map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
    let mut child = command.spawn().map_err(|error| no_binary(&program, &error))?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let mut process = Process { child, _stdout: BufReader::new(stdout), url: String::new() };
    let mut line = String::new();
    loop {
        line.clear();
        let count = process._stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err(format!("tidegate ended before it listened: {}", std::fs::read_to_string(log).unwrap_or_default()));
        }
        if let Some(url) = line.strip_prefix("listening on ") {
            url.trim().clone_into(&mut process.url);
            return Ok(process);
        }
    }
}
