//! The example as somebody starts it. That it takes money is shown by the gateway's own tests
//! (`crates/gateway/tests/it/example_shop.rs`).

#![allow(missing_docs, reason = "nothing here is a public interface")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shop(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-example-shop"));
    command.current_dir(dir).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn it_starts_with_what_the_sandbox_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(".tidegate-dev");
    std::fs::create_dir(&folder).unwrap();
    let text = r#"{ "base_url": "http://127.0.0.1:9", "api_key": "tg_test_x", "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "admin": { "email": "owner@example.test", "password": "x" } }"#;
    std::fs::write(folder.join("credentials.json"), text).unwrap();
    let mut running = Running(shop(dir.path()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
}

#[test]
fn it_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let done = shop(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains(".tidegate-dev/credentials.json") && said.contains("cargo run -- dev"), "{said}");
}
