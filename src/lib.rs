//! Pushgate: the edge in front of streaming push servers. Modules in the order bytes flow.

pub mod cli;
pub mod config;
