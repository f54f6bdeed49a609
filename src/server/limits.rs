//! Computes what one client may hold of this process, from the limits of the process and of the machine, and makes
//! room for what all may hold.
//!
//! In: the configuration, RLIMIT_NOFILE, the range of local ports. Out: the shares of clients; a table of descriptors.
//! Source: FAULTS D54, D55.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::config::Config;
use crate::stream::client_share::{ClientShares, ShareLimits};
use crate::stream::descriptors;

/// Where Linux says which ports it gives to connections without one.
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's own number of such ports, if it does not say.
const USUAL_PORTS: usize = 28_232;
/// Descriptors for other things than connections.
const OTHERS: usize = 1_024;

/// Makes the shares of clients. `threads`: the number of handshake threads.
pub fn client_shares(config: &Config, threads: usize) -> Arc<ClientShares> {
    let ports = std::fs::read_to_string(PORTS).ok();
    let ports = ports.and_then(|text| count(&text)).unwrap_or(USUAL_PORTS);
    let share = config.client_share.0;
    let connections = config.max_connections.get();
    let sockets = descriptors::for_clients().saturating_sub(own(config, threads));
    let limits = ShareLimits::of(share, connections, sockets, ports);
    ClientShares::new(limits, threads)
}

/// Makes room in the kernel's table of descriptors for all connections, while this is the only thread. The kernel
/// doubles a full table, and until no thread reads the old one, each thread that opens a socket waits: some 20 ms for
/// all flows of the thread, at 256, 512, 1,024 descriptors and so on. Room for one takes 8 bytes.
pub fn make_room(config: &Config) {
    let wanted = config.max_connections.get().saturating_mul(2) + OTHERS;
    let wanted = wanted.min(descriptors::for_clients());
    let last = RawFd::try_from(wanted).unwrap_or(RawFd::MAX) - 1;
    if let Ok(file) = std::fs::File::open("/dev/null") {
        // Closed at once; the table keeps its size. Where it fails, the table grows with the connections.
        let _ = rustix::io::fcntl_dupfd_cloexec(&file, last);
    }
}

/// Estimates the descriptors that the process itself has: those of now, one for each listening socket and thread,
/// and one for the check of each node.
fn own(config: &Config, threads: usize) -> usize {
    // The kernel gives the lowest free number.
    let lowest = std::fs::File::open("/dev/null").map_or(0, |file| file.as_raw_fd());
    let sockets: usize = config.listeners.iter().map(|l| l.bind.len()).sum();
    usize::try_from(lowest).unwrap_or(0) + sockets * (threads + 2) + config.nodes.len()
}

/// Counts the ports of a range: `32768 60999`.
fn count(range: &str) -> Option<usize> {
    let mut ends = range.split_whitespace().map(str::parse::<usize>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    last.checked_sub(first)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_range() {
        let cases = [
            ("32768\t60999\n", Some(28_232)),
            ("7 7", Some(1)),
            ("8 7", None),
            ("x 7", None),
            ("7", None),
            ("", None),
        ];
        for (range, expected) in cases {
            assert_eq!(count(range), expected, "{range:?}");
        }
    }
}
