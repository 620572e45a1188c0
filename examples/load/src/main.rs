//! The command line of the load tool. What it does is in `lib.rs`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tidegate_example_shop::Credentials;
use tidegate_load::own::Own;
use tidegate_load::usage::{self, Sample};
use tidegate_load::{Outages, Pace, Payer, Plan, Stage, Target, idle, load, loopback, now_ms, pages};

/// Load for a Tidegate on this machine, and the truth about its orders afterwards.
///
/// Without --url it starts a gateway of its own: `tidegate dev`, or with --serve so many
/// `tidegate serve` on one database and two simulated chains.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends visitors: orders, pages, polls, lists, cancellations, payments, webhooks.
    ///
    /// Example: tidegate-load load --clients 100 --seconds 60
    Load(LoadArgs),
    /// Measures what open checkout pages cost.
    ///
    /// Example: tidegate-load pages --count 1000 --seconds 60
    Pages(PagesArgs),
    /// Measures what a gateway takes that has nothing to do.
    ///
    /// Example: tidegate-load idle --serve 1 --wallets 10000
    Idle(IdleArgs),
}

/// Against what.
#[derive(Args)]
struct Against {
    /// A running sandbox, http://127.0.0.1:PORT; several for several processes of one database
    #[arg(long = "url", value_name = "URL", conflicts_with = "serve")]
    urls: Vec<String>,
    /// What `tidegate dev` wrote; with --url, or for the address in it
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    credentials: Option<PathBuf>,
    /// The process of a running gateway, to be watched; several for several
    #[arg(long = "pid", value_name = "PID", conflicts_with = "serve")]
    pids: Vec<u32>,
    /// So many `tidegate serve` on one database instead of one `tidegate dev`
    #[arg(long, value_name = "N")]
    serve: Option<usize>,
    /// An empty database for --serve, sqlite://… or postgres://…; without it a new SQLite file
    #[arg(long, value_name = "URL", requires = "serve")]
    database: Option<String>,
    /// The program that is started; without it the `tidegate` beside this one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// From one block to the next on the chains of a gateway that is started, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    block_time_ms: u64,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    against: Against,
    /// So many visitors at a time, each followed by the next
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: Option<u32>,
    /// So many visitors a second, however long they take [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: Option<u32>,
    /// For how long visitors come
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// The mean pause between two steps of a visitor, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    think_ms: u64,
    /// Checkout pages that are kept open at a time, at most
    #[arg(long, value_name = "N", default_value_t = 200)]
    pages_max: usize,
    /// How long the last payments may take to settle and to be told, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    settle_max: u64,
    /// Repeats what the visitors of another run did
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Something is broken on purpose: 5xx and missing answers are counted, but do not fail the run
    #[arg(long)]
    outages_expected: bool,
}

#[derive(Args)]
struct PagesArgs {
    #[command(flatten)]
    against: Against,
    /// How many pages
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=2_000))]
    count: u64,
    /// For how long each of the two measurements lasts
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[derive(Args)]
struct IdleArgs {
    #[command(flatten)]
    against: Against,
    /// How many wallets, on both networks together
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    wallets: u64,
    /// For how long it has nothing to do before it is looked at
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Load(args) => run_load(args).await,
        Command::Pages(args) => run_pages(args).await,
        Command::Idle(args) => run_idle(args).await,
    };
    outcome.unwrap_or_else(|why| {
        let _ = writeln!(std::io::stderr(), "{why}");
        ExitCode::FAILURE
    })
}

fn say(text: &str) -> Result<(), String> {
    write!(std::io::stdout(), "{text}").map_err(|error| error.to_string())
}

async fn run_load(args: LoadArgs) -> Result<ExitCode, String> {
    let seed = args.seed.unwrap_or_else(now_ms);
    let plan = Plan {
        pace: args.clients.map_or_else(|| Pace::PerSecond(args.rate.unwrap_or(5)), Pace::Clients),
        lasts: Duration::from_secs(args.seconds),
        think: Duration::from_millis(args.think_ms),
        pages_max: args.pages_max,
        settle_max: Duration::from_secs(args.settle_max),
        seed,
        outages: if args.outages_expected { Outages::Expected } else { Outages::Fail },
    };
    let _ = writeln!(std::io::stderr(), "seed {seed}");
    let (own, stage) = stage(&args.against).await?;
    let report = load(&plan, stage, sampled).await?;
    drop(own);
    if args.against.json {
        say(&format!("{:#}\n", report.json()))?;
    } else {
        say(&report.text())?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A long run shows that it lives.
fn sampled(sample: &Sample) {
    let usage = sample.usage;
    let _ = writeln!(
        std::io::stderr(),
        "{:>6} s   {:>9} KiB ({:>9} heap)   {:>6} file handles   {:>9} ms of processor",
        sample.at_s,
        usage.rss_kib,
        usage.anon_kib,
        usage::shown(usage.files),
        usage.cpu_ms
    );
}

async fn run_pages(args: PagesArgs) -> Result<ExitCode, String> {
    let (own, stage) = stage(&args.against).await?;
    let cost = pages::cost(&stage, args.count, Duration::from_secs(args.seconds)).await?;
    drop(own);
    if args.against.json {
        say(&format!("{:#}\n", cost.json))?;
    } else {
        say(&cost.text)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_idle(args: IdleArgs) -> Result<ExitCode, String> {
    let (Some(own), stage) = stage(&args.against).await? else {
        return Err("expected --serve N instead of --url: it is started again meanwhile".to_owned());
    };
    let cost = idle::cost(own, stage, args.wallets, Duration::from_secs(args.seconds)).await?;
    if args.against.json {
        say(&format!("{:#}\n", cost.json))?;
    } else {
        say(&cost.text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The gateway that is meant, started if it is to be our own.
async fn stage(against: &Against) -> Result<(Option<Own>, Stage), String> {
    if against.urls.is_empty() && against.credentials.is_none() {
        let binary = match &against.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("tidegate"),
        };
        // The child runs in another directory.
        let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
        let block_time = Duration::from_millis(against.block_time_ms);
        let (own, stage) = match against.serve {
            Some(count) => Own::serve(&binary, count, against.database.as_deref(), block_time).await?,
            None => Own::dev(&binary, block_time).await?,
        };
        return Ok((Some(own), stage));
    }
    let file = against.credentials.clone().unwrap_or_else(|| PathBuf::from(".tidegate-dev/credentials.json"));
    let credentials = Credentials::read(&file)?;
    let urls = if against.urls.is_empty() { vec![credentials.base_url.clone()] } else { against.urls.clone() };
    let target = Target {
        urls: urls.iter().map(|url| loopback(url)).collect::<Result<_, _>>()?,
        api_key: credentials.api_key,
        webhook_secret: credentials.webhook_secret,
    };
    Ok((None, Stage { target, payer: Payer::Panel, pids: against.pids.clone() }))
}
