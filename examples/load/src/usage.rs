//! What a process takes: memory, file handles and processor time, as Linux tells it in `/proc`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Linux counts processor time in hundredths of a second for everybody who asks (`USER_HZ`).
const MS_PER_TICK: u64 = 10;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// The part of it that is no file's: heap and stacks. The rest is the program itself, which the
    /// kernel can drop and read again.
    pub anon_kib: u64,
    /// Open file handles, sockets among them; None where they may not be listed. A gateway lets nobody
    /// but root look into it.
    pub files: Option<u64>,
    /// Processor time so far, in milliseconds.
    pub cpu_ms: u64,
}

/// What a process takes now; None when there is no such process or no `/proc`.
#[must_use]
pub fn of(pid: u32) -> Option<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let (rss_kib, anon_kib) = (kib("VmRSS:")?, kib("RssAnon:")?);
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok().and_then(|files| u64::try_from(files.count()).ok());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in the second field may hold spaces and brackets; what follows it does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let cpu_ms = ticks()?.saturating_add(ticks()?).saturating_mul(MS_PER_TICK);
    Some(Usage { rss_kib, anon_kib, files, cpu_ms })
}

/// A number of file handles for people to read.
#[must_use]
pub fn shown(files: Option<u64>) -> String {
    files.map_or_else(|| "unknown".to_owned(), |files| files.to_string())
}

/// The processes at one moment, added up.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at_s: u64,
    /// What they took.
    pub usage: Usage,
}

/// Looks at processes at an even pace until it is dropped.
pub struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts looking. `told` hears of each sample as it is taken.
    #[must_use]
    pub fn start(pids: Vec<u32>, every: Duration, told: fn(&Sample)) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&samples);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                ticks.tick().await;
                let Some(usage) = together(&pids) else { continue };
                let sample = Sample { at_s: began.elapsed().as_secs(), usage };
                told(&sample);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            }
        });
        Self { samples, task }
    }

    /// The samples so far, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What several processes take together; None when one is gone or there are none.
#[must_use]
pub fn together(pids: &[u32]) -> Option<Usage> {
    let all = pids.iter().map(|pid| of(*pid)).collect::<Option<Vec<Usage>>>()?;
    all.into_iter().reduce(|a, b| Usage {
        rss_kib: a.rss_kib + b.rss_kib,
        anon_kib: a.anon_kib + b.anon_kib,
        files: a.files.zip(b.files).map(|(a, b)| a + b),
        cpu_ms: a.cpu_ms + b.cpu_ms,
    })
}

/// First, last and most, and the slopes: how much more there is after an hour, by least squares over
/// all samples and over the second half of them alone, when what is filled once has been filled.
#[must_use]
pub fn trend(samples: &[Sample]) -> Option<Value> {
    let (first, last) = (samples.first()?, samples.last()?);
    let half = samples.get(samples.len() / 2..).unwrap_or_default();
    let line = |of: fn(&Usage) -> Option<u64>| {
        json!({ "first": of(&first.usage), "last": of(&last.usage), "most": samples.iter().filter_map(|sample| of(&sample.usage)).max(),
            "slope_per_hour": slope_per_hour(samples, of), "second_half_slope_per_hour": slope_per_hour(half, of) })
    };
    Some(json!({ "seconds": last.at_s.saturating_sub(first.at_s), "samples": samples.len(),
        "rss_kib": line(|usage| Some(usage.rss_kib)), "anon_kib": line(|usage| Some(usage.anon_kib)), "files": line(|usage| usage.files),
        "cpu_ms": last.usage.cpu_ms.saturating_sub(first.usage.cpu_ms) }))
}

fn slope_per_hour(samples: &[Sample], of: fn(&Usage) -> Option<u64>) -> Option<i64> {
    let n = i128::try_from(samples.len()).ok()?;
    let (mut x, mut y, mut xy, mut xx) = (0, 0, 0, 0);
    for sample in samples {
        let (at, value) = (i128::from(sample.at_s), i128::from(of(&sample.usage)?));
        x += at;
        y += value;
        xy += at * value;
        xx += at * at;
    }
    i64::try_from((3_600 * (n * xy - x * y)).checked_div(n * xx - x * x)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let usage = of(std::process::id()).unwrap();
        assert!(usage.rss_kib > usage.anon_kib && usage.anon_kib > 100 && usage.files.is_some_and(|files| files > 2), "{usage:?}");
        assert_eq!(of(u32::MAX), None);
    }

    #[test]
    fn a_leak_has_a_slope_and_a_level_has_none() {
        let samples = |kib: fn(u64) -> u64| -> Vec<Sample> {
            let usage = |at_s| Usage { rss_kib: kib(at_s), anon_kib: 0, files: None, cpu_ms: 0 };
            (0..60).map(|step| Sample { at_s: step * 10, usage: usage(step * 10) }).collect()
        };
        let trend_of = |kib| trend(&samples(kib)).unwrap()["rss_kib"].clone();
        assert_eq!(trend_of(|at_s| 1_000 + at_s)["slope_per_hour"], 3_600);
        assert_eq!(trend_of(|_| 1_000)["slope_per_hour"], 0);
        let filled = trend_of(|at_s| 1_000 + at_s.min(200));
        assert!(filled["slope_per_hour"].as_i64().unwrap() > 0);
        assert_eq!(filled["second_half_slope_per_hour"], 0);
        let unseen = trend(&samples(|_| 1_000)).unwrap()["files"].clone();
        assert_eq!((&unseen["most"], &unseen["slope_per_hour"]), (&Value::Null, &Value::Null));
    }
}
