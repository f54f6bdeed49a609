//! The long form of `--version`: what this program was built from.

use std::sync::LazyLock;

/// Returns the version, and below it the commit, OpenSSL and Pingora. A build from a tarball, or one for
/// development, knows no commit.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let commit = option_env!("PUSHGATE_COMMIT").map(|hash| format!("\ncommit:  {hash}"));
        format!(
            "{}{}\nOpenSSL: {}\nPingora: {}",
            env!("CARGO_PKG_VERSION"),
            commit.unwrap_or_default(),
            openssl::version::version().trim_start_matches("OpenSSL "),
            env!("PUSHGATE_PINGORA"),
        )
    });
    &TEXT
}
