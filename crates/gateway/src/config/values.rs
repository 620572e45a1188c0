//! From a text to a value: what each kind of setting looks like, and what is said when it does not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::notify;
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;
use url::Url;

use super::{DatabaseUrl, Kind, LogFormat, ProxyHeader, Reconcile, SecretText, SecretUrl};

/// What a setting's text may look like.
pub(super) struct Form<T> {
    /// Goes after "expected".
    pub(super) expected: &'static str,
    pub(super) echo: Echo,
    pub(super) parse: fn(&str) -> Result<T, Found>,
}

/// Whether a wrong text may be repeated to the reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    Quote,
    /// It may hold a secret.
    Hide,
}

/// What goes after "found".
#[derive(Debug)]
pub(super) enum Found {
    /// The text itself, as far as it may be repeated.
    Text,
    /// These words.
    Words(String),
}

fn words<T>(words: impl Into<String>) -> Result<T, Found> {
    Err(Found::Words(words.into()))
}

impl<T> Form<T> {
    /// The value, or "expected …, found …".
    pub(super) fn read(&self, text: &str) -> Result<T, String> {
        (self.parse)(text).map_err(|found| match (found, self.echo) {
            (Found::Words(words), _) => format!("expected {}, found {words}", self.expected),
            (Found::Text, Echo::Quote) => format!("expected {}, found the text {}", self.expected, quote(text)),
            (Found::Text, Echo::Hide) => format!("expected {}, found another text (not shown)", self.expected),
        })
    }
}

/// A text in quotes, cut short.
pub(super) fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let shown: String = text.chars().take(CHARS_MAX).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{cut}\"", shown.escape_debug())
}

/// The longest time that any setting takes: ten years.
const SPAN_MAX: Span = Span::from_secs(3_650 * 86_400);

pub(super) const SPAN: Form<Span> = Form {
    expected: "a length of time: a whole number and a unit (ms, s, m, h or d) such as \"30m\", at most \"3650d\"",
    echo: Echo::Quote,
    parse: |text| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(Found::Text)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(Found::Text),
        };
        let number: u64 = number.parse().map_err(|_| Found::Text)?;
        number.checked_mul(unit_ms).map(Span::from_millis).filter(|span| *span <= SPAN_MAX).ok_or(Found::Text)
    },
};

/// A span as it would be configured.
pub(super) fn show_span(span: Span) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let millis = span.millis();
    let whole = units.iter().find_map(|(unit, unit_ms)| match (millis.checked_rem(*unit_ms), millis.checked_div(*unit_ms)) {
        (Some(0), Some(count)) if count > 0 => Some(format!("{count}{unit}")),
        _ => None,
    });
    whole.unwrap_or_else(|| format!("{millis}ms"))
}

pub(super) const AMOUNT: Form<Amount> = Form {
    expected: "an amount in quotes such as \"12.5\", with at most 6 fraction digits and at most 9000000000000",
    echo: Echo::Quote,
    parse: |text| text.parse().map_err(|_| Found::Text),
};

pub(super) const KIND: Form<Kind> = Form {
    expected: "\"evm\" or \"tron\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "evm" => Ok(Kind::Evm),
        "tron" => Ok(Kind::Tron),
        _ => Err(Found::Text),
    },
};

pub(super) const WALLETS: Form<WalletKind> = Form {
    expected: "\"random\", \"hd\" or \"watch\"",
    echo: Echo::Quote,
    parse: |text| match WalletKind::from_name(text) {
        None | Some(WalletKind::Imported) => Err(Found::Text),
        Some(kind) => Ok(kind),
    },
};

pub(super) const RECONCILE: Form<Reconcile> = Form {
    expected: "\"settled\" or \"off\"",
    echo: Echo::Quote,
    parse: |text| match text {
        "settled" => Ok(Reconcile::Settled),
        "off" => Ok(Reconcile::Off),
        _ => Err(Found::Text),
    },
};

pub(super) const LOG_FORMAT: Form<LogFormat> = Form {
    expected: "\"json\" or \"pretty\"",
    echo: Echo::Quote,
    parse: |text| match text.to_ascii_lowercase().as_str() {
        "json" => Ok(LogFormat::Json),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err(Found::Text),
    },
};

pub(super) const LOG_LEVEL: Form<String> = Form {
    expected: "error, warn, info, debug or trace, also per target, such as \"info,hyper_util=warn\"",
    echo: Echo::Quote,
    parse: |text| {
        let directive = |part: &str| {
            let part = part.trim();
            let (target, level) = part.rsplit_once('=').map_or(("", part), |(target, level)| (target, level));
            let level = level.to_ascii_lowercase();
            let level = match level.as_str() {
                "warning" => "warn",
                "critical" | "fatal" => "error",
                "error" | "warn" | "info" | "debug" | "trace" | "off" => level.as_str(),
                _ => return Err(Found::Text),
            };
            Ok(if target.is_empty() { level.to_owned() } else { format!("{target}={level}") })
        };
        Ok(text.split(',').map(directive).collect::<Result<Vec<_>, _>>()?.join(","))
    },
};

pub(super) const FLAG: Form<bool> = Form {
    expected: "true or false",
    echo: Echo::Quote,
    parse: |text| match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Found::Text),
    },
};

pub(super) const SOCKET: Form<SocketAddr> = Form {
    expected: "an address and a port such as \"127.0.0.1:8001\" or \"[::1]:8001\"",
    echo: Echo::Quote,
    parse: |text| text.parse().map_err(|_| Found::Text),
};

/// A file of this machine.
pub(super) const PATH: Form<PathBuf> = Form {
    expected: "the name of a file",
    echo: Echo::Quote,
    parse: |text| if text.is_empty() { Err(Found::Text) } else { Ok(PathBuf::from(text)) },
};

pub(super) const PROXY_HEADER: Form<ProxyHeader> = Form {
    expected: "\"x-forwarded-for\" or \"forwarded\"",
    echo: Echo::Quote,
    parse: |text| match text.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => Ok(ProxyHeader::XForwarded),
        "forwarded" => Ok(ProxyHeader::Forwarded),
        _ => Err(Found::Text),
    },
};

/// The address that payers and shops see.
pub(super) const PUBLIC_URL: Form<Url> = Form {
    expected: "the address that payers see, such as \"https://pay.example.com\", without a path",
    echo: Echo::Hide,
    parse: |text| {
        let url = http_url(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return words("a user name or password in it");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return words("something after the host; serve Tidegate on a host name of its own");
        }
        Ok(url)
    },
};

/// An endpoint of a network.
pub(super) const RPC_URL: Form<SecretUrl> =
    Form { expected: "an http:// or https:// URL", echo: Echo::Hide, parse: |text| http_url(text).map(SecretUrl::new) };

pub(super) const REDIS_URL: Form<SecretUrl> = Form {
    expected: "a redis:// or rediss:// URL",
    echo: Echo::Hide,
    parse: |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") && is_torn(&url) => words(TORN),
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") && url.has_host() => Ok(SecretUrl::new(url)),
        _ => Err(found_scheme(text)),
    },
};

fn http_url(text: &str) -> Result<Url, Found> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) => Err(found_scheme(text)),
        Err(_) if text.starts_with("http://") || text.starts_with("https://") => words("a URL that cannot be read (not shown)"),
        Err(_) => Err(found_scheme(text)),
    }
}

/// What people try in the place of a URL that is expected.
const SCHEMES: [&str; 18] = [
    "file",
    "ftp",
    "http",
    "https",
    "ipc",
    "mariadb",
    "mongodb",
    "mssql",
    "mysql",
    "oracle",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "sqlite",
    "tcp",
    "ws",
    "wss",
];

/// A known scheme is no secret. What else stands before `://` may be one: where a comma is missing
/// between two URLs, or stands inside a key, it is the end of the key.
fn found_scheme(text: &str) -> Found {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme.map(|scheme| SCHEMES.iter().find(|known| known.eq_ignore_ascii_case(scheme))) {
        Some(Some(known)) => Found::Words(format!("one that starts with {known}://")),
        Some(None) => Found::Words("one of another scheme (not shown)".to_owned()),
        None => Found::Words("a text without a scheme (not shown)".to_owned()),
    }
}

pub(super) const DATABASE_URL: Form<DatabaseUrl> = Form {
    expected: "sqlite://PATH (sqlite://./name.db beside you, sqlite:///dir/name.db from the root) or \
               postgres://USER:PASSWORD@HOST/NAME",
    echo: Echo::Hide,
    parse: database_url,
};

pub(super) const REPLICA_URL: Form<SecretUrl> = Form {
    expected: "postgres://USER:PASSWORD@HOST/NAME of a read replica of the database",
    echo: Echo::Hide,
    parse: |text| match database_url(text)? {
        DatabaseUrl::Postgres(url) => Ok(url),
        DatabaseUrl::Sqlite(_) => words("the address of a SQLite file, which has no replicas"),
    },
};

/// Reads the addresses of `sqlx` and, with a driver in the scheme as in `sqlite+aiosqlite:///./x.db`,
/// those of `SQLAlchemy`, where one slash more stands before the path.
fn database_url(text: &str) -> Result<DatabaseUrl, Found> {
    let Some((scheme, rest)) = text.split_once(':') else { return Err(found_scheme(text)) };
    let scheme = scheme.to_ascii_lowercase();
    let (engine, driver) = scheme.split_once('+').map_or((scheme.as_str(), None), |(engine, driver)| (engine, Some(driver)));
    match engine {
        "sqlite" => sqlite_path(rest, driver).map(DatabaseUrl::Sqlite),
        "postgres" | "postgresql" => {
            // Without the slashes it would be a path, and no server's address.
            let url = rest.starts_with("//").then(|| Url::parse(&format!("postgres:{rest}")).ok()).flatten();
            let Some(url) = url.filter(|url| url.path().len() > 1) else {
                return words("a postgres URL without a database name, or one that cannot be read (not shown)");
            };
            if is_torn(&url) { words(TORN) } else { Ok(DatabaseUrl::Postgres(SecretUrl::new(url))) }
        }
        _ => Err(found_scheme(text)),
    }
}

/// True where a password holds what ends the host, so that the rest of the password is read as the
/// path and its beginning as a port, which is shown.
fn is_torn(url: &Url) -> bool {
    url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) || url.fragment().is_some()
}

const TORN: &str = "one with @ behind its path, or with # (not shown); in a name or password write / as %2F, ? as %3F, # as %23, @ as %40";

fn sqlite_path(rest: &str, driver: Option<&str>) -> Result<PathBuf, Found> {
    let (path, parameters) = rest.split_once('?').map_or((rest, None), |(path, parameters)| (path, Some(parameters)));
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = match driver {
        Some(_) => path.strip_prefix('/').unwrap_or(path),
        // `sqlite:///./x.db` is a path beside you to SQLAlchemy, and means nothing from the root.
        None => path.strip_prefix('/').filter(|path| path.starts_with("./") || path.starts_with("../")).unwrap_or(path),
    };
    // `//dir/x.db` is `/dir/x.db`.
    let path = if path.starts_with("//") { format!("/{}", path.trim_start_matches('/')) } else { path.to_owned() };
    let parameter = parameters.into_iter().flat_map(|list| list.split('&')).find(|one| !matches!(*one, "" | "mode=rwc"));
    if path.contains(":memory:") || parameter == Some("mode=memory") {
        return words("a database in memory, which forgets every payment when it stops; name a file");
    }
    if let Some(parameter) = parameter {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        return words(format!("the parameter {}, which is not known here; leave it out", quote(name)));
    }
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return words("no file name in it");
    }
    Ok(PathBuf::from(path))
}

/// A path with everything escaped that means something in a URL.
pub(super) fn percent_encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(super) const TEXT: Form<String> = Form {
    expected: "a text that is not empty",
    echo: Echo::Quote,
    parse: |text| if text.trim().is_empty() { Err(Found::Text) } else { Ok(text.to_owned()) },
};

/// A name for payers to read.
pub(super) const DISPLAY_NAME: Form<String> = Form {
    expected: "a name of 1 to 40 characters",
    echo: Echo::Quote,
    parse: |text| {
        let fits = (1..=40).contains(&text.chars().count()) && !text.chars().any(char::is_control) && !text.trim().is_empty();
        if fits { Ok(text.to_owned()) } else { Err(Found::Text) }
    },
};

pub(super) const SYMBOL: Form<String> = Form {
    expected: "what the token contract answers to symbol(), 1 to 32 characters",
    echo: Echo::Quote,
    parse: |text| {
        let fits = (1..=32).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(Found::Text) }
    },
};

pub(super) const WEBHOOK_SECRET: Form<SecretText> = Form {
    expected: "a Standard Webhooks secret: whsec_ and then base64 of at least 16 bytes",
    echo: Echo::Hide,
    parse: |text| if notify::secret_bytes(text).is_some() { Ok(SecretText::new(text)) } else { Err(Found::Text) },
};

pub(super) const HEADER_VALUE: Form<SecretText> = Form {
    expected: "visible ASCII characters",
    echo: Echo::Hide,
    parse: |text| {
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if fits { Ok(SecretText::new(text)) } else { Err(Found::Text) }
    },
};

/// A secret that a provider chose.
pub(super) const SHARED_SECRET: Form<SecretText> = Form {
    expected: "the provider's secret: at least 8 visible ASCII characters",
    echo: Echo::Hide,
    parse: |text| {
        let fits = text.len() >= 8 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if fits { Ok(SecretText::new(text)) } else { Err(Found::Text) }
    },
};

/// True for what HTTP calls a token.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// True for a name that is good in a URL, in a wallet's name and in a log line.
pub(super) fn is_network_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A proxy's address, or a range of them: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    address: IpAddr,
    /// How many leading bits must agree.
    bits: u8,
}

impl IpRange {
    /// True for an address in the range. An IPv4 address inside IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => (ours.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(other)) => (ours.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.bits)
    }
}

impl FromStr for IpRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), str::parse).map_err(drop)?;
        if bits > bits_max { Err(()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

pub(super) const IP_RANGE: Form<IpRange> = Form {
    expected: "an IP address or range such as \"127.0.0.1\" or \"10.0.0.0/8\"",
    echo: Echo::Quote,
    parse: |text| text.parse().map_err(|()| Found::Text),
};

pub(super) const NAME_TEMPLATE: Form<String> = Form {
    expected: "1 to 64 characters with {index} or {index:04} among them, and perhaps {network}",
    echo: Echo::Quote,
    parse: |text| {
        let pieces = pieces(text).ok_or(Found::Text)?;
        let numbered = pieces.iter().any(|piece| matches!(piece, Piece::Index { .. }));
        let fits = text.chars().count() <= 64 && !text.chars().any(char::is_control);
        if numbered && fits { Ok(text.to_owned()) } else { Err(Found::Text) }
    },
};

/// A part of a name template.
enum Piece<'a> {
    Words(&'a str),
    Network,
    Index { width: usize },
}

fn pieces(template: &str) -> Option<Vec<Piece<'_>>> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((words, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}')?;
        found.push(Piece::Words(words));
        found.push(match name {
            "network" => Piece::Network,
            "index" => Piece::Index { width: 0 },
            _ => {
                let width = name.strip_prefix("index:0")?;
                let [digit @ b'1'..=b'9'] = width.as_bytes() else { return None };
                Piece::Index { width: usize::from(digit.wrapping_sub(b'0')) }
            }
        });
        rest = tail;
    }
    found.push(Piece::Words(rest));
    let stray = |piece: &Piece<'_>| matches!(piece, Piece::Words(words) if words.contains('}'));
    if found.iter().any(stray) { None } else { Some(found) }
}

/// A wallet's name: `{network}`, `{index}` and `{index:04}` (zeros up to that width, 1 to 9) are
/// filled in. A template that no configuration accepts is taken as it is, with the index behind.
#[must_use]
pub fn wallet_name(template: &str, network: &Network, index: u64) -> String {
    use fmt::Write as _;
    let Some(pieces) = pieces(template) else { return format!("{template}{index}") };
    let mut name = String::new();
    for piece in pieces {
        let _ = match piece {
            Piece::Words(words) => name.write_str(words),
            Piece::Network => name.write_str(network.as_str()),
            Piece::Index { width } => write!(name, "{index:0width$}"),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: a text, white space, and what it is read as, or `-`.
    fn check<T>(form: &Form<T>, show: impl Fn(&T) -> String, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (text, expected) = line.split_once(char::is_whitespace).unwrap();
            let found = form.read(text).as_ref().map_or_else(|_| "-".to_owned(), &show);
            assert_eq!(found, expected.trim(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time() {
        check(
            &SPAN,
            |span| format!("{} {}", span.millis(), show_span(*span)),
            "
            100ms       100 100ms
            2s          2000 2s
            90s         90000 90s
            30m         1800000 30m
            24h         86400000 1d
            1000h       3600000000 1000h
            7d          604800000 7d
            0s          0 0ms
            3650d       315360000000 3650d
            3651d       -
            99999999999999999999d   -
            18446744073709551615d   -
            60          -
            m           -
            1.5h        -
            -5m         -
            +5m         -
            1h30m       -
            2S          -
            2sec        -
            ٣s          -",
        );
        assert_eq!(
            SPAN.read("1.5h").unwrap_err(),
            "expected a length of time: a whole number and a unit (ms, s, m, h or d) such as \"30m\", at most \"3650d\", found the text \"1.5h\""
        );
        assert!(SPAN.read("").is_err());
    }

    #[test]
    fn database_addresses() {
        let show = |url: &DatabaseUrl| match url {
            DatabaseUrl::Sqlite(path) => format!("file {}", path.display()),
            DatabaseUrl::Postgres(url) => url.expose().to_string(),
        };
        check(
            &DATABASE_URL,
            show,
            "
            sqlite://./usdt_payments.db             file ./usdt_payments.db
            sqlite://books.db                       file books.db
            sqlite:books.db                         file books.db
            sqlite:///var/lib/tidegate/books.db     file /var/lib/tidegate/books.db
            sqlite:////var/lib/books.db             file /var/lib/books.db
            sqlite:///./x.db                        file ./x.db
            sqlite:///../x.db                       file ../x.db
            sqlite://./x.db?mode=rwc                file ./x.db
            sqlite+aiosqlite:///./x.db              file ./x.db
            sqlite+aiosqlite:///x.db                file x.db
            sqlite+aiosqlite:////var/x.db           file /var/x.db
            SQLite://./x.db                         file ./x.db
            sqlite::memory:                         -
            sqlite://:memory:                       -
            sqlite+aiosqlite:///:memory:            -
            sqlite://x.db?mode=memory               -
            sqlite://x.db?mode=ro                   -
            sqlite://                               -
            sqlite:///var/lib/                      -
            postgres://u:p@db.example:5433/shop     postgres://u:p@db.example:5433/shop
            postgresql://u:p@db.example/shop        postgres://u:p@db.example/shop
            postgresql+asyncpg://u:p@db/shop        postgres://u:p@db/shop
            postgres:///shop?host=/run/postgresql   postgres:///shop?host=/run/postgresql
            postgres://u:p@db                       -
            postgres:shop                           -
            postgres:/shop                          -
            postgres://u:p@db:port/shop             -
            mysql://u:p@db/shop                     -
            ./x.db                                  -",
        );
        DATABASE_URL.read("sqlite://x\0.db").unwrap_err();
        for (url, expected) in [
            ("sqlite://../../my books#1.db", "sqlite:../../my%20books%231.db"),
            ("sqlite:///var/lib/100%.db", "sqlite:/var/lib/100%25.db"),
            ("sqlite://./x.db", "sqlite:./x.db"),
            ("postgresql://u:p@db/shop", "postgres://u:p@db/shop"),
        ] {
            let exposed = DATABASE_URL.read(url).unwrap().expose();
            assert_eq!(exposed, expected);
            assert_eq!(Url::parse(&exposed).unwrap().as_str(), expected, "a URL keeps it as it is");
        }
        for (url, expected) in [
            ("mysql://u:hunter2@db/shop", "one that starts with mysql://"),
            ("postgres://u:hunter2@db:port/shop", "a postgres URL without a database name, or one that cannot be read (not shown)"),
            ("postgres://u:12/hunter2@db/shop", TORN),
            ("postgres://u:12/x?hunter2@db/shop", TORN),
            ("postgres://db/shop#hunter2", TORN),
            ("hunter2", "a text without a scheme (not shown)"),
            ("hunter2https://db/shop", "one of another scheme (not shown)"),
            ("hunter2://db/shop", "one of another scheme (not shown)"),
            ("sqlite::memory:", "a database in memory, which forgets every payment when it stops; name a file"),
            ("sqlite://x.db?cipher=hunter2", "the parameter \"cipher\", which is not known here; leave it out"),
        ] {
            let error = DATABASE_URL.read(url).unwrap_err();
            assert!(error.ends_with(&format!(", found {expected}")), "{error}");
            assert!(error.contains("sqlite://PATH") && error.contains("postgres://USER") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn addresses_of_other_kinds() {
        check(
            &RPC_URL,
            |url| url.expose().to_string(),
            "
            https://mainnet.infura.io/v3/key    https://mainnet.infura.io/v3/key
            http://127.0.0.1:8545               http://127.0.0.1:8545/
            HTTPS://Node.Example                https://node.example/
            ws://node.example                   -
            wss://node.example                  -
            localhost:8545                      -
            file:///etc/passwd                  -
            https://                            -
            node.example                        -",
        );
        check(
            &PUBLIC_URL,
            Url::to_string,
            "
            https://pay.example.com         https://pay.example.com/
            http://127.0.0.1:8001/          http://127.0.0.1:8001/
            https://example.com/pay         -
            https://me:pw@example.com       -
            https://example.com/?x=1        -
            ftp://example.com               -
            pay.example.com                 -",
        );
        check(
            &REDIS_URL,
            |url| url.to_string(),
            "
            redis://:pw@cache:6379/0    redis://cache:6379
            rediss://cache              rediss://cache
            redis://:1/pw@cache         -
            http://cache                -
            cache:6379                  -",
        );
        check(
            &SOCKET,
            SocketAddr::to_string,
            "
            127.0.0.1:8001  127.0.0.1:8001
            0.0.0.0:0       0.0.0.0:0
            [::1]:8001      [::1]:8001
            127.0.0.1       -
            :8001           -
            localhost:8001  -",
        );
    }

    #[test]
    fn words_and_switches() {
        check(
            &LOG_LEVEL,
            String::clone,
            "
            info                    info
            INFO                    info
            WARNING                 warn
            CRITICAL                error
            info,hyper_util=warn          info,hyper_util=warn
            info,sqlx::query=DEBUG  info,sqlx::query=debug
            verbose                 -
            info,                   -
            3                       -",
        );
        check(&LOG_FORMAT, |format| format!("{format:?}"), "json Json\n pretty Pretty\n JSON Json\n text -");
        check(&FLAG, bool::to_string, "true true\n 1 true\n Yes true\n off false\n 0 false\n maybe -");
        check(&KIND, |kind| format!("{kind:?}"), "evm Evm\n tron Tron\n EVM -\n solana -");
        check(
            &WEBHOOK_SECRET,
            |_| "ok".into(),
            "
            whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw  ok
            whsec_MDEyMzQ1Njc4OWFiY2RlZg==          ok
            whsec_MDEyMzQ1Njc4OWFiY2RlZg            -
            whsec_MDEyMzQ1Njc4OWFiY2Rl              -
            MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw        -
            whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-  -
            whsec_                                  -
            whsec_…                                 -",
        );
        check(&AMOUNT, Amount::to_string, "12.5 12.500000\n 0 0.000000\n 1.0000001 -\n -1 -\n 1e3 -\n 9000000000001 -");
    }

    #[test]
    fn ranges_of_addresses() {
        check(
            &IP_RANGE,
            IpRange::to_string,
            "
            127.0.0.1       127.0.0.1/32
            10.0.0.0/8      10.0.0.0/8
            0.0.0.0/0       0.0.0.0/0
            fd00::/8        fd00::/8
            ::1             ::1/128
            10.0.0.0/33     -
            10.0.0.0/       -
            10.0.0.0/-1     -
            10.0.0/8        -
            localhost       -",
        );
        let contains = |range: &str, address: &str| range.parse::<IpRange>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.1.2"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3/8", "10.9.9.9"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdab::1"));
        assert!(!contains("::1", "::2"));
    }

    #[test]
    fn wallets_are_named_by_template() {
        let table = "
            {network}_wallet_{index:04}     tron_wallet_0007
            {index}                         7
            w{index:09}-{network}-{index}   w000000007-tron-7
            {network}                       -
            wallet                          -
            {name}_{index}                  -
            {index:4}                       -
            {index:00}                      -
            {index:010}                     -
            {index:04                       -
            index}{index}                   -
            {{index}}                       -";
        check(&NAME_TEMPLATE, |template| wallet_name(template, &Network::new("tron"), 7), table);
        assert!(NAME_TEMPLATE.read(&format!("{}{{index}}", "x".repeat(60))).is_err());
        assert_eq!(wallet_name("{network}_wallet_{index:04}", &Network::new("tron"), 12_345), "tron_wallet_12345");
        assert_eq!(wallet_name("a}", &Network::new("tron"), 7), "a}7", "no name is lost");
    }
}
