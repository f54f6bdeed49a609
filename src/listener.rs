//! The clients' side: listening sockets, and what turns an accepted socket into a client connection.
//!
//! Order: `accept` (in `turn`) → `edge` → `door` → (`proxy_protocol`, `client_hello`, `handshake`) →
//! `proxy::serve`.

pub mod accept;
pub mod client_hello;
pub mod door;
pub mod edge;
pub mod handshake;
pub mod proxy_protocol;
mod turn;
