//! Pushgate: the edge in front of streaming push servers. Modules in the order bytes flow.

pub mod demo;

pub mod config;
pub mod tls;
