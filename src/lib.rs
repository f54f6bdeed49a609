//! Pushgate: an edge proxy in front of streaming push servers. The modules are in the order in which bytes
//! flow.

pub mod cli;
pub mod simulate;
pub mod explain;
pub mod demo;
pub mod import;
pub mod init;
pub mod server;
pub mod control;
pub mod config;
pub mod listener;
pub mod proxy;
pub mod tls;
pub mod site;
pub mod route;
pub mod balance;
pub mod upstream;
pub mod stream;
pub mod acme;
pub mod observe;
pub mod credentials;
pub mod clock;
#[cfg(fuzzing)]
pub mod fuzzing;
