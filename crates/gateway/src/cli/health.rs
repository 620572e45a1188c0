//! `tidegate health`: asks a running gateway how it does, for whoever watches it and has no HTTP
//! client at hand, such as the health check of a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use url::Url;

use super::args::ConfigArgs;
use super::terminal::{complain, say};
use crate::config::{Config, Overrides, Server};
use crate::start::Sorry;

/// How long the answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Asks, and says what was answered. Exit 1 for any answer but 200, and for none.
pub(super) async fn run(config: &ConfigArgs, url: Option<Url>, path: &str) -> Result<ExitCode, Sorry> {
    let (url, trust) = match url {
        Some(url) => (url, Trust::System),
        // Not logged: what the configuration is warned of was said at the start.
        None => (own(&Config::from_process(Overrides::default(), config.config.as_deref())?.server, path)?, Trust::ThisMachine),
    };
    match ask(url.clone(), trust).await {
        Ok(status) if status == 200 => {
            say(&format!("{url} answers {status}"));
            Ok(ExitCode::SUCCESS)
        }
        Ok(status) => {
            complain(&format!("{url} answers {status}, expected 200; /health/blockchain says more"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            complain(&format!("{url} does not answer within {} s: {error}", ANSWER_MAX.as_secs()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Whose certificate is good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// One that the system trusts, for the name in the URL.
    System,
    /// Any: the listener of this machine is asked by its address, which no certificate is for, and
    /// nothing is sent that anybody may not read.
    ThisMachine,
}

/// The listener of the configuration, from this machine.
fn own(server: &Server, path: &str) -> Result<Url, Sorry> {
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let ip = match server.listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let url = format!("{scheme}://{}{path}", SocketAddr::new(ip, server.listen.port()));
    Url::parse(&url).map_err(|error| Sorry(format!("{url}: {error}")))
}

#[allow(clippy::disallowed_methods, reason = "it has a time-out of its own, and is used once")]
async fn ask(url: Url, trust: Trust) -> Result<u16, reqwest::Error> {
    // The process has one TLS provider; whoever is first sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(trust == Trust::ThisMachine)
        .build()?;
    Ok(client.get(url).send().await.map_err(reqwest::Error::without_url)?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_own_listener_is_asked_from_this_machine() {
        let table = "
            127.0.0.1:8001 -   http://127.0.0.1:8001/p
            0.0.0.0:443    tls https://127.0.0.1/p
            [::]:8443      tls https://[::1]:8443/p
            192.0.2.7:80   -   http://192.0.2.7/p";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [listen, tls, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let env = |name: &str| match name {
                "LISTEN_ADDR" => Some(listen.to_owned()),
                "TLS_CERT_FILE" | "TLS_KEY_FILE" if tls == "tls" => Some("/x.pem".to_owned()),
                _ => None,
            };
            let config = Config::load(Sources { flags: Overrides::default(), env: &env, file: None }).unwrap();
            assert_eq!(own(&config.server, "/p").unwrap().as_str(), expected);
        }
    }
}
