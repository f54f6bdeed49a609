//! Names the keys whose changes a reload does not put in force.
//!
//! In: the configuration that the process started with, and the one it has now. Out: paths of the keys that
//! differ and wait for a restart, or for a change of the program.

use serde_yaml::Value;
use serde_yaml::with::singleton_map_recursive;

use super::Config;

/// Blocks and keys that a process reads at its start only.
const AT_START: [&str; 10] = [
    "admin",
    "client_share",
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
    /// Returns the paths of keys that differ from `started` and wait for a restart, in the order of the alphabet.
    pub fn waiting(&self, started: &Config) -> Vec<String> {
        let tree =
            |config| singleton_map_recursive::serialize(config, serde_yaml::value::Serializer);
        let (Ok(now), Ok(then)) = (tree(self), tree(started)) else {
            // A path that is not UTF-8 cannot be in the file, which is UTF-8.
            return Vec::new();
        };
        let mut differ = Vec::new();
        for key in AT_START {
            compare(key.to_owned(), now.get(key), then.get(key), &mut differ);
        }
        differ
    }
}

fn compare(path: String, now: Option<&Value>, then: Option<&Value>, differ: &mut Vec<String>) {
    let given = |value: Option<&Value>| value.filter(|v| !v.is_null()).cloned();
    match (now, then) {
        (Some(Value::Mapping(now)), Some(Value::Mapping(then))) => {
            let more = then.keys().filter(|key| !now.contains_key(*key));
            for key in now.keys().chain(more) {
                let name = key.as_str().unwrap_or_default();
                compare(
                    format!("{path}.{name}"),
                    now.get(key),
                    then.get(key),
                    differ,
                );
            }
        }
        _ if given(now) != given(then) => differ.push(path),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Aim: each key that a reload leaves as it was is named by its path, and no other. Fails if a key of these
    /// blocks is not compared. Source: issue 15 §10.
    #[test]
    fn changed_keys_that_wait_are_named() {
        let parse = |top: &str| {
            let text = format!(
                "{top}\nnodes: {{ n: {{ address: 127.0.0.1:2 }} }}\nlisteners: [{{ name: a, bind: [127.0.0.1:1], mode: http, to: n }}]\n"
            );
            Config::parse(&text, "f", Path::new("/")).unwrap_or_else(|e| panic!("{e}"))
        };
        let cases: &[(&str, &str, &[&str])] = &[
            ("threads: 2", "threads: 2", &[]),
            ("drain_deadline: 1m", "drain_deadline: 2m", &[]),
            ("threads: 2", "threads: 3", &["threads"]),
            ("", "threads: 3", &["threads"]),
            ("max_connections: 5", "", &["max_connections"]),
            ("memory: { limit: 50% }", "", &["memory.limit"]),
            ("log: { query: true }", "", &["log.query"]),
            (
                "log: { access: stdout }",
                "log: { query: true }",
                &["log.access", "log.query"],
            ),
            ("admin: { bind: 127.0.0.1:9 }", "", &["admin"]),
            (
                "admin: { bind: 127.0.0.1:9 }",
                "admin: { bind: 127.0.0.1:8 }",
                &["admin.bind"],
            ),
            (
                "pid_file: a",
                "pid_file: b\nuser: root",
                &["pid_file", "user"],
            ),
        ];
        for (then, now, expected) in cases {
            assert_eq!(
                parse(now).waiting(&parse(then)),
                *expected,
                "{then} to {now}"
            );
        }
    }
}
