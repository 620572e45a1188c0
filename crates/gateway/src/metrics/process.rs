//! The process in numbers, by the names that Prometheus' own clients give them, and the disk that the
//! database lies on. Read from `/proc` by hand: the crate that the `prometheus` crate would read it
//! with brings a second `rustix`. Only from what a process may read of itself, because a hardened unit
//! shows it nothing else. Where there is no `/proc`, there are no lines.

use std::path::Path;
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge, Opts};

use super::sound;

/// What `/proc` says of this process.
struct Proc {
    cpu: Duration,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_fds: u64,
    max_fds: Option<u64>,
}

/// The families of this process; none where `/proc` is not there or reads otherwise.
pub fn collect() -> Vec<MetricFamily> {
    let Some(read) = read() else { return Vec::new() };
    let cpu = sound(Counter::with_opts(Opts::new("process_cpu_seconds_total", "Time that processors spent on this process")));
    cpu.inc_by(read.cpu.as_secs_f64());
    let mut families = cpu.collect();
    for (name, help, value) in [
        ("process_threads", "Threads of the process", Some(read.threads)),
        ("process_virtual_memory_bytes", "Memory that the process has addresses for", Some(read.virtual_bytes)),
        ("process_resident_memory_bytes", "Memory that the process has", Some(read.resident_bytes)),
        ("process_open_fds", "Files, sockets and the like that are open", Some(read.open_fds)),
        ("process_max_fds", "How many of them may be", read.max_fds),
    ] {
        families.extend(value.map(|value| gauge(Opts::new(name, help), value)).into_iter().flatten());
    }
    families
}

/// The SQLite file with its WAL, and the disk that it lies on.
pub fn database_file(path: &Path) -> Vec<MetricFamily> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    let bytes = size(path).saturating_add(size(Path::new(&wal)));
    let mut families = gauge(super::opts("database_size_bytes", "The SQLite file and its write-ahead log"), bytes);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        families.extend(gauge(super::opts("disk_free_bytes", "What is free on the disk of the SQLite file"), of(disk.f_bavail)));
        families.extend(gauge(super::opts("disk_size_bytes", "The size of that disk"), of(disk.f_blocks)));
    }
    families
}

fn gauge(opts: Opts, value: u64) -> Vec<MetricFamily> {
    let gauge = sound(IntGauge::with_opts(opts));
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.collect()
}

fn read() -> Option<Proc> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), u64::try_from(rustix::param::page_size()).ok()?);
    // The one that lists them is among them.
    parse(&stat, &limits, u64::try_from(open.saturating_sub(1)).ok()?, ticks, page)
}

/// Reads proc(5). The second field of `stat` is the program's name and may hold anything.
fn parse(stat: &str, limits: &str, open_fds: u64, ticks: u64, page: u64) -> Option<Proc> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The state is the third.
    let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    let time = |count: u64| Some(Duration::from_millis(count.checked_mul(1_000)?.checked_div(ticks)?));
    let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    Some(Proc {
        cpu: time(field(14)?.checked_add(field(15)?)?)?,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)?.checked_mul(page)?,
        open_fds,
        max_fds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let stat = "4711 (a ) name) S 1 4711 4711 0 -1 4194560 8000 0 3 0 250 50 0 0 20 0 9 0 30000 123456789 2500 18446744073709551615";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        let read = parse(stat, limits, 12, 100, 4_096).unwrap();
        assert_eq!(read.cpu, Duration::from_secs(3));
        assert_eq!((read.threads, read.virtual_bytes, read.resident_bytes), (9, 123_456_789, 2_500 * 4_096));
        assert_eq!((read.open_fds, read.max_fds), (12, Some(1_024)));
        let unlimited = limits.replace("1024", "unlimited");
        assert_eq!(parse(stat, &unlimited, 0, 100, 1).unwrap().max_fds, None);
        for stat in ["", "1 (x) S 1"] {
            assert!(parse(stat, limits, 0, 100, 1).is_none());
        }
    }
}
