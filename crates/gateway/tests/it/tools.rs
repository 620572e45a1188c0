//! Where the programs are that `scripts/install-test-tools` installs. A missing one fails the test
//! that needs it: a test that quietly skips itself proves nothing.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder that npm packages were installed into.
pub fn npm_packages() -> PathBuf {
    let folder = repo().join(".tools/node_modules");
    assert!(folder.is_dir(), "no {}: run scripts/install-test-tools", folder.display());
    folder
}

/// Anvil, or what `TIDEGATE_ANVIL` says.
pub fn anvil() -> PathBuf {
    found(
        std::env::var_os("TIDEGATE_ANVIL").map(PathBuf::from),
        || vec![repo().join(".tools/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")],
        "Anvil",
    )
}

/// Chromium, or what `TIDEGATE_CHROMIUM` says.
pub fn chromium() -> PathBuf {
    found(
        std::env::var_os("TIDEGATE_CHROMIUM").map(PathBuf::from),
        || ["chromium", "chromium-browser", "google-chrome"].map(|name| Path::new("/usr/bin").join(name)).to_vec(),
        "Chromium",
    )
}

/// The folder of `initdb` and `postgres`, or what `TIDEGATE_POSTGRES_BIN` says. Debian keeps it
/// off the PATH, one folder a version; the newest is taken.
pub fn postgres_bin() -> PathBuf {
    let initdb = found(
        std::env::var_os("TIDEGATE_POSTGRES_BIN").map(|folder| PathBuf::from(folder).join("initdb")),
        || {
            let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path().join("bin/initdb")))
                .collect();
            debian.sort_by_key(|path| {
                let version = path.ancestors().nth(2).and_then(Path::file_name);
                version.and_then(|v| v.to_string_lossy().parse::<u32>().ok())
            });
            debian.reverse();
            debian.extend(["/usr/bin/initdb", "/usr/local/bin/initdb", "/opt/homebrew/bin/initdb"].map(PathBuf::from));
            debian
        },
        "PostgreSQL (initdb)",
    );
    initdb.parent().unwrap().to_owned()
}

/// The Redis server, or what `TIDEGATE_REDIS_SERVER` says.
pub fn redis_server() -> PathBuf {
    found(
        std::env::var_os("TIDEGATE_REDIS_SERVER").map(PathBuf::from),
        || ["/usr/bin/redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"].map(PathBuf::from).to_vec(),
        "redis-server",
    )
}

/// Its command line, which is installed with it.
pub fn redis_cli() -> PathBuf {
    redis_server().with_file_name("redis-cli")
}

/// Prometheus' `promtool`, or what `TIDEGATE_PROMTOOL` says.
pub fn promtool() -> PathBuf {
    found(
        std::env::var_os("TIDEGATE_PROMTOOL").map(PathBuf::from),
        || vec![PathBuf::from("/usr/bin/promtool"), PathBuf::from("/usr/local/bin/promtool"), repo().join(".tools/promtool")],
        "promtool",
    )
}

fn found(told: Option<PathBuf>, usual: impl FnOnce() -> Vec<PathBuf>, name: &str) -> PathBuf {
    let places = told.map_or_else(usual, |path| vec![path]);
    places.iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("no {name} at {places:?}: run scripts/install-test-tools")).clone()
}
