//! Clients' side: sockets, one client connection, and Pingora's hooks.
pub mod request_head;
