//! A child process whose output is read as it comes and which never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::{eventually, eventually_within};

/// A running program. Dropped, it is killed by its id and waited for.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with nothing on stdin and both outputs caught.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = read(child.stdout.take().unwrap(), Arc::clone(&lines), "");
        let err = read(child.stderr.take().unwrap(), Arc::clone(&lines), "! ");
        Self { name: name.to_owned(), child, lines, readers: vec![out, err] }
    }

    /// All lines so far; those of stderr begin with `! `.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line in which `find` finds something, and gives that back.
    pub async fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        eventually(&format!("{name} prints {what}"), async || {
            if let Some(found) = self.lines.lock().unwrap().iter().find_map(|line| find(line)) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                self.join_readers();
                panic!("{name} ended ({status}) before it printed {what}:\n{}", self.output());
            }
            Err(self.output())
        })
        .await
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is (SIGSTOP), as a machine does that has no time for it.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// `kill -9`: the process gets no chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_readers();
    }

    /// Sends SIGTERM and gives the exit status; fails when it takes longer than `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.exit(patience).await
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = eventually_within(patience, &what, async || self.child.try_wait().unwrap().ok_or_else(|| self.output())).await;
        self.join_readers();
        status
    }

    /// The outputs end with the process, so all of its lines are there afterwards.
    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} had printed:\n{}\n---", self.name, self.output());
        }
    }
}

fn read(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>, mark: &'static str) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line);
            lines.lock().unwrap().push(format!("{mark}{}", line.trim_end_matches('\r')));
        }
    })
}
