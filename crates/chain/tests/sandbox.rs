//! The sandbox chain keeps the promises of [`Chain`], does what its script says and nothing else,
//! and comes back from its file as it was.
//!
//! Most tests are tables: a step a line, and after `=>` what it answers. A block is written as its
//! number, with a `'` for each fork before it, and a transfer as `A#0=5`: the transaction's name,
//! the ordinal and the value. `A#1!` is a log that could not be read. What the token says of itself
//! stands last, as `+shop` for an address that it froze and `-shop` for one that it let go.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use tidegate_chain::sandbox::{
    BLOCKS_HELD_MAX, BLOCKS_KEPT, BranchBlock, Calls, Dropped, FAUCET, Fault, Faults, LogEntry, SandboxChain, SandboxConfig,
};
use tidegate_chain::{Chain, Error, STATE_ADDRESSES_MAX, TokenState};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash, TransferKey};
use tidegate_rules::notice::TokenNotice;
use tidegate_rules::time::{Span, Time};

const GENESIS: Time = Time::from_secs(1_770_000_000);
const SLOT: Span = Span::from_secs(3);
const PAYER: Address = Address([0xaa; 20]);
const SHOP: Address = Address([0xbb; 20]);

fn units(value: u128) -> Raw {
    Raw::from_units(value)
}

/// A chain that is final soon, so that tables stay short.
fn config() -> SandboxConfig {
    SandboxConfig { final_depth: 3, final_step: 2, ..SandboxConfig::tron(GENESIS, 1) }
}

/// Plays a table on a new chain and compares each line's answer.
async fn check(table: &str) {
    let mut play = Play::default();
    play.name_blocks();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        let (step, expected) = line.split_once("=>").unwrap_or((line, ""));
        let found = play.step(step.trim()).await;
        assert_eq!(found, expected.trim(), "at the line: {line}");
    }
}

struct Play {
    chain: SandboxChain,
    blocks: BTreeMap<Hash, (String, BlockRef)>,
    transactions: BTreeMap<Hash, String>,
    forks: usize,
}

impl Default for Play {
    fn default() -> Self {
        let chain = SandboxChain::new(config());
        Self { chain, blocks: BTreeMap::new(), transactions: BTreeMap::new(), forks: 0 }
    }
}

impl Play {
    async fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        let few = |index: usize| words[index].parse::<u32>().unwrap();
        match words[0] {
            "mine" => {
                let count = if words.len() > 1 { number(1) } else { 1 };
                self.chain.mine_many(count, SLOT).unwrap();
                self.name_blocks();
            }
            "pay" | "failing" => {
                let logs = words[2..].iter().map(|word| log(word)).collect();
                let hash = match words[0] {
                    "pay" => self.chain.transaction(logs),
                    _ => self.chain.failed_transaction(logs),
                };
                self.transactions.insert(hash, words[1].into());
            }
            "fork" => {
                let fate = if words[2] == "back" { Dropped::ReturnToPool } else { Dropped::Vanish };
                let branch = words[3..].iter().map(|word| self.branch_block(word)).collect();
                match self.chain.fork(number(1), branch, fate) {
                    Ok(_) => self.forks += 1,
                    Err(error) => return error.to_string(),
                }
                self.name_blocks();
            }
            "down" => self.chain.begin_outage(),
            "up" => self.chain.end_outage(),
            "fail" => self.chain.fail_next(few(1)),
            "incomplete" => self.chain.incomplete(few(1)),
            "lag" => self.chain.lag(number(1)),
            "hide" => self.chain.hide_blocks(number(1)..=number(2)),
            "show" => self.chain.show_blocks(),
            "limit" => self.chain.limit_per_call(words.get(1).map(|word| word.parse().unwrap())),
            "stall" => self.chain.stall_final(),
            "resume" => self.chain.resume_final(),
            "heal" => self.chain.heal(),
            "identity" => return answer(self.chain.identity().await.map(|found| found.symbol)),
            "head" => return answer(self.chain.head().await.map(|at| self.block_name(&at))),
            "header" => return answer(self.chain.header(number(1)).await.map(|at| self.maybe(at))),
            "final" => return answer(self.chain.final_head().await.map(|at| self.maybe(at))),
            "read" => {
                let blocks = self.chain.blocks(number(1), few(2)).await;
                return answer(blocks.map(|blocks| {
                    let shown: Vec<_> = blocks.iter().map(|block| self.block_text(block)).collect();
                    shown.join("  ")
                }));
            }
            "reread" => {
                let at = self.blocks.values().find(|(name, _)| name == words[1]).unwrap().1;
                let block = self.chain.reread(&at).await;
                return answer(block.map(|block| block.map_or("none".into(), |block| self.block_text(&block))));
            }
            "pending" => {
                let names: Vec<_> = self.chain.pending().iter().map(|hash| self.transactions[hash].clone()).collect();
                return names.join(" ");
            }
            "find" => {
                let hash = self.named(words[1]);
                return self.maybe(self.chain.find(&hash));
            }
            "freeze" | "thaw" | "destroy" | "pause" | "unpause" | "deprecate" => {
                let hash = match (words[0], words.get(1).map(|name| party(name))) {
                    ("freeze", Some(address)) => self.chain.blacklist(address),
                    ("thaw", Some(address)) => self.chain.unblacklist(address),
                    ("destroy", Some(address)) => self.chain.destroy_black_funds(address),
                    ("deprecate", Some(address)) => self.chain.deprecate(address),
                    ("pause", _) => self.chain.pause(),
                    _ => self.chain.unpause(),
                };
                self.transactions.insert(hash, words[0].into());
            }
            "state" => {
                let state = self.chain.token_state(&[PAYER, SHOP]).await;
                return answer(state.map(|state| {
                    let mut words = vec![if state.paused == Some(true) { "paused" } else { "live" }];
                    words.extend(state.deprecated.filter(|deprecated| *deprecated).map(|_| "deprecated"));
                    words.extend(state.blacklisted.iter().map(party_name));
                    words.join(" ")
                }));
            }
            "balance" => return self.chain.balance(&SHOP).to_string(),
            other => panic!("no such step: {other}"),
        }
        String::new()
    }

    /// `-` is an empty block; else transactions joined by commas: `+5` a new one, `A` again.
    fn branch_block(&self, word: &str) -> BranchBlock {
        let block = BranchBlock::at(GENESIS);
        word.split(',').filter(|part| *part != "-").fold(block, |block, part| match part.strip_prefix('+') {
            Some(value) => block.with(vec![log(value)]),
            None => block.again(self.named(part)),
        })
    }

    fn named(&self, name: &str) -> Hash {
        *self.transactions.iter().find(|(_, known)| *known == name).unwrap().0
    }

    fn name_blocks(&mut self) {
        for number in 0..=self.chain.tip().number {
            let block = self.chain.block(number).unwrap();
            let name = format!("{number}{}", "'".repeat(self.forks));
            self.blocks.entry(block.at.hash).or_insert((name, block.at));
            for transfer in block.transfers {
                let name = format!("n{}", self.transactions.len());
                self.transactions.entry(transfer.key.tx_hash).or_insert(name);
            }
        }
    }

    fn block_name(&self, at: &BlockRef) -> String {
        let (name, known) = &self.blocks[&at.hash];
        assert_eq!(known, at);
        name.clone()
    }

    fn maybe(&self, at: Option<BlockRef>) -> String {
        at.map_or("none".into(), |at| self.block_name(&at))
    }

    fn block_text(&self, block: &Block) -> String {
        let mut parts = vec![self.block_name(&block.at)];
        let key = |key: &TransferKey| format!("{}#{}", self.transactions[&key.tx_hash], key.ordinal);
        parts.extend(block.transfers.iter().map(|transfer| format!("{}={}", key(&transfer.key), transfer.value)));
        parts.extend(block.unreadable.iter().map(|log| format!("{}!", key(&log.key))));
        parts.extend(block.notices.iter().map(|notice| match notice {
            TokenNotice::Blacklisted(address) => format!("+{}", party_name(address)),
            TokenNotice::Unblacklisted(address) => format!("-{}", party_name(address)),
            TokenNotice::FundsDestroyed { address, value } => format!("destroyed:{}={value}", party_name(address)),
            TokenNotice::Paused => "paused".into(),
            TokenNotice::Unpaused => "unpaused".into(),
            TokenNotice::Deprecated { successor } => format!("deprecated:{}", party_name(successor)),
        }));
        parts.join(" ")
    }
}

fn party(name: &str) -> Address {
    if name == "payer" { PAYER } else { SHOP }
}

fn party_name(address: &Address) -> &'static str {
    if *address == PAYER { "payer" } else { "shop" }
}

fn log(word: &str) -> LogEntry {
    let (from, to, topic) = (PAYER, SHOP, |byte| [byte; 32]);
    match word {
        "dirty" => LogEntry::malformed(from, to, units(9)),
        "other" => LogEntry::OtherToken { token: Address([0xcc; 20]), from, to, value: units(9) },
        "approval" => LogEntry::Token { topics: vec![topic(1), topic(2), topic(3)], data: vec![0; 32] },
        "anonymous" => LogEntry::Token { topics: vec![], data: vec![0; 32] },
        "short" => LogEntry::Token { topics: vec![transfer_topic(), word_of(from), word_of(to)], data: vec![9; 31] },
        "freezing" => LogEntry::Notice(TokenNotice::Blacklisted(SHOP)),
        "pausing" => LogEntry::Notice(TokenNotice::Paused),
        "bare" => LogEntry::Token { topics: vec![transfer_topic()], data: vec![] },
        value => LogEntry::Transfer { from, to, value: units(value.parse().unwrap()) },
    }
}

fn transfer_topic() -> [u8; 32] {
    hex::decode_to_array("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef").unwrap()
}

fn word_of(address: Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address.0);
    word
}

fn answer(result: Result<String, Error>) -> String {
    match result {
        Ok(text) => text,
        Err(Error::Transient(_)) => "transient".into(),
        Err(Error::Refused(_)) => "refused".into(),
    }
}

#[tokio::test]
async fn every_kind_of_log_is_read_as_on_a_real_chain() {
    check(
        "
        identity                       => USDT
        head                           => 0
        read 0 10                      => 0
        pay A 5
        pay B 0 7 dirty other 8
        head                           => 0
        pending                        => A B
        mine
        pending                        =>
        read 1 10                      => 1 A#0=5 B#1=7 B#3=8 B#2!
        balance                        => 20

        failing C 5 dirty
        pay D approval 3 anonymous short bare other 4
        pay E
        mine
        read 2 1                       => 2 D#0=3 D#3=4 D#1! D#2!
        balance                        => 27
        find C                         => 2
        find E                         => 2

        read 1 1                       => 1 A#0=5 B#1=7 B#3=8 B#2!
        read 1 0                       =>
        read 3 10                      =>
        header 2                       => 2
        header 3                       => none
        ",
    )
    .await;
}

#[tokio::test]
async fn forks_are_longer_equal_shorter_or_empty_and_keep_every_key() {
    check(
        "
        mine 2
        pay A 5 0 7
        mine
        pay B 3
        mine
        read 3 9                       => 3 A#0=5 A#2=7  4 B#0=3
        balance                        => 15

        // Equal: A is back in the block after, B waits and comes with the next.
        fork 2 back - A
        head                           => 4'
        header 3                       => 3'
        read 2 9                       => 2  3'  4' A#0=5 A#2=7
        balance                        => 12
        pending                        => B
        find B                         => none
        reread 4                       => none
        reread 4'                      => 4' A#0=5 A#2=7
        reread 2                       => 2
        pay C 1
        pending                        => B C
        mine
        read 5 9                       => 5' B#0=3 C#0=1
        balance                        => 16

        // Longer, with a double spend instead of B, which vanishes.
        fork 1 gone +2,C - -
        read 5 9                       => 5'' n3#0=2 C#0=1  6''  7''
        pending                        =>
        find B                         => none
        balance                        => 15

        // Shorter, then empty: the head goes back. What is mined then is not what was there.
        fork 3 back -
        head                           => 5'''
        pending                        => n3 C
        fork 1 back
        head                           => 4'
        mine
        read 4 9                       => 4' A#0=5 A#2=7  5'''' n3#0=2 C#0=1
        balance                        => 15

        // What was waiting may be taken into a branch too; dropped ones go before those that wait.
        pay D 4
        pay E 6
        fork 1 back E
        pending                        => n3 C D
        fork 0 back D
        read 5 9                       => 5''''' E#0=6  6'''''' D#0=4
        pending                        => n3 C

        // Down to block 0 and no further.
        fork 7 back                    => a fork of 7 blocks reaches below the oldest block held
        fork 6 gone -
        head                           => 1'''''''
        pending                        => n3 C
        balance                        => 0
        ",
    )
    .await;
}

#[tokio::test]
async fn every_scripted_fault_surfaces_as_promised_and_ends() {
    check(
        "
        mine 6
        pay A 5
        mine

        down
        identity                       => transient
        head                           => transient
        header 1                       => transient
        read 1 1                       => transient
        final                          => transient
        reread 1                       => transient
        up
        head                           => 7

        fail 2
        head                           => transient
        read 7 1                       => transient
        head                           => 7

        incomplete 2
        head                           => 7
        read 7 1                       => transient
        reread 7                       => 7 A#0=5
        read 7 1                       => transient
        read 7 1                       => 7 A#0=5

        lag 2
        head                           => 5
        header 6                       => none
        read 4 9                       => 4  5
        read 6 9                       =>
        reread 6                       => transient
        lag 99
        head                           => 0
        lag 0
        head                           => 7

        hide 3 4
        head                           => 7
        header 2                       => 2
        header 3                       => none
        read 1 9                       => 1  2
        read 4 9                       =>
        read 5 9                       => 5  6  7 A#0=5
        reread 3                       => transient
        show
        read 2 2                       => 2  3

        limit 2
        read 1 9                       => 1  2
        read 1 1                       => 1
        limit
        read 1 9                       => 1  2  3  4  5  6  7 A#0=5

        down
        stall
        lag 3
        hide 0 9
        heal
        read 6 9                       => 6  7 A#0=5
        final                          => 4
        ",
    )
    .await;
}

#[tokio::test]
async fn the_final_head_follows_in_steps_and_can_stall() {
    check(
        "
        mine 2
        final                          => none
        mine
        final                          => 0
        mine
        final                          => 0
        mine
        final                          => 2
        stall
        mine 6
        head                           => 11
        final                          => 2
        resume
        final                          => 8

        // Who lags sees an older one; who sees a shorter branch does not see less than was final.
        lag 3
        final                          => 4
        lag 9
        final                          => none
        lag 0
        fork 2 gone -
        head                           => 10'
        final                          => 8

        // A chain that breaks its promise replaces final blocks, and the head can fall below them.
        fork 4 gone - -
        head                           => 8''
        final                          => 8''
        fork 4 gone -
        final                          => 5'''
        ",
    )
    .await;
}

#[tokio::test]
async fn a_frozen_address_can_be_paid_and_cannot_pay() {
    check(
        "
        state                          => live
        freeze payer
        state                          => live
        mine
        state                          => live payer
        read 1 1                       => 1 +payer

        // In the order of the block: what comes before an act of the issuer is not touched by it.
        pay A 5
        thaw payer
        pay B 6 7
        freeze payer
        freeze shop
        pay C 8
        mine
        read 2 1                       => 2 B#0=6 B#1=7 -payer +payer +shop
        balance                        => 13
        state                          => live payer shop
        find A                         => 2
        find C                         => 2

        // A transaction fails as a whole, and none of another token's.
        pay D other
        pay E dirty
        pay F approval 4
        mine
        read 3 1                       => 3
        pending                        =>

        // What the issuer takes away is in no transfer.
        destroy shop
        mine
        read 4 1                       => 4 destroyed:shop=13
        balance                        => 0

        // A failed transaction says nothing.
        thaw payer
        thaw shop
        failing G freezing
        mine
        read 5 1                       => 5 -payer -shop
        state                          => live
        pay H 1
        mine
        balance                        => 1
        ",
    )
    .await;
}

#[tokio::test]
async fn a_paused_token_moves_nothing_and_a_deprecated_one_goes_on() {
    check(
        "
        pay A 5
        pause
        pay B 6
        mine
        read 1 1                       => 1 A#0=5 paused
        state                          => paused
        pay C 7
        mine
        read 2 1                       => 2
        unpause
        pay D 8
        mine
        read 3 1                       => 3 D#0=8 unpaused
        deprecate shop
        pay E 9
        mine
        read 4 1                       => 4 E#0=9 deprecated:shop
        state                          => live deprecated
        ",
    )
    .await;
}

#[tokio::test]
async fn a_fork_takes_the_issuers_acts_back_and_what_they_refused_happens() {
    check(
        "
        pay A 5
        mine
        freeze payer
        pay B 6
        mine
        destroy shop
        pause
        mine
        state                          => paused payer
        read 1 9                       => 1 A#0=5  2 +payer  3 destroyed:shop=5 paused
        balance                        => 0

        // Without the freeze, the same transaction succeeds.
        fork 2 gone B
        read 1 9                       => 1 A#0=5  2' B#0=6
        state                          => live
        balance                        => 11

        // Again with it, and with the transaction in the same block before it and after it.
        fork 1 back +freezing B
        read 2 9                       => 2'' +shop  3'' B#0=6
        pending                        =>
        state                          => live shop
        fork 2 gone +pausing,B
        read 2 9                       => 2''' paused
        fork 1 back B,+pausing
        read 2 9                       => 2'''' B#0=6 paused
        mine
        state                          => paused
        ",
    )
    .await;
}

#[tokio::test]
async fn the_state_is_that_of_the_head_that_is_shown() {
    check(
        "
        freeze payer
        mine
        pause
        mine
        state                          => paused payer
        lag 1
        state                          => live payer
        lag 2
        state                          => live
        heal
        fail 1
        state                          => transient
        down
        state                          => transient
        up
        state                          => paused payer
        ",
    )
    .await;
    let chain = SandboxChain::new(config());
    assert!(chain.token_state(&[SHOP; STATE_ADDRESSES_MAX]).await.is_ok());
    assert!(matches!(chain.token_state(&[SHOP; STATE_ADDRESSES_MAX + 1]).await, Err(Error::Refused(_))));
}

/// TRON's contract indexes an address, Ethereum's does not.
#[tokio::test]
async fn both_flavours_say_the_same() {
    let notices = [
        TokenNotice::Blacklisted(SHOP),
        TokenNotice::FundsDestroyed { address: SHOP, value: Raw::from_be_bytes([0xff; 32]) },
        TokenNotice::Unblacklisted(SHOP),
        TokenNotice::Paused,
        TokenNotice::Unpaused,
        TokenNotice::Deprecated { successor: PAYER },
    ];
    for config in [SandboxConfig::tron(GENESIS, 1), SandboxConfig::evm(GENESIS, 1)] {
        let chain = SandboxChain::new(config);
        chain.transaction(notices.iter().copied().map(LogEntry::Notice).collect());
        chain.mine(GENESIS).unwrap();
        let block = chain.blocks(1, 1).await.unwrap().remove(0);
        assert_eq!(block.notices, notices);
        let state = chain.token_state(&[SHOP]).await.unwrap();
        assert_eq!(state, TokenState { paused: Some(false), deprecated: Some(true), blacklisted: vec![] });
    }
}

#[tokio::test]
async fn an_unreadable_log_is_kept_as_it_came_and_names_whom_it_may_concern() {
    let chain = SandboxChain::new(config());
    chain.transaction(vec![log("dirty"), LogEntry::Token { topics: vec![transfer_topic()], data: vec![7; 2_000] }]);
    chain.mine(GENESIS).unwrap();
    let block = chain.blocks(1, 1).await.unwrap().remove(0);
    assert!(block.transfers.is_empty());
    let [dirty, long] = block.unreadable.as_slice() else { panic!("{block:?}") };
    assert!(dirty.mentions.starts_with(&[PAYER, SHOP]));
    assert!(dirty.raw.starts_with(&format!("topics {},", hex::encode(transfer_topic()))));
    assert!(dirty.raw.contains(&hex::encode(PAYER.0)));
    assert_eq!(long.raw.len(), 1_024);
    assert_eq!(long.mentions, [Address([7; 20])]);
}

#[tokio::test]
async fn a_value_of_256_bits_is_read_and_can_be_taken_back() {
    let chain = SandboxChain::new(config());
    chain.transfer(PAYER, SHOP, units(5));
    chain.mine(GENESIS).unwrap();
    let forged = Raw::from_be_bytes([0xff; 32]);
    chain.transfer(PAYER, SHOP, forged);
    chain.mine(GENESIS).unwrap();
    assert_eq!(chain.blocks(2, 1).await.unwrap()[0].transfers[0].value, forged);
    chain.fork(1, vec![], Dropped::Vanish).unwrap();
    assert_eq!(chain.balance(&SHOP), units(5));
    assert_eq!(chain.balance(&PAYER), Raw::ZERO);
}

/// The same calls on any chain.
fn busy(chain: &SandboxChain) -> Vec<Block> {
    chain.mine_many(3, SLOT).unwrap();
    let paid = chain.transfer(PAYER, SHOP, units(5));
    chain.faucet(PAYER, units(50));
    chain.mine_many(2, SLOT).unwrap();
    let branch = vec![BranchBlock::at(GENESIS).with(vec![log("1")]), BranchBlock::at(GENESIS), BranchBlock::at(GENESIS).again(paid)];
    chain.fork(2, branch, Dropped::ReturnToPool).unwrap();
    chain.mine(chain.tip().time.plus(SLOT)).unwrap();
    (0..=chain.tip().number).map(|number| chain.block(number).unwrap()).collect()
}

#[test]
fn the_same_calls_give_the_same_hashes_and_another_seed_others() {
    let first = busy(&SandboxChain::new(config()));
    assert_eq!(first, busy(&SandboxChain::new(config())));
    let other = busy(&SandboxChain::new(SandboxConfig { seed: 2, ..config() }));
    for (one, two) in first.iter().zip(&other) {
        assert_ne!(one.at.hash, two.at.hash);
        for (one, two) in one.transfers.iter().zip(&two.transfers) {
            assert_ne!(one.key.tx_hash, two.key.tx_hash);
        }
    }
}

#[test]
fn hashes_have_the_form_of_their_flavour() {
    let tron = SandboxChain::new(SandboxConfig::tron(GENESIS, 1));
    for block in busy(&tron) {
        assert_eq!(block.at.hash.0[..8], block.at.number.to_be_bytes());
    }
    let genesis = tron.block(0).unwrap().at.hash.0;
    assert_eq!(u64::from(u32::from_be_bytes(genesis[28..].try_into().unwrap())), tron.config().chain_id);
    for block in busy(&SandboxChain::new(SandboxConfig::evm(GENESIS, 1))) {
        assert_ne!(block.at.hash.0[..8], block.at.number.to_be_bytes());
    }
}

#[test]
fn addresses_have_the_form_of_their_flavour() {
    for config in [SandboxConfig::tron(GENESIS, 1), SandboxConfig::evm(GENESIS, 1)] {
        let chain = SandboxChain::new(config);
        let text = chain.format_address(&SHOP);
        assert_eq!(chain.parse_address(&text), Some(SHOP), "{text}");
    }
}

#[test]
fn time_never_runs_backwards() {
    let chain = SandboxChain::new(config());
    let late = GENESIS.plus(Span::from_secs(60));
    chain.mine(late).unwrap();
    assert_eq!(chain.mine(GENESIS).unwrap().time, late);
    let branch = vec![BranchBlock::at(GENESIS), BranchBlock::at(late.plus(SLOT)), BranchBlock::at(late)];
    let tip = chain.fork(1, branch, Dropped::Vanish).unwrap();
    assert_eq!(tip.time, late.plus(SLOT));
    assert_eq!(chain.block(2).unwrap().at.time, late);
}

#[tokio::test]
async fn calls_are_counted_by_method_over_all_clones_answered_or_not() {
    let chain = SandboxChain::new(config());
    let at = chain.mine(GENESIS).unwrap();
    let clone = chain.clone();
    clone.identity().await.unwrap();
    let before = chain.calls();
    clone.blocks(1, 9).await.unwrap();
    clone.head().await.unwrap();
    clone.header(1).await.unwrap();
    clone.final_head().await.unwrap();
    chain.fail_next(1);
    clone.reread(&at).await.unwrap_err();
    clone.reread(&at).await.unwrap();
    clone.token_state(&[]).await.unwrap();
    let made = chain.calls().since(&before);
    assert_eq!(made, Calls { head: 1, header: 1, blocks: 1, final_head: 1, reread: 2, token_state: 1, ..Calls::default() });

    // Looking at it past the trait costs nothing.
    let _ = (chain.tip(), chain.block(1), chain.find(&at.hash));
    assert_eq!(chain.calls().total(), 8);

    let health = &chain.endpoints()[0];
    assert_eq!((health.name.as_str(), health.available, health.calls, health.failures), ("sandbox", true, 8, 1));
    assert!(health.last_error.as_ref().unwrap().contains("script"));
    chain.begin_outage();
    assert!(!chain.endpoints()[0].available);
}

#[tokio::test]
async fn a_reader_can_wait_for_a_block_without_sleeping() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let chain = SandboxChain::new(config());
    shared(&chain);
    let mut head = chain.subscribe();
    assert_eq!(*head.borrow_and_update(), 0);

    let miner = chain.clone();
    let mining = tokio::spawn(async move { miner.mine_many(5, SLOT).unwrap() });
    head.wait_for(|number| *number >= 5).await.unwrap();
    mining.await.unwrap();

    head.mark_unchanged();
    chain.fork(1, vec![BranchBlock::at(GENESIS)], Dropped::Vanish).unwrap();
    assert!(head.has_changed().unwrap(), "a fork of equal length is news");
    chain.lag(2);
    assert_eq!(*head.borrow_and_update(), 3);
    chain.heal();
    assert_eq!(*head.borrow_and_update(), 5);
}

/// What a reader gets who asks again until he has it all, and the calls it took him.
async fn follow(chain: &SandboxChain) -> (Vec<Block>, u64) {
    let mut blocks: Vec<Block> = vec![chain.block(0).unwrap()];
    let tip = chain.tip().number;
    while blocks.last().unwrap().at.number < tip {
        let next = blocks.last().unwrap().at.number + 1;
        match chain.blocks(next, 16).await {
            Ok(found) => {
                for block in found {
                    assert_eq!(block.at.parent, blocks.last().unwrap().at.hash);
                    blocks.push(block);
                }
            }
            Err(error) => assert!(error.is_transient()),
        }
    }
    (blocks, chain.calls().total())
}

#[tokio::test(start_paused = true)]
async fn drawn_faults_repeat_from_their_seed_and_never_lie() {
    let mut calls = Vec::new();
    for seed in [1, 1, 2, 3, 4] {
        let chain = SandboxChain::new(config());
        for step in 0..300 {
            if step % 3 == 0 {
                chain.transfer(PAYER, SHOP, units(step + 1));
            }
            chain.mine_many(1, SLOT).unwrap();
        }
        let (clean, _) = follow(&chain).await;
        chain.inject(Faults::harsh(seed));
        let (faulty, made) = follow(&chain).await;
        assert_eq!(faulty, clean, "faults delay, and change nothing that is answered");
        calls.push(made);

        // All kinds of faults were met on the way, and one call ends them all.
        let (mut failed, mut behind, mut missing) = (0, 0, 0);
        for _ in 0..500 {
            match chain.head().await {
                Ok(head) if head == chain.tip() => {}
                Ok(head) => {
                    assert_eq!(chain.block(head.number).unwrap().at, head);
                    behind += 1;
                }
                Err(_) => failed += 1,
            }
            missing += u32::from(chain.header(5).await == Ok(None));
        }
        assert!(failed > 50 && behind > 50 && missing > 20, "{failed} {behind} {missing}");
        chain.heal();
        for _ in 0..100 {
            assert_eq!(chain.head().await, Ok(chain.tip()));
        }
    }
    assert_eq!(calls[0], calls[1], "the same seed");
    assert!(calls[1..].windows(2).any(|pair| pair[0] != pair[1]), "other seeds");
}

#[tokio::test]
async fn a_chain_that_runs_for_days_lets_go_of_its_oldest_blocks() {
    let chain = SandboxChain::new(config());
    chain.faucet(SHOP, units(5));
    let held = u64::try_from(BLOCKS_HELD_MAX).unwrap();
    let tip = chain.mine_many(held, SLOT).unwrap();
    assert_eq!(tip.number, held);
    let first = held - u64::try_from(BLOCKS_KEPT).unwrap();
    assert_eq!(chain.header(first - 1).await, Ok(None));
    assert_eq!(chain.header(first).await.unwrap().unwrap().number, first);
    assert_eq!(chain.balance(&SHOP), units(5));
}

mod kept {
    use super::*;

    fn all(chain: &SandboxChain) -> Vec<Block> {
        (0..=chain.tip().number).filter_map(|number| chain.block(number)).collect()
    }

    #[tokio::test]
    async fn a_chain_comes_back_from_its_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tron.chain");
        let chain = SandboxChain::open(config(), &path).unwrap();
        let mut before = busy(&chain);
        chain.transaction(vec![log("5"), log("0"), log("dirty"), log("other"), log("bare")]);
        chain.failed_transaction(vec![log("5")]);
        before.push(chain.mine_many(1, SLOT).map(|at| chain.block(at.number).unwrap()).unwrap());
        let (shop, final_head) = (chain.balance(&SHOP), chain.final_head().await.unwrap());
        assert!(final_head.is_some());
        let lost = chain.transfer(PAYER, SHOP, units(999));
        drop(chain);

        // Another seed and genesis time: whoever starts again need not know the old ones.
        let again = SandboxConfig { genesis_time: GENESIS.plus(SLOT), seed: 99, ..config() };
        for _ in 0..2 {
            let chain = SandboxChain::open(again.clone(), &path).unwrap();
            assert_eq!(all(&chain), before);
            assert_eq!(chain.balance(&SHOP), shop);
            assert_eq!(chain.final_head().await.unwrap(), final_head);
            assert_eq!(*chain.subscribe().borrow(), chain.tip().number);
            assert!(chain.pending().is_empty(), "what waited is gone");
            assert_eq!(chain.find(&lost), None);
        }

        // It goes on as if nothing had been, with hashes never seen before.
        let chain = SandboxChain::open(again, &path).unwrap();
        let hash = chain.transfer(PAYER, SHOP, units(5));
        assert!(before.iter().all(|block| block.transfers.iter().all(|transfer| transfer.key.tx_hash != hash)));
        let tip = chain.mine_many(1, SLOT).unwrap();
        assert_eq!(tip.parent, before.last().unwrap().at.hash);
    }

    #[tokio::test]
    async fn a_frozen_address_stays_frozen_when_its_block_is_long_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.blacklist(PAYER);
        chain.deprecate(SHOP);
        chain.mine(GENESIS).unwrap();
        chain.mine_many(u64::try_from(BLOCKS_KEPT).unwrap(), SLOT).unwrap();
        let refused = chain.transfer(PAYER, SHOP, units(5));
        chain.pause();
        let tip = chain.mine(GENESIS).unwrap();
        assert_eq!(chain.find(&refused), Some(tip));
        let before = chain.token_state(&[PAYER, SHOP]).await.unwrap();
        assert_eq!(before, TokenState { paused: Some(true), deprecated: Some(true), blacklisted: vec![PAYER] });
        drop(chain);

        for _ in 0..2 {
            let chain = SandboxChain::open(config(), &path).unwrap();
            assert_eq!(chain.block(1), None);
            assert_eq!(chain.token_state(&[PAYER, SHOP]).await.unwrap(), before);
            assert_eq!((chain.tip(), chain.balance(&SHOP)), (tip, units(0)), "what was refused stays so");
        }
        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.fork(1, vec![], Dropped::Vanish).unwrap();
        let again = SandboxChain::open(config(), &path).unwrap();
        for chain in [chain, again] {
            let state = chain.token_state(&[PAYER]).await.unwrap();
            assert_eq!((state.paused, state.blacklisted), (Some(false), vec![PAYER]), "the pause was in the block that is gone");
        }
    }

    #[tokio::test]
    async fn a_file_from_before_there_were_notices_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let chain = SandboxChain::open(config(), &path).unwrap();
        let tip = chain.mine(GENESIS).unwrap();
        drop(chain);
        let text = fs::read_to_string(&path).unwrap();
        let standing = r#","standing":{"paused":false,"deprecated":false,"blacklisted":[]}"#;
        assert!(text.contains(standing), "{text}");
        fs::write(&path, text.replace(standing, "")).unwrap();
        let chain = SandboxChain::open(config(), &path).unwrap();
        assert_eq!(chain.tip(), tip);
        assert_eq!(chain.token_state(&[]).await.unwrap().paused, Some(false));
    }

    #[test]
    fn a_block_that_an_empty_fork_took_away_is_not_mined_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let chain = SandboxChain::open(config(), &path).unwrap();
        let gone = chain.mine(GENESIS).unwrap();
        chain.fork(1, vec![], Dropped::Vanish).unwrap();
        for _ in 0..2 {
            assert_eq!(SandboxChain::open(config(), &path).unwrap().tip().number, 0);
        }
        let mined = SandboxChain::open(config(), &path).unwrap().mine(GENESIS).unwrap();
        assert_eq!((mined.number, mined.time), (gone.number, gone.time));
        assert_ne!(mined.hash, gone.hash);
    }

    #[test]
    fn a_torn_last_line_never_happened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.transfer(PAYER, SHOP, units(5));
        let whole = chain.mine(GENESIS).unwrap();
        let keep = fs::read(&path).unwrap();
        // A fork is one line, so it tears as a whole.
        let branch = vec![BranchBlock::at(GENESIS), BranchBlock::at(GENESIS).with(vec![log("7")])];
        let forked = chain.fork(1, branch, Dropped::Vanish).unwrap();
        let longer = fs::read(&path).unwrap();
        drop(chain);
        assert!(longer.starts_with(&keep), "lines are only ever added");

        for len in (keep.len()..longer.len()).step_by(13).chain([longer.len() - 1]) {
            fs::write(&path, &longer[..len]).unwrap();
            let chain = SandboxChain::open(config(), &path).unwrap();
            assert_eq!((chain.tip(), chain.balance(&SHOP)), (whole, units(5)), "cut to {len}");
            // The torn bytes are gone: the next block is found again.
            let tip = chain.mine(GENESIS).unwrap();
            assert_eq!(SandboxChain::open(config(), &path).unwrap().tip(), tip);
        }
        fs::write(&path, &longer).unwrap();
        let chain = SandboxChain::open(config(), &path).unwrap();
        assert_eq!((chain.tip(), chain.balance(&SHOP)), (forked, units(7)));

        // Killed before the first line was whole.
        for start in ["", "{\"start\":{\"fla"] {
            fs::write(&path, start).unwrap();
            assert_eq!(SandboxChain::open(config(), &path).unwrap().tip().number, 0);
        }
    }

    #[test]
    fn a_damaged_file_and_a_strange_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let refused = |config: SandboxConfig| {
            let error = SandboxChain::open(config, &path).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            error.to_string()
        };
        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.transfer(PAYER, SHOP, units(5));
        chain.mine_many(3, SLOT).unwrap();
        drop(chain);
        let good = fs::read_to_string(&path).unwrap();

        for other in [
            SandboxConfig { chain_id: 5, ..config() },
            SandboxConfig { decimals: 18, ..config() },
            SandboxConfig { token: SHOP, ..config() },
            SandboxConfig::evm(GENESIS, 1),
        ] {
            assert!(refused(other).contains("another flavour"));
        }
        let other = folder.path().join("other");
        SandboxChain::open(config(), &other).unwrap().mine_many(3, SLOT).unwrap();
        let strange = fs::read_to_string(&other).unwrap();
        let strange = strange.lines().last().unwrap();

        let lines: Vec<&str> = good.lines().collect();
        assert_eq!(lines.len(), 5, "a start and four blocks");
        for (changed, line, why) in [
            (good.replacen("aaaa", "aaab", 1), 3, "does not follow"),
            ([lines[0], lines[1], lines[3], lines[4], ""].join("\n"), 3, "does not follow"),
            ([lines[0], lines[1], lines[2], lines[3], strange, ""].join("\n"), 5, "does not follow"),
            ([lines[0], lines[1], "{", lines[3], ""].join("\n"), 3, "EOF"),
            ([lines[1], lines[2], ""].join("\n"), 1, "does not follow"),
            ([lines[0], ""].join("\n"), 1, "no block"),
        ] {
            fs::write(&path, changed).unwrap();
            let error = refused(config());
            assert!(error.contains(&format!("line {line}:")) && error.contains(why), "{error}");
        }
        fs::write(&path, good).unwrap();
        assert_eq!(SandboxChain::open(config(), &path).unwrap().tip().number, 3);
    }

    #[tokio::test]
    async fn only_the_last_blocks_are_kept_and_they_keep_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain");
        let kept = u64::try_from(BLOCKS_KEPT).unwrap();
        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.faucet(SHOP, units(5));
        chain.mine(GENESIS).unwrap();
        // Its hash must not come back when the block that has it is long gone.
        let old = chain.faucet(SHOP, units(7));
        chain.mine_many(kept + 50, SLOT).unwrap();
        assert_eq!(chain.block(0).unwrap().at.number, 0, "nothing is let go while it runs");
        let (tip, last) = (chain.tip(), chain.final_head().await.unwrap());
        drop(chain);

        for _ in 0..2 {
            let chain = SandboxChain::open(config(), &path).unwrap();
            let first = tip.number - kept + 1;
            assert_eq!(chain.tip(), tip);
            assert_eq!(chain.final_head().await.unwrap(), last);
            assert_eq!(chain.header(first - 1).await, Ok(None));
            assert_eq!(chain.blocks(first - 1, 9).await, Ok(vec![]));
            assert_eq!(chain.blocks(first, 9).await.unwrap().len(), 9);
            assert_eq!(chain.balance(&SHOP), units(12), "money outlives the block that moved it");
            assert_ne!(chain.faucet(SHOP, units(7)), old);
            chain.fork(kept, vec![], Dropped::Vanish).unwrap_err();
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), BLOCKS_KEPT + 1);

        let chain = SandboxChain::open(config(), &path).unwrap();
        chain.fork(kept - 1, vec![], Dropped::Vanish).unwrap();
        assert_eq!(chain.tip().number, tip.number - kept + 1);
        assert_eq!(SandboxChain::open(config(), &path).unwrap().tip(), chain.tip());
    }
}

/// Whatever is done to it, the chain is one chain, and its books are the sum of its blocks.
mod laws {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pay(Vec<u8>),
        Fail(u8),
        Notice(u8),
        Mine(u8),
        Fork { depth: u64, blocks: Vec<u8>, back: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Step::Pay),
            1 => any::<u8>().prop_map(Step::Fail),
            1 => any::<u8>().prop_map(Step::Notice),
            4 => (0u8..9).prop_map(Step::Mine),
            2 => (0u64..6, proptest::collection::vec(any::<u8>(), 0..6), any::<bool>())
                .prop_map(|(depth, blocks, back)| Step::Fork { depth, blocks, back }),
        ]
    }

    fn transfer(value: u8) -> LogEntry {
        let (from, to) = if value.is_multiple_of(3) { (SHOP, FAUCET) } else { (FAUCET, SHOP) };
        LogEntry::Transfer { from, to, value: units(u128::from(value)) }
    }

    fn play(chain: &SandboxChain, step: &Step) {
        let later = chain.tip().time.plus(SLOT);
        match step {
            Step::Pay(values) => {
                chain.transaction(values.iter().map(|value| transfer(*value)).collect());
            }
            Step::Fail(value) => {
                chain.failed_transaction(vec![transfer(*value)]);
            }
            Step::Notice(which) => {
                let address = if which.is_multiple_of(2) { SHOP } else { FAUCET };
                match which % 7 {
                    0 | 1 => chain.blacklist(address),
                    2 | 3 => chain.unblacklist(address),
                    4 => chain.pause(),
                    _ => chain.unpause(),
                };
            }
            Step::Mine(seconds) => {
                // Sometimes earlier than the parent.
                chain.mine(later.minus(Span::from_secs(u64::from(*seconds)))).unwrap();
            }
            Step::Fork { depth, blocks, back } => {
                let depth = (*depth).min(chain.tip().number);
                let tip = chain.tip().number;
                let dropped: Vec<_> = (tip - depth + 1..=tip).flat_map(|n| chain.block(n).unwrap().transfers).collect();
                let mut again: Vec<Hash> = dropped.iter().map(|transfer| transfer.key.tx_hash).collect();
                again.dedup();
                let branch = blocks.iter().map(|value| {
                    let block = BranchBlock::at(later);
                    match (value % 3, again.pop()) {
                        (0, Some(hash)) => block.again(hash),
                        (1, _) => block.with(vec![transfer(*value)]),
                        _ => block,
                    }
                });
                let fate = if *back { Dropped::ReturnToPool } else { Dropped::Vanish };
                chain.fork(depth, branch.collect(), fate).unwrap();
            }
        }
    }

    fn assert_whole(chain: &SandboxChain) {
        let blocks: Vec<Block> = (0..=chain.tip().number).map(|number| chain.block(number).unwrap()).collect();
        for pair in blocks.windows(2) {
            assert_eq!(pair[1].at.parent, pair[0].at.hash);
            assert_eq!(pair[1].at.number, pair[0].at.number + 1);
            assert!(pair[1].at.time >= pair[0].at.time);
        }
        let transfers = || blocks.iter().flat_map(|block| &block.transfers);
        let mut keys: Vec<TransferKey> = transfers().map(|transfer| transfer.key).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "a transfer is on the chain once");

        let moved = |side: fn(&tidegate_rules::block::Transfer) -> Address| {
            let values = transfers().filter(|transfer| side(transfer) == SHOP).map(|transfer| transfer.value);
            values.fold(Raw::ZERO, Raw::saturating_add).to_string().parse::<u128>().unwrap()
        };
        let expected = moved(|transfer| transfer.to).saturating_sub(moved(|transfer| transfer.from));
        assert_eq!(chain.balance(&SHOP), units(expected));
    }

    /// What the blocks say, one after another.
    fn replayed(chain: &SandboxChain) -> TokenState {
        let (mut paused, mut frozen) = (false, std::collections::BTreeSet::new());
        for block in (0..=chain.tip().number).map(|number| chain.block(number).unwrap()) {
            for notice in block.notices {
                match notice {
                    TokenNotice::Blacklisted(address) => _ = frozen.insert(address),
                    TokenNotice::Unblacklisted(address) => _ = frozen.remove(&address),
                    TokenNotice::Paused => paused = true,
                    TokenNotice::Unpaused => paused = false,
                    other => panic!("{other:?}"),
                }
            }
        }
        let blacklisted = [SHOP, FAUCET].into_iter().filter(|address| frozen.contains(address)).collect();
        TokenState { paused: Some(paused), deprecated: Some(false), blacklisted }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn the_chain_is_one_chain_and_survives_its_file(steps in proptest::collection::vec(step(), 1..40)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("chain");
            let kept = SandboxChain::open(config(), &path).unwrap();
            let memory = SandboxChain::new(config());
            for step in &steps {
                play(&memory, step);
                assert_whole(&memory);
                play(&kept, step);
            }
            let again = SandboxChain::open(config(), &path).unwrap();
            assert_whole(&again);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let settled = |chain: &SandboxChain| runtime.block_on(chain.final_head()).unwrap();
            assert_eq!(settled(&again), settled(&memory));
            let standing = |chain: &SandboxChain| runtime.block_on(chain.token_state(&[SHOP, FAUCET])).unwrap();
            assert_eq!(standing(&again), standing(&memory));
            assert_eq!(standing(&memory), replayed(&memory));
            for number in 0..=memory.tip().number {
                assert_eq!(kept.block(number), memory.block(number));
                assert_eq!(again.block(number), memory.block(number));
            }
            assert_eq!(again.balance(&FAUCET), memory.balance(&FAUCET));
        }
    }
}

/// What an adapter notices is an error; what it cannot notice is another chain that agrees with
/// itself, and a second reading that differs. Each is counted under its name.
#[tokio::test(start_paused = true)]
async fn a_lying_endpoint_lies_like_one() {
    let chain = SandboxChain::new(config());
    chain.transfer(PAYER, SHOP, units(5));
    chain.mine_many(20, SLOT).unwrap();
    let first = chain.block(1).unwrap();
    chain.inject(Faults { timeout_permille: 100, ..Faults::lying(1) });
    let (mut refused, mut foreign, mut altered, mut timeouts) = (0, 0, 0, 0);
    for _ in 0..500 {
        let asked = tokio::time::Instant::now();
        match chain.blocks(1, 20).await {
            Ok(blocks) => {
                assert!(blocks.windows(2).all(|two| two[1].at.parent == two[0].at.hash), "a chain that is none");
                let Some(block) = blocks.first() else { continue };
                let is_ours = block.at.hash == first.at.hash;
                assert_eq!(is_ours, *block == first, "half of one chain and half of another");
                assert_eq!((block.at.number, block.at.hash.0[..8].to_vec()), (1, first.at.hash.0[..8].to_vec()));
                foreign += u64::from(!is_ours);
            }
            Err(Error::Refused(_)) => refused += 1,
            Err(Error::Transient(_)) => timeouts += u64::from(!asked.elapsed().is_zero()),
        }
        if let Ok(Some(again)) = chain.reread(&first.at).await {
            assert_eq!(again.at, first.at);
            altered += u64::from(again != first);
        }
    }
    let met = chain.met();
    assert!(refused > 10 && timeouts > 10, "{refused} {timeouts}");
    assert!(met[&Fault::Foreign] >= foreign && met[&Fault::Altered] >= altered && foreign > 20 && altered > 50, "{met:?}");
    for fault in
        [Fault::Failed, Fault::Throttled, Fault::TimedOut, Fault::WrongChain, Fault::Truncated, Fault::Duplicated, Fault::Reordered]
    {
        assert!(met.get(&fault).is_some_and(|count| *count > 0), "{fault:?} in {met:?}");
    }
    chain.heal();
    assert_eq!((chain.blocks(1, 1).await, chain.reread(&first.at).await), (Ok(vec![first.clone()]), Ok(Some(first))));
    assert_eq!(chain.met(), met, "healing forgets nothing, and nothing is met after it");
}
