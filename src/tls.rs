//! TLS towards clients: the certificate that a handshake gets, and the rules it follows.
//!
//! In: a listener's `tls:` section and the files it names. Out: one acceptor per VIP.
//! Source: Lightstreamer clustering §2.1.1 (a certificate per host name), RFC 6066 §3, RFC 8446.

mod context;
mod guard;
mod handshake_info;
mod names;
mod revoked;
mod select;
mod server_name;
mod store;
pub mod tickets;

pub use handshake_info::HandshakeInfo;
pub use revoked::{forgives, lists_of, store_of};
pub use select::{Acceptors, Choice, TlsFront, choice};
pub use store::{Store, Which, ends_soon};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
