//! The file that a sandbox chain is kept in: one JSON line a step, written and synced before the
//! step is shown. Knows bytes and paths; what a block means is not decided here.
//!
//! The first line says what chain it is and what its older blocks left behind. Each line after it is
//! a sealed block, or a fork as a whole. A line is complete or, as the last one, never happened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_rules::block::{Address, BlockRef, Hash};
use tidegate_rules::time::Time;

use super::history::{Account, History, Log, Outcome, Sealed, Standing, Start, Transaction};
use super::{Flavour, SandboxConfig};

/// The file of an open chain.
pub(super) struct BlockFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines. What a failed write left behind it is cut off before the next.
    len: u64,
    torn: bool,
}

impl BlockFile {
    /// Puts the whole chain at `path`, in place of what is there, at once or not at all.
    pub(super) fn create(path: &Path, config: &SandboxConfig, history: &History) -> io::Result<Self> {
        let file = Self::write(path, config, history)?;
        file.sync_folder()?;
        Ok(file)
    }

    /// As [`BlockFile::create`], on the path it has.
    pub(super) fn rewrite(&mut self, config: &SandboxConfig, history: &History) -> io::Result<()> {
        *self = Self::write(&self.path, config, history)?;
        self.sync_folder()
    }

    /// The renaming is the last thing that can fail: after it the old file is no longer the chain,
    /// and whoever holds it would write for nobody.
    fn write(path: &Path, config: &SandboxConfig, history: &History) -> io::Result<Self> {
        let mut bytes = line(&Line::Start(StartLine::of(config, history.start())))?;
        for sealed in history.sealed() {
            bytes.extend(line(&Line::Block(sealed.into()))?);
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().append(true).create_new(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Self { path: path.to_owned(), file, len, torn: false })
    }

    /// A renaming lasts only once its directory is synced. Where a directory cannot be opened as a
    /// file, the system promises this by itself.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).map_or(Ok(()), |folder| folder.sync_all())
    }

    pub(super) fn append_block(&mut self, sealed: &Sealed) -> io::Result<()> {
        self.append(&Line::Block(sealed.into()))
    }

    pub(super) fn append_fork(&mut self, above: u64, blocks: &[Sealed]) -> io::Result<()> {
        self.append(&Line::Fork(ForkLine { above, blocks: blocks.iter().map(BlockLine::from).collect() }))
    }

    fn append(&mut self, step: &Line) -> io::Result<()> {
        let bytes = line(step)?;
        if self.torn {
            self.file.set_len(self.len)?;
        }
        self.torn = true;
        self.file.write_all(&bytes)?;
        // Synced, because the gateway's database is: a chain that forgot a block which the gateway
        // has booked would look like a fork that nobody made.
        self.file.sync_data()?;
        self.torn = false;
        self.len = self.len.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// The chain kept at `path`; `None` when there is no file, or none that got as far as its first line.
pub(super) fn read(path: &Path, config: &SandboxConfig) -> io::Result<Option<History>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |number: usize, why: &str| {
        let path = path.display();
        let hint = "move the sandbox's directory away to begin a new one";
        io::Error::new(io::ErrorKind::InvalidData, format!("{path}: line {number}: {why}; {hint}"))
    };

    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    // Only the last line can be torn, and a torn one was never acknowledged.
    if lines.last().is_some_and(|last| last.last() != Some(&b'\n') || serde_json::from_slice::<Line>(last).is_err()) {
        lines.pop();
    }
    let mut history: Option<History> = None;
    for (number, line) in (1usize..).zip(lines) {
        let step: Line = serde_json::from_slice(line).map_err(|error| damaged(number, &error.to_string()))?;
        let fits = match (step, history.as_mut()) {
            (Line::Start(start), None) => {
                start.check(config).map_err(|why| damaged(number, &why))?;
                history = Some(History::resume(config, start.into()));
                true
            }
            (Line::Block(block), Some(history)) => extend(history, block),
            (Line::Fork(fork), Some(history)) => history.replace(fork.above, fork.blocks.into_iter().map(Sealed::from).collect()),
            (Line::Start(_), Some(_)) | (_, None) => false,
        };
        if !fits {
            return Err(damaged(number, "it does not follow from the lines before it"));
        }
    }
    if history.as_ref().is_some_and(|history| history.len() == 0) {
        return Err(damaged(1, "no block follows it"));
    }
    Ok(history)
}

fn extend(history: &mut History, block: BlockLine) -> bool {
    let sealed = Sealed::from(block);
    let fits = history.fits(&sealed);
    if fits {
        history.extend(sealed);
    }
    fits
}

fn line(step: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(step)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Start(StartLine),
    Block(BlockLine),
    Fork(ForkLine),
}

#[derive(Serialize, Deserialize)]
struct StartLine {
    flavour: Flavour,
    chain_id: u64,
    token: Hex<20>,
    decimals: u8,
    genesis: Hex<32>,
    genesis_time_ms: i64,
    nonce: u64,
    branch: u64,
    settled: Option<u64>,
    accounts: Vec<AccountLine>,
    /// Files from before there were notices do not have it.
    #[serde(default)]
    standing: StandingLine,
}

#[derive(Default, Serialize, Deserialize)]
struct StandingLine {
    paused: bool,
    deprecated: bool,
    blacklisted: Vec<Hex<20>>,
}

#[derive(Serialize, Deserialize)]
struct AccountLine {
    address: Hex<20>,
    received: Hex<32>,
    sent: Hex<32>,
}

#[derive(Serialize, Deserialize)]
struct ForkLine {
    above: u64,
    blocks: Vec<BlockLine>,
}

#[derive(Serialize, Deserialize)]
struct BlockLine {
    number: u64,
    hash: Hex<32>,
    parent: Hex<32>,
    time_ms: i64,
    branch: u64,
    nonce: u64,
    transactions: Vec<TransactionLine>,
}

#[derive(Serialize, Deserialize)]
struct TransactionLine {
    hash: Hex<32>,
    outcome: Outcome,
    logs: Vec<LogLine>,
}

#[derive(Serialize, Deserialize)]
struct LogLine {
    contract: Hex<20>,
    topics: Vec<Hex<32>>,
    data: HexBytes,
}

impl StartLine {
    fn of(config: &SandboxConfig, start: Start) -> Self {
        let account = |(address, account): (Address, Account)| AccountLine {
            address: Hex(address.0),
            received: Hex(account.received.to_be_bytes()),
            sent: Hex(account.sent.to_be_bytes()),
        };
        Self {
            flavour: config.flavour,
            chain_id: config.chain_id,
            token: Hex(config.token.0),
            decimals: config.decimals,
            genesis: Hex(start.genesis.hash.0),
            genesis_time_ms: start.genesis.time.millis(),
            nonce: start.nonce,
            branch: start.branch,
            settled: start.settled,
            accounts: start.accounts.into_iter().filter(|(_, moved)| *moved != Account::default()).map(account).collect(),
            standing: StandingLine {
                paused: start.standing.paused,
                deprecated: start.standing.deprecated,
                blacklisted: start.standing.blacklisted.iter().map(|address| Hex(address.0)).collect(),
            },
        }
    }

    /// The seed and the time of the genesis are the file's own: whoever starts again need not
    /// remember them.
    fn check(&self, config: &SandboxConfig) -> Result<(), String> {
        let found = (self.flavour, self.chain_id, self.token.0, self.decimals);
        if found == (config.flavour, config.chain_id, config.token.0, config.decimals) {
            return Ok(());
        }
        Err("it is of a sandbox chain with another flavour, chain id, token or decimals".into())
    }
}

impl From<StartLine> for Start {
    fn from(line: StartLine) -> Self {
        let account = |line: AccountLine| {
            let account = Account { received: U256::from_be_bytes(line.received.0), sent: U256::from_be_bytes(line.sent.0) };
            (Address(line.address.0), account)
        };
        let genesis =
            BlockRef { number: 0, hash: Hash(line.genesis.0), parent: Hash([0; 32]), time: Time::from_millis(line.genesis_time_ms) };
        Self {
            genesis,
            nonce: line.nonce,
            branch: line.branch,
            settled: line.settled,
            accounts: line.accounts.into_iter().map(account).collect(),
            standing: Standing {
                paused: line.standing.paused,
                deprecated: line.standing.deprecated,
                blacklisted: line.standing.blacklisted.into_iter().map(|address| Address(address.0)).collect(),
            },
        }
    }
}

impl From<&Sealed> for BlockLine {
    fn from(sealed: &Sealed) -> Self {
        let log = |log: &Log| LogLine {
            contract: Hex(log.contract.0),
            topics: log.topics.iter().copied().map(Hex).collect(),
            data: HexBytes(log.data.clone()),
        };
        let transaction = |transaction: &Transaction| TransactionLine {
            hash: Hex(transaction.hash.0),
            outcome: transaction.outcome,
            logs: transaction.logs.iter().map(log).collect(),
        };
        Self {
            number: sealed.at.number,
            hash: Hex(sealed.at.hash.0),
            parent: Hex(sealed.at.parent.0),
            time_ms: sealed.at.time.millis(),
            branch: sealed.branch,
            nonce: sealed.nonce,
            transactions: sealed.transactions.iter().map(transaction).collect(),
        }
    }
}

impl From<BlockLine> for Sealed {
    fn from(line: BlockLine) -> Self {
        let log = |line: LogLine| Log {
            contract: Address(line.contract.0),
            topics: line.topics.into_iter().map(|topic| topic.0).collect(),
            data: line.data.0,
        };
        let transaction = |line: TransactionLine| Transaction {
            hash: Hash(line.hash.0),
            outcome: line.outcome,
            logs: line.logs.into_iter().map(log).collect(),
        };
        let at =
            BlockRef { number: line.number, hash: Hash(line.hash.0), parent: Hash(line.parent.0), time: Time::from_millis(line.time_ms) };
        Self { at, branch: line.branch, nonce: line.nonce, transactions: line.transactions.into_iter().map(transaction).collect() }
    }
}

/// So many bytes as hex digits.
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode_to_array(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Any number of bytes as hex digits.
struct HexBytes(Vec<u8>);

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_write_left_is_cut_off_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let config = SandboxConfig::tron(Time::from_secs(0), 1);
        let mut history = History::new(&config);
        let mut file = BlockFile::create(&path, &config, &history).unwrap();
        let sealed = history.seal_pool(Time::from_secs(3));

        let good = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        file.append_block(&sealed).expect_err("the file is open for reading only");
        file.file = good;
        file.file.write_all(b"{\"block\":{\"numb").unwrap();

        file.append_block(&sealed).unwrap();
        history.extend(sealed);
        assert_eq!(read(&path, &config).unwrap().unwrap().tip(), history.tip());
    }

    #[test]
    fn after_a_rewrite_the_new_file_is_the_one_that_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let config = SandboxConfig::tron(Time::from_secs(0), 1);
        let mut history = History::new(&config);
        let mut file = BlockFile::create(&path, &config, &history).unwrap();
        for _ in 0..9 {
            let sealed = history.seal_pool(Time::from_secs(3));
            file.append_block(&sealed).unwrap();
            history.extend(sealed);
        }
        history.keep_last(4);
        file.rewrite(&config, &history).unwrap();
        let sealed = history.seal_pool(Time::from_secs(6));
        file.append_block(&sealed).unwrap();
        history.extend(sealed);

        let again = read(&path, &config).unwrap().unwrap();
        assert_eq!((again.len(), again.tip()), (5, history.tip()));
    }
}
