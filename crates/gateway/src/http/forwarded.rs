//! Where a request came from: the other end of its connection, or what a proxy that is trusted says
//! of it. Only the header that the configuration names is read, and of it only what trusted proxies
//! wrote: the rest is the client's own invention.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::{ProxyHeader, Server};

/// How a request was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// In the open.
    Http,
    /// Over TLS.
    Https,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// How it speaks.
    pub carried: Carried,
}

/// The address that a request came from: the peer, or where it is a proxy that is trusted, the last
/// address in its header that is none. What does not read is nobody's word: the way is followed no
/// further.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, server: &Server) -> IpAddr {
    let is_trusted = |address: IpAddr| server.trusted_proxies.iter().any(|range| range.contains(address));
    let mut last = peer;
    if !is_trusted(peer) {
        return peer;
    }
    let hops: Vec<Option<IpAddr>> = match server.proxy_header {
        ProxyHeader::XForwarded => list(headers, "x-forwarded-for").map(node).collect(),
        ProxyHeader::Forwarded => list(headers, "forwarded").map(|hop| node(parameter(hop, "for")?)).collect(),
    };
    for hop in hops.into_iter().rev() {
        let Some(hop) = hop else { return last };
        last = hop;
        if !is_trusted(hop) {
            return hop;
        }
    }
    // Every hop is a proxy of ours: then the request is of the first of them.
    last
}

/// How the client's own connection was carried: as this one, or as a proxy that is trusted says. One
/// that says nothing is taken to be at `public_url`.
pub fn carried(peer: Peer, headers: &HeaderMap, server: &Server) -> Carried {
    if peer.carried == Carried::Https || !server.trusted_proxies.iter().any(|range| range.contains(peer.address)) {
        return peer.carried;
    }
    let said = match server.proxy_header {
        ProxyHeader::XForwarded => list(headers, "x-forwarded-proto").last(),
        ProxyHeader::Forwarded => list(headers, "forwarded").last().and_then(|hop| parameter(hop, "proto")),
    };
    let is_https = said.map_or_else(|| server.is_https(), |said| said.eq_ignore_ascii_case("https"));
    if is_https { Carried::Https } else { Carried::Http }
}

/// The entries of a list that may be in several headers.
fn list<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    // Entry by entry: one that is no text must not take those behind it along.
    let entries = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    entries.map(|entry| std::str::from_utf8(entry).unwrap_or_default().trim())
}

/// A parameter of a hop: `for=192.0.2.60;proto=http`. Neither addresses nor schemes have commas or
/// semicolons, in quotes or without.
fn parameter<'a>(hop: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = hop.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim_matches('"'))
}

/// An address, with or without brackets and a port.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok();
    bare().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides, Sources};

    fn server(more: &str) -> Server {
        let text = format!("[server]\ntrusted_proxies = ['10.0.0.0/8', 'fd00::/8']\n{more}");
        let sources = Sources { flags: Overrides::default(), env: &|_| None, file: Some((std::path::Path::new("t"), &text)) };
        Config::load(sources).unwrap().server
    }

    /// Each line: the peer, the header's values (one header for each `/`), and whose request it is.
    #[track_caller]
    fn addresses(server: &Server, header: &'static str, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [peer, said, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{line}") };
            let mut headers = HeaderMap::new();
            for value in said.split(" / ").filter(|value| !value.is_empty()) {
                headers.append(header, axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(client_address(peer.parse().unwrap(), &headers, server).to_string(), expected, "{line}");
        }
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        addresses(
            &server(""),
            "x-forwarded-for",
            "
            203.0.113.9 | 198.51.100.1                         | 203.0.113.9
            10.0.0.1    |                                      | 10.0.0.1
            10.0.0.1    | 198.51.100.1                         | 198.51.100.1
            10.0.0.1    | 192.0.2.66, 198.51.100.1             | 198.51.100.1
            10.0.0.1    | 192.0.2.66, 198.51.100.1, 10.9.9.9   | 198.51.100.1
            10.0.0.1    | 192.0.2.66 / 198.51.100.1 / 10.9.9.9 | 198.51.100.1
            10.0.0.1    | 198.51.100.1:4711                    | 198.51.100.1
            fd00::1     | 2001:db8::7                          | 2001:db8::7
            fd00::1     | [2001:db8::7]:4711                   | 2001:db8::7
            10.0.0.1    | 192.0.2.66, é, 198.51.100.1          | 198.51.100.1
            10.0.0.1    | nonsense                             | 10.0.0.1
            10.0.0.1    | 192.0.2.66, nonsense                 | 10.0.0.1
            10.0.0.1    | 192.0.2.66, unknown, 10.9.9.9        | 10.9.9.9
            10.0.0.1    | 10.1.1.1, 10.9.9.9                   | 10.1.1.1",
        );
    }

    #[test]
    fn the_header_of_rfc_7239_is_read_where_the_configuration_says_so() {
        let server = server("proxy_header = 'forwarded'");
        addresses(
            &server,
            "forwarded",
            "
            203.0.113.9 | for=198.51.100.1                                | 203.0.113.9
            10.0.0.1    | for=198.51.100.1                                | 198.51.100.1
            10.0.0.1    | For=\"198.51.100.1:4711\";proto=https;by=10.0.0.1 | 198.51.100.1
            10.0.0.1    | for=\"[2001:db8::7]:4711\"                        | 2001:db8::7
            10.0.0.1    | for=192.0.2.66, proto=https;for=198.51.100.1    | 198.51.100.1
            10.0.0.1    | for=192.0.2.66, for=198.51.100.1, for=10.9.9.9  | 198.51.100.1
            10.0.0.1    | for=192.0.2.66, for=_hidden                     | 10.0.0.1
            10.0.0.1    | for=192.0.2.66, proto=https                     | 10.0.0.1",
        );
        // The other header may be whatever the client wrote.
        addresses(&server, "x-forwarded-for", "10.0.0.1 | 198.51.100.1 | 10.0.0.1");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_wrote_changes_what_the_proxy_adds(said in "[ -~]{0,40}") {
            let of = |header: &'static str, value: String, more: &str| {
                let headers = HeaderMap::from_iter([(axum::http::HeaderName::from_static(header), value.parse().unwrap())]);
                client_address("10.0.0.1".parse().unwrap(), &headers, &server(more)).to_string()
            };
            proptest::prop_assert_eq!(of("x-forwarded-for", format!("{said},198.51.100.1"), ""), "198.51.100.1");
            let more = "proxy_header = 'forwarded'";
            proptest::prop_assert_eq!(of("forwarded", format!("{said}, for=198.51.100.1;proto=https"), more), "198.51.100.1");
        }
    }

    #[test]
    fn how_the_clients_own_connection_was_carried() {
        // The peer, how it speaks, public_url, what it says, and what is believed.
        let table = "
            203.0.113.9 http  https://x.example -           http
            203.0.113.9 http  https://x.example https       http
            203.0.113.9 https https://x.example http        https
            10.0.0.1    http  https://x.example -           https
            10.0.0.1    http  https://x.example https       https
            10.0.0.1    http  https://x.example http        http
            10.0.0.1    http  https://x.example https,http  http
            10.0.0.1    http  http://x.example  -           http
            10.0.0.1    http  http://x.example  https       https";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [peer, speaks, url, said, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let of = |scheme| if scheme == "https" { Carried::Https } else { Carried::Http };
            let peer = Peer { address: peer.parse().unwrap(), carried: of(speaks) };
            for (more, header, value) in [
                ("", "x-forwarded-proto", said.to_owned()),
                ("proxy_header = 'forwarded'", "forwarded", format!("proto={}", said.replace(',', ", proto="))),
            ] {
                let mut headers = HeaderMap::new();
                if said != "-" {
                    headers.insert(header, value.parse().unwrap());
                }
                let server = server(&format!("public_url = '{url}'\n{more}"));
                assert_eq!(carried(peer, &headers, &server), of(expected), "{line}, {header}");
            }
        }
    }
}
