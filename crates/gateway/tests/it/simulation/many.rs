//! Runs worlds beside each other, each in a process of its own, and adds up what they saw.
//!
//! `scripts/test` runs the fixed seeds and two that nobody has seen before. `TIDEGATE_WORLDS=n` runs
//! `n` fresh ones instead, from `TIDEGATE_FIRST` if that is set.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::check::Seen;
use super::world::World;

/// Seeds that always run.
const FIXED: [u64; 4] = [1, 2, 3, 4];

/// Fresh seeds that run beside them.
const FRESH: u64 = 2;

/// The first word of the line in which a world says what it saw.
const SUMMARY: &str = "summary ";

/// What a world of a seed saw, in one line.
pub fn say(seed: u64, ticks: u64, world: &World, seen: &Seen) {
    let faults: BTreeMap<String, u64> = world.faults().into_iter().map(|(fault, count)| (format!("{fault:?}"), count)).collect();
    let summary = json!({
        "worlds": 1,
        "ticks": ticks,
        "days": world.age().secs() / 86_400,
        "blocks": seen.blocks,
        "orders": seen.orders,
        "paid": seen.paid,
        "paid late": seen.paid_late,
        "expired": seen.expired,
        "cancelled": seen.cancelled,
        "reverted": seen.reverted,
        "payments": world.payments,
        "transfers": seen.transfers,
        "forks": world.forks,
        "kills": world.kills,
        "clock skews": world.skews,
        "orders opened unheard": world.unheard,
        "crashes at commits": world.crashes,
        "faults": faults,
    });
    println!("seed {seed}: {} orders, {} forks, {} kills", seen.orders, world.forks, world.kills);
    println!("{SUMMARY}{summary}");
}

/// Adds up numbers, whatever they are called.
fn add(total: &mut Value, part: &Value) {
    match (total, part) {
        (Value::Object(total), Value::Object(part)) => {
            for (name, part) in part {
                add(total.entry(name).or_insert(if part.is_object() { json!({}) } else { json!(0) }), part);
            }
        }
        (total, part) => *total = json!(total.as_u64().unwrap() + part.as_u64().unwrap()),
    }
}

/// Runs the world of a seed; `Err` is all that it said.
fn run(seed: u64) -> Result<Value, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "simulation::the_world_of_a_seed", "--nocapture"])
        .env("TIDEGATE_SEED", seed.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = said.lines().find_map(|line| line.split_once(SUMMARY)).map(|(_, summary)| serde_json::from_str(summary).unwrap());
    match summary {
        Some(summary) if output.status.success() => Ok(summary),
        _ => Err(format!("{said}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn worlds_of_fixed_and_of_fresh_seeds() {
    // A single seed is the other test's business.
    if number("TIDEGATE_SEED").is_some() {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let first = number("TIDEGATE_FIRST").unwrap_or_else(|| u64::try_from(now % 1_000_000_007).unwrap() + 1_000);
    let mut seeds: Vec<u64> = match number("TIDEGATE_WORLDS") {
        Some(count) => (first..first + count).collect(),
        None => FIXED.into_iter().chain(first..first + FRESH).collect(),
    };
    seeds.reverse();
    let began = Instant::now();
    let seeds = Arc::new(Mutex::new(seeds));
    // Worlds wait more than they work.
    let lanes = std::thread::available_parallelism().map_or(2, usize::from) * 3 / 2;
    let lanes = (0..lanes).map(|_| {
        let seeds = Arc::clone(&seeds);
        std::thread::spawn(move || {
            let (mut total, mut broken) = (json!({}), Vec::new());
            loop {
                let Some(seed) = seeds.lock().unwrap().pop() else { return (total, broken) };
                match run(seed) {
                    Ok(summary) => add(&mut total, &summary),
                    Err(said) => {
                        eprintln!("the world of seed {seed} broke; {}\n{said}", again(seed));
                        broken.push(seed);
                    }
                }
            }
        })
    });
    let (mut total, mut broken) = (json!({}), Vec::new());
    for lane in lanes.collect::<Vec<_>>() {
        let (part, seeds) = lane.join().unwrap();
        add(&mut total, &part);
        broken.extend(seeds);
    }
    let took: Duration = began.elapsed();
    println!("{} s, invariants broken in {} worlds\n{}", took.as_secs(), broken.len(), serde_json::to_string_pretty(&total).unwrap());
    assert!(broken.is_empty(), "{} worlds broke: {}", broken.len(), broken.into_iter().map(again).collect::<Vec<_>>().join("; "));
    assert!(total["crashes at commits"].as_object().is_some_and(|crashes| !crashes.is_empty()), "no process ended at a commit");
}

fn again(seed: u64) -> String {
    format!(
        "run it again with TIDEGATE_SEED={seed} cargo test -p tidegate --test it -- --exact simulation::the_world_of_a_seed --nocapture"
    )
}
