//! An authority of the test's own, and the certificates it gives out: made by openssl, in a directory
//! that goes with the test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The host of [`crate::gateway::PUBLIC_URL`], which certificates are for unless a test says otherwise.
pub const HOST: &str = "pay.example.test";

/// Who signs certificates here.
pub struct Authority {
    dir: tempfile::TempDir,
}

/// A certificate and its key, in files of their own.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { dir: tempfile::Builder::new().prefix("tidegate-ca-").tempdir().unwrap() };
        let args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=authority";
        authority.openssl(&format!("{args} -keyout ca.key -out ca.pem"));
        authority
    }

    /// A certificate called `name` for [`HOST`] and 127.0.0.1, good for so many days.
    pub fn issue(&self, name: &str, days: i32) -> Issued {
        self.issue_for(name, HOST, days)
    }

    pub fn issue_for(&self, name: &str, host: &str, days: i32) -> Issued {
        let extensions = format!("subjectAltName=DNS:{host},IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n");
        std::fs::write(self.path("extensions"), extensions).unwrap();
        let args = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("{args} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        let args = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions";
        self.openssl(&format!("{args} -in {name}.csr -days {days} -out {name}.pem"));
        let issued = Issued { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        chmod(&issued.key, 0o600);
        issued
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()
    }

    /// A client that trusts this authority alone, and finds [`HOST`] at `address`.
    pub fn client(&self, address: std::net::SocketAddr) -> reqwest::ClientBuilder {
        drop(crate::api::http());
        let root = reqwest::Certificate::from_der(&self.root()).unwrap();
        reqwest::Client::builder()
            .timeout(std::time::Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_certs_only([root])
            .resolve(HOST, address)
    }

    /// Shakes hands, and gives the certificate that was shown.
    pub async fn shown_at(&self, address: std::net::SocketAddr) -> std::io::Result<CertificateDer<'static>> {
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(self.client_config()).connect(ServerName::try_from(HOST).unwrap(), stream).await?;
        let (_, session) = stream.get_ref();
        Ok(session.peer_certificates().unwrap()[0].clone().into_owned())
    }

    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

impl Issued {
    /// Puts this pair in the place of another, as those who renew do: each file at once.
    pub fn replace(&self, place: &Self) {
        for (from, to) in [(&self.key, &place.key), (&self.cert, &place.cert)] {
            let beside = to.with_extension("new");
            std::fs::copy(from, &beside).unwrap();
            chmod(&beside, 0o600);
            std::fs::rename(&beside, to).unwrap();
        }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
