//! A PostgreSQL server of the tests' own: one cluster for the whole test process, in a temporary
//! directory, on a free port, with durability as shipped; one database a test.
//!
//! PostgreSQL refuses to run as root, so root starts it as the user `postgres` or `nobody`. The
//! server must end with the tests however they end, and a `static` is never dropped: a small
//! shell, the guard, holds the other end of a pipe. When the test process is gone, the pipe
//! closes, and the guard stops the server by its id and removes the directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::tools;

/// Without it a broken server would hold up the tests for ever.
const START_PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: LazyLock<Mutex<Cluster>> = LazyLock::new(|| Mutex::new(Cluster::start()));

struct Cluster {
    port: u16,
    databases: AtomicU64,
    /// Kept open: its closing is the signal to stop.
    _guard: ChildStdin,
}

/// Makes an empty database and gives its address, `postgres://…`.
pub fn fresh_database() -> String {
    let cluster = CLUSTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = format!("test_{}", cluster.databases.fetch_add(1, Ordering::Relaxed));
    cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
    format!("postgres://tidegate@127.0.0.1:{}/{name}", cluster.port)
}

/// Runs one statement in the database at `url` and gives its rows, columns divided by `|`.
pub fn query(url: &str, sql: &str) -> String {
    let cluster = CLUSTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    cluster.psql(url.rsplit('/').next().unwrap(), sql)
}

impl Cluster {
    /// Between choosing a free port and using it, another process may take it: try again.
    fn start() -> Self {
        (0..5).find_map(|_| Self::try_start()).expect("no free port for PostgreSQL")
    }

    fn try_start() -> Option<Self> {
        let user = Account::find();
        let folder = tempfile::Builder::new().prefix("tidegate-pg-").tempdir().unwrap().keep();
        init(&user, &folder);
        let port = free_port();
        let log = folder.join("log");
        let mut server = spawn(&user, &folder, port);
        let cluster = Self { port, databases: AtomicU64::new(0), _guard: guard(server.id(), &folder) };
        if cluster.answers(&mut server) {
            return Some(cluster);
        }
        let log = std::fs::read_to_string(log).unwrap_or_default();
        assert!(log.contains("Address already in use"), "PostgreSQL does not start: {log}");
        None
    }

    /// Waits until the server takes connections; false when it has ended instead.
    fn answers(&self, server: &mut Child) -> bool {
        let start = Instant::now();
        while server.try_wait().unwrap().is_none() {
            if self.try_psql("postgres", "SELECT 1").is_ok() {
                return true;
            }
            assert!(start.elapsed() < START_PATIENCE, "PostgreSQL runs but takes no connection");
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let done = Command::new(tools::postgres_bin().join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "tidegate", "-d", database])
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }
}

/// Makes an empty cluster in `folder`.
fn init(user: &Account, folder: &Path) {
    user.own(folder);
    let mut initdb = user.run(&tools::postgres_bin().join("initdb"));
    initdb.args(["--username=tidegate", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]);
    let done = initdb.arg(folder.join("data")).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts the server of the cluster in `folder`; what it says is in `folder/log`.
fn spawn(user: &Account, folder: &Path, port: u16) -> Child {
    user.run(&tools::postgres_bin().join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .args(["-c", "max_connections=200"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// A server of one test's own, which can be stopped, started again, and kept from answering.
pub struct Server {
    user: Account,
    folder: tempfile::TempDir,
    cluster: Cluster,
    process: Child,
}

impl Server {
    pub fn start() -> Self {
        let user = Account::find();
        let folder = tempfile::Builder::new().prefix("tidegate-own-pg-").tempdir().unwrap();
        init(&user, folder.path());
        // Between choosing a free port and using it, another process may take it: try again.
        for _ in 0..5 {
            let port = free_port();
            if let Some((cluster, process)) = Self::try_run(&user, folder.path(), port) {
                return Self { user, folder, cluster, process };
            }
        }
        panic!("no free port for PostgreSQL");
    }

    fn try_run(user: &Account, folder: &Path, port: u16) -> Option<(Cluster, Child)> {
        let mut process = spawn(user, folder, port);
        // The folder is removed by its owner, who starts the server in it again.
        let cluster = Cluster { port, databases: AtomicU64::new(0), _guard: guard(process.id(), Path::new("")) };
        cluster.answers(&mut process).then_some((cluster, process))
    }

    /// Makes an empty database and gives its address.
    pub fn database(&self, name: &str) -> String {
        self.cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://tidegate@127.0.0.1:{}/{name}", self.cluster.port)
    }

    /// Runs one statement in a database of this server; fails while it does not answer.
    pub fn query(&self, url: &str, sql: &str) -> Result<String, String> {
        self.cluster.try_psql(url.rsplit('/').next().unwrap(), sql)
    }

    /// A standby that streams from this server.
    pub fn replica(&self) -> Self {
        let user = Account::find();
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("tidegate-own-pg-").tempdir().unwrap();
            user.own(folder.path());
            let mut copy = user.run(&tools::postgres_bin().join("pg_basebackup"));
            copy.args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.cluster.port.to_string(),
                "-U",
                "tidegate",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "-D",
            ]);
            let done = copy.arg(folder.path().join("data")).current_dir(folder.path()).output().unwrap();
            assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
            if let Some((cluster, process)) = Self::try_run(&user, folder.path(), free_port()) {
                return Self { user, folder, cluster, process };
            }
        }
        panic!("no free port for PostgreSQL");
    }

    /// The address here of a database that has this one elsewhere.
    pub fn url_of(&self, url: &str) -> String {
        format!("postgres://tidegate@127.0.0.1:{}/{}", self.cluster.port, url.rsplit('/').next().unwrap())
    }

    /// Ends it as if it had crashed: every connection breaks, nothing is tidied up.
    pub fn crash(&mut self) {
        kill("-QUIT", &[self.process.id()]);
        self.process.wait().unwrap();
    }

    /// Stops it without waiting for its clients.
    pub fn stop(&mut self) {
        kill("-INT", &[self.process.id()]);
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port with what it holds.
    pub fn start_again(&mut self) {
        let port = self.cluster.port;
        let (cluster, process) = Self::try_run(&self.user, self.folder.path(), port).expect("the port is still free");
        (self.cluster, self.process) = (cluster, process);
    }

    /// It keeps its connections and takes new ones, and answers nothing.
    pub fn hang(&self) {
        // First the one that makes the others.
        kill("-STOP", &[self.process.id()]);
        kill("-STOP", &self.children());
    }

    /// It goes on after [`Server::hang`].
    pub fn go_on(&self) {
        kill("-CONT", &self.children());
        kill("-CONT", &[self.process.id()]);
    }

    /// Those that serve the connections.
    fn children(&self) -> Vec<u32> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_on();
        kill("-INT", &[self.process.id()]);
        let _ = self.process.wait();
    }
}

/// Sends a signal to those that are still there.
fn kill(signal: &str, ids: &[u32]) {
    if !ids.is_empty() {
        let ids = ids.iter().map(ToString::to_string);
        let _ = Command::new("kill").arg(signal).args(ids).stderr(Stdio::null()).status().unwrap();
    }
}

/// Waits for the end of its input, then stops the server (SIGINT: no waiting for clients), and
/// removes its directory once it is gone. It has a process group of its own, so that a Ctrl-C at
/// the terminal does not end it first.
#[allow(clippy::zombie_processes, reason = "it lives on for a moment after us, to do its work")]
fn guard(server: u32, folder: &Path) -> ChildStdin {
    use std::os::unix::process::CommandExt as _;
    const SCRIPT: &str = r#"
        while read -r _; do :; done
        kill -INT "$1" 2>/dev/null
        i=0; while kill -0 "$1" 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done
        kill -KILL "$1" 2>/dev/null
        case "$2" in */tidegate-pg-*) rm -rf "$2" ;; esac"#;
    let mut guard = Command::new("sh")
        .args(["-c", SCRIPT, "guard", &server.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    guard.stdin.take().unwrap()
}

/// Whose process the server is.
enum Account {
    /// We are an ordinary user already.
    Ours,
    /// We are root; this is the ordinary user we start it as, `name`, with his user and group id.
    Other { uid: String, gid: String },
}

impl Account {
    fn find() -> Self {
        let id = |args: &[&str]| {
            let done = Command::new("id").args(args).output().unwrap();
            done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
        };
        if id(&["-u"]).unwrap() != "0" {
            return Self::Ours;
        }
        let named = |name: &&str| Some((id(&["-u", name])?, id(&["-g", name])?));
        let (uid, gid) = ["postgres", "nobody"]
            .iter()
            .find_map(named)
            .expect("PostgreSQL refuses to run as root, and there is no user postgres or nobody");
        Self::Other { uid, gid }
    }

    /// A command that runs `program` as this user, in place: its process id is the program's.
    fn run(&self, program: &PathBuf) -> Command {
        match self {
            Self::Ours => Command::new(program),
            Self::Other { uid, gid } => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", uid, "--regid", gid, "--clear-groups", "--"]).arg(program);
                command
            }
        }
    }

    fn own(&self, folder: &Path) {
        if let Self::Other { uid, gid } = self {
            let uid = uid.parse().unwrap();
            let gid = gid.parse().unwrap();
            std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_test_has_a_database_of_its_own() {
        let (a, b) = (super::fresh_database(), super::fresh_database());
        assert_ne!(a, b);
        super::query(&a, "CREATE TABLE only_here (x int); INSERT INTO only_here VALUES (1), (2)");
        assert_eq!(super::query(&a, "SELECT sum(x), 'y' FROM only_here"), "3|y");
        assert_eq!(super::query(&b, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
        // Durability is what a user has.
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            assert_eq!(super::query(&a, &format!("SHOW {setting}")), "on");
        }
    }
}
