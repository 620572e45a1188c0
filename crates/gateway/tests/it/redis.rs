//! A Redis server of a test's own: on a free port, in a temporary directory, keeping nothing on
//! disk. It can be killed, started again on the same port, and stopped from answering. It ends with
//! its owner.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Process;
use crate::tools;

pub struct Redis {
    pub port: u16,
    dir: TempDir,
    /// A configuration file, which has to stand first.
    config: Option<PathBuf>,
    /// Further arguments.
    more: Vec<String>,
    /// What `redis-cli` needs to be let in.
    password: Option<String>,
    process: Option<Process>,
}

impl Redis {
    /// A server that lets everybody in.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with a password for the user `default`.
    pub async fn with_password(password: &str, more: &[&str]) -> Self {
        let mut redis = Self::start_with(&[&["--requirepass", password], more].concat()).await;
        redis.password = Some(password.to_owned());
        redis
    }

    /// A server with further arguments.
    pub async fn start_with(more: &[&str]) -> Self {
        Self::start_as(None, more).await
    }

    /// A server as a configuration file says, but for its port and directory.
    pub async fn configured_by(config: &Path) -> Self {
        Self::start_as(Some(config.to_owned()), &[]).await
    }

    async fn start_as(config: Option<PathBuf>, more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-redis-").tempdir().unwrap();
        let more = more.iter().map(|&word| word.to_owned()).collect();
        let mut redis = Self { port: 0, dir, config, more, password: None, process: None };
        // Between choosing a free port and using it, another process may take it: try again.
        for _ in 0..5 {
            redis.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if redis.try_start().await {
                return redis;
            }
        }
        panic!("no free port for Redis");
    }

    async fn try_start(&mut self) -> bool {
        let mut command = Command::new(tools::redis_server());
        command
            .args(&self.config)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(self.dir.path())
            .args(&self.more);
        let mut process = Process::start("redis-server", &mut command);
        let ready = process
            .line("that it is ready", |line| match line {
                _ if line.contains("Ready to accept connections") => Some(true),
                _ if line.contains("Address already in use") => Some(false),
                _ => None,
            })
            .await;
        self.process = ready.then_some(process);
        ready
    }

    /// `redis://…`, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port, empty.
    pub async fn restart(&mut self) {
        assert!(self.try_start().await, "another process took port {}", self.port);
    }

    /// It keeps its connections and takes new ones, and answers nothing.
    pub fn hang(&self) {
        self.signal("-STOP");
    }

    /// It goes on after [`Redis::hang`].
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Runs one command and gives its answer as `redis-cli` prints it.
    pub fn command(&self, parts: &[&str]) -> String {
        let mut command = Command::new(tools::redis_cli());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = &self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        let done = command.args(parts).output().unwrap();
        assert!(done.status.success(), "{parts:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// How often a command was carried out since the start.
    pub fn carried_out(&self, command: &str) -> u64 {
        let stats = self.command(&["INFO", "commandstats"]);
        let start = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }
}
