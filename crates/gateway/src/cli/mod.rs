//! The command line: one binary, `tidegate`.
//!
//! Every command says on stderr what was expected, what was found and what to do, and exits 0 when
//! it is done, 1 when it failed, 2 when it was called wrongly.

mod args;
mod check;
mod credentials;
mod health;
mod migrate;
mod notify;
mod people;
mod safe;
mod terminal;
mod wallet;
mod webhook_endpoints;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use serde_json::json;
use tidegate_rules::block::Network;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::args::{Cli, Command, ConfigArgs};
pub(crate) use self::terminal::say;
use self::terminal::{bar, complain, confirm};
use crate::config::{Config, LogFormat, Overrides};
use crate::demo;
use crate::dev;
use crate::follow::{self, Scanned};
use crate::gateway::Gateway;
use crate::http;
use crate::logging;
use crate::orders::part_named;
use crate::people::{Doer, REASON_MAX};
use crate::start::{self, Sorry};
use crate::store::Migrate;
use crate::tls::{self, Certificates};

/// How long everything may take to end after SIGTERM.
const END_MAX: Duration = Duration::from_millis(4_800);

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
    #[cfg(feature = "otlp")]
    crate::traces::flush();
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

/// As many files as the operating system lets this process have: each connection is one, and the usual
/// 1,024 are far fewer than the connections that are taken in.
#[cfg(target_os = "linux")]
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised; few connections are taken in at a time");
    }
}

#[cfg(not(target_os = "linux"))]
const fn open_many_files() {}

async fn run(command: Command) -> Result<ExitCode, Sorry> {
    let done = Ok(ExitCode::SUCCESS);
    match command {
        Command::Dev { config: _, data_dir, listen, block_time, log_level } => {
            logging::start(&log_level, LogFormat::Pretty)?;
            run_dev(dev::Options { data_dir, listen, block_time, confirmations: (19, 12) }).await?;
            done
        }
        Command::Demo(_) => demo::run().await,
        Command::Serve { config, listen, no_migrate } => {
            let flags = Overrides { listen, ..Overrides::default() };
            Box::pin(serve(read_config(&config, flags)?, if no_migrate { Migrate::No } else { Migrate::Yes })).await?;
            done
        }
        Command::Check { config, books: true, json } => check::books(&config, json).await,
        Command::Check { config, books: false, json } => check::run(read_config(&config, Overrides::default())?, json).await,
        Command::Health { config, live, url } => health::run(&config, url, if live { "/health/live" } else { "/health/ready" }).await,
        Command::Scan { config, network, from, to, json } => {
            scan(&config, &network, from, to, json).await?;
            done
        }
        Command::Resume { config, network, ancestor, reason, yes, json } => {
            resume(&config, (&network, ancestor), &reason, yes, json).await?;
            done
        }
        Command::Migrate { config, from: Some(from), to, json } => migrate::move_over(&config, &from, to.as_deref(), json).await,
        Command::Migrate { config, from: None, to: _, json } => migrate::bring_up(&config, json).await,
        Command::Wallet(command) => wallet::run(command).await,
        Command::Key(command) => safe::key(command).await,
        Command::Backup { config, file, json } => safe::backup(&config, &file, json).await,
        Command::Restore { config, file, json } => safe::restore(&config, &file, json).await,
        Command::Audit(command) => safe::audit(command).await,
        Command::Notify(command) => notify::run(command).await,
        Command::ApiKey(command) => credentials::api_key(command).await,
        Command::Merchant(command) => credentials::merchant(command).await,
        Command::User(command) => people::user(command).await,
        Command::Openapi(_) => {
            say(&http::document());
            done
        }
    }
}

/// Reads the configuration and starts the log.
fn read_config(args: &ConfigArgs, flags: Overrides) -> Result<Config, Sorry> {
    let config = Config::from_process(flags, args.config.as_deref())?;
    logging::start(&config.log.level, config.log.format)?;
    for warning in &config.warnings {
        tracing::warn!("the configuration: {warning}");
    }
    Ok(config)
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
    let hang_up = signal(SignalKind::hangup())?;
    open_many_files();
    let mut config = config;
    let certificates = certificates(&config)?;
    let listener = bind("LISTEN_ADDR", config.server.listen).await?;
    let address = listener.local_addr()?;
    let for_metrics = bind_some("METRICS_ADDR", config.metrics.addr.filter(|_| config.metrics.enabled)).await?;
    let for_redirects = bind_some("REDIRECT_LISTEN_ADDR", config.server.redirect_listen).await?;
    // Port 0 takes a free one: links must name it.
    config.server.listen = address;
    let gateway = start::checked_gateway(config, migrate).await?;
    let loops = tokio::spawn(Arc::clone(&gateway).run(stop.clone()));
    say(&format!("listening on {}://{address}", if certificates.is_some() { "https" } else { "http" }));
    if let Some(listener) = for_metrics {
        say(&format!("metrics on http://{}/metrics", listener.local_addr()?));
        tokio::spawn(http::serve_metrics(Arc::clone(&gateway), listener, stop.clone()));
    }
    if let Some(listener) = for_redirects {
        say(&format!("redirecting from http://{}", listener.local_addr()?));
        tokio::spawn(http::serve_redirect(Arc::clone(&gateway), listener, stop.clone()));
    }
    let store = gateway.store.clone();
    match certificates {
        Some(certificates) => {
            tokio::spawn(tls::keep(Arc::clone(&gateway), Arc::clone(&certificates), hang_up, stop.clone()));
            http::serve_tls(gateway, listener, certificates, stop).await?;
        }
        None => {
            tokio::spawn(outlive_hang_ups(hang_up));
            http::serve(gateway, listener, stop).await?;
        }
    }
    let _ = loops.await;
    store.close().await;
    Ok(())
}

/// The certificate of the configuration, if it names one. What is wrong with it and ends by itself,
/// or hurts browsers alone, is only told: payments are followed all the same.
fn certificates(config: &Config) -> Result<Option<Arc<Certificates>>, Sorry> {
    let Some(files) = &config.server.tls else { return Ok(None) };
    let certificates = Certificates::open(files)?;
    let host = config.server.public_url.as_ref().and_then(|url| url.host_str());
    if let Some(host) = host.filter(|host| !certificates.is_for(host)) {
        tracing::warn!("the certificate {} is not for {host}, the host of PUBLIC_URL: browsers refuse it", files.cert.display());
    }
    Ok(Some(Arc::new(certificates)))
}

/// SIGHUP would end the process. Without a certificate there is nothing to read again.
async fn outlive_hang_ups(mut hang_up: Signal) {
    while hang_up.recv().await.is_some() {
        tracing::info!("SIGHUP: there is no certificate to read again; a new configuration is read at the next start");
    }
}

/// A listener, or a sentence that names what it was asked for by.
async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, Sorry> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Sorry(format!("{name} {address}: {error}; choose an address and port that are free")))
}

async fn bind_some(name: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Sorry> {
    match address {
        Some(address) => bind(name, address).await.map(Some),
        None => Ok(None),
    }
}

async fn run_dev(options: dev::Options) -> Result<(), Sorry> {
    let stop = stop_on_signal()?;
    let dir = options.data_dir.clone();
    let running = dev::start(options, stop).await?;
    let dev::Credentials { base_url, api_key, webhook_secret, admin } = &running.credentials;
    say(&format!(
        "\nTidegate sandbox: simulated TRON and Ethereum, no real money.\n\n  \
         API             {base_url}/api/v1\n  \
         checkout        {base_url}/pay/<order id>\n  \
         docs            {base_url}/docs\n\n  \
         API key         {api_key}\n  \
         webhook secret  {webhook_secret}\n  \
         log-in          {} {}\n\n  \
         also in         {}\n\n\
         Create an order, then open its checkout_url and press a button of the sandbox panel:\n\n  \
         curl -s {base_url}/api/v1/orders -H 'Authorization: Bearer {api_key}' \\\n       \
         -H 'Content-Type: application/json' -d '{{\"amount\": \"12.5\", \"network\": \"tron\"}}'\n",
        admin.email,
        admin.password,
        dir.join("credentials.json").display(),
    ));
    say(&format!("listening on {base_url}"));
    running.ended.await.map_err(|error| Sorry(error.to_string()))?
}

/// Reads blocks once more, beside a running gateway or without one.
async fn scan(config: &ConfigArgs, network: &str, from: u64, to: u64, json: bool) -> Result<(), Sorry> {
    let gateway = quiet_gateway(config).await?;
    let part = part_named(&gateway, &Network::new(network))?;
    let bar = bar(to.saturating_sub(from).saturating_add(1));
    let scanned = follow::scan(&gateway, part, from, to, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    let Scanned { blocks, transfers, mended } = scanned;
    if json {
        say(&json!({ "blocks": blocks, "transfers": transfers, "mended": mended }).to_string());
    } else {
        say(&format!(
            "{blocks} blocks read, {transfers} transfers to wallets of the pool, {mended} of them were missing and are recorded now"
        ));
    }
    gateway.store.clone().close().await;
    Ok(())
}

/// Takes a halted network back to a block that both branches have.
async fn resume(config: &ConfigArgs, (network, ancestor): (&str, u64), reason: &str, yes: bool, json: bool) -> Result<(), Sorry> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
        return Err(Sorry(format!("--reason: expected 1 to {REASON_MAX} characters")));
    }
    let question = format!(
        "Everything that {network} has above block {ancestor} is decided again, by what the endpoints show now. Compare that block with an explorer first."
    );
    confirm(yes, &question, "resume")?;
    let gateway = quiet_gateway(config).await?;
    let part = part_named(&gateway, &Network::new(network))?;
    let tip = follow::resume_at(&gateway, part, ancestor, reason, &Doer::on_command_line()).await?;
    if json {
        say(&json!({ "ok": true, "network": network, "ancestor": ancestor, "tip": tip }).to_string());
    } else {
        say(&format!("{network} goes on from block {ancestor}; {tip} is applied now, and a running gateway reads on from there"));
    }
    gateway.store.clone().close().await;
    Ok(())
}

/// A gateway that is only used, not run.
async fn quiet_gateway(config: &ConfigArgs) -> Result<Arc<Gateway>, Sorry> {
    start::gateway(read_config(config, Overrides::default())?, Migrate::Yes).await
}
