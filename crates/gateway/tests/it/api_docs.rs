//! The examples of `docs/api.md`, run as they stand there, one after the other in one shell, against a
//! sandbox. One of them needs a channel that the sandbox has not, and says so.

use std::process::Command;

use crate::dev::Sandbox;
use crate::tools::repo;

/// What stands before the examples: a call that is refused ends the script and names itself. An event
/// stream ends by its time-out, with exit code 28.
const BEFORE: &str = r#"
set -euo pipefail
curl() {
    local code=0 said
    said=$(command curl --fail-with-body -S "$@") || code=$?
    printf '%s\n' "$said"
    case "$code $said" in
        0\ * | 28\ * | *'"code":"channel_not_configured"'*) ;;
        *) printf '\nrefused: curl %s\n' "$*" >&2; return "$code" ;;
    esac
}
"#;

/// The blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_example_runs_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join(".tidegate-dev");
    std::fs::create_dir(&data).unwrap();
    let sandbox = Sandbox::start(&data).await;
    let page = std::fs::read_to_string(repo().join("docs/api.md")).unwrap();
    let examples = blocks(&page, "sh");
    assert!(examples.len() > 10, "{} examples", examples.len());
    let script = [BEFORE, &examples.join("\n")].concat();
    let here = script.replace("http://127.0.0.1:8001", &sandbox.gateway.base);
    assert_ne!(script, here, "the page names the sandbox's address");
    let done = Command::new("bash").args(["-c", &here]).current_dir(folder.path()).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{complained}\n{said}");
    let calls = examples.concat().matches("curl ").count();
    let answers = said.matches("\"id\"").count();
    assert!(calls > 30 && answers > 5, "{calls} calls: {said}");
}
