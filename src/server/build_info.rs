//! Says which program this is: the versions of its parts, as a metric.

use crate::observe::metrics;

/// Version of Pingora; a test compares it with the lock file.
const PINGORA: &str = "0.9.1";
/// The commit, which build.rs finds for a release from a repository, as `--version` shows it.
const GIT: &str = match option_env!("PUSHGATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Sets the metric.
pub fn set() {
    let openssl = openssl::version::version();
    let number = openssl.split_whitespace().nth(1).unwrap_or(openssl);
    let labels = [env!("CARGO_PKG_VERSION"), GIT, number, PINGORA];
    metrics::get().build.with_label_values(&labels).set(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: the metric names the Pingora that is linked. Fails if an update leaves the old number.
    #[test]
    fn the_version_of_pingora_is_that_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"pingora-core\"\nversion = \"{PINGORA}\"\n");
        assert!(lock.contains(&entry));
    }
}
