//! HTTPS from certificate files: handshakes, renewal while shops call, clients that are slow or speak
//! something else, what is refused, and what operators are told.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::{Authority, HOST, Issued, chmod};
use crate::gateway::{Gateway, Home, Settings};
use crate::wait::eventually;

/// More than any number of threads.
const CROWD: usize = 300;

/// A home whose one network is out of reach, with a certificate.
fn home(issued: &Issued) -> Home {
    let mut settings = Settings::new("http://127.0.0.1:9", [1; 20]);
    settings.more = format!("[server]\ntls_cert = {:?}\ntls_key = {:?}", issued.cert, issued.key);
    Home::new(&settings)
}

async fn serve(home: &Home) -> (Gateway, SocketAddr) {
    let gateway = home.serve().await;
    let address = gateway.base.strip_prefix("https://").unwrap_or_else(|| panic!("not https: {}", gateway.base)).parse().unwrap();
    (gateway, address)
}

fn hang_up(gateway: &Gateway) {
    assert!(Command::new("kill").args(["-HUP", &gateway.process.id().to_string()]).status().unwrap().success());
}

async fn says(gateway: &mut Gateway, words: &str) {
    gateway.process.line(words, |line| line.contains(words).then_some(())).await;
}

#[tokio::test]
async fn https_is_served_from_two_files() {
    let authority = Authority::new();
    let issued = authority.issue("first", 30);
    let home = home(&issued);
    let (mut gateway, address) = serve(&home).await;

    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let client = authority.client(address).tls_version_min(version).tls_version_max(version).build().unwrap();
        let answer = client.get(format!("https://{HOST}:{}/health/live", address.port())).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    }
    assert_eq!(authority.shown_at(address).await.unwrap(), issued.der());
    let stranger = Authority::new().client(address).build().unwrap();
    assert!(stranger.get(format!("https://{HOST}:{}/health/live", address.port())).send().await.is_err(), "the authority matters");

    // Plain HTTP is told so, and answers nothing.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("https://"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(answer.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
    // What is neither is closed.
    let mut noise = TcpStream::connect(address).await.unwrap();
    noise.write_all(&[0; 64]).await.unwrap();
    let mut rest = Vec::new();
    let _ = noise.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");

    // The health check of a container: over https to its own address, by name to anywhere else.
    let config = home.config_file();
    let health = |more: &[&str], listen: &str| {
        let mut command = home.command(&[&["health", "--config", config.to_str().unwrap()], more].concat());
        command.env("LISTEN_ADDR", listen).output().unwrap().status.code()
    };
    gateway_is_ready(&authority, address).await;
    assert_eq!(health(&[], &address.to_string()), Some(0));
    assert_eq!(health(&["--live"], &address.to_string()), Some(0));
    assert_eq!(health(&["--url", &format!("https://{address}/health/live")], "127.0.0.1:1"), Some(1), "nobody trusts that authority");
    gateway.terminate().await;
    assert_eq!(health(&["--live"], &address.to_string()), Some(1));
}

async fn gateway_is_ready(authority: &Authority, address: SocketAddr) {
    let client = authority.client(address).build().unwrap();
    eventually("the gateway is ready", async || {
        let answer = client.get(format!("https://{HOST}:{}/health/ready", address.port())).send().await.unwrap();
        if answer.status() == 200 { Ok(()) } else { Err(answer.status()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_while_shops_call_and_a_bad_one_never_takes_its_place() {
    let authority = Authority::new();
    let place = authority.issue("place", 30);
    let home = home(&place);
    let (mut gateway, address) = serve(&home).await;

    // Shops: each call a handshake of its own, or all over one connection.
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let shops: Vec<_> = [0, 0, 8]
        .map(|idle_max| {
            let client = authority.client(address).pool_max_idle_per_host(idle_max).build().unwrap();
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(format!("https://{HOST}:{}/health/live", address.port())).send().await;
                    assert_eq!(answer.unwrap().status(), 200);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .into();
    let some_calls = async || {
        let before = calls.load(Ordering::Relaxed);
        eventually("shops call on", async || {
            let now = calls.load(Ordering::Relaxed);
            if now > before + 10 { Ok(()) } else { Err(now) }
        })
        .await;
    };
    let shows = async |issued: &Issued| {
        eventually("the new certificate is shown", async || {
            let shown = authority.shown_at(address).await.unwrap();
            if shown == issued.der() { Ok(()) } else { Err("another") }
        })
        .await;
    };
    some_calls().await;

    let second = authority.issue("second", 30);
    second.replace(&place);
    hang_up(&gateway);
    shows(&second).await;
    some_calls().await;

    // Somebody else's key, half a file, and a key that everybody can read.
    let third = authority.issue("third", 30);
    std::fs::copy(&third.cert, &place.cert).unwrap();
    hang_up(&gateway);
    says(&mut gateway, "found another one").await;
    std::fs::write(&place.cert, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    hang_up(&gateway);
    says(&mut gateway, "found something that does not read").await;
    std::fs::copy(&second.cert, &place.cert).unwrap();
    chmod(&place.key, 0o644);
    hang_up(&gateway);
    says(&mut gateway, "found mode 0644").await;
    shows(&second).await;
    some_calls().await;

    // Without a signal it is seen a little later.
    third.replace(&place);
    shows(&third).await;
    some_calls().await;

    stop.store(true, Ordering::Relaxed);
    for shop in shops {
        shop.await.unwrap();
    }
    gateway.terminate().await;
    assert!(!gateway.process.output().contains("BEGIN"), "{}", gateway.process.output());
}

/// The bytes with which a client of this authority says hello.
fn hello(authority: &Authority) -> Vec<u8> {
    let mut client = rustls::ClientConnection::new(authority.client_config(), ServerName::try_from(HOST).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_hold_nobody_up() {
    let authority = Authority::new();
    let home = home(&authority.issue("first", 30));
    let (_gateway, address) = serve(&home).await;
    let hello = hello(&authority);
    // Sooner than the slow ones are sent away.
    let client = authority.client(address).pool_max_idle_per_host(0).timeout(Duration::from_secs(6)).build().unwrap();
    // Nothing, a byte, half a hello, and a whole one without the rest of the handshake.
    let mut slow = Vec::new();
    for bytes in [&hello[..0], &hello[..1], &hello[..hello.len() / 2], &hello[..]] {
        for _ in 0..CROWD {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            slow.push(stream);
        }
        let answer = client.get(format!("https://{HOST}:{}/health/live", address.port())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    // None of them is kept for ever.
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn what_is_no_good_pair_is_refused_at_the_start() {
    let authority = Authority::new();
    let (good, other) = (authority.issue("good", 30), authority.issue("other", 30));
    let home = home(&good);
    let dir = home.path();
    std::fs::write(dir.join("text"), "no certificate").unwrap();
    std::fs::write(dir.join("large"), vec![b'x'; 300 * 1024]).unwrap();
    for name in ["text", "large"] {
        chmod(&dir.join(name), 0o600);
    }
    chmod(&other.key, 0o604);
    let own = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let [cert, key, other_cert, other_key] = [&good.cert, &good.key, &other.cert, &other.key].map(|path| path.to_str().unwrap().to_owned());
    let table = [
        (own("missing"), key.clone(), "tls_cert", "expected a readable file in PEM, found none"),
        (cert.clone(), own("missing"), "tls_key", "expected a readable file in PEM, found none"),
        (own("text"), key.clone(), "tls_cert", "expected a certificate in PEM (-----BEGIN CERTIFICATE-----), found none"),
        (cert.clone(), own("text"), "tls_key", "expected a private key in PEM"),
        (own("large"), key.clone(), "tls_cert", "found one of 256 KiB or more"),
        (other_cert, key.clone(), "tls_key", "expected the private key of the certificate in"),
        (cert, other_key, "tls_key", "found mode 0604; run `chmod o-rwx` on it"),
    ];
    for (cert, key, name, words) in table {
        for command in ["serve", "check"] {
            let config = home.config_file();
            let mut run = home.command(&[command, "--config", config.to_str().unwrap()]);
            let done = run.env("TLS_CERT_FILE", &cert).env("TLS_KEY_FILE", &key).output().unwrap();
            let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            assert_eq!(done.status.code(), Some(1), "{command}: {said}");
            assert!(said.contains(name) && said.contains(words), "{command} does not say {words:?}: {said}");
        }
    }
}

#[tokio::test]
async fn an_end_that_is_near_is_told() {
    let authority = Authority::new();
    let (soon, ended, elsewhere) =
        (authority.issue("soon", 5), authority.issue("ended", -1), authority.issue_for("elsewhere", "other.example.test", 30));
    let home = home(&soon);
    let certificate = |issued: &Issued| -> (bool, String) {
        let config = home.config_file();
        let mut run = home.command(&["check", "--json", "--config", config.to_str().unwrap()]);
        let done = run.env("TLS_CERT_FILE", &issued.cert).env("TLS_KEY_FILE", &issued.key).output().unwrap();
        let rows: Value = serde_json::from_slice(&done.stdout).unwrap();
        let row = rows["data"].as_array().unwrap().iter().find(|row| row["check"] == "certificate").unwrap_or_else(|| panic!("{rows}"));
        (row["ok"].as_bool().unwrap(), row["detail"].as_str().unwrap().to_owned())
    };
    let is = |found: (bool, String), ok: bool, words: &str| assert!(found.0 == ok && found.1.contains(words), "{found:?}");
    is(certificate(&authority.issue("good", 30)), true, "is good until");
    is(certificate(&soon), true, "days from now: renew it");
    is(certificate(&ended), false, "browsers refuse it");
    is(certificate(&elsewhere), false, "is not for pay.example.test");

    let key = home.api_key("main", &["admin"]);
    let (mut gateway, address) = serve(&home).await;
    says(&mut gateway, "alert=\"certificate_ending\"").await;
    let client = authority.client(address).build().unwrap();
    let alerts = format!("https://{HOST}:{}/api/v1/admin/alerts?kind=certificate_ending", address.port());
    eventually("the alert is there", async || {
        let answer: Value = client.get(&alerts).bearer_auth(&key).send().await.unwrap().json().await.unwrap();
        if answer["data"][0]["severity"] == "warning" { Ok(()) } else { Err(answer) }
    })
    .await;
    // One that has ended keeps nothing from being followed.
    ended.replace(&soon);
    hang_up(&gateway);
    says(&mut gateway, "ended at").await;
    gateway.terminate().await;
}

#[tokio::test]
async fn the_plain_listener_sends_browsers_to_https_and_helps_no_key_along() {
    let authority = Authority::new();
    let mut home = home(&authority.issue("first", 30));
    home.env.push(("REDIRECT_LISTEN_ADDR", "127.0.0.1:0".to_owned()));
    let (mut gateway, _) = serve(&home).await;
    let there = |line: &str| line.strip_prefix("redirecting from ").map(|url| url.trim().to_owned());
    let there = gateway.process.line("redirecting from http://…", there).await;
    let api = crate::api::Api::new(&there, "").with_key(None);
    let answer = api.get("/pay/ord_1?lang=zh").await.expect(308);
    assert_eq!(answer.header("location"), Some("https://pay.example.test/pay/ord_1?lang=zh"));
    assert_eq!(answer.header("strict-transport-security"), None, "it means nothing in the open");
    // Two slashes are no other host.
    assert_eq!(api.get("//evil.example/x").await.expect(308).header("location"), Some("https://pay.example.test//evil.example/x"));
    api.with_key(Some("tg_test_x")).get("/api/v1/orders").await.problem(403, "https_required");
    api.post("/api/v1/orders", &Value::Null).await.problem(403, "https_required");
    gateway.terminate().await;
}

#[tokio::test]
async fn without_a_certificate_a_hang_up_ends_nothing() {
    let home = Home::new(&Settings::new("http://127.0.0.1:9", [1; 20]));
    let mut gateway = home.serve().await;
    hang_up(&gateway);
    says(&mut gateway, "there is no certificate to read again").await;
    gateway.api("").with_key(None).get("/health/live").await.expect(200);
    gateway.terminate().await;
}
