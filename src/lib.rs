//! Pushgate: the edge in front of streaming push servers. Modules in the order bytes flow.

pub mod balance;
pub mod config;
pub mod listener;
pub mod observe;
pub mod route;
pub mod stream;
pub mod upstream;
