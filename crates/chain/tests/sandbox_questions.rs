//! What the sandbox is asked beside blocks, answered by the chain that it plays and spoilt by its
//! faults: balances, one transaction, what one costs, and settled blocks once more.

use tidegate_chain::sandbox::{BranchBlock, Calls, Dropped, Faults, LogEntry, SandboxChain, SandboxConfig};
use tidegate_chain::{Attempted, BALANCES_MAX, Balances, Chain, Error, Fee, Outcome, SECOND_READING_MAX, SecondReading, Transaction};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, BlockRef, Hash};
use tidegate_rules::time::Time;

const GENESIS: Time = Time::from_secs(1_770_000_000);
const PAYER: Address = Address([0xaa; 20]);
const SHOP: Address = Address([0xbb; 20]);
const NOBODY: Address = Address([0xcc; 20]);

fn tron() -> SandboxChain {
    SandboxChain::new(SandboxConfig::tron(GENESIS, 1))
}

fn evm() -> SandboxChain {
    SandboxChain::new(SandboxConfig::evm(GENESIS, 1))
}

fn mine(chain: &SandboxChain) -> BlockRef {
    chain.mine(GENESIS).unwrap()
}

/// A block with a transfer of `value` from the payer to the shop.
fn pay(chain: &SandboxChain, value: u128) -> Hash {
    let hash = chain.transfer(PAYER, SHOP, Raw::from_units(value));
    mine(chain);
    hash
}

async fn ask(chain: &SandboxChain, hash: Hash) -> Result<Option<Transaction>, Error> {
    Chain::transaction(chain, &hash).await
}

async fn told(chain: &SandboxChain, hash: Hash) -> Transaction {
    ask(chain, hash).await.unwrap().unwrap()
}

#[tokio::test]
async fn balances_are_those_of_the_head_that_is_shown() {
    let chain = tron();
    let three = [SHOP, NOBODY, PAYER];
    let held = async |chain: &SandboxChain| {
        let Balances { at, values, calls } = chain.balances(&three).await.unwrap();
        assert_eq!(calls, 1);
        format!("{at}: {} {} {}", values[0], values[1], values[2])
    };
    chain.faucet(PAYER, Raw::from_units(100));
    mine(&chain);
    pay(&chain, 30);
    pay(&chain, 5);
    chain.destroy_black_funds(SHOP);
    mine(&chain);
    assert_eq!(held(&chain).await, "4: 0 0 65");
    for (lag, expected) in [(1, "3: 35 0 65"), (2, "2: 30 0 70"), (3, "1: 0 0 100"), (4, "0: 0 0 0"), (9, "0: 0 0 0")] {
        chain.lag(lag);
        assert_eq!(held(&chain).await, expected);
    }
    chain.heal();
    chain.fork(2, vec![BranchBlock::at(GENESIS)], Dropped::Vanish).unwrap();
    assert_eq!(held(&chain).await, "3: 30 0 70");
    // What waits is not there yet.
    chain.transfer(PAYER, NOBODY, Raw::from_units(1));
    assert_eq!(held(&chain).await, "3: 30 0 70");

    let before = chain.calls();
    assert_eq!(chain.balances(&[]).await.unwrap(), Balances::default());
    assert!(matches!(chain.balances(&[SHOP; BALANCES_MAX + 1]).await, Err(Error::Refused(_))));
    assert_eq!(chain.calls(), before);
    assert_eq!(chain.balances(&[SHOP; BALANCES_MAX]).await.unwrap().values, vec![Raw::from_units(30); BALANCES_MAX]);
}

#[tokio::test]
async fn a_transaction_waits_is_mined_fails_and_vanishes() {
    let attempted = |value| Some(Attempted { from: PAYER, to: SHOP, value: Raw::from_units(value) });
    for (chain, refused, out_of_time) in [(tron(), "REVERT", "OUT_OF_TIME"), (evm(), "status 0, reverted", "status 0, reverted")] {
        let hash = chain.transfer(PAYER, SHOP, Raw::from_units(7));
        let found = told(&chain, hash).await;
        assert_eq!((found.outcome, found.block, found.from, found.attempted), (Outcome::Pending, None, Some(PAYER), attempted(7)));
        assert_eq!(found.transfers, []);
        let block = mine(&chain);
        let found = told(&chain, hash).await;
        assert_eq!((found.hash, found.outcome, found.block, found.attempted), (hash, Outcome::Succeeded, Some(block), None));
        assert_eq!(found.transfers, chain.block(block.number).unwrap().transfers);

        // With the ordinals of its block, odd logs and all.
        let odd = LogEntry::malformed(PAYER, SHOP, Raw::from_units(1));
        let last = LogEntry::Transfer { from: PAYER, to: SHOP, value: Raw::from_units(2) };
        let hash = chain.transaction(vec![odd, last]);
        let block = chain.block(mine(&chain).number).unwrap();
        let found = told(&chain, hash).await;
        assert_eq!((found.transfers, found.unreadable), (block.transfers, block.unreadable));

        let hash = chain.failed_transaction(vec![LogEntry::Transfer { from: PAYER, to: SHOP, value: Raw::from_units(8) }]);
        let block = mine(&chain);
        let found = told(&chain, hash).await;
        assert_eq!(found.outcome, Outcome::Failed { reason: out_of_time.into() });
        assert_eq!((found.block, found.transfers, found.attempted), (Some(block), vec![], attempted(8)));

        chain.blacklist(PAYER);
        let hash = pay(&chain, 9);
        let found = told(&chain, hash).await;
        assert_eq!((found.outcome, found.attempted), (Outcome::Failed { reason: refused.into() }, attempted(9)));

        chain.fork(1, vec![], Dropped::ReturnToPool).unwrap();
        assert_eq!(told(&chain, hash).await.outcome, Outcome::Pending);
        mine(&chain);
        chain.fork(1, vec![], Dropped::Vanish).unwrap();
        assert_eq!(ask(&chain, hash).await, Ok(None));
        assert_eq!(ask(&chain, Hash([3; 32])).await, Ok(None));
    }
}

#[tokio::test]
async fn a_fee_adds_up() {
    let Fee::Tron { energy, energy_to_new, bandwidth, energy_price, bandwidth_price, burn, burn_to_new, with_energy, .. } =
        tron().fee(Some(PAYER)).await.unwrap()
    else {
        panic!("TRON's flavour")
    };
    assert_eq!(with_energy, bandwidth * bandwidth_price);
    assert_eq!((burn, burn_to_new), (energy * energy_price + with_energy, energy_to_new * energy_price + with_energy));
    let Fee::Evm { gas, gas_to_new, base_fee, priority_fee, max_fee_per_gas, cost, cost_to_new, cost_max, .. } =
        evm().fee(None).await.unwrap()
    else {
        panic!("Ethereum's flavour")
    };
    let price = base_fee + priority_fee;
    assert_eq!((cost, cost_to_new), (u128::from(gas) * price, u128::from(gas_to_new) * price));
    assert_eq!((max_fee_per_gas, cost_max), (2 * base_fee + priority_fee, 90_000 * max_fee_per_gas));
}

#[tokio::test]
async fn a_second_reading_is_the_block_or_what_stands_in_its_place() {
    let chain = evm();
    (1..=5).for_each(|value| _ = pay(&chain, value));
    let blocks = chain.blocks(1, 9).await.unwrap();
    let refs: Vec<BlockRef> = blocks.iter().map(|block| block.at).collect();
    let same: Vec<_> = blocks.iter().cloned().map(SecondReading::Same).collect();
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    let branch = vec![BranchBlock::at(GENESIS), BranchBlock::at(GENESIS)];
    chain.fork(2, branch, Dropped::Vanish).unwrap();
    let again = chain.second_reading(&refs).await.unwrap();
    assert_eq!(again[..3], same[..3]);
    assert_eq!(again[3..], [4, 5].map(|number| SecondReading::Replaced(chain.block(number).unwrap().at)));

    let before = chain.calls();
    assert_eq!(chain.second_reading(&[]).await.unwrap(), []);
    for asked in [vec![refs[0], refs[2]], vec![refs[0]; SECOND_READING_MAX + 1]] {
        assert!(matches!(chain.second_reading(&asked).await, Err(Error::Refused(_))));
    }
    assert_eq!(chain.calls(), before);
}

/// One word for each question: what it answers now.
async fn words(chain: &SandboxChain, hash: Hash, at: BlockRef) -> String {
    let word = |failed: bool| if failed { "transient" } else { "ok" };
    let transaction = match ask(chain, hash).await {
        Ok(None) => "unknown",
        Ok(Some(found)) if found.outcome == Outcome::Pending => "pending",
        answer => word(answer.is_err()),
    };
    let balances = word(chain.balances(&[SHOP]).await.is_err());
    let (fee, again) = (word(chain.fee(None).await.is_err()), word(chain.second_reading(&[at]).await.is_err()));
    format!("{balances} {transaction} {fee} {again}")
}

#[tokio::test]
async fn the_scripts_faults_reach_every_question() {
    let chain = tron();
    let hash = pay(&chain, 4);
    let at = chain.tip();
    assert_eq!(words(&chain, hash, at).await, "ok ok ok ok");
    chain.begin_outage();
    assert_eq!(words(&chain, hash, at).await, "transient transient transient transient");
    chain.end_outage();
    chain.hide_blocks(1..=1);
    assert_eq!(words(&chain, hash, at).await, "ok transient ok transient");
    chain.show_blocks();
    chain.lag(1);
    assert_eq!(words(&chain, hash, at).await, "ok pending ok transient");
    chain.heal();
    let none =
        Faults { fail_permille: 0, outage_permille: 0, lag_permille: 0, incomplete_permille: 0, short_permille: 0, ..Faults::mild(1) };
    chain.inject(Faults { missing_permille: 1_000, ..none });
    assert_eq!(words(&chain, hash, at).await, "ok unknown ok transient");
    let calls = chain.calls();
    assert_eq!(calls, Calls { balances: 5, transaction: 5, fee: 5, second_reading: 5, ..Calls::default() });
    assert_eq!((calls.total(), calls.since(&calls)), (20, Calls::default()));
}
