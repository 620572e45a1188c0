//! `tidegate check`: does everything work that `serve` will need?

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tidegate_rules::order::Depth;

use super::args::ConfigArgs;
use super::quiet_gateway;
use super::terminal::say;
use super::wallet::{show_readings, walk};
use crate::cache::{Cache, RedisHealth};
use crate::clock;
use crate::config::{Config, TlsFiles};
use crate::gateway::NetworkPart;
use crate::start::{self, Sorry};
use crate::store::Migrate;
use crate::tls::{Certificates, Standing};

/// Compares what every wallet should hold by the records with what the chain says. Exit 1 where they
/// differ, and where they could not be compared.
pub(super) async fn books(config: &ConfigArgs, json: bool) -> Result<ExitCode, Sorry> {
    let gateway = quiet_gateway(config).await?;
    let parts: Vec<Arc<NetworkPart>> = gateway.networks().values().cloned().collect();
    let (synced, differing) = walk(&gateway, &parts).await?;
    show_readings(&gateway, synced, &differing, json);
    gateway.store.clone().close().await;
    Ok(if differing.is_empty() && synced.unknown == 0 && synced.silent == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line of what `check` found.
struct Finding {
    what: String,
    ok: bool,
    detail: String,
}

/// Whether browsers take the certificate now.
fn certificate(files: &TlsFiles, config: &Config) -> Result<String, String> {
    let certificates = Certificates::open(files).map_err(|error| error.to_string())?;
    let (now, validity, name) = (clock::now(), certificates.validity(), files.cert.display());
    if let Some(host) = config.server.public_url.as_ref().and_then(|url| url.host_str()).filter(|host| !certificates.is_for(host)) {
        return Err(format!("{name} is not for {host}, the host of PUBLIC_URL: get one that is"));
    }
    let said = format!("{name} {}", validity.show(now));
    match validity.standing(now) {
        Standing::Good | Standing::EndsSoon => Ok(said),
        Standing::Ended | Standing::NotYet => Err(said),
    }
}

/// Opens everything and says what works.
pub(super) async fn run(config: Config, as_json: bool) -> Result<ExitCode, Sorry> {
    let mut findings = Vec::new();
    let mut find = |what: String, outcome: Result<String, String>| {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        findings.push(Finding { what, ok, detail });
    };
    find("listener".into(), config.refuse_insecure().map(|()| config.server.listen.to_string()).map_err(|error| error.to_string()));
    if let Some(files) = &config.server.tls {
        find("certificate".into(), certificate(files, &config));
    }
    find(
        "networks".into(),
        config.require_networks().map(|()| format!("{} configured", config.networks.len())).map_err(|error| error.to_string()),
    );
    match start::open_store(&config, Migrate::No).await {
        Ok(store) => {
            find("database".into(), store.ping().await.map(|()| config.database.url.to_string()).map_err(|error| error.to_string()));
            find("master key".into(), start::check_key(&config, &store).await.map(str::to_owned).map_err(|error| error.to_string()));
            store.close().await;
        }
        Err(error) => find("database".into(), Err(error.to_string())),
    }
    if let Some(url) = &config.redis_url {
        let health = Cache::new(Some(url), "check").redis().await;
        let outcome = match health {
            RedisHealth::Healthy => Ok(format!("{url} answers and takes what is written")),
            RedisHealth::Degraded(reason) => Err(format!("{url} {reason}")),
            RedisHealth::Unused => Err("is not used".to_owned()),
        };
        find("redis".into(), outcome);
    }
    let chains = start::chains(&config)?;
    for network in &config.networks {
        let Some(chain) = chains.get(&network.name) else { continue };
        let outcome = match chain.identity().await {
            Err(error) => Err(error.to_string()),
            Ok(found) => match start::mismatch(network, &found) {
                Some(wrong) => Err(wrong),
                None => match chain.head().await {
                    Err(error) => Err(error.to_string()),
                    Ok(head) => {
                        let now = clock::now();
                        let (age, ahead) = (now.since(head.time).secs(), head.time.since(now).secs());
                        let place = format!(
                            "chain {}, token {} ({} decimals), block {}",
                            found.chain_id, found.symbol, found.decimals, head.number
                        );
                        if now.since(head.time) > network.max_lag {
                            Err(format!("{place}, which is {age} s old: expected at most max_lag, {} s", network.max_lag.secs()))
                        } else if ahead > 15 {
                            Err(format!("{place}, which is {ahead} s ahead of this machine's clock: set the clock"))
                        } else if network.deepest() == Depth::Final && chain.final_head().await.map_or(true, |head| head.is_none()) {
                            Err(format!(
                                "{place}, but no endpoint shows the chain's final block, and `confirmations` asks for it: nothing would settle; use another endpoint, or a number of confirmations"
                            ))
                        } else {
                            Ok(format!("{place}, {age} s old"))
                        }
                    }
                },
            },
        };
        find(format!("network {}", network.name), outcome);
    }
    let ok = findings.iter().all(|finding| finding.ok);
    if as_json {
        let rows: Vec<_> =
            findings.iter().map(|finding| json!({ "check": finding.what, "ok": finding.ok, "detail": finding.detail })).collect();
        say(&json!({ "ok": ok, "data": rows }).to_string());
    } else {
        for finding in &findings {
            say(&format!("{:<4} {:<20} {}", if finding.ok { "ok" } else { "BAD" }, finding.what, finding.detail));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
