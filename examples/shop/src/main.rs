//! Starts the example shop against a running `tidegate dev`. What it does is in `lib.rs`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tidegate_example_shop::{Credentials, serve};
use tokio::net::TcpListener;

/// A small shop that takes USDT through Tidegate.
///
/// Start the sandbox with `cargo run -- dev`, then this in the same directory, and open
/// <http://127.0.0.1:8002>.
#[derive(Parser)]
struct Args {
    /// What `tidegate dev` wrote
    #[arg(long, value_name = "FILE", default_value = ".tidegate-dev/credentials.json")]
    credentials: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8002")]
    listen: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(why) = run(Args::parse()).await else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<(), String> {
    let credentials = Credentials::read(&args.credentials)?;
    let listener = TcpListener::bind(&args.listen).await.map_err(|error| format!("--listen {}: {error}", args.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    serve(credentials, listener).await
}
