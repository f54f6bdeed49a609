//! Measures the memory of this process against `memory.limit`, in a thread of its own.
//!
//! In: the limit; what the kernel says of the cgroup, or of the process. Out: whether new clients are refused,
//! metrics, a log line at each change. A thread of its own, because memory fills while other threads are busy.
//! Source: cgroups(7), proc_pid_statm(5); issue "memory under load".

use std::fs::read_to_string;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::units::Bytes;
use crate::config::{Memory, MemoryLimit};
use crate::observe::metrics;
use crate::observe::seldom::Seldom;
use crate::stream::memory;

/// Time between two measurements. A flood of 50,000 clients a second fills some 50 MB in it, at 20 KiB each. One
/// costs 20 µs.
const PERIOD: Duration = Duration::from_millis(50);
/// Clients are taken again below this part of the limit, so that the state does not flap.
const AGAIN: f64 = 0.97;

/// Starts to measure.
///
/// Errors: no thread can be started.
pub fn watch(conf: &Memory) -> io::Result<()> {
    let Some((meter, limit)) = meter(conf.limit, Path::new("/")) else {
        log::warn!("memory.limit: cannot read how much memory there is; no limit holds");
        return Ok(());
    };
    metrics::get()
        .memory_limit
        .set(i64::try_from(limit).unwrap_or(i64::MAX));
    let measure = move || {
        let told = Seldom::new();
        loop {
            if let Some(used) = meter.used() {
                judge(used, limit, &told);
            }
            std::thread::sleep(PERIOD);
        }
    };
    std::thread::Builder::new()
        .name("memory".to_owned())
        .spawn(measure)?;
    Ok(())
}

fn judge(used: u64, limit: u64, told: &Seldom) {
    let again = (limit as f64 * AGAIN) as u64;
    let short = used > if memory::is_short() { again } else { limit };
    let changed = memory::set_short(short);
    metrics::get()
        .memory
        .set(i64::try_from(used).unwrap_or(i64::MAX));
    if !changed || !told.is_due() {
        return;
    }
    let (used, limit) = (mib(used), mib(limit));
    match short {
        true => log::error!(
            "{used} MiB of memory used, above memory.limit ({limit} MiB); new clients are refused"
        ),
        false => log::info!("{used} MiB of memory used; new clients are taken again"),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
enum Meter {
    /// The memory of the cgroup whose files are in this folder, as version 1 or 2 names them.
    Cgroup { folder: PathBuf, v2: bool },
    /// The resident memory of this process, with that of all TCP sockets of the machine. `root` is `/`.
    Process { root: PathBuf },
}

/// Returns what is measured, and the limit in bytes. `None`: the kernel does not say how much there is.
fn meter(limit: MemoryLimit, root: &Path) -> Option<(Meter, u64)> {
    let process = Meter::Process {
        root: root.to_owned(),
    };
    let share = match limit {
        MemoryLimit::Bytes(Bytes(bytes)) => return Some((process, bytes)),
        MemoryLimit::Share(share) => share.0,
    };
    let total = field(&root.join("proc/meminfo"), "MemTotal:").map(|kib| kib * 1024);
    let of = |whole: u64| (whole as f64 * share) as u64;
    match (cgroup(root), total) {
        (Some((meter, most)), total) if total.is_none_or(|total| most < total) => {
            Some((meter, of(most)))
        }
        (_, Some(total)) => Some((process, of(total))),
        (_, None) => None,
    }
}

/// Finds the cgroup that limits this process most, and its limit.
fn cgroup(root: &Path) -> Option<(Meter, u64)> {
    let groups = read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut found: Option<(Meter, u64)> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (kinds, path) = (parts.next()?, parts.next()?);
        let v2 = kinds.is_empty();
        let (mounts, name): (&[&str], _) = match v2 {
            true => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            false if kinds.split(',').any(|kind| kind == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            false => continue,
        };
        // A container may see its own group at the root of the mount. Every group above limits too.
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        let folders = above.flat_map(|p| mounts.iter().map(move |m| root.join(m).join(p)));
        for folder in folders {
            let most = number(&folder.join(name));
            if let Some(most) = most.filter(|most| found.as_ref().is_none_or(|(_, m)| most < m)) {
                found = Some((Meter::Cgroup { folder, v2 }, most));
            }
        }
    }
    found
}

impl Meter {
    /// Returns the bytes in use. What the kernel can drop at once, pages of files nobody has used lately, does
    /// not count. `None`: the kernel does not say.
    fn used(&self) -> Option<u64> {
        match self {
            Meter::Cgroup { folder, v2 } => {
                let (current, idle) = match v2 {
                    true => ("memory.current", "inactive_file"),
                    false => ("memory.usage_in_bytes", "total_inactive_file"),
                };
                let idle = field(&folder.join("memory.stat"), idle).unwrap_or_default();
                Some(number(&folder.join(current))?.saturating_sub(idle))
            }
            Meter::Process { root } => {
                let pages = read_to_string(root.join("proc/self/statm")).ok()?;
                let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
                let sockets = read_to_string(root.join("proc/net/sockstat")).unwrap_or_default();
                let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
                let mut words = tcp.unwrap_or_default().split_whitespace();
                let tcp = words.find(|word| *word == "mem").and(words.next());
                let tcp = tcp.and_then(|pages| pages.parse().ok()).unwrap_or(0);
                Some((resident + tcp) * rustix::param::page_size() as u64)
            }
        }
    }
}

/// Reads a file that holds one number. `None` for `max`.
fn number(path: &Path) -> Option<u64> {
    read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads the number behind `name` in a file of names and numbers.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = read_to_string(path).ok()?;
    let mut lines = text.lines().map(str::split_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    line.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Share;

    /// Files by path, each with its text.
    type Files<'a> = &'a [(&'a str, &'a str)];

    /// A machine of 4 GiB, with the files given.
    fn machine(files: Files<'_>) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let usual = [("proc/meminfo", "MemFree: 5 kB\nMemTotal:  4194304 kB\n")];
        for (path, text) in usual.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    /// Aim: the tightest limit above the process counts, of either version of cgroups, also in a container that
    /// sees its own group at the root. Fails if an unlimited group hides the machine, or a group above is not
    /// asked.
    #[test]
    fn the_tightest_group_counts() {
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let v1 = (
            "proc/self/cgroup",
            "9:name=systemd:/\n4:cpu,memory:/a\n0::/\n",
        );
        let gib: u64 = 1 << 30;
        let cases: [(Files<'_>, u64, &str); 6] = [
            (&[], 4 * gib, "no cgroups"),
            (
                &[v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")],
                4 * gib,
                "none",
            ),
            (
                &[
                    v2,
                    ("sys/fs/cgroup/a/memory.max", "1073741824\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "2147483648\n"),
                ],
                gib,
                "the group above",
            ),
            (
                &[v2, ("sys/fs/cgroup/memory.max", "1073741824\n")],
                gib,
                "a container",
            ),
            (
                &[
                    v1,
                    (
                        "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                        "1073741824\n",
                    ),
                ],
                gib,
                "version 1",
            ),
            (
                &[
                    v1,
                    (
                        "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                4 * gib,
                "version 1, unlimited",
            ),
        ];
        for (files, whole, name) in cases {
            let root = machine(files);
            let (meter, limit) = meter(MemoryLimit::Share(Share(0.5)), root.path()).expect(name);
            assert_eq!(limit, whole / 2, "{name}");
            assert_eq!(
                matches!(meter, Meter::Cgroup { .. }),
                whole != 4 * gib,
                "{name}"
            );
        }
    }

    /// Aim: pages that the kernel can drop do not count, and sockets do. Fails if a log file that is written
    /// shuts clients out.
    #[test]
    fn what_is_used() {
        let root = machine(&[
            ("g/memory.current", "1000\n"),
            ("g/memory.stat", "anon 5\ninactive_file 300\n"),
            ("proc/self/statm", "900 20 3 4 5 6 7\n"),
            (
                "proc/net/sockstat",
                "sockets: used 9\nTCP: inuse 1 orphan 0 tw 0 alloc 2 mem 4\nUDP: inuse 1 mem 9\n",
            ),
        ]);
        let folder = root.path().join("g");
        assert_eq!(Meter::Cgroup { folder, v2: true }.used(), Some(700));
        let process = Meter::Process {
            root: root.path().to_owned(),
        };
        assert_eq!(process.used(), Some(24 * rustix::param::page_size() as u64));
        assert!(meter(MemoryLimit::Bytes(Bytes(7)), root.path()).is_some());
    }
}
