//! Measures this process as Prometheus' client libraries do: descriptors, memory, CPU, threads.
//!
//! In: `/proc/self`. Out: metrics whose names begin with `process_`. Read when somebody asks.
//! Source: the guide of Prometheus, "Writing client libraries", "Process metrics"; proc(5).

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// The metrics of this process.
pub struct Process {
    cpu: Counter,
    gauges: [Gauge; GAUGES.len()],
}

/// Names and meanings of the gauges, in the order in which [`measured`] returns their values.
const GAUGES: [(&str, &str); 6] = [
    ("process_open_fds", "Descriptors open."),
    ("process_max_fds", "Most descriptors that may be open."),
    (
        "process_resident_memory_bytes",
        "Memory of the process in the machine's, in bytes.",
    ),
    (
        "process_virtual_memory_bytes",
        "Addresses that the process has reserved, in bytes.",
    ),
    ("process_threads", "Threads."),
    (
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
    ),
];

impl Process {
    /// Makes the metrics.
    pub fn of_this() -> Self {
        let gauge = |(name, help): (&str, &str)| Gauge::new(name, help).expect("legal names");
        let help = "CPU time used, by the program and for it by the kernel, in seconds.";
        Process {
            cpu: Counter::new("process_cpu_seconds_total", help).expect("legal names"),
            gauges: GAUGES.map(gauge),
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(Collector::desc);
        self.cpu.desc().into_iter().chain(gauges).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let stat = Stat::parse(&stat).unwrap_or_default();
        self.cpu
            .inc_by((stat.cpu_seconds() - self.cpu.get()).max(0.0));
        for (gauge, value) in self.gauges.iter().zip(measured(&stat)) {
            gauge.set(value);
        }
        let gauges = self.gauges.iter().flat_map(Collector::collect);
        self.cpu.collect().into_iter().chain(gauges).collect()
    }
}

/// Numbers of `/proc/self/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stat {
    /// CPU time and start in ticks of the system.
    user: u64,
    system: u64,
    start: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads the numbers behind the program's name, which may hold blanks and brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The third field of proc(5) comes first here.
        let number = |field: usize| fields.get(field - 3)?.parse().ok();
        Some(Stat {
            user: number(14)?,
            system: number(15)?,
            threads: number(20)?,
            start: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }

    fn cpu_seconds(&self) -> f64 {
        seconds(self.user + self.system)
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn measured(stat: &Stat) -> [f64; GAUGES.len()] {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    [
        open as f64,
        limit.current.map_or(f64::INFINITY, |most| most as f64),
        (stat.resident_pages * rustix::param::page_size() as u64) as f64,
        stat.virtual_bytes as f64,
        stat.threads as f64,
        boot.unwrap_or(0.0) + seconds(stat.start),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: the numbers are those of the kernel, whatever the program is called. Fails if a name with brackets and
    /// blanks moves the fields.
    #[test]
    fn numbers_follow_any_name() {
        let text = "7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 1400 150 16 17 18 19 20 21 220 2300 24 25";
        let expected = Stat {
            user: 1400,
            system: 150,
            threads: 20,
            start: 220,
            virtual_bytes: 2300,
            resident_pages: 24,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        for broken in ["", "7 (a", "7 (a) S 1 2"] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    /// Aim: the metrics describe this process. Fails if a value is zero or absurd.
    #[test]
    fn this_process_is_measured() {
        let all = Process::of_this().collect();
        let value = |name: &str| {
            let family = all.iter().find(|f| f.name() == name).expect(name);
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!((3.0..100_000.0).contains(&value("process_open_fds")));
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        let now = crate::clock::wall().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
