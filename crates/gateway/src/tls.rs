//! The certificate that payers and shops see when the gateway ends TLS itself: read from two files,
//! checked before it is used, and read again when they change.
//!
//! A new pair that is not good never takes the place of a good one. Nothing here makes or renews a
//! certificate, and no byte of the key is in an error, in the log or in `Debug`.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest as _, Sha256};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::changes::Changes;
use tidegate_rules::time::{Span, Time};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::Instant;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use crate::clock;
use crate::config::TlsFiles;
use crate::gateway::Gateway;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether the certificate ends soon.
const EXPIRY_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// How long before its end a certificate is warned of. Renewal is due well before that.
pub const WARN_BEFORE: Span = Span::from_secs(14 * 86_400);

/// A chain of certificates is some KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What others may do with a file.
const MODE_OTHERS: u32 = 0o007;

/// Why a certificate is not used, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(String);

/// The time in which a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub begins: Time,
    /// Until then.
    pub ends: Time,
}

/// How a certificate does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is good, and will be for longer than [`WARN_BEFORE`].
    Good,
    /// It is good for no longer than that.
    EndsSoon,
    /// Browsers refuse it.
    Ended,
    /// Browsers refuse it still.
    NotYet,
}

impl Validity {
    /// How the certificate does at that time.
    #[must_use]
    pub fn standing(self, now: Time) -> Standing {
        if now < self.begins {
            Standing::NotYet
        } else if now >= self.ends {
            Standing::Ended
        } else if now.plus(WARN_BEFORE) >= self.ends {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// The same in words.
    #[must_use]
    pub fn show(self, now: Time) -> String {
        let Self { begins, ends } = self;
        let days = ends.since(now).secs().checked_div(86_400).unwrap_or_default();
        match self.standing(now) {
            Standing::Good => format!("is good until {ends}, {days} days from now"),
            Standing::EndsSoon => format!("ends at {ends}, {days} days from now: renew it"),
            Standing::Ended => format!("ended at {ends}, and browsers refuse it: renew it"),
            Standing::NotYet => format!("is not good before {begins}, and browsers refuse it: set the clock, or use the one before it"),
        }
    }
}

/// A pair that was read and found good.
struct Pair {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    validity: Validity,
    /// Of both files, to see whether they changed.
    digest: [u8; 32],
}

/// The certificate in use.
pub struct Certificates {
    files: TlsFiles,
    pair: RwLock<Pair>,
}

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// The pair that is in use.
    Same,
    /// A new pair, which is in use now.
    Renewed(Validity),
    /// A pair that is not good; the one before it stays in use.
    Refused(CertificateError),
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the pair for the first time.
    ///
    /// # Errors
    /// For a file that is missing, too large, not PEM or (the key) readable by others, and for a key
    /// that is not the certificate's. A certificate that has ended is no error: payments go on.
    pub fn open(files: &TlsFiles) -> Result<Self, CertificateError> {
        Ok(Self { files: files.clone(), pair: RwLock::new(read(files)?) })
    }

    /// What a handshake that begins now goes by.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// When the certificate in use is good.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.pair.read().unwrap_or_else(PoisonError::into_inner).validity
    }

    /// Whether the certificate in use is for that host.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let pair = self.pair.read().unwrap_or_else(PoisonError::into_inner);
        // A URL has an IPv6 address in brackets, a certificate has not.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (Ok(name), Ok(leaf)) = (ServerName::try_from(host), ParsedCertificate::try_from(&pair.leaf)) else { return false };
        rustls::client::verify_server_name(&leaf, &name).is_ok()
    }

    /// Reads the files once more, and uses what is in them if it is new and good.
    pub fn look(&self) -> Look {
        match read(&self.files) {
            Err(error) => Look::Refused(error),
            Ok(new) => {
                let mut pair = self.pair.write().unwrap_or_else(PoisonError::into_inner);
                if new.digest == pair.digest {
                    return Look::Same;
                }
                let validity = new.validity;
                *pair = new;
                Look::Renewed(validity)
            }
        }
    }
}

fn read(files: &TlsFiles) -> Result<Pair, CertificateError> {
    let TlsFiles { cert, key } = files;
    let cert_pem = read_file(cert, "tls_cert")?;
    refuse_open_key(key)?;
    let key_pem = read_file(key, "tls_key")?;
    let mut digest = Sha256::new();
    digest.update(u64::try_from(cert_pem.len()).unwrap_or(u64::MAX).to_be_bytes());
    digest.update(&cert_pem);
    digest.update(&key_pem);

    let sorry = |name: &str, path: &Path, rest: &str| CertificateError(format!("{name} {}: expected {rest}", path.display()));
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&cert_pem).collect();
    let chain = chain.map_err(|_| sorry("tls_cert", cert, "certificates in PEM, found something that does not read"))?;
    let leaf = chain.first().cloned();
    let leaf = leaf.ok_or_else(|| sorry("tls_cert", cert, "a certificate in PEM (-----BEGIN CERTIFICATE-----), found none"))?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| sorry("tls_key", key, "a private key in PEM without a password (-----BEGIN PRIVATE KEY-----), found none"))?;
    let validity = validity(&leaf).ok_or_else(|| sorry("tls_cert", cert, "an X.509 certificate, found something that does not read"))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // TLS 1.2 and 1.3, and of 1.2 only suites with forward secrecy: rustls knows no others.
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CertificateError(error.to_string()))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError(format!(
            "tls_key {}: expected the private key of the certificate in {}, found another one",
            key.display(),
            cert.display()
        )),
        error => CertificateError(format!("tls_cert {} and tls_key {}: {error}", cert.display(), key.display())),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Pair { config: Arc::new(config), leaf, validity, digest: digest.finalize().into() })
}

fn read_file(path: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let outcome = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    let sorry = |found: &str| CertificateError(format!("{name} {}: expected a readable file in PEM, found {found}", path.display()));
    match outcome {
        Ok(length) if u64::try_from(length).is_ok_and(|length| length < FILE_BYTES_MAX) => Ok(bytes),
        Ok(_) => Err(sorry("one of 256 KiB or more")),
        Err(error) => Err(sorry(&format!("none: {error}"))),
    }
}

/// A key that everybody on the machine can read is everybody's.
fn refuse_open_key(path: &Path) -> Result<(), CertificateError> {
    // What cannot be looked at cannot be read either, which is said with the reason.
    let Ok(about) = std::fs::metadata(path) else { return Ok(()) };
    let mode = about.permissions().mode();
    if mode & MODE_OTHERS == 0 {
        return Ok(());
    }
    Err(CertificateError(format!(
        "tls_key {}: expected a file that others cannot read, found mode {:04o}; run `chmod o-rwx` on it",
        path.display(),
        mode & 0o7777
    )))
}

fn validity(leaf: &CertificateDer<'_>) -> Option<Validity> {
    let certificate = x509_cert::Certificate::from_der(leaf).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let time = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).ok().map(Time::from_secs);
    Some(Validity { begins: time(validity.not_before)?, ends: time(validity.not_after)? })
}

/// Uses a new pair when the files change or `hang_up` says so, and warns while the one in use ends
/// soon, until `stop` says so.
pub async fn keep(gateway: Arc<Gateway>, certificates: Arc<Certificates>, mut hang_up: Signal, mut stop: watch::Receiver<bool>) {
    let mut refused: Option<CertificateError> = None;
    let mut expiry_due = Instant::now();
    loop {
        if Instant::now() >= expiry_due {
            warn_of_end(&gateway, certificates.validity()).await;
            expiry_due = Instant::now().checked_add(EXPIRY_EVERY).unwrap_or(expiry_due);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            // Whoever asks is answered, even if it was said before.
            _ = hang_up.recv() => refused = None,
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let looking = Arc::clone(&certificates);
        match tokio::task::spawn_blocking(move || looking.look()).await {
            Ok(Look::Same) => refused = None,
            Ok(Look::Renewed(validity)) => {
                refused = None;
                expiry_due = Instant::now();
                tracing::info!("a new certificate is in use, which {}", validity.show(clock::now()));
            }
            Ok(Look::Refused(error)) => {
                if refused.as_ref() != Some(&error) {
                    tracing::warn!("the new certificate is not used, the one before it stays: {error}");
                }
                refused = Some(error);
            }
            Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
        }
    }
}

/// An alert while the certificate ends soon or is not good, once a day at most.
async fn warn_of_end(gateway: &Gateway, validity: Validity) {
    let now = clock::now();
    if validity.standing(now) == Standing::Good {
        return;
    }
    let alert = Gateway::alert(AlertKind::CertificateEnding, "certificate", format!("the certificate {}", validity.show(now)), now);
    if let Err(error) = gateway.store.commit(Changes { alerts: vec![alert], ..Changes::default() }).await {
        tracing::error!(%error, "the alert could not be stored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_two_weeks_before_its_end() {
        let day = |day: i64| Time::from_secs(day * 86_400);
        let validity = Validity { begins: day(10), ends: day(100) };
        let table = [
            (day(9), Standing::NotYet),
            (day(10), Standing::Good),
            (day(86).minus(Span::from_secs(1)), Standing::Good),
            (day(86), Standing::EndsSoon),
            (day(100).minus(Span::from_secs(1)), Standing::EndsSoon),
            (day(100), Standing::Ended),
        ];
        for (now, expected) in table {
            assert_eq!(validity.standing(now), expected, "{now}");
        }
        assert!(validity.show(day(90)).starts_with("ends at 1970-04-11T00:00:00"), "{}", validity.show(day(90)));
        assert!(validity.show(day(90)).ends_with("10 days from now: renew it"), "{}", validity.show(day(90)));
    }
}
