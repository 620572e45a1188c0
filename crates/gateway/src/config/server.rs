//! `[server]`: where the gateway listens, with which certificate, and what is in front of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_rules::time::Span;
use url::Url;

use super::file::{Problems, Section};
use super::values::{self, IpRange};
use super::{Env, SLOW, said};

/// Where the gateway listens, and what is in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The origin that payers and shops see; its path is `/`.
    pub public_url: Option<Url>,
    /// The certificate that is shown to them; without one the listener speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// A plain listener that sends browsers to the https address.
    pub redirect_listen: Option<SocketAddr>,
    /// Who may say, in a header, where a request came from.
    pub trusted_proxies: Vec<IpRange>,
    /// From when on a request is a slow one, which is a warning in the log.
    pub slow_request: Span,
    /// In which header they say it.
    pub proxy_header: ProxyHeader,
}

/// A certificate and its private key, each a file in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of this host, followed by those between it and a root.
    pub cert: PathBuf,
    /// The key that belongs to the first of them.
    pub key: PathBuf,
}

/// The header in which a proxy says where a request came from. There is one, because a proxy passes
/// on the other as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Server {
    /// The address that payers and shops see, without a slash at its end: `https://pay.example.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.public_url.as_ref().map_or_else(|| format!("{scheme}://{}", self.listen), |url| url.origin().ascii_serialization())
    }

    /// Whether browsers reach the gateway over https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.public_url.as_ref().map_or(self.tls.is_some(), |url| url.scheme() == "https")
    }

    /// Whether other machines can reach the listener.
    pub(super) fn is_public(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }
}

/// Reads the section, and says what in it does not go together.
pub(super) fn server(
    section: &mut Section<'_>,
    flags: (Option<String>, Option<String>),
    env: &Env<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Server {
    let (listen, public_url) = flags;
    let listen = said("--listen", listen).or_else(|| env.get("LISTEN_ADDR")).read(&values::SOCKET, ("listen", section), problems);
    let public_url =
        said("--public-url", public_url).or_else(|| env.get("PUBLIC_URL")).read(&values::PUBLIC_URL, ("public_url", section), problems);
    let cert = env.get("TLS_CERT_FILE").read(&values::PATH, ("tls_cert", section), problems);
    let key = env.get("TLS_KEY_FILE").read(&values::PATH, ("tls_key", section), problems);
    let redirect_listen = env.get("REDIRECT_LISTEN_ADDR").read(&values::SOCKET, ("redirect_listen", section), problems);
    let one_missing = match (&cert, &key) {
        (Some(_), None) => Some("expected `tls_key` (or TLS_KEY_FILE) too, the private key of the certificate, found only `tls_cert`"),
        (None, Some(_)) => Some("expected `tls_cert` (or TLS_CERT_FILE) too, the certificate of the key, found only `tls_key`"),
        (Some(_), Some(_)) | (None, None) => None,
    };
    if let Some(problem) = one_missing {
        problems.add(&section.place, problem);
    }
    let server = Server {
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8001))),
        public_url,
        tls: cert.zip(key).map(|(cert, key)| TlsFiles { cert, key }),
        redirect_listen,
        trusted_proxies: trusted_proxies(section, env, problems),
        slow_request: section.span("slow_request", Span::from_secs(2), SLOW, problems),
        proxy_header: section.text("proxy_header", &values::PROXY_HEADER, problems).unwrap_or(ProxyHeader::XForwarded),
    };
    if server.tls.is_some() && !server.is_https() {
        problems.add(
            &section.place,
            "expected `public_url` (or PUBLIC_URL) to be an https address, as there is a certificate, found an http one; \
             write https:// or take out `tls_cert` and `tls_key`",
        );
    }
    if server.redirect_listen.is_some() && server.tls.is_none() && one_missing.is_none() {
        problems.add(
            &section.place,
            "expected `tls_cert` and `tls_key` beside `redirect_listen`, found none: there is nowhere to send browsers to; \
             with a proxy that ends TLS, let the proxy do it",
        );
    }
    if server.tls.is_some() && server.public_url.is_none() && server.is_public() {
        warnings.push(format!(
            "PUBLIC_URL is not set, so links to the checkout begin with {}; set it to the https address that the certificate is for",
            server.origin()
        ));
    }
    server
}

fn trusted_proxies(section: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Vec<IpRange> {
    let field = section.field("trusted_proxies");
    if let Some(said) = env.get("TRUSTED_PROXIES").0 {
        let entries = said.text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        return entries.filter_map(|entry| problems.keep(&said.place, values::IP_RANGE.read(entry))).collect();
    }
    let Some(field) = field else { return Vec::new() };
    let place = field.place.clone();
    let list = problems.keep(&place, field.into_list("a list such as [\"127.0.0.1\", \"10.0.0.0/8\"]")).unwrap_or_default();
    list.iter().filter_map(|entry| problems.keep(&entry.place, entry.text(&values::IP_RANGE))).collect()
}
