//! Decides whether a plugin needs the beginning of a request's body before the request is routed.
//!
//! In: a request with a short body of known length. Out: how many bytes a plugin wants; the exchange reads
//! them. A request whose body does not arrive in time is routed without them. Source: FAULTS D52.

use pushgate_plugins::api::BODY_PREFIX;
use pushgate_plugins::head::Head;

use crate::proxy::flow::Exchange;

/// Longest body that is peeked at, in bytes: as much as is kept for a retry. A longer body is no form.
const MAX_BODY: u64 = 64 * 1024;

/// Returns how many bytes of the body a plugin wants, at most [`BODY_PREFIX`]. `None`: no plugin wants any,
/// or the body is long, of unknown length, or held back until a 100.
pub fn wanted_bytes(head: &Head, ex: &Exchange) -> Option<usize> {
    let length = std::str::from_utf8(head.value("content-length")?).ok()?;
    let length = length.trim().parse::<u64>().ok()?;
    // A client that expects a 100 sends no body before the node has sent the 100.
    if !(1..=MAX_BODY).contains(&length) || head.value("expect").is_some() {
        return None;
    }
    let (host, random) = {
        let record = ex.record.lock();
        (record.line.host().to_owned(), record.random)
    };
    let wants = ex.table.wants_body(&ex.facts(&host, Some(head), random));
    wants.then(|| BODY_PREFIX.min(length as usize))
}
