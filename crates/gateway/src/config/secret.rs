//! Texts that must not be seen: they have no `Display`, and their `Debug` says nothing of them.

use std::fmt;

use url::Url;
use zeroize::Zeroizing;

/// A secret as it was configured. Nothing prints it; [`SecretText::expose`] hands it out; it is wiped
/// when it is dropped.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// An address with a provider's key in its path or query, or a password before its host.
///
/// `Display` and `Debug` name the scheme, the host and the port, and nothing else.
#[derive(Clone)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// Keeps an address from being shown.
    #[must_use]
    pub const fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole address, for the one place that needs it.
    #[must_use]
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_what_is_printed() {
        let url = SecretUrl::new("https://user:hunter2@node.example:8443/v3/0123456789?key=abcdef#x".parse().unwrap());
        assert_eq!(format!("{url} {url:?}"), "https://node.example:8443 https://node.example:8443");
        assert_eq!(url.expose().path(), "/v3/0123456789");
        let text = SecretText::new("hunter2");
        assert_eq!(format!("{text:?}"), "SecretText(..)");
        assert_eq!(text.expose(), "hunter2");
    }
}
