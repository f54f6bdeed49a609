//! Computes what one client may hold of this process, from the limits of the process and of the machine.
//!
//! In: the configuration, RLIMIT_NOFILE, the range of local ports. Out: the shares of clients.
//! Source: FAULTS D54, D55.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::config::Config;
use crate::stream::client_share::{ClientShares, ShareLimits};
use crate::stream::descriptors;

/// Where Linux says which ports it gives to connections without one.
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's own number of such ports, if it does not say.
const USUAL_PORTS: usize = 28_232;

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
