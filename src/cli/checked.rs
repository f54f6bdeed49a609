//! Command `check`: what a valid file is about, and what an operator should look at.
//!
//! In: a checked configuration, and files of push servers. Out: a summary; warnings go to standard error.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::credentials::unix_now;
use crate::import;
use crate::tls::Store;

/// Prints the warnings of a valid file and returns its summary.
///
/// Errors: what in it contradicts the push servers' `files`.
pub fn report(conf: &Path, config: &Config, files: &[PathBuf]) -> Result<String, String> {
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    certificates(conf, config);
    let servers = import::read_all(files).map_err(lines)?;
    match import::compare(config, &servers) {
        wrong if servers.is_empty() || wrong.is_empty() => {
            Ok(format!("{}\n", summary(conf, config)))
        }
        wrong => Err(lines(wrong)),
    }
}

/// Prints what `run` would log as a warning about certificates.
fn certificates(conf: &Path, config: &Config) {
    // The file check has read the certificates, so an error means that a file has gone since.
    let Ok(store) = Store::load(config, &Store::default()) else {
        return;
    };
    for (name, loaded) in store.iter() {
        for warning in loaded.warnings(unix_now()) {
            eprintln!("{}: warning: certificate {name}: {warning}", conf.display());
        }
    }
}

fn summary(conf: &Path, config: &Config) -> String {
    format!(
        "{}: ok ({} listeners, {} pools, {} nodes)",
        conf.display(),
        config.listeners.len(),
        config.pools.len(),
        config.nodes.len()
    )
}

/// Joins faults, one on each line.
pub(super) fn lines<T: ToString>(all: Vec<T>) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join("\npushgate: ")
}
