//! The clients' side: listening sockets, and the steps from an accepted socket to a client connection.
//!
//! Order: `accept` (in `accept_turn`) → `edge` → `admission` → (`proxy_protocol`, `client_hello`,
//! `handshake`) → `proxy::serve`.

pub mod accept;
mod accept_turn;
pub mod admission;
pub mod client_hello;
pub mod edge;
pub mod handshake;
pub mod proxy_protocol;
pub mod unix;
