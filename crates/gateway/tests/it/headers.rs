//! What every answer says to browsers, whatever it is; and https that is told to stay, where it is
//! https that the client came by.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::api::{Answer, Api};
use crate::dev::Sandbox;
use crate::gateway::{Home, Settings};
use crate::process::Process;
use crate::tools;

/// A page, its scripts, and a document of half a megabyte.
const DOCS_MAX: Duration = Duration::from_secs(60);

/// Checks what is the same for all, and gives the content security policy.
#[track_caller]
fn policy(answer: &Answer) -> &str {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer:?}");
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{answer:?}");
    assert!(answer.header("permissions-policy").is_some_and(|policy| policy.contains("camera=()")), "{answer:?}");
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("no policy: {answer:?}"));
    assert_eq!(answer.headers.get_all("content-security-policy").iter().count(), 1, "{answer:?}");
    for needed in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(needed), "{needed} is not in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    policy
}

#[tokio::test]
async fn every_kind_of_answer_has_its_headers() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let (api, anybody) = (sandbox.api(), sandbox.api().with_key(None));
    let order = api.post("/api/v1/orders", &json!({ "amount": "5", "network": "tron" })).await.expect(201);
    policy(&order);
    let page = format!("/pay/{}", order.json()["id"].as_str().unwrap());
    let asset = anybody.get(&page).await.text();
    let asset = asset.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    // The call, its status, and what its policy lets run.
    let table = [
        (page.as_str(), 200, "script-src 'self'"),
        ("/pay/ord_unknown", 404, "script-src 'self'"),
        (&asset, 200, "default-src 'none'"),
        ("/docs/", 200, "script-src 'self'"),
        ("/docs/swagger-ui.css", 200, "style-src 'self'"),
        ("/openapi.json", 200, "default-src 'none'"),
        ("/api/v1/networks", 401, "default-src 'none'"),
        ("/health/live", 200, "default-src 'none'"),
        ("/metrics", 401, "default-src 'none'"),
        ("/nowhere", 404, "default-src 'none'"),
    ];
    for (path, status, part) in table {
        let answer = anybody.get(path).await.expect(status);
        assert!(policy(&answer).contains(part), "{answer:?}");
        assert_eq!(answer.header("strict-transport-security"), None, "not over plain HTTP: {answer:?}");
    }
    policy(&api.get("/api/v1/orders").await.expect(200));
    policy(&anybody.post("/health/live", &json!({})).await.expect(405));
    policy(&api.post("/api/v1/orders", &json!({ "amount": "nonsense" })).await.expect(422));
}

#[tokio::test]
async fn https_is_to_stay_where_a_trusted_proxy_says_that_it_is() {
    let mut settings = Settings::new("http://127.0.0.1:9", [1; 20]);
    let asked = async |api: &Api, proto: Option<&str>| {
        let mut request = api.request(reqwest::Method::GET, "/health/live");
        if let Some(proto) = proto {
            request = request.header("x-forwarded-proto", proto);
        }
        request.send().await.expect(200).header("strict-transport-security").map(str::to_owned)
    };
    let untrusted = Home::new(&settings);
    let gateway = untrusted.serve().await;
    assert_eq!(asked(&gateway.api(""), Some("https")).await, None, "anybody may write that");

    settings.more = "[server]\ntrusted_proxies = ['127.0.0.1']".to_owned();
    let trusted = Home::new(&settings);
    let gateway = trusted.serve().await;
    let stay = Some("max-age=31536000".to_owned());
    assert_eq!(asked(&gateway.api(""), Some("https")).await, stay);
    assert_eq!(asked(&gateway.api(""), None).await, stay, "it is at PUBLIC_URL");
    assert_eq!(asked(&gateway.api(""), Some("http")).await, None);
}

#[tokio::test]
async fn the_documentation_works_under_its_policy() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/docs.mjs");
    let mut node = Command::new("node");
    node.arg(script)
        .env("TIDEGATE_BASE_URL", &sandbox.gateway.base)
        .env("TIDEGATE_NPM", tools::npm_packages())
        .env("TIDEGATE_CHROMIUM", tools::chromium());
    let mut browser = Process::start("the browser", &mut node);
    let status = browser.exit(DOCS_MAX).await;
    assert_eq!(status.code(), Some(0), "{}", browser.output());
}
