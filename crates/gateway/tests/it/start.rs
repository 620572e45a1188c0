//! What `serve` and `check` refuse, what every command says of itself, how the process ends, and
//! that no secret ever leaves it.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::anvil::{Anvil, CHAIN_ID};
use crate::gateway::{BINARY, Done, Gateway, Home, NETWORK, Settings};
use crate::process::Process;
use crate::shop::Shop;
use crate::wait::eventually;

/// How long a refusal may take: a start, and a look at an endpoint.
const REFUSAL_MAX: Duration = Duration::from_secs(20);

/// Commands that are there. Each has help with an example.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["dev"],
    &["demo"],
    &["serve"],
    &["check"],
    &["health"],
    &["migrate"],
    &["wallet"],
    &["wallet", "generate"],
    &["wallet", "import"],
    &["wallet", "list"],
    &["wallet", "seed"],
    &["wallet", "sources"],
    &["wallet", "watch"],
    &["wallet", "verify"],
    &["wallet", "export"],
    &["key"],
    &["key", "new"],
    &["key", "rotate"],
    &["backup"],
    &["restore"],
    &["audit"],
    &["audit", "verify"],
    &["merchant"],
    &["merchant", "add"],
    &["merchant", "show"],
    &["notify"],
    &["notify", "test"],
    &["api-key"],
    &["api-key", "create"],
    &["openapi"],
];

/// A home on a chain with a token, where everything is right.
async fn sound() -> (Anvil, Settings, Home) {
    let anvil = Anvil::start().await;
    let tokens = anvil.deploy_tokens(6).await;
    let settings = Settings::new(&anvil.url, tokens.usdt);
    let home = Home::new(&settings);
    (anvil, settings, home)
}

/// Runs `command` with changes to its environment; it must fail and say all of `words`.
async fn refuses(home: &Home, command: &str, changes: &[(&str, Option<&str>)], words: &[&str]) {
    let config = home.config_file();
    let mut run = home.command(&[command, "--config", config.to_str().unwrap()]);
    for (name, value) in changes {
        match value {
            Some(value) => run.env(name, value),
            None => run.env_remove(name),
        };
    }
    let mut process = Process::start(command, &mut run);
    let status = process.exit(REFUSAL_MAX).await;
    let output = process.output();
    assert_eq!(status.code(), Some(1), "{command} with {changes:?} ended so: {output}");
    for word in words {
        assert!(output.to_lowercase().contains(&word.to_lowercase()), "{command} does not say {word:?}: {output}");
    }
    assert!(!output.contains("panicked"), "{output}");
}

#[tokio::test]
async fn a_sound_configuration_passes_the_check() {
    let (_anvil, _, home) = sound().await;
    let done = home.run(&["check"]).succeeded();
    for word in [NETWORK, &CHAIN_ID.to_string(), "USDT"] {
        assert!(done.output().contains(word), "no {word}: {done:?}");
    }
    assert!(!done.output().contains(&home.master_key), "{done:?}");
}

#[tokio::test]
async fn a_master_key_that_is_missing_weak_or_wrong_is_refused() {
    let (_anvil, _, home) = sound().await;
    let weak_base64 = STANDARD.encode([0; 32]);
    for command in ["serve", "check"] {
        refuses(&home, command, &[("WALLET_MASTER_KEY", None)], &["WALLET_MASTER_KEY", "key new"]).await;
        for weak in [
            "",
            "secret",
            "deadbeef",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0101010101010101010101010101010101010101010101010101010101010101",
            &weak_base64,
        ] {
            refuses(&home, command, &[("WALLET_MASTER_KEY", Some(weak))], &["WALLET_MASTER_KEY"]).await;
        }
    }
    // Used once with its own key, so that a check value is stored; then another good key.
    let mut gateway = home.serve().await;
    gateway.ready().await;
    gateway.terminate().await;
    let other = home.new_key();
    assert_ne!(other, home.master_key);
    for command in ["serve", "check"] {
        refuses(&home, command, &[("WALLET_MASTER_KEY", Some(&other))], &["WALLET_MASTER_KEY"]).await;
        let salt = "a salt that was not there before";
        refuses(&home, command, &[("ENCRYPTION_SALT", Some(salt))], &["ENCRYPTION_SALT"]).await;
    }
    // The right one still opens it, from a file as well.
    let file = home.path().join("master.key");
    std::fs::write(&file, format!("{}\n", home.master_key)).unwrap();
    let config = home.config_file();
    let mut command = home.command(&["serve", "--config", config.to_str().unwrap()]);
    command.env_remove("WALLET_MASTER_KEY").env("WALLET_MASTER_KEY_FILE", &file);
    Gateway::start(&mut command).await.ready().await;
}

#[tokio::test]
async fn an_unknown_configuration_key_is_named_with_the_nearest() {
    let (_anvil, settings, home) = sound().await;
    let toml = settings.toml();
    for (wrong, unknown, nearest) in [
        (toml.replace("[orders]", "[orders]\nexpire_in = \"30m\""), "expire_in", "expires_in"),
        (toml.replace("poll_interval", "pol_interval"), "pol_interval", "poll_interval"),
        (format!("{toml}\n[order]\nexpires_in = \"30m\"\n"), "order", "orders"),
        (format!("{toml}\n[pool]\nbatchsize = 5\n"), "batchsize", "batch_size"),
    ] {
        home.configure(&wrong);
        for command in ["serve", "check"] {
            refuses(&home, command, &[], &[unknown, nearest]).await;
        }
    }
    for (wrong, word) in [
        (toml.replace("\"100ms\"", "\"fast\""), "poll_interval"),
        (toml.replace("kind = \"evm\"", "kind = \"evn\""), "kind"),
        (toml.replace("confirmations = 3", "confirmations = 0"), "confirmations"),
        ("this is not toml".to_owned(), "toml"),
    ] {
        home.configure(&wrong);
        refuses(&home, "serve", &[], &[word]).await;
    }
    refuses(&home, "serve", &[], &["tidegate.toml"]).await;
}

#[tokio::test]
async fn a_chain_or_token_that_does_not_match_is_refused() {
    let (anvil, settings, home) = sound().await;
    let fake_account = anvil.accounts[7];
    for (wrong, words) in [
        (Settings { chain_id: 1, ..settings.clone() }, vec!["chain", "31337"]),
        (Settings { decimals: 18, ..settings.clone() }, vec!["decimals", "18", "6"]),
        (Settings { token: fake_account, ..settings.clone() }, vec!["token"]),
        (Settings { network: "symbol = \"USDC\"".to_owned(), ..settings.clone() }, vec!["symbol", "USDC", "USDT"]),
    ] {
        home.configure(&wrong.toml());
        for command in ["serve", "check"] {
            let words = [&[NETWORK][..], &words].concat();
            refuses(&home, command, &[], &words).await;
        }
    }
    // A contract that is there but is no token.
    let batch = anvil.deploy(include_str!("../contracts/Batch.json"), &[]).await;
    home.configure(&Settings { token: batch, ..settings }.toml());
    refuses(&home, "check", &[], &["token"]).await;
}

#[tokio::test]
async fn a_public_listener_needs_tls_or_an_https_address() {
    let (_anvil, _, home) = sound().await;
    for plain in [None, Some("http://pay.example.test")] {
        let open = [("LISTEN_ADDR", Some("0.0.0.0:0")), ("PUBLIC_URL", plain)];
        refuses(&home, "serve", &open, &["0.0.0.0", "PUBLIC_URL", "TLS"]).await;
    }
    let config = home.config_file();
    let mut command = home.command(&["serve", "--config", config.to_str().unwrap()]);
    command.env("LISTEN_ADDR", "0.0.0.0:0");
    let mut gateway = Gateway::start(&mut command).await;
    gateway.terminate().await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_does_not_keep_the_gateway_from_starting() {
    let (anvil, settings, home) = sound().await;
    drop(anvil);
    home.configure(&settings.toml());
    let gateway = home.serve().await;
    gateway.ready().await;
    let key = home.api_key("main", &["orders:write"]);
    let api = gateway.api(&key);
    api.get("/health/live").await.expect(200);
    let answer = api.post("/api/v1/orders", &json!({ "amount": "1", "network": NETWORK })).await;
    answer.problem(503, "network_unavailable");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let done = home.run(&["check"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.output().contains(NETWORK), "{done:?}");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_and_nothing_is_lost() {
    let mut shop = Shop::open().await;
    let order = shop.order("12.5").await;
    // A page that stays open (server-sent events) must not hold it up.
    let page = shop.api().with_key(None);
    let path = format!("/pay/{}/events", order.id);
    let open_page = tokio::spawn(async move { page.request(reqwest::Method::GET, &path).try_send().await.is_ok() });
    shop.order_is(&order, "pending").await;
    shop.gateway.terminate().await;
    open_page.abort();
    shop.start_again().await;
    shop.order_is(&order, "pending").await;
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        Done::of(command.args(args).current_dir(dir.path()).env_clear())
    };
    for command in COMMANDS {
        let done = run(&[command, &["--help"][..]].concat()).succeeded();
        let example = done.stdout.to_lowercase().find("example");
        let example = example.unwrap_or_else(|| panic!("no example for {command:?}: {}", done.stdout));
        let called = ["tidegate"].iter().chain(*command).copied().collect::<Vec<_>>().join(" ");
        assert!(done.stdout[example..].contains(&called), "the example does not call {called:?}: {}", done.stdout);
    }
    let version = run(&["--version"]).succeeded();
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let openapi = run(&["openapi"]).succeeded();
    let document: serde_json::Value = serde_json::from_str(&openapi.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));

    // Wrong usage is 2, and says what was expected.
    for args in [&["fly"][..], &["serve", "--fast"], &["wallet"], &["api-key", "create"], &["wallet", "import", "--private-key", "x"]] {
        let done = run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(!done.stderr.is_empty(), "{args:?}");
    }
    // Things that are not there are 1.
    let done = run(&["serve", "--config", "nowhere.toml"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("nowhere.toml"), "{done:?}");
}

#[tokio::test]
async fn wallets_are_made_and_imported_from_the_shell() {
    let (_anvil, _, home) = sound().await;
    let made = home.json(&["wallet", "generate", "--network", NETWORK, "--count", "3"]);
    assert_eq!(made["data"].as_array().unwrap().len(), 3, "{made}");

    // The key comes from stdin, and is never repeated.
    let secret = "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba";
    let file = home.path().join("wallet.key");
    std::fs::write(&file, secret).unwrap();
    let config = home.config_file();
    let args = ["wallet", "import", "--network", NETWORK, "--json", "--config", config.to_str().unwrap()];
    let mut command = home.command(&args);
    command.stdin(std::fs::File::open(&file).unwrap());
    let done = Done::of(&mut command).succeeded();
    assert!(!done.output().contains(secret), "{done:?}");
    let wallet: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(wallet["kind"], "imported");
    assert_eq!(wallet["address"], "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc");

    let listed = home.json(&["wallet", "list", "--network", NETWORK]);
    assert!(listed["data"].as_array().unwrap().contains(&wallet), "{listed}");
}

#[tokio::test]
async fn no_secret_is_ever_written_down() {
    let mut shop = Shop::open().await;
    // The log at its most talkative.
    shop.home.log_level = "trace";
    let mut log = shop.gateway.process.output();
    shop.restart().await;
    let private_key = "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";
    let body = json!({ "network": NETWORK, "private_key": private_key, "name": "old till" });
    shop.api().post("/api/v1/admin/wallets/import", &body).await.expect(201);
    // A key that is refused is a secret all the same: it may be a good one with a typing error.
    let mistyped = format!("{}zz", &private_key[..62]);
    let bad = json!({ "network": NETWORK, "private_key": mistyped });
    shop.api().post("/api/v1/admin/wallets/import", &bad).await.problem(422, "invalid_private_key");
    let foreign = "tg_live_0123456789abcdefghijklmnopqrstuvwxyzABCDEF";
    shop.api().with_key(Some(foreign)).get("/api/v1/orders").await.some_problem(401);
    let order = shop.order("12.5").await;
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
    let check = shop.home.run(&["check"]).succeeded();

    log.push_str(&shop.gateway.process.output());
    shop.restart().await;
    log.push_str(&shop.gateway.process.output());
    shop.gateway.terminate().await;
    log.push_str(&shop.gateway.process.output());
    assert!(log.contains(&order.id), "the log tells what happened, or this test looks in the wrong place");

    let whole = |secret: &str| vec![secret.as_bytes().to_vec()];
    let bytes = |secret: &str| {
        let raw = hex::decode(secret).unwrap();
        vec![secret.to_lowercase().into_bytes(), secret.to_uppercase().into_bytes(), STANDARD.encode(&raw).into_bytes(), raw]
    };
    let webhook = shop.merchant.webhook_secret.strip_prefix("whsec_").unwrap();
    let secrets = [
        ("the master key", bytes(&shop.home.master_key)),
        ("an imported private key", bytes(private_key)),
        ("a mistyped private key", whole(&mistyped[..60])),
        ("an API key", whole(&shop.key)),
        ("an API key's random part", whole(shop.key.rsplit('_').next().unwrap())),
        ("somebody's API key", whole(foreign)),
        ("a webhook secret", vec![webhook.as_bytes().to_vec(), STANDARD.decode(webhook).unwrap()]),
    ];
    let mut places = vec![("the log".to_owned(), log.into_bytes()), ("check".to_owned(), check.output().into_bytes())];
    files(shop.home.path(), &mut places);
    assert!(places.iter().any(|(name, data)| name.ends_with("books.db") && data.len() > 4096), "no database among them");
    for (place, data) in &places {
        for (name, forms) in &secrets {
            for form in forms {
                assert!(!data.windows(form.len()).any(|window| window == form), "{name} stands in {place}");
            }
        }
    }
}

/// Every file below `folder` with its content.
fn files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[tokio::test]
async fn health_tells_what_is_wrong() {
    let shop = Shop::open().await;
    let api = shop.api().with_key(None);
    api.get("/health/live").await.expect(200);
    api.get("/health/ready").await.expect(200);
    let health = api.get("/health/blockchain").await.expect(200).json();
    assert_eq!(health["status"], "healthy", "{health}");
    for part in [NETWORK, "database"] {
        assert!(health["details"][part].is_object(), "no {part}: {health}");
    }
    let networks = shop.api().get("/api/v1/networks").await.expect(200).json();
    let network = &networks["data"][0];
    assert_eq!((&network["network"], &network["kind"], &network["chain_id"]), (&json!(NETWORK), &json!("evm"), &json!(CHAIN_ID)));
    assert_eq!(network["decimals"], 6);
    let head = shop.anvil.head().await.number;
    assert_eq!(network["head"], head, "{network}");

    // The chain goes away: alive, but no longer healthy, and it says where.
    let Shop { anvil, .. } = shop;
    drop(anvil);
    let sick = eventually("the health shows the dead endpoint", async || {
        let answer = api.get("/health/blockchain").await;
        let health = answer.json();
        if health["status"] == "healthy" { Err(health) } else { Ok(answer) }
    })
    .await;
    assert_eq!(sick.status == 503, sick.json()["status"] == "unhealthy", "{sick:?}");
    api.get("/health/live").await.expect(200);
}
