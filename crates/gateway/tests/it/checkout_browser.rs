//! The checkout page in a real browser. The stories are in `tests/browser/checkout.mjs`; here they
//! get a sandbox to look at.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::dev::Sandbox;
use crate::process::Process;
use crate::tools;

/// A dozen pages, some of which wait for blocks.
const STORIES_MAX: Duration = Duration::from_secs(240);

#[tokio::test]
async fn payers_see_what_they_need() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/checkout.mjs");
    // TIDEGATE_SCREENSHOTS, where set, goes through to the script.
    let mut node = Command::new("node");
    node.arg(script)
        .env("TIDEGATE_BASE_URL", &sandbox.gateway.base)
        .env("TIDEGATE_API_KEY", sandbox.text("/api_key"))
        .env("TIDEGATE_NPM", tools::npm_packages())
        .env("TIDEGATE_CHROMIUM", tools::chromium());
    let mut stories = Process::start("the browser", &mut node);
    let status = stories.exit(STORIES_MAX).await;
    assert_eq!(status.code(), Some(0), "{}", stories.output());
    println!("{}", stories.output());
}
