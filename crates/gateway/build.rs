//! Tells the program which compiler made it.

#![allow(missing_docs, clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::io::Write as _;
use std::process::Command;

fn main() -> std::io::Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // "rustc 1.95.0 (…)".
    let said = Command::new(rustc).arg("--version").output().map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
    let version = said.ok().and_then(|said| said.split_whitespace().nth(1).map(str::to_owned));
    writeln!(
        std::io::stdout(),
        "cargo::rerun-if-changed=build.rs\ncargo::rustc-env=TIDEGATE_RUST_VERSION={}",
        version.as_deref().unwrap_or("unknown")
    )
}
