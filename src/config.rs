//! Reads the configuration: one YAML file and those it includes, decoded and checked as a whole before anything is
//! bound.
//!
//! In: a path. Out: a complete and consistent [`Config`], or every [`error::ConfigError`] of the file.

use std::path::Path;

mod acme;
mod address;
mod admin_block;
mod agent;
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
mod fingerprint;
mod include;
mod listener;
mod log_field;
mod log_format;
mod logs;
mod memory;
mod places;
mod read;
mod restart;
mod sources;
mod state;
mod statuses;
mod tcp;
mod tls;
mod tree;
mod unix_socket;
mod upstream;
mod user;

pub use crate::credentials::{Acme, Certificate, Challenge, Ocsp};
pub use address::{Address, AgentAddress, HostName, HostPort, SourceAddress};
pub use agent::Agent;
pub(crate) use check::covers;
pub use discover::{Discover, Family, Resolvers};
pub use effective::too_large;
pub use error::{ConfigError, ConfigErrors, Severity};
pub use failure::{NoNode, OnLost};
pub use file::{Admin, AdminHealth, Config, HealthPath};
pub use listener::{Http2Limits, Limits, Listener, MaxHidden};
pub use log_field::Field;
pub use log_format::{FormatPart, LogFormat};
pub use logs::{AccessLog, Log, ServiceLog, Syslog};
pub use memory::{Memory, MemoryLimit};
pub use places::Places;
pub use pushgate_plugins::context::Mode;
pub use pushgate_plugins::units;
pub use state::{Prefix, Redis, SharedState, StoreUrl, StoreUrls};
pub use statuses::Statuses;
pub use tcp::{NodeTcp, TcpOptions};
pub use tls::{
    Choose, ClientCertificate, ListenerTls, NodeTls, Profile, Protocols, Tickets, Version,
    default_groups,
};
pub use unix_socket::{FileMode, UnixSocket};
pub use upstream::{
    Balance, Found, Health, HttpCheck, Node, OnDown, Passive, Pool, Rebalance, TcpCheck, TlsCheck,
};
pub use user::User;

use sources::Sources;

impl Config {
    /// Reads, decodes and checks the file at `path`. Relative paths in it are below its folder.
    ///
    /// Errors: the faults of the file in the order of its lines, at most [`error::MAX_ERRORS`].
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_placed(path).map(|(config, _)| config)
    }

    /// As [`Config::load`], with the place of each key. Reads each file once, so that it may be a pipe.
    pub fn load_placed(path: &Path) -> Result<(Self, Places), ConfigErrors> {
        let text = read::read(path).map_err(|fault| ConfigErrors::one(*fault))?;
        // An absolute path, because a daemon runs in `/`.
        let dir = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let dir = dir.parent().unwrap_or(Path::new("/"));
        let environment = |name: &str| std::env::var_os(name);
        Self::parse_placed(&text, &path.display().to_string(), dir, &environment)
    }

    /// Decodes and checks `text`, shown as `file` in faults, with relative paths below `dir`, and with variables of
    /// the environment of this process.
    ///
    /// Errors: the faults of the text in the order of its lines, at most [`error::MAX_ERRORS`].
    pub fn parse(text: &str, file: &str, dir: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_within(text, file, dir, &|name| std::env::var_os(name))
    }

    /// As [`Config::parse`], with another environment.
    fn parse_within(
        text: &str,
        file: &str,
        dir: &Path,
        environment: tree::Environment<'_>,
    ) -> Result<Self, ConfigErrors> {
        Self::parse_placed(text, file, dir, environment).map(|(config, _)| config)
    }

    fn parse_placed(
        text: &str,
        file: &str,
        dir: &Path,
        environment: tree::Environment<'_>,
    ) -> Result<(Self, Places), ConfigErrors> {
        let mut sources = Sources::gather(text, file, dir, environment);
        let rewritten = sources.rewritten();
        let errors = std::mem::take(&mut sources.errors).into_iter();
        let mut faults: Vec<ConfigError> = errors.map(|e| sources.fault(e)).collect();
        let mut warnings = Vec::new();
        if let Some(mut tree) = sources.tree.clone() {
            let names = check::Names::of(&tree);
            let mut decoded = decode::decode(&mut tree, sources.cut.clone());
            let mut config = decoded.config.take();
            let mut errors = std::mem::take(&mut decoded.errors);
            if let Some(config) = &mut config {
                config.dir = dir.to_owned();
                let found = check::check(config, &decoded, (&tree, &sources.files), &names, dir);
                errors.extend(found.errors);
                warnings.extend(found.warnings.into_iter().map(|e| sources.warn(e)));
            }
            faults.extend(errors.into_iter().map(|e| sources.tell(e)));
        }
        if let Some(faults) = ConfigErrors::of(faults, &sources.files) {
            return Err(faults);
        }
        // Our reader finds every fault with its place. The program runs what serde_yaml reads.
        match decode::authority(rewritten.as_deref().unwrap_or(text)) {
            Ok(decoded) => {
                let config = Config {
                    dir: dir.to_owned(),
                    warnings,
                    environment: sources.environment(),
                    ..decoded
                };
                Ok((config, Places::new(sources)))
            }
            Err(e) => {
                let at = e.location();
                let at = at.map(|l| tree::Position::new(l.line(), l.column()));
                let fault = sources.differ(rewritten.as_deref(), at);
                Err(ConfigErrors::one(fault))
            }
        }
    }
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;
