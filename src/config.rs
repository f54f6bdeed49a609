//! Reads the configuration: one YAML file, decoded and checked as a whole before anything is bound.
//!
//! In: a path. Out: a complete and consistent [`Config`], or every [`error::ConfigError`] of the file.

use std::path::Path;

mod address;
mod admin_block;
mod bounds;
mod check;
mod decode;
pub mod defaults;
mod discover;
mod effective;
pub mod error;
mod failure;
mod fault;
mod file;
mod listener;
mod logs;
mod memory;
mod places;
mod read;
mod restart;
mod tcp;
mod tls;
mod tree;
mod upstream;
mod user;

pub use crate::credentials::{Certificate, Ocsp};
pub use address::{Address, HostName, HostPort};
pub(crate) use check::covers;
pub use discover::{Discover, Family, Resolvers};
pub use error::{ConfigError, ConfigErrors, Severity};
pub use failure::{NoNode, OnLost};
pub use file::{Admin, AdminHealth, Config, HealthPath};
pub use listener::{Http2Limits, Limits, Listener, MaxHidden};
pub use logs::{AccessLog, Field, Log, ServiceLog, Syslog};
pub use memory::{Memory, MemoryLimit};
pub use places::Places;
pub use pushgate_plugins::context::Mode;
pub use pushgate_plugins::units;
pub use tcp::{NodeTcp, TcpOptions};
pub use tls::{
    Choose, ClientCertificate, ListenerTls, NodeTls, Profile, Protocols, Tickets, Version,
};
pub use upstream::{
    Balance, Found, Health, HttpCheck, Node, OnDown, Passive, Pool, Rebalance, TcpCheck, TlsCheck,
};
pub use user::User;

impl Config {
    /// Reads, decodes and checks the file at `path`. Relative paths in it are below its folder.
    ///
    /// Errors: the faults of the file in the order of its lines, at most [`error::MAX_ERRORS`].
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read::read(path).map_err(|fault| ConfigErrors::one(*fault))?;
        // An absolute path, because a daemon runs in `/`.
        let dir = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let dir = dir.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, &path.display().to_string(), dir)
    }

    /// Decodes and checks `text`, shown as `file` in faults, with relative paths below `dir`.
    ///
    /// Errors: the faults of the text in the order of its lines, at most [`error::MAX_ERRORS`].
    pub fn parse(text: &str, file: &str, dir: &Path) -> Result<Self, ConfigErrors> {
        let (tree, errors) = tree::parse(text);
        let faults = errors.into_iter().map(|e| fault::of_tree(file, e));
        let mut faults: Vec<ConfigError> = faults.collect();
        let (mut read, mut warnings) = (None, Vec::new());
        if let Some(mut tree) = tree {
            let names = check::Names::of(&tree);
            let mut decoded = decode::decode(&mut tree);
            let mut config = decoded.config.take();
            let mut errors = std::mem::take(&mut decoded.errors);
            if let Some(config) = &mut config {
                config.dir = dir.to_owned();
                let found = check::check(config, &decoded, &tree, &names, dir);
                errors.extend(found.errors);
                let found = found.warnings.into_iter();
                warnings.extend(found.map(|e| fault::warning(file, e)));
            }
            faults.extend(errors.into_iter().map(|e| fault::of_decoder(file, e)));
            read = Some(tree);
        }
        if let Some(faults) = ConfigErrors::of(faults) {
            return Err(faults);
        }
        // Our reader finds every fault with its place. The program runs what serde_yaml reads.
        match decode::authority(text) {
            Ok(decoded) => Ok(Config {
                dir: dir.to_owned(),
                warnings,
                ..decoded
            }),
            Err(e) => {
                // serde_yaml's message is for programmers; the operator gets the place only.
                let at = e.location().map(|l| tree::Position {
                    line: l.line(),
                    column: l.column(),
                });
                let at = at.unwrap_or(tree::Position { line: 1, column: 1 });
                let path = read.map(|tree| tree.locate(&tree.around(at)).path);
                let message = "two YAML readers differ about this place".to_owned();
                let expected = "a plainer spelling: short keys, quotes around text".to_owned();
                Err(ConfigErrors::one(ConfigError {
                    expected: Some(expected),
                    ..fault::at(file, at, path.unwrap_or_default(), message)
                }))
            }
        }
    }
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;
