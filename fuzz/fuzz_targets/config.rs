//! The configuration: the first line of an input is an environment variable (`NAME=value`), the rest a
//! file. And again with secrets in the places for them, which no error and no `Debug` may show.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tidegate::config::{Config, ConfigError, DatabaseUrl, Overrides, Sources};
use tidegate_fuzz::two;

/// Long enough that no input finds it by chance.
const SECRET: &str = "Zq7hT2vLx9Wd4KsB";

fn load(variable: (&str, &str), file: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| (name == variable.0).then(|| variable.1.to_owned()).filter(|value| !value.is_empty());
    Config::load(Sources { flags: Overrides::default(), env: &env, file: Some((Path::new("tidegate.toml"), file)) })
}

fuzz_target!(|text: &str| {
    let Some((line, file)) = two(text.as_bytes()) else { return };
    let (Ok(line), Ok(file)) = (str::from_utf8(line), str::from_utf8(file)) else { return };
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    match load((name, value), file) {
        Ok(config) => check(&config),
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(error.problems().iter().all(|problem| !problem.is_empty()));
        }
    }
    secrets(name, value);
    span(value);
});

fn check(config: &Config) {
    for network in &config.networks {
        assert!(!network.name.as_str().is_empty());
        assert!(network.shallowest() <= network.deepest(), "more money waits for less");
    }
    let printed = config.database.url.expose();
    let again = load(("DATABASE_URL", &printed), "").map(|config| config.database.url.expose());
    match &config.database.url {
        DatabaseUrl::Postgres(url) => {
            assert!(url.expose().as_str().starts_with("postgres://"), "no address of a server: {printed}");
            assert_eq!(again, Ok(printed));
        }
        // A path is taken as it is written; a URL has some of it escaped.
        DatabaseUrl::Sqlite(path) => {
            assert!(path.to_str().is_some_and(|path| !path.is_empty() && !path.contains('\0')), "no path of a file: {path:?}");
            if !printed.contains('%') {
                assert_eq!(again, Ok(printed));
            }
        }
    }
}

/// The value is put around a secret where one may stand.
fn secrets(name: &str, around: &str) {
    let around: String = around.chars().filter(|c| !c.is_control()).take(80).collect();
    let (before, after) = around.split_at(around.char_indices().nth(around.chars().count() / 2).map_or(0, |(at, _)| at));
    let quoted = |text: &str| format!("'{}'", text.replace('\'', ""));
    let urls = [
        format!("postgres://u:{before}{SECRET}{after}@h/db"),
        format!("http://h/{before}{SECRET}{after}"),
        format!("https://u:{SECRET}{around}"),
        format!("{before}://{SECRET}{after}"),
        format!("wss://{before}{SECRET}{after}"),
        format!("{SECRET}https://{around}"),
    ];
    // The path of a file is shown; there is no password in it.
    for url in urls.iter().filter(|url| !url.trim_start().to_ascii_lowercase().starts_with("sqlite")) {
        let url = quoted(url);
        // What stands before the first :// is a scheme, and what follows is the host, which is shown; so is
        // what follows an @ that nobody escaped.
        let is_host = url.contains(&format!("://{SECRET}")) || before.contains('@');
        let file = format!(
            "[database]\nurl = {url}\n[server]\npublic_url = {url}\n[networks.ethereum]\nrpc = [{url}]\n\
             webhook_secret = {url}\n[payment_webhooks.a]\nform = 'stripe'\nsecret = {url}\n[payment_webhooks.b]\nform = 'standard'\n\
             secret = {url}\n[networks.tron]\nrpc = [{{ url = 'https://n.example', headers = {{ X = {url} }} }}]\n"
        );
        for name in ["", "DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "ETHEREUM_RPC_URL", "INFURA_PROJECT_ID", "TRONGRID_API_KEY", name] {
            // What is asked to be said in the log, or where to listen, is no secret.
            if name.starts_with("LOG_") || name.ends_with("_ADDR") || name.ends_with("_ENABLED") {
                continue;
            }
            for file in [file.as_str(), ""] {
                let shown = match load((name, &url[1..url.len() - 1]), file) {
                    Ok(_) if is_host => continue,
                    Ok(config) => format!("{config:?} {} {:?}", config.database.url, config.warnings),
                    Err(error) => format!("{error} {error:?}"),
                };
                assert!(!shown.to_ascii_lowercase().contains(&SECRET.to_ascii_lowercase()), "{name}: {shown}");
            }
        }
    }
}

/// A length of time is a whole number and a unit, and nothing else.
fn span(text: &str) {
    let text: String = text.chars().filter(|c| !c.is_control() && *c != '\'').collect();
    let read = load(("", ""), &format!("[orders]\nexpires_in = '{text}'\n")).ok().map(|config| config.orders.expires_in.millis());
    let units: [(&str, u128); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let value = units.iter().find_map(|(unit, millis)| {
        let digits = text.strip_suffix(unit).filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u128>().ok()?.checked_mul(*millis)
    });
    if let Some(read) = read {
        assert_eq!(value, Some(u128::from(read)), "{text}");
    }
}
