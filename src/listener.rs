//! The clients' side: sockets, one client connection, one request, and Pingora's hooks.
//!
//! Order of a connection: `accept` → `door` → `edge` → (`handshake`, `client_io`, `request_head`) → `http`.

pub mod accept;
pub mod assign;
pub mod client_hello;
pub mod client_io;
pub mod clients;
mod conn;
pub mod door;
pub mod edge;
pub mod exchange;
pub mod handshake;
pub mod http;
pub mod http2;
pub mod node_head;
pub mod open;
pub mod proxy_protocol;
pub mod reason;
pub mod relayed;
pub mod request_head;
mod request_line;
pub mod tcp;
