//! Chooses the health check of imported servers by their `<healthcheck_url>`.
//!
//! In: the servers, and whether they end TLS. Out: a check, and a line of the heading about it.

use super::push_server::PushServer;

/// Returns the check that all servers answer. One that speaks plain HTTP and says nothing of `<healthcheck_url>` is
/// asked for it, as the heading says.
pub(super) fn check(servers: &[PushServer], tls: bool) -> &'static str {
    let all_have = servers.iter().all(|s| s.healthcheck == Some(true));
    match tls {
        _ if one_has_not(servers) => "tcp: {}",
        true if all_have => "tls: {}, http: { path: /lightstreamer/healthcheck }",
        true => "tcp: {}",
        false => "http: { path: /lightstreamer/healthcheck }",
    }
}

/// Returns what to know of the check.
pub(super) fn note(servers: &[PushServer], tls: bool) -> &'static str {
    match tls {
        _ if one_has_not(servers) => {
            "# <healthcheck_url> is off: `tcp: {}` below does not notice a server that hangs. Switch it on.\n"
        }
        false if servers.iter().any(|s| s.healthcheck.is_none()) => {
            "# The check below needs <healthcheck_url>, which a file does not name; or use `tcp: {}`.\n"
        }
        _ => "",
    }
}

fn one_has_not(servers: &[PushServer]) -> bool {
    servers.iter().any(|s| s.healthcheck == Some(false))
}
