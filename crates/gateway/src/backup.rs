//! A copy of the SQLite database in one encrypted file, and the way back.
//!
//! ```text
//! tidegate-backup 1\n
//! {"salt":…,"schema":…,"made_at":…,"key_id":…}\n     read before anything is unlocked; authenticated
//! preamble, then chunks of 1 MiB, each sealed        BackupSealer of the vault
//! ```
//!
//! The copy is made by the database itself while it runs, is opened again before it is called
//! done, and is bound to the master key: without it the file is noise.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::Changes;
use tidegate_vault::{BACKUP_CHUNK_BYTES, BACKUP_OVERHEAD_BYTES, BACKUP_PREAMBLE_BYTES, BackupOpener, BackupSealer, OsEntropy, Vault};

use crate::clock;
use crate::config::{Config, DatabaseUrl};
use crate::people::Doer;
use crate::start::{self, ENCRYPTION_SALT, Sorry};
use crate::store::{Engine, Migrate, Store};

/// The first line of a backup: what it is, and the version of the form.
const MAGIC: &str = "tidegate-backup 1\n";

/// The longest second line.
const HEADER_MAX: u64 = 4_096;

/// What a backup says of itself before it is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Opens it together with the master key.
    salt: String,
    /// The schema of the database in it.
    schema: i64,
    /// When it was made.
    made_at: String,
    /// The master key that it is under, by its short name.
    key_id: String,
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Sorry + '_ {
    move |error| Sorry(format!("{}: {error}", path.display()))
}

/// A file that is taken away again unless it is kept.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path, end: &str) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        Self(name.into())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(end);
            let _ = std::fs::remove_file(name);
        }
    }
}

fn private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().create_new(true).write(true).mode(0o600).open(path)
}

/// Makes an encrypted copy of the database and opens it again. How many bytes it has.
///
/// # Errors
/// On PostgreSQL, with the line to use there; when the file exists; when the copy does not open.
pub async fn backup(config: &Config, file: &Path, doer: &Doer) -> Result<u64, Sorry> {
    if file.exists() {
        return Err(Sorry(format!("{} exists: expected the name of a new file; nothing is overwritten", file.display())));
    }
    let store = start::open_store(config, Migrate::No).await?;
    if store.engine() == Engine::Postgres {
        return Err(Sorry::new(
            "this database is PostgreSQL: use `pg_dump --format=custom --file=tidegate.dump \"$DATABASE_URL\"`, and `pg_restore --dbname=… tidegate.dump` for the way back; what is secret in it is sealed under the master key",
        ));
    }
    let keys = start::unlock(config, &store).await?;
    let vault = keys.current();
    let audit = doer.did(Action::BackupCreate, "database", clock::now()).with(&json!({ "file": file.display().to_string() }));
    let _ = store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    let header = Header {
        salt: salt_of(config, &store).await?,
        schema: store.schema().await?,
        made_at: clock::now().to_string(),
        key_id: vault.key_id().to_owned(),
    };
    let plain = Draft::beside(file, ".plain");
    drop(private(&plain.0).map_err(io(&plain.0))?);
    store.copy_into(&plain.0).await?;
    store.close().await;
    let sealed = Draft::beside(file, ".partial");
    let bytes = seal(vault, &header, &plain.0, &sealed.0).map_err(io(&sealed.0))?;
    let mut ours = File::open(&plain.0).map_err(io(&plain.0))?;
    open(vault, &sealed.0, |chunk| {
        let mut same = vec![0; chunk.len()];
        ours.read_exact(&mut same)?;
        if same == chunk { Ok(()) } else { Err(std::io::Error::other("the copy does not read back as it was written")) }
    })?;
    std::fs::rename(&sealed.0, file).map_err(io(file))?;
    Ok(bytes)
}

async fn salt_of(config: &Config, store: &Store) -> Result<String, Sorry> {
    match &config.salt {
        // It is not in the database, and not in the backup either.
        Some(_) => Ok(String::new()),
        None => store
            .setting(ENCRYPTION_SALT)
            .await?
            .ok_or_else(|| Sorry::new("the database has no salt: run `tidegate migrate`, then `tidegate check`")),
    }
}

fn seal(vault: &Vault, header: &Header, from: &Path, to: &Path) -> std::io::Result<u64> {
    let head = format!("{MAGIC}{}\n", serde_json::to_string(header).unwrap_or_default());
    let (mut sealer, preamble) = BackupSealer::new(vault, head.as_bytes(), &mut OsEntropy);
    let mut out = private(to)?;
    out.write_all(head.as_bytes())?;
    out.write_all(&preamble)?;
    let mut plain = File::open(from)?;
    let mut now = chunk(&mut plain, BACKUP_CHUNK_BYTES)?;
    loop {
        let next = chunk(&mut plain, BACKUP_CHUNK_BYTES)?;
        out.write_all(&sealer.seal_chunk(&now, next.is_empty()))?;
        if next.is_empty() {
            break;
        }
        now = next;
    }
    out.sync_all()?;
    Ok(out.metadata()?.len())
}

/// Up to `size` bytes; fewer only at the end.
fn chunk(from: &mut impl Read, size: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    from.take(u64::try_from(size).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The head of a backup, as bytes and as it reads, and the rest of it.
fn head(path: &Path) -> Result<(Vec<u8>, Header, BufReader<File>), Sorry> {
    let mut file = BufReader::new(File::open(path).map_err(io(path))?);
    let none = || Sorry(format!("{} is no backup of tidegate: expected a file made by `tidegate backup`", path.display()));
    let mut head = Vec::new();
    for _ in 0..2 {
        (&mut file).take(HEADER_MAX).read_until(b'\n', &mut head).map_err(io(path))?;
    }
    let line = head.strip_prefix(MAGIC.as_bytes()).ok_or_else(|| match head.starts_with(b"tidegate-backup ") {
        true => Sorry(format!("{} has a form that this binary does not know: use a newer tidegate", path.display())),
        false => none(),
    })?;
    let header = serde_json::from_slice(line).map_err(|_| none())?;
    Ok((head, header, file))
}

/// Opens a backup chunk by chunk.
fn open(vault: &Vault, path: &Path, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), Sorry> {
    let wrong = |error: &dyn std::fmt::Display| Sorry(format!("{} does not open: {error}", path.display()));
    let (head, _, mut file) = head(path)?;
    let preamble = chunk(&mut file, BACKUP_PREAMBLE_BYTES).map_err(io(path))?;
    let mut opener = BackupOpener::new(vault, &preamble, &head).map_err(|error| wrong(&error))?;
    let size = BACKUP_CHUNK_BYTES.saturating_add(BACKUP_OVERHEAD_BYTES);
    let mut now = chunk(&mut file, size).map_err(io(path))?;
    loop {
        let next = chunk(&mut file, size).map_err(io(path))?;
        let plain = opener.open_chunk(&now, next.is_empty()).map_err(|error| wrong(&error))?;
        take(&plain).map_err(io(path))?;
        if next.is_empty() {
            break;
        }
        now = next;
    }
    if opener.is_whole() { Ok(()) } else { Err(wrong(&"its end is missing")) }
}

/// Puts a backup in the place of a database that is not there, and brings it up to date.
///
/// # Errors
/// When there is a database already, the key is another, or the file is not whole; nothing is left
/// behind then.
pub async fn restore(config: &Config, file: &Path, doer: &Doer) -> Result<Header, Sorry> {
    let DatabaseUrl::Sqlite(target) = &config.database.url else {
        return Err(Sorry::new(
            "DATABASE_URL is not SQLite: expected sqlite://PATH; a PostgreSQL database is restored by `pg_restore --dbname=… tidegate.dump`",
        ));
    };
    // What SQLite keeps beside a database belongs to its name: it would be played over the restored one.
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut there = target.as_os_str().to_owned();
        there.push(end);
        if Path::new(&there).exists() {
            return Err(Sorry(format!(
                "{} exists: expected no database there; restore overwrites nothing, so move it away, and what ends with -wal, -shm or -journal beside it, or set DATABASE_URL to another file",
                Path::new(&there).display()
            )));
        }
    }
    let (_, header, _) = head(file)?;
    let vault = start::vault_of(config, &header.salt).await?;
    if vault.key_id() != header.key_id {
        return Err(Sorry(format!(
            "WALLET_MASTER_KEY is not the one that this backup is under: expected key {}, found {}; set the key of that time",
            header.key_id,
            vault.key_id()
        )));
    }
    let draft = Draft::beside(target, ".restoring");
    let mut out = private(&draft.0).map_err(io(&draft.0))?;
    open(&vault, file, |chunk| out.write_all(chunk))?;
    out.sync_all().map_err(io(&draft.0))?;
    // An old schema is brought up to date before anybody sees the file.
    let store = Store::open(&DatabaseUrl::Sqlite(draft.0.clone()).expose(), 1, config.database.pool_timeout.to_std(), Migrate::Yes).await?;
    store.check_integrity().await?;
    start::unlock(config, &store).await?;
    let audit = doer.did(Action::BackupRestore, "database", clock::now()).with(&json!({ "made_at": header.made_at }));
    let _ = store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    store.settle_into_one_file().await?;
    store.close().await;
    // A link fails where a rename would overwrite what came there meanwhile.
    std::fs::hard_link(&draft.0, target).map_err(io(target))?;
    Ok(header)
}

impl Header {
    /// In one line, for whoever restores.
    #[must_use]
    pub fn line(&self) -> String {
        format!("made at {}, schema {}, under master key {}", self.made_at, self.schema, self.key_id)
    }
}
