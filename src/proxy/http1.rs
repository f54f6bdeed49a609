//! Serves HTTP/1: judges the heads of both sides, serves the client's connection, carries each exchange on
//! it.
//!
//! Source: RFC 9110, RFC 9112; FAULTS D1 to D18, D62.

pub mod client;
pub mod connection;
pub mod date;
pub mod exchange;
mod hop_by_hop;
pub mod refuse;
pub mod request_head;
pub mod response_head;

use pushgate_plugins::head::Edits;

/// Adds a header line of our own to a head.
fn append(edits: &mut Edits, name: &str, value: &[u8]) {
    edits
        .append(name, value)
        .expect("our own names and values are tokens, digits and dates");
}
