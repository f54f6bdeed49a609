//! A short hash of what the edges of a site should have in common of their configuration.
//!
//! In: a checked [`Config`]. Out: 16 hexadecimal digits, the same for files that mean the same. Addresses of this
//! machine, logs and limits of the process may differ, so they are left out. Source: issue 16 §4.

use openssl::hash::{MessageDigest, hash};
use serde_yaml::Value;
use serde_yaml::with::singleton_map_recursive;

use super::Config;

/// Blocks and keys at the top that belong to one machine.
const OF_MACHINE: [&str; 11] = [
    "admin",
    "client_share",
    "include",
    "log",
    "max_connections",
    "memory",
    "pid_file",
    "state",
    "threads",
    "upgrade_socket",
    "user",
];

impl Config {
    /// Returns the hash; edges with the same one decide alike.
    pub fn fingerprint(&self) -> String {
        let mut whole = self.clone();
        whole.fill();
        let tree = singleton_map_recursive::serialize(&whole, serde_yaml::value::Serializer);
        let Ok(mut tree) = tree else {
            // A path that is not UTF-8 cannot be in the file, which is UTF-8.
            return String::new();
        };
        if let Some(top) = tree.as_mapping_mut() {
            OF_MACHINE.iter().for_each(|key| drop(top.remove(key)));
        }
        let listeners = tree.get_mut("listeners").and_then(Value::as_sequence_mut);
        strip(listeners.into_iter().flatten(), "bind");
        let nodes = tree.get_mut("nodes").and_then(Value::as_mapping_mut);
        strip(
            nodes.into_iter().flat_map(|nodes| nodes.values_mut()),
            "source",
        );
        let text = serde_yaml::to_string(&tree).unwrap_or_default();
        let Ok(digest) = hash(MessageDigest::sha256(), text.as_bytes()) else {
            return String::new();
        };
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn strip<'a>(all: impl Iterator<Item = &'a mut Value>, key: &str) {
    for one in all.filter_map(Value::as_mapping_mut) {
        one.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Aim: edges of a site that decide alike have one hash. Fails if the address of a machine is in it, or a weight is
    /// not.
    #[test]
    fn files_that_mean_the_same_have_one_hash() {
        let of = |top: &str, bind: &str, weight: &str| {
            let text = format!(
                "{top}\nnodes: {{ n: {{ address: 127.0.0.1:2{weight} }} }}\npools: {{ p: {{ nodes: [n] }} }}\nlisteners: [{{ name: a, bind: [{bind}], mode: http, to: p }}]\n"
            );
            let config = Config::parse(&text, "f", Path::new("/"));
            config.unwrap_or_else(|e| panic!("{e}")).fingerprint()
        };
        let one = of("", "127.0.0.1:1", "");
        assert_eq!(one.len(), 16);
        assert_eq!(one, of("threads: 3", "127.0.0.9:1", ", weight: 1"));
        assert_ne!(one, of("", "127.0.0.1:1", ", weight: 2"));
    }
}
