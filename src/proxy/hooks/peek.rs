//! Decides whether a plugin needs the beginning of a request's body before the request is routed; reads it
//! over HTTP/2.
//!
//! In: a request with a short body of known length. Out: how many bytes are wanted; over HTTP/2 the bytes.
//! Over HTTP/1 the exchange reads them. Over HTTP/2 Pingora keeps what it reads for a retry, and the first
//! try begins with it. A request whose body does not come in time is routed without. Source: FAULTS D52.

use pingora::{Error, Result};
use pingora_proxy::Session;
use pushgate_plugins::api::BODY_PREFIX;
use pushgate_plugins::head::Head;

use crate::config::defaults;
use crate::proxy::flow::Exchange;

/// Longest body that is looked into: as much as is kept for a retry. A longer body is no form.
const MAX_BODY: u64 = 64 * 1024;

/// Whether a plugin wants the body, and the body is short and of known length.
pub fn is_wanted(head: &Head, ex: &Exchange) -> bool {
    wanted_bytes(head, ex).is_some()
}

/// Bytes of the body that a plugin wants, at most [`BODY_PREFIX`]; `None`: no plugin wants any, or the body
/// is long, of unknown length, or held back until a 100.
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

/// Reads the first [`BODY_PREFIX`] bytes, or fewer where the body ends or the deadline passes before.
///
/// Errors: the client broke off, or the body is not legal.
pub async fn first_bytes(session: &mut Session) -> Result<Vec<u8>> {
    let session = session.as_downstream_mut();
    session.enable_retry_buffering();
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < BODY_PREFIX {
            match session.read_request_body().await? {
                Some(part) => bytes.extend_from_slice(&part),
                None => break,
            }
        }
        Ok::<(), Box<Error>>(())
    };
    // Reading may be given up at any time: bytes that came are in Pingora's buffer, the others are unread.
    if let Ok(failed @ Err(_)) = tokio::time::timeout(defaults::BODY_PREFIX_TIMEOUT.0, read).await {
        failed?;
    }
    bytes.truncate(BODY_PREFIX);
    Ok(bytes)
}
