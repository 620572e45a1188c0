//! The safe, through the doors that an operator has: the command line and the admin calls. Keys
//! from every source, states, risk, integrity, the audit log, and a new master key.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::api::Api;
use crate::gateway::{Gateway, Home, NETWORK, Settings};
use crate::process::Process;
use crate::receiver::Receiver;
use crate::tools::repo;

/// A home whose chain is never asked: nothing here depends on blocks.
fn home() -> Home {
    Home::new(&Settings::new("http://127.0.0.1:9", [7; 20]))
}

fn generate(home: &Home, count: u32, more: &[&str]) -> Vec<Value> {
    let count = count.to_string();
    let made = home.json(&[&["wallet", "generate", "--network", NETWORK, "--count", &count], more].concat());
    made["data"].as_array().unwrap().clone()
}

fn addresses(wallets: &[Value]) -> Vec<String> {
    wallets.iter().map(|wallet| wallet["address"].as_str().unwrap().to_owned()).collect()
}

fn id(wallet: &Value) -> &str {
    wallet["id"].as_str().unwrap()
}

/// Runs SQL on the home's database, as somebody who can write to it.
async fn tamper(home: &Home, sql: &str) {
    let mut connection = sqlx::SqliteConnection::connect(&home.database_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Feeds a command's stdin from a file.
fn with_input(home: &Home, args: &[&str], input: &str) -> Value {
    let file = home.path().join("input");
    std::fs::write(&file, input).unwrap();
    home.json(&[args, &["--file", file.to_str().unwrap()]].concat())
}

fn vectors() -> Value {
    let path = repo().join("crates/vault/tests/vectors/bip39_bip44_tron_evm.json");
    serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()["vectors"][0].clone()
}

#[tokio::test]
async fn the_words_of_a_seed_restore_every_address() {
    let first = home();
    let seed = first.json(&["wallet", "seed", "main", "--yes"]);
    let words = seed["words"].as_str().unwrap();
    assert_eq!(words.split(' ').count(), 24, "{seed}");
    let mut made = addresses(&generate(&first, 5, &["--kind", "hd"]));
    made.extend(addresses(&generate(&first, 3, &["--kind", "hd", "--source", "main"])));
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 8, "{made:?}");

    let sources = first.json(&["wallet", "sources"]);
    assert_eq!((&sources["data"][0]["name"], &sources["data"][0]["next_index"][NETWORK]), (&json!("main"), &json!(8)), "{sources}");

    let second = home();
    with_input(&second, &["wallet", "seed", "paper", "--import"], &format!("  {}\n", words.to_uppercase().to_lowercase()));
    assert_eq!(addresses(&generate(&second, 8, &["--kind", "hd"])), made);
    let report = second.json(&["wallet", "verify"]);
    assert_eq!((report["ok"].as_bool(), report["checked"].as_u64()), (Some(true), Some(8)), "{report}");
}

#[tokio::test]
async fn seeds_and_public_keys_give_the_published_addresses_and_only_a_seed_gives_keys() {
    let vector = vectors();
    let published = |count: usize| -> Vec<String> {
        vector["evm"].as_array().unwrap()[..count].iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    };
    let hot = home();
    with_input(&hot, &["wallet", "seed", "hot", "--import"], vector["mnemonic"].as_str().unwrap());
    let wallets = generate(&hot, 4, &["--kind", "hd"]);
    assert_eq!(addresses(&wallets), published(4));
    let key = hot.json(&["wallet", "export", id(&wallets[2]), "--reason", "a test", "--yes"]);
    assert_eq!(key["private_key"], vector["evm"][2]["private_key"]);

    // The seed's public side, as it leaves the hot machine, is what the cold one takes in.
    let shown = hot.json(&["wallet", "xpub", "hot", "--network", NETWORK]);
    assert_eq!(shown["xpub"], vector["evm_account_xpub"]);
    assert!(hot.run(&["wallet", "xpub", "nobody", "--network", NETWORK]).stderr.contains("wallet sources"));

    let cold = home();
    with_input(&cold, &["wallet", "watch", "cold", "--network", NETWORK], shown["xpub"].as_str().unwrap());
    let watched = generate(&cold, 4, &["--kind", "watch"]);
    assert_eq!(addresses(&watched), published(4));
    assert!(watched.iter().all(|wallet| wallet["kind"] == "watch"));
    let refused = cold.run(&["wallet", "export", id(&watched[0]), "--reason", "a test", "--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("watch-only"), "{refused:?}");
    assert_eq!(cold.json(&["wallet", "verify"])["ok"], true);

    // A private key where a public one belongs is refused, and not repeated.
    let xprv = vector["tron_account_xprv"].as_str().unwrap();
    let file = cold.path().join("xprv");
    std::fs::write(&file, xprv).unwrap();
    let refused = cold.run(&["wallet", "watch", "wrong", "--network", NETWORK, "--file", file.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("private") && !refused.output().contains(xprv), "{refused:?}");

    // Somebody who writes to the database puts an xpub of his own there: no wallet is made of it.
    let other = vector["tron_account_xpub"].as_str().unwrap();
    tamper(&cold, &format!("UPDATE key_sources SET xpub = '{other}'")).await;
    let refused = cold.run(&["wallet", "generate", "--network", NETWORK, "--count", "1", "--kind", "watch"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(cold.json(&["wallet", "list"])["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn ten_generations_at_once_use_every_index_once() {
    let home = home();
    home.json(&["wallet", "seed", "main", "--yes"]);
    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let api = gateway.api(&key);
    let calls = (0..10).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let body = json!({ "network": NETWORK, "count": 20, "kind": "hd" });
            api.post("/api/v1/admin/wallets/generate", &body).await.expect(201).json()
        })
    });
    let mut all = Vec::new();
    for call in futures_util::future::join_all(calls).await {
        all.extend(addresses(call.unwrap()["data"].as_array().unwrap()));
    }
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 200);
    let restored = home.json(&["wallet", "verify"]);
    assert_eq!((restored["ok"].as_bool(), restored["checked"].as_u64() >= Some(200)), (Some(true), true), "{restored}");
}

#[tokio::test]
async fn what_was_edited_in_the_database_is_found_named_and_frozen() {
    let home = home();
    let wallets = generate(&home, 6, &[]);
    assert_eq!(home.json(&["wallet", "verify"])["ok"], true);
    let at = |n: usize| id(&wallets[n]).to_owned();
    tamper(
        &home,
        &format!(
            "UPDATE usdt_wallets SET sealed_key = (SELECT sealed_key FROM usdt_wallets WHERE id = '{one}') WHERE id = '{zero}';
             UPDATE usdt_wallets SET sealed_key = substr(sealed_key, 1, 60) WHERE id = '{two}';
             UPDATE usdt_wallets SET sealed_key = substr(sealed_key, 1, 80) || CASE substr(sealed_key, 81, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(sealed_key, 82) WHERE id = '{three}';
             UPDATE usdt_wallets SET tag = substr(tag, 1, length(tag) - 4) || 'ffff' WHERE id = '{four}';",
            zero = at(0),
            one = at(1),
            two = at(2),
            three = at(3),
            four = at(4),
        ),
    )
    .await;
    let done = home.run(&["wallet", "verify", "--json"]);
    assert_eq!(done.code, Some(1));
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let failed: BTreeSet<&str> = report["failed"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(failed, [at(0), at(2), at(3), at(4)].iter().map(String::as_str).collect(), "{report}");
    assert!(report["failed"].as_array().unwrap().iter().all(|one| one["status"] == "frozen" && one["detail"].as_str().unwrap().len() > 10));
    let frozen = home.json(&["wallet", "list", "--status", "frozen"]);
    assert_eq!(frozen["data"].as_array().unwrap().len(), 4);

    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let alerts = gateway.api(&key).get("/api/v1/admin/alerts?kind=key_does_not_open").await.expect(200).json();
    let about: BTreeSet<&str> = alerts["data"].as_array().unwrap().iter().map(|alert| alert["about"].as_str().unwrap()).collect();
    assert_eq!(about, failed, "{alerts}");
    assert!(alerts["data"].as_array().unwrap().iter().all(|alert| alert["severity"] == "critical"));
}

/// The status code and the wallet or problem after a call about a wallet.
async fn call(api: &Api, path: &str, body: Value) -> (u16, Value) {
    let answer = api.request(Method::POST, path).json(&body).send().await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn people_change_states_with_a_reason_and_the_log_says_so() {
    let home = home();
    let wallets = generate(&home, 2, &[]);
    let (key, weak) = (home.api_key("main", &["admin"]), home.api_key("main", &["wallets:read"]));
    let gateway = home.serve().await;
    let api = gateway.api(&key);
    let path = format!("/api/v1/admin/wallets/{}", id(&wallets[0]));
    // Asked for, status code, and what it is then or why not.
    let table = "
        occupied    409  illegal_status_change
        available   409  illegal_status_change
        cooldown    200  cooldown
        disabled    200  disabled
        cooldown    409  illegal_status_change
        available   200  cooldown
        available   200  available
        frozen      200  frozen
        frozen      409  illegal_status_change
        disabled    200  disabled
        available   200  available
        resting     422  invalid_request";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (asked, code, then) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (status, answer) = call(&api, &format!("{path}/status"), json!({ "status": asked, "reason": "a test" })).await;
        let found = answer["code"].as_str().or(answer["status"].as_str()).unwrap_or_default();
        assert_eq!((status.to_string().as_str(), found), (code, then), "{line}: {answer}");
    }
    assert_eq!(call(&api, &format!("{path}/status"), json!({ "status": "frozen", "reason": "  " })).await.0, 422);
    assert_eq!(call(&api, &format!("{path}/release"), json!({})).await.1["code"], "illegal_status_change");
    let (_, risky) = call(&api, &format!("{path}/risk"), json!({ "risk_level": "blocked", "reason": "seen on a list" })).await;
    assert_eq!(risky["risk_level"], "blocked");
    assert_eq!(call(&api, &format!("{path}/risk"), json!({ "risk_level": "evil", "reason": "x" })).await.0, 422);
    let renamed = api.request(Method::PUT, &path).json(&json!({ "name": "hot-1" })).send().await.expect(200).json();
    assert_eq!(renamed["name"], "hot-1");
    let verified = api.post(&format!("{path}/verify"), &json!({})).await.expect(200).json();
    assert_eq!((verified["ok"].as_bool(), verified["detail"].clone()), (Some(true), Value::Null));
    assert_eq!(api.with_key(Some(&weak)).post(&format!("{path}/verify"), &json!({})).await.status, 403);
    assert_eq!(api.with_key(Some(&weak)).get("/api/v1/admin/audit").await.status, 403);

    let stats = api.with_key(Some(&weak)).get("/api/v1/admin/wallets/stats").await.expect(200).json();
    let of_network = stats["networks"].as_array().unwrap().iter().find(|entry| entry["network"] == NETWORK).unwrap();
    assert!(of_network["total"].as_i64() >= Some(2) && of_network["status"]["frozen"] == 0, "{stats}");

    let log = api.get(&format!("/api/v1/admin/audit?subject={}", id(&wallets[0]))).await.expect(200).json();
    let told: Vec<&str> = log["data"].as_array().unwrap().iter().rev().map(|row| row["action"].as_str().unwrap()).collect();
    let states = ["wallet.status"; 7];
    assert_eq!(told, [&states[..], &["wallet.risk", "wallet.rename", "wallet.verify"]].concat(), "{log}");
    let risk = &log["data"][2];
    assert_eq!((&risk["reason"], &risk["detail"]), (&json!("seen on a list"), &json!({ "from": "low", "to": "blocked" })));
    assert!(risk["actor"].as_str().unwrap().starts_with("key_") && risk["origin"] == "127.0.0.1", "{risk}");
    let page = api.get("/api/v1/admin/audit?limit=3").await.expect(200).json();
    let next = api.get(&format!("/api/v1/admin/audit?limit=3&cursor={}", page["next_cursor"].as_str().unwrap())).await.expect(200).json();
    assert_eq!(next["data"][0]["seq"].as_u64().unwrap() + 1, page["data"][2]["seq"].as_u64().unwrap());
}

#[tokio::test]
async fn an_edited_or_missing_row_of_the_audit_log_is_found() {
    let home = home();
    generate(&home, 1, &[]);
    for n in 0..4 {
        home.api_key("main", &["orders:read"]);
        assert_eq!(home.json(&["audit", "verify"])["ok"], true, "after {n}");
    }
    for (sql, word) in [
        ("UPDATE audit_log SET reason = 'a better one' WHERE seq = 2", "row 2"),
        ("DELETE FROM audit_log WHERE seq = 3", "row 3"),
        ("DELETE FROM audit_log WHERE seq = (SELECT MAX(seq) FROM audit_log)", "missing"),
        // The end is cut off, and the end that is kept beside is made to fit.
        (
            "DELETE FROM audit_log WHERE seq > 3; UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit_log WHERE seq = 3)",
            "cut off",
        ),
        ("UPDATE settings SET value = 'v1.00000000.AAAA' WHERE name = 'sealed_audit_anchor'", "altered"),
    ] {
        let copy = home.path().join("copy.db");
        tamper(&home, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        std::fs::copy(home.path().join("books.db"), &copy).unwrap();
        tamper(&home, sql).await;
        let found = home.run(&["audit", "verify"]);
        assert!(found.code == Some(1) && found.stderr.contains(word), "{sql}: {found:?}");
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(home.path().join(format!("books.db{end}")));
        }
        std::fs::copy(&copy, home.path().join("books.db")).unwrap();
        assert_eq!(home.json(&["audit", "verify"])["ok"], true, "restored after {sql}");
    }
}

/// `home`'s command with a new key, and the old one beside it.
fn with_both(home: &Home, new: &str, args: &[&str]) -> Command {
    let config = home.config_file();
    let mut command = home.command(&[args, &["--config", config.to_str().unwrap()]].concat());
    command.env("WALLET_MASTER_KEY", new).env("WALLET_MASTER_KEY_PREVIOUS", &home.master_key);
    command
}

#[tokio::test]
async fn a_rotation_that_is_killed_many_times_ends_with_everything_under_the_new_key() {
    let mut home = home();
    home.json(&["wallet", "seed", "main", "--yes"]);
    for kind in ["random", "hd"] {
        generate(&home, 700, &["--kind", kind]);
    }
    let merchant = home.merchant("shop", "https://shop.example/hook");
    let new = home.new_key();

    // Alone the new key opens nothing; without the previous one there is nothing to rotate.
    let old = std::mem::replace(&mut home.master_key, new.clone());
    assert_eq!(home.run(&["wallet", "verify"]).code, Some(1));
    home.master_key = old;
    assert!(home.run(&["key", "rotate"]).stderr.contains("WALLET_MASTER_KEY_PREVIOUS"));

    let mut kills = 0;
    for attempt in 0_u64.. {
        let mut process = Process::start("rotate", &mut with_both(&home, &new, &["key", "rotate"]));
        let patience = Duration::from_millis(150 + attempt * 60);
        match tokio::time::timeout(patience, process.exit(Duration::from_secs(60))).await {
            Ok(status) => {
                assert!(status.success(), "{}", process.output());
                break;
            }
            Err(_) => {
                process.kill();
                kills += 1;
            }
        }
        // In the middle of it both keys open everything.
        if kills == 3 {
            let done = crate::gateway::Done::of(&mut with_both(&home, &new, &["wallet", "verify", "--json"])).succeeded();
            let report: Value = serde_json::from_str(&done.stdout).unwrap();
            assert_eq!((report["ok"].as_bool(), report["checked"].as_u64()), (Some(true), Some(1_400)), "{report}");
        }
    }
    println!("killed {kills} times");
    assert!(kills > 0, "the rotation was faster than the first kill");

    home.master_key = new;
    let report = home.json(&["wallet", "verify"]);
    assert_eq!((report["ok"].as_bool(), report["checked"].as_u64()), (Some(true), Some(1_400)), "{report}");
    assert_eq!(home.json(&["merchant", "show", "shop"])["webhook_secret"], merchant.webhook_secret);
    assert_eq!(home.json(&["audit", "verify"])["ok"], true);
    generate(&home, 1, &["--kind", "hd"]);
}

#[tokio::test]
async fn a_master_key_in_two_parts_needs_both() {
    let home = Home::unmigrated(&Settings::new("http://127.0.0.1:9", [7; 20]));
    let parts = home.json(&["key", "new", "--parts"]);
    let part = |name: &str| parts[name].as_str().unwrap().to_owned();
    let run = |first: &str, second: Option<&str>| {
        let config = home.config_file();
        let mut command = home.command(&["wallet", "generate", "--network", NETWORK, "--count", "1", "--config", config.to_str().unwrap()]);
        command.env("WALLET_MASTER_KEY", first);
        if let Some(second) = second {
            command.env("WALLET_MASTER_KEY_PART2", second);
        }
        crate::gateway::Done::of(&mut command)
    };
    let (one, two) = (part("master_key"), part("master_key_part2"));
    run(&one, Some(&two)).succeeded();
    for (first, second) in [(&one, None), (&two, None), (&one, Some(&one))] {
        let refused = run(first, second.map(String::as_str));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(!refused.output().contains(&one) && !refused.output().contains(&two), "{refused:?}");
    }
    run(&one, Some(&two)).succeeded();
}

#[tokio::test]
async fn no_key_is_in_anything_that_the_process_writes() {
    let mut home = home();
    home.log_level = "trace";
    let vector = vectors();
    let imported = "2d8f68944bdbfbc0769542fba8fc2d2a3de67393334471624364c7006da2aa54";
    let seed = home.json(&["wallet", "seed", "main", "--yes"]);
    let words = seed["words"].as_str().unwrap().to_owned();
    let wallets = generate(&home, 3, &["--kind", "hd"]);
    let exported =
        home.json(&["wallet", "export", id(&wallets[1]), "--reason", "a test", "--yes"])["private_key"].as_str().unwrap().to_owned();
    let mut output = String::new();
    for input in [imported, vector["evm"][0]["private_key"].as_str().unwrap()] {
        let file = home.path().join("key");
        std::fs::write(&file, input).unwrap();
        output += &home.run(&["wallet", "import", "--network", NETWORK, "--file", file.to_str().unwrap()]).succeeded().output();
        std::fs::remove_file(&file).unwrap();
    }
    let key = home.api_key("main", &["admin"]);
    let gateway: Gateway = home.serve().await;
    let api = gateway.api(&key);
    let again = json!({ "network": NETWORK, "private_key": imported });
    output += &api.post("/api/v1/admin/wallets/import", &again).await.expect(409).json().to_string();
    let third = vector["evm"][3]["private_key"].as_str().unwrap();
    output += &api
        .post("/api/v1/admin/wallets/import", &json!({ "network": NETWORK, "private_key": third }))
        .await
        .expect(201)
        .json()
        .to_string();
    output += &api
        .post("/api/v1/admin/wallets/import", &json!({ "network": NETWORK, "private_key": third.replace('3', "g") }))
        .await
        .expect(422)
        .json()
        .to_string();
    output += &api.get("/api/v1/admin/audit?limit=200").await.expect(200).json().to_string();
    output += &home.run(&["wallet", "verify"]).succeeded().output();
    output += &gateway.process.output();
    let mut written = output.into_bytes();
    for end in ["", "-wal"] {
        written.extend(std::fs::read(home.path().join(format!("books.db{end}"))).unwrap_or_default());
    }
    let first_words: String = words.split(' ').take(3).collect::<Vec<_>>().join(" ");
    for secret in [imported, third, &exported, &home.master_key, &words, &first_words, vector["evm"][0]["private_key"].as_str().unwrap()] {
        let raw = hex::decode(secret).unwrap_or_else(|_| secret.as_bytes().to_vec());
        for form in [secret.as_bytes().to_vec(), secret.to_uppercase().into_bytes(), raw] {
            assert!(!written.windows(form.len()).any(|window| window == form), "a secret was written: {}…", &secret[..6]);
        }
    }
}

#[tokio::test]
async fn a_backup_is_made_while_the_gateway_runs_and_restored_whole_or_not_at_all() {
    let mut home = home();
    home.json(&["wallet", "seed", "main", "--yes"]);
    generate(&home, 150, &[]);
    let gateway = home.serve().await;
    let merchant = home.merchant("shop", "https://shop.example/hook");
    let before = addresses(home.json(&["wallet", "list"])["data"].as_array().unwrap());
    let file = home.path().join("copy.backup");
    let made = home.json(&["backup", file.to_str().unwrap()]);
    assert_eq!(made["bytes"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    assert!(home.run(&["backup", file.to_str().unwrap()]).stderr.contains("exists"), "nothing is overwritten");
    assert!(home.run(&["restore", file.to_str().unwrap()]).stderr.contains("exists"), "nothing is overwritten");
    drop(gateway);

    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"SQLite"), "it is encrypted");
    // A name that a URL would spell otherwise.
    let target = home.path().join("restored@shop.db");
    let old = std::mem::replace(&mut home.database_url, format!("sqlite://{}", target.display()));
    // Cut, lengthened, edited in the head and in the body, and under another key: refused.
    let mut edited = bytes.clone();
    let middle = edited.len() / 2;
    edited[middle] ^= 1;
    let head = String::from_utf8_lossy(&bytes[..40]).into_owned();
    assert!(head.starts_with("tidegate-backup 1\n{"), "{head}");
    let mut other_schema = bytes.clone();
    let at = bytes.windows(8).position(|window| window == b"\"schema\"").unwrap() + 9;
    other_schema[at] = b'9';
    for (what, copy) in [
        ("cut", bytes[..bytes.len() - 1].to_vec()),
        ("a chunk cut", bytes[..bytes.len() - bytes.len() % (1 << 20)].to_vec()),
        ("lengthened", [&bytes[..], b"x"].concat()),
        ("edited", edited),
        ("another schema in its head", other_schema),
        ("something else", b"SQLite format 3".to_vec()),
    ] {
        let bad = home.path().join("bad.backup");
        std::fs::write(&bad, copy).unwrap();
        let refused = home.run(&["restore", bad.to_str().unwrap()]);
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(!target.exists() && !home.path().join("restored@shop.db.restoring").exists(), "{what} left something behind");
    }
    let new = home.new_key();
    let key = std::mem::replace(&mut home.master_key, new);
    let refused = home.run(&["restore", file.to_str().unwrap()]);
    assert!(refused.stderr.contains("not the one that this backup is under"), "{refused:?}");
    home.master_key = key;

    // What was left of the database before would be played over the restored one.
    for end in ["-wal", "-shm", "-journal"] {
        let left = home.path().join(format!("restored@shop.db{end}"));
        std::fs::write(&left, "left").unwrap();
        let refused = home.run(&["restore", file.to_str().unwrap()]);
        assert!(refused.code == Some(1) && refused.stderr.contains(&format!("{end} exists")), "{refused:?}");
        std::fs::remove_file(left).unwrap();
    }
    home.json(&["restore", file.to_str().unwrap()]);
    assert!(target.exists());
    assert_eq!(addresses(home.json(&["wallet", "list"])["data"].as_array().unwrap()), before);
    assert_eq!(home.json(&["merchant", "show", "shop"])["webhook_secret"], merchant.webhook_secret);
    assert_eq!(home.json(&["wallet", "verify"])["ok"], true);
    assert_eq!(home.json(&["audit", "verify"])["ok"], true);
    home.database_url = old;
}

/// `tests/data/schema-2.backup` was made by the version before schema 3: three random wallets and
/// two of the seed `paper`, the merchant `old-shop`, six rows in the audit log.
#[tokio::test]
async fn a_backup_of_an_older_version_is_restored_and_migrated() {
    let mut home = Home::unmigrated(&Settings::new("http://127.0.0.1:9", [7; 20]));
    home.master_key = "c95100f34ca7f2b09a0b2408a9f0f102dfd0331ace4a257a9bdd5764b5351bae".into();
    // Its wallets are on TRON.
    let toml = Settings::new("http://127.0.0.1:9", [7; 20]).toml();
    home.configure(&format!("{toml}\n[networks.tron]\nrpc = [\"http://127.0.0.1:9\"]\n"));
    let file = repo().join("crates/gateway/tests/data/schema-2.backup");
    let restored = home.json(&["restore", file.to_str().unwrap()]);
    assert_eq!(restored["backup"]["schema"], 2, "{restored}");

    let wallets = home.json(&["wallet", "list"])["data"].as_array().unwrap().clone();
    let of_seed = addresses(&wallets).into_iter().filter(|address| address.starts_with("TG2GXEn9") || address.starts_with("TKUT2hHk"));
    assert_eq!((wallets.len(), of_seed.count()), (5, 2), "{wallets:?}");
    assert_eq!(home.json(&["wallet", "verify"])["ok"], true, "every key opens under the old master key");
    assert_eq!(home.json(&["merchant", "show", "old-shop"])["webhook_secret"], "whsec_0g9LNOQPzs7SSK3Tq2wxegCz2WivL1L6");
    let audit = home.json(&["audit", "verify"]);
    assert!(audit["ok"] == true && audit["rows"].as_u64() > Some(6), "{audit}");
    let next = home.json(&["wallet", "sources"])["data"][0]["next_index"]["tron"].clone();
    assert_eq!(next, 2, "no address is made twice");
}

#[tokio::test]
async fn a_pool_that_cannot_grow_is_told_to_the_owner() {
    let receiver = Receiver::start().await;
    let settings = Settings { more: "[pool]\nlow_watermark = 5\nmax_wallets = 3\n".into(), ..Settings::new("http://127.0.0.1:9", [7; 20]) };
    let home = Home::new(&settings);
    generate(&home, 3, &[]);
    let secret = home.json(&["merchant", "show", "main"])["webhook_secret"].as_str().unwrap().to_owned();
    let updated = home.json(&["merchant", "update", "main", "--webhook-url", &receiver.url]);
    assert_eq!(updated["webhook_url"], receiver.url.as_str());
    let refused = home.run(&["merchant", "update", "main", "--webhook-url", "ftp://shop.example"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("http or https"), "{refused:?}");
    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let api = gateway.api(&key);

    let opened = receiver.first("wallet.alert").await;
    opened.verify(&secret).unwrap();
    let alert = opened.json()["data"].clone();
    let says = |member: &str| alert[member].as_str().unwrap_or_default().to_owned();
    assert_eq!((says("kind"), says("about"), says("status")), ("pool_low".into(), NETWORK.into(), "open".into()), "{alert}");
    assert!(says("detail").contains("3 wallets of anvil are free") && says("detail").contains("pool.max_wallets, 3"), "{alert}");

    let body = json!({ "reason": "grows tomorrow" });
    api.post(&format!("/api/v1/admin/alerts/{}/acknowledge", says("id")), &body).await.expect(200);
    let told = receiver.events(&says("id"), &["wallet.alert", "wallet.alert"]).await;
    let last = told.last().unwrap().json()["data"].clone();
    assert_eq!((last["status"].as_str(), last["reason"].as_str()), (Some("acknowledged"), Some("grows tomorrow")), "{last}");
    let listed = api.get("/api/v1/admin/alerts?kind=pool_low").await.expect(200).json();
    assert_eq!(listed["data"][0], last, "the event says what the API says");
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_migrated_before_it_is_backed_up() {
    let mut home = home();
    generate(&home, 3, &[]);
    // As the first version left its database.
    tamper(
        &home,
        "DROP INDEX idx_commits_at; DROP INDEX idx_chain_messages_received; DROP INDEX idx_chain_hints_done; DROP INDEX idx_notifications_created;
         DROP INDEX idx_leases_wallet_height; CREATE INDEX idx_leases_wallet ON leases (wallet_id);
         DROP TABLE moves; DROP TABLE move_marks; DROP TABLE archives; DROP INDEX idx_balances_taken;
         DROP INDEX idx_events_kind; DROP TABLE webhook_endpoints; DROP INDEX idx_webhooks_endpoint; ALTER TABLE payment_webhooks DROP COLUMN endpoint_id;
         DROP INDEX idx_orders_deposits; ALTER TABLE usdt_payment_orders DROP COLUMN purpose;
         DROP INDEX idx_orders_merchant_status; DROP INDEX idx_orders_status; DROP INDEX idx_orders_user; DROP INDEX idx_orders_number;
         DROP INDEX idx_orders_amount; DROP INDEX idx_leases_network_order; DROP INDEX idx_leases_address; DROP INDEX idx_events_merchant;
         DROP INDEX idx_webhooks_status; DROP TABLE webhook_attempts; ALTER TABLE merchants DROP COLUMN webhook_events; DROP TABLE plans; DROP TABLE membership_periods;
         ALTER TABLE payment_webhooks DROP COLUMN before_status; ALTER TABLE payment_webhooks DROP COLUMN before_due_at;
         ALTER TABLE payment_webhooks DROP COLUMN claimed_by; ALTER TABLE payment_webhooks DROP COLUMN claimed_until; DROP TABLE duties;
         ALTER TABLE payment_notifications DROP COLUMN claimed_by; ALTER TABLE payment_notifications DROP COLUMN claimed_until;
         DROP TABLE notice_mark; DROP TABLE notice_templates;
         DROP INDEX idx_notifications_due; DROP INDEX idx_notifications_order; DROP INDEX idx_notifications_once;
         ALTER TABLE payment_notifications DROP COLUMN topic; ALTER TABLE payment_notifications DROP COLUMN event_id; ALTER TABLE payment_notifications DROP COLUMN language;
         ALTER TABLE payment_notifications DROP COLUMN subject; ALTER TABLE payment_notifications DROP COLUMN body; ALTER TABLE payment_notifications DROP COLUMN tries;
         ALTER TABLE payment_notifications DROP COLUMN due_at; ALTER TABLE payment_notifications DROP COLUMN last_error; ALTER TABLE payment_notifications DROP COLUMN last_tried_at;
         ALTER TABLE events RENAME COLUMN subject_id TO order_id; ALTER TABLE payment_webhooks RENAME COLUMN subject_id TO order_id;
         ALTER TABLE usdt_wallets DROP COLUMN balance; ALTER TABLE usdt_wallets DROP COLUMN balance_at; ALTER TABLE usdt_wallets DROP COLUMN opening;
         ALTER TABLE wallet_balances DROP COLUMN incoming; ALTER TABLE wallet_balances DROP COLUMN outgoing;
         ALTER TABLE networks DROP COLUMN floor; DROP INDEX idx_transactions_disposition;
         DROP TABLE users; DROP TABLE sessions; ALTER TABLE merchants DROP COLUMN previous_secret; ALTER TABLE merchants DROP COLUMN previous_until;
         ALTER TABLE api_keys DROP COLUMN name; ALTER TABLE api_keys DROP COLUMN expires_at; ALTER TABLE api_keys DROP COLUMN allowed_ips;
         ALTER TABLE api_keys DROP COLUMN last_used_at; ALTER TABLE api_keys DROP COLUMN revoked_at;
         DROP TABLE webhook_inbox; DROP TABLE second_readers; DROP TABLE jobs; DROP TABLE chain_messages; DROP TABLE chain_hints;
         DROP TABLE key_sources; DROP TABLE derivations; DROP TABLE audit_log; DROP TABLE audit_head; DROP INDEX idx_alerts_status;
         DROP INDEX idx_wallets_derived; DROP INDEX idx_wallets_available_network; DROP INDEX idx_wallets_paid;
         DROP INDEX idx_transactions_wallet; DROP INDEX idx_transactions_payer;
         ALTER TABLE usdt_wallets DROP COLUMN source_id; ALTER TABLE usdt_wallets DROP COLUMN derive_index; ALTER TABLE usdt_wallets DROP COLUMN verified_at;
         ALTER TABLE alerts DROP COLUMN changed_at; ALTER TABLE alerts DROP COLUMN changed_by; ALTER TABLE alerts DROP COLUMN reason;
         CREATE INDEX idx_wallets_available_network ON usdt_wallets (network, queue_rank, id) WHERE status = 'available';
         DELETE FROM schema_versions WHERE version > 1",
    )
    .await;
    let file = home.path().join("old.backup");
    let refused = home.run(&["backup", file.to_str().unwrap()]);
    assert!(refused.stderr.contains("tidegate migrate"), "a backup changes nothing: {refused:?}");
    home.run(&["migrate"]).succeeded();
    assert_eq!(home.json(&["wallet", "verify"])["checked"], 3);
    home.json(&["backup", file.to_str().unwrap()]);
    home.database_url = format!("sqlite://{}", home.path().join("restored.db").display());
    home.json(&["restore", file.to_str().unwrap()]);
    assert_eq!(home.json(&["wallet", "verify"])["checked"], 3);
}

#[tokio::test]
async fn no_core_dump_is_made_of_a_process_with_keys() {
    let home = home();
    let gateway = home.serve().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
}

/// Everything that a process has in memory that it can write to. `None` where the system does not
/// let us look, which is what the process asks for.
fn memory(pid: u32) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut region = vec![0; usize::try_from(to - from).ok()?];
        // Guard pages and the like cannot be read.
        if file.read_exact_at(&mut region, from).is_ok() {
            all.append(&mut region);
        }
    }
    Some(all)
}

#[tokio::test]
async fn keys_that_were_made_are_not_left_in_memory() {
    let home = home();
    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let body = json!({ "network": NETWORK, "count": 200 });
    let made = gateway.api(&key).post("/api/v1/admin/wallets/generate", &body).await.expect(201).json();
    let wallets = made["data"].as_array().unwrap().clone();
    for wallet in &wallets[..20] {
        let path = format!("/api/v1/admin/wallets/{}/verify", id(wallet));
        assert_eq!(gateway.api(&key).post(&path, &json!({})).await.expect(200).json()["ok"], true);
    }
    let Some(memory) = memory(gateway.process.id()) else { return };
    let holds = |form: &[u8]| memory.windows(form.len()).any(|window| window == form);
    assert!(holds(home.database_url.as_bytes()), "the memory was read");
    let mut left = Vec::new();
    for wallet in wallets.iter().step_by(25) {
        let exported = home.json(&["wallet", "export", id(wallet), "--reason", "a test", "--yes"]);
        let text = exported["private_key"].as_str().unwrap();
        let raw = hex::decode(text).unwrap();
        let reversed: Vec<u8> = raw.iter().rev().copied().collect();
        if holds(&raw) || holds(&reversed) || holds(text.as_bytes()) {
            left.push(id(wallet).to_owned());
        }
    }
    // The compiler may leave a copy of the last one on the stack of a thread; nothing may pile up.
    println!("{} of 8 keys were found in {} MiB", left.len(), memory.len() >> 20);
    assert!(left.len() <= 2, "keys of {left:?} are left in memory");
}
