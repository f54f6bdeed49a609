//! Reads the configuration files of push servers; writes a matching edge configuration, or compares both.
//!
//! In: `lightstreamer_conf.xml` of each server: ports, listening interfaces, keystores, and the host name
//! that it gives its clients. Out: YAML ([`write()`]), or the contradictions between an edge's configuration
//! and the servers ([`compare`]).
//! Source: Lightstreamer clustering §2, §3 (the elements of each option).

mod certificates;
mod compare;
mod healthcheck;
mod import_output;
mod keystore;
mod push_server;
mod read;
mod write;

pub use certificates::Secret;
pub use compare::compare;
pub use import_output::ImportOutput;
pub use keystore::{Keystore, Password};
pub use push_server::{Link, PushServer, Socket};
pub use read::{ImportError, parse, read, read_all};
pub use write::write;

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;
