//! The language of the tables. A line is `step | what is to be seen then`; `#` starts a comment.
//!
//! ```text
//! order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
//! block 10 @ 30: pays 5                           | pending underpaid 5 / 0  order.underpaid
//! ```
//!
//! What is to be seen: every order (`status exception received / confirmed`, with its name in
//! front when there are several), then what happened in this step: events, `alert.…`, money that
//! no order owns (`stray 5`), refusals. Times are seconds; a block comes three seconds after the
//! one before unless `@` says when.
//!
//! ```text
//! order [NAME] AMOUNT NET[,NET]|none [depth N|final] [expires T] [late S] [cooldown S]
//!       [tolerance X] [accept]
//! block|blocks [NET] ITEM[; ITEM]    ITEM: 10 | 10 11 | 10..15, then [@ T] [: ENTRY[, ENTRY]]
//! fork [NET] ITEM[; ITEM]            the same, replacing every block from the first height on
//!    ENTRY: [NAME] pays X [NET's decimals] [as ID]    to the lease of the order
//!           wallet w1 gets X [as ID]   own wallet w1 gets X   forged wallet w1   again ID
//! final NET N     floor NET N|final|none     halt NET     resume NET     clock T
//! choose [NAME] NET     cancel [NAME]     force cancel [NAME]     confirm [NAME] [with [NET] ID]
//! extend [NAME] T     wallet random|imported NET
//! show transfers|leases|settled|confirmations|facts [NAME]
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::Network;
use tidegate_rules::order::{self, Cancel, Depth, Disposition, Terms};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::WalletKind;

use crate::world::{Ask, Feed, Sim, Tx, World, decimals, key, short};

/// Runs a table under every way of being fed and compares line by line.
#[track_caller]
pub(crate) fn check(sentence: &str, table: &str) {
    for feed in Feed::ALL {
        if let Err(diff) = run(table, feed) {
            panic!("\n{sentence}\n(fed: {feed:?})\n{diff}");
        }
    }
}

/// Runs a table block by block only: where the line says what another feed sees differently.
#[track_caller]
pub(crate) fn check_single(sentence: &str, table: &str) {
    if let Err(diff) = run(table, Feed::Single) {
        panic!("\n{sentence}\n{diff}");
    }
}

fn run(table: &str, feed: Feed) -> Result<(), String> {
    let mut world = World::new(feed);
    let mut teller = Teller { first: None, names: 0 };
    let mut lines = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            lines.push((line, None));
            continue;
        }
        let (step, expected) = line.split_once('|').unwrap_or((line, ""));
        let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            teller.step(&mut world, step.trim());
            teller.seen(&mut world)
        }));
        match got {
            Ok(got) => lines.push((step.trim(), Some((words(expected), got)))),
            Err(cause) => {
                let cause = cause.downcast_ref::<String>().cloned().or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                return Err(format!("at: {step}\n{}\n\nso far:\n{}", cause.unwrap_or_default(), render(&lines)));
            }
        }
    }
    if lines.iter().all(|(_, seen)| seen.as_ref().is_none_or(|(expected, got)| expected == got)) {
        return Ok(());
    }
    let mut diff = String::new();
    for (step, seen) in &lines {
        if let Some((expected, got)) = seen.as_ref().filter(|(expected, got)| expected != got) {
            let _ = write!(diff, "{step}\n    expected: {expected}\n    got:      {got}\n");
        }
    }
    let _ = write!(diff, "\nas it is now, to paste:\n{}", render(&lines));
    Err(diff)
}

type Line<'a> = (&'a str, Option<(String, String)>);

fn render(lines: &[Line<'_>]) -> String {
    let width = lines.iter().filter(|(_, seen)| seen.is_some()).map(|(step, _)| step.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (step, seen) in lines {
        let _ = match seen {
            Some((_, got)) => writeln!(text, "        {step:<width$} | {got}"),
            None => writeln!(text, "        {step}"),
        };
    }
    text
}

/// One space between words; alerts last, for where they stand among the events depends on how many
/// commits there were.
fn words(text: &str) -> String {
    let (alerts, rest): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| word.starts_with("alert."));
    [rest, alerts].concat().join(" ")
}

struct Teller {
    /// The network that lines without one are about.
    first: Option<Network>,
    names: usize,
}

impl Teller {
    fn step(&mut self, world: &mut World, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let mut rest = rest.trim();
        match verb {
            "order" => self.open(world, rest),
            "block" | "blocks" | "fork" => {
                let network = self.network(&mut rest);
                let branch = self.branch(world, &network, rest, verb == "fork");
                if verb == "fork" { world.fork(&network, branch) } else { world.blocks(&network, branch) }
            }
            "final" => world.finalize(&Network::new(word(&mut rest)), number(rest)),
            "floor" => world.floor(&Network::new(word(&mut rest)), (rest != "none").then(|| depth(rest))),
            "halt" => {
                world.chain(&Network::new(rest)).halted = true;
                world.advance();
                world.settle();
            }
            "resume" => {
                world.chain(&Network::new(rest)).halted = false;
                world.advance();
                world.settle();
            }
            "clock" => {
                world.now = time(rest);
                world.advance();
                world.settle();
            }
            "choose" => {
                let order = Self::order(world, &mut rest);
                world.choose(order, &Network::new(rest));
            }
            "cancel" => {
                let order = Self::order(world, &mut rest);
                world.cancel(order, Cancel::IfUntouched);
            }
            "force" => {
                assert_eq!(word(&mut rest), "cancel");
                let order = Self::order(world, &mut rest);
                world.cancel(order, Cancel::Force);
            }
            "confirm" => {
                let order = Self::order(world, &mut rest);
                let with = rest.strip_prefix("with ").map(|id| {
                    let mut id = id;
                    (self.network(&mut id), key(id))
                });
                world.confirm(order, with);
            }
            "extend" => {
                let order = Self::order(world, &mut rest);
                world.extend(order, time(rest));
            }
            "wallet" => {
                let kind = match word(&mut rest) {
                    "random" => WalletKind::Random,
                    "imported" => WalletKind::Imported,
                    other => panic!("no kind of wallet: {other}"),
                };
                world.add_wallet(&Network::new(rest), kind);
            }
            "show" => self.show(world, rest),
            other => panic!("no such step: {other}"),
        }
    }

    fn open(&mut self, world: &mut World, rest: &str) {
        let mut rest = rest;
        let name = if rest.starts_with(|c: char| c.is_ascii_digit()) { "order".to_owned() } else { word(&mut rest).to_owned() };
        let amount = amount(word(&mut rest));
        let networks = match word(&mut rest) {
            "none" => Vec::new(),
            names => names.split(',').map(Network::new).collect(),
        };
        if self.first.is_none() {
            self.first = networks.first().cloned();
        }
        let mut terms = Terms {
            purpose: tidegate_rules::order::Purpose::Payment,
            amount,
            tolerance: Amount::ZERO,
            expires_at: Time::from_secs(100),
            late_window: Span::ZERO,
            accept_late: false,
            cooldown: Span::ZERO,
            depths: BTreeMap::new(),
        };
        let mut deep = Depth::Blocks(1);
        while !rest.is_empty() {
            match word(&mut rest) {
                "depth" => deep = depth(word(&mut rest)),
                "expires" => terms.expires_at = time(word(&mut rest)),
                "late" => terms.late_window = span(word(&mut rest)),
                "cooldown" => terms.cooldown = span(word(&mut rest)),
                "tolerance" => terms.tolerance = self::amount(word(&mut rest)),
                "accept" => terms.accept_late = true,
                other => panic!("no such term: {other}"),
            }
        }
        for network in ["tron", "ethereum", "bsc"] {
            terms.depths.insert(Network::new(network), deep);
        }
        world.open(Ask { name, terms, networks });
    }

    /// The order that the next word names, or the only one.
    fn order(world: &World, rest: &mut &str) -> usize {
        let named = world.orders.iter().position(|entry| rest.split(' ').next() == Some(entry.name.as_str()));
        if named.is_some() {
            word(rest);
        }
        named.unwrap_or(0)
    }

    fn network(&mut self, rest: &mut &str) -> Network {
        let named = ["tron", "ethereum", "bsc"].into_iter().find(|name| rest.split([' ', ':']).next() == Some(name));
        let network = named.map(|_| Network::new(word(rest))).or_else(|| self.first.clone()).unwrap_or_else(|| Network::new("tron"));
        self.first.get_or_insert_with(|| network.clone());
        network
    }

    fn branch(&mut self, world: &mut World, network: &Network, rest: &str, fork: bool) -> Vec<Sim> {
        let mut blocks: Vec<Sim> = Vec::new();
        for item in rest.split(';') {
            let (place, entries) = item.split_once(':').unwrap_or((item, ""));
            let (heights, at) = match place.split_once('@') {
                Some((heights, at)) => (heights.trim(), Some(time(at.trim()))),
                None => (place.trim(), None),
            };
            let heights: Vec<u64> = match heights.split_once("..") {
                Some((first, last)) => (number(first)..=number(last)).collect(),
                None => heights.split_whitespace().map(number).collect(),
            };
            for (index, height) in heights.iter().enumerate() {
                let before = blocks.last().map(|block| block.time).or_else(|| {
                    let chain = world.chain(network);
                    let last = chain.applied.iter().rev().find(|block| !fork || block.number < *height);
                    last.map(|block| block.time)
                });
                let next = before.map_or(Time::from_secs(i64::try_from(*height).unwrap() * 3), |time| time.plus(Span::from_secs(3)));
                let time = at.filter(|_| index == 0).unwrap_or(next);
                blocks.push(Sim { number: *height, time, hash: world.fresh_hash(), txs: Vec::new() });
            }
            for entry in entries.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let tx = self.entry(world, network, entry);
                blocks.last_mut().expect("a block").txs.push(tx);
            }
        }
        blocks
    }

    fn entry(&mut self, world: &World, network: &Network, entry: &str) -> Tx {
        let mut rest = entry;
        if let Some(name) = entry.strip_prefix("again ") {
            return world.records[&(network.clone(), key(name))].tx.clone();
        }
        let named = entry.rsplit_once(" as ");
        let name = if let Some((before, name)) = named {
            rest = before;
            name.to_owned()
        } else {
            self.names += 1;
            format!("p{}", self.names)
        };
        let from_own = rest.strip_prefix("own ").inspect(|after| rest = after).is_some();
        let forged = rest.strip_prefix("forged ").inspect(|after| rest = after).is_some();
        let wallet = if let Some(after) = rest.strip_prefix("wallet ") {
            rest = after;
            let wallet = word(&mut rest);
            world.wallets.iter().position(|row| row.name == wallet && row.network == *network).expect("a wallet of this network")
        } else {
            let order = Self::order(world, &mut rest);
            world.leased(order, network).expect("a lease on this network")
        };
        if forged {
            return Tx { key: key(&name), name, wallet, value: Raw::from_be_bytes([0xff; 32]), from_own };
        }
        let verb = word(&mut rest);
        assert!(matches!(verb, "pays" | "gets"), "no such entry: {entry}");
        Tx { key: key(&name), name, wallet, value: raw(rest, decimals(network)), from_own }
    }

    fn show(&self, world: &mut World, what: &str) {
        let mut rest = what;
        let what = word(&mut rest);
        let index = Self::order(world, &mut rest);
        let heads = world.heads();
        let entry = &world.orders[index];
        let text = match what {
            "transfers" => {
                let line = |payment: &order::Payment| {
                    let record = &world.records[&(payment.network.clone(), payment.key)];
                    let disposition = match order::disposition(&entry.order, payment) {
                        Disposition::Matched => "matched",
                        Disposition::Late => "late",
                    };
                    format!("{} {} {disposition}", record.tx.name, payment.status().name())
                };
                entry.payments.iter().map(line).collect::<Vec<_>>().join(", ")
            }
            "leases" => {
                let line = |(order, lease): (&str, &tidegate_rules::lease::Lease)| {
                    let wallets = world.wallets.iter().enumerate();
                    let mut wallets = wallets.filter(|(index, _)| world.leased(world.find(order), &lease.network) == Some(*index));
                    let wallet = wallets.next().map_or("?", |(_, row)| row.name.as_str());
                    let to = lease.to.map_or_else(|| "…".to_owned(), |to| to.to_string());
                    format!("{wallet} {} ({}, {to}]", lease.network, lease.from)
                };
                let mine = world.orders[index].order.leases.iter().map(|lease| (entry.name.as_str(), lease));
                mine.map(line).collect::<Vec<_>>().join(", ")
            }
            "settled" => {
                let line = |(network, head): (&Network, &order::Head)| {
                    let settled = head.settled(entry.order.terms.depth(network));
                    let settled = settled.map_or_else(|| "none".to_owned(), |mark| format!("{} @ {}", mark.number, mark.time.secs()));
                    format!("{network} {settled} of {}", head.tip.number)
                };
                heads.iter().map(line).collect::<Vec<_>>().join(", ")
            }
            "confirmations" => order::confirmations(&entry.order, &entry.payments, &heads).to_string(),
            "facts" => {
                let facts = &entry.order.facts;
                let current = entry.order.current.as_ref().map_or("none", Network::as_str);
                format!(
                    "current {current}{}{}{}",
                    if facts.confirmation.is_some() { ", confirmed by hand" } else { "" },
                    if facts.expired_at.is_some() { ", expired" } else { "" },
                    if facts.paid.is_some() { ", paid" } else { "" },
                )
            }
            other => panic!("nothing to show: {other}"),
        };
        world.told.push(text);
    }

    /// Every order, then what happened.
    fn seen(&self, world: &mut World) -> String {
        let several = world.orders.len() > 1;
        let state = |entry: &crate::world::Entry| {
            let order = &entry.order;
            let name = if several { format!("{} ", entry.name) } else { String::new() };
            let exception = order.exception.map_or(String::new(), |exception| format!(" {}", exception.name()));
            format!("{name}{}{exception} {} / {}", order.status.name(), short(order.tally.received), short(order.tally.confirmed))
        };
        let states: Vec<String> = world.orders.iter().map(state).collect();
        let told = std::mem::take(&mut world.told).join(" ");
        words(&format!("{} {told}", states.join(" ; ")))
    }
}

fn word<'a>(rest: &mut &'a str) -> &'a str {
    let (word, after) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    *rest = after.trim();
    word
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("expected a number: {text}"))
}

fn time(text: &str) -> Time {
    Time::from_secs(i64::try_from(number(text)).unwrap())
}

fn span(text: &str) -> Span {
    Span::from_secs(number(text))
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap_or_else(|_| panic!("expected an amount: {text}"))
}

fn depth(text: &str) -> Depth {
    if text == "final" { Depth::Final } else { Depth::Blocks(u32::try_from(number(text)).unwrap()) }
}

/// Base units of a decimal number with as many digits as the token has.
fn raw(text: &str, decimals: u8) -> Raw {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let width = usize::from(decimals);
    format!("{whole}{fraction:0<width$}").parse().unwrap_or_else(|_| panic!("expected base units: {text}"))
}
