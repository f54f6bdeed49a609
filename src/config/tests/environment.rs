//! Variables of the environment in the file: what they become, and what a fault shows of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{Config, files};

fn variables(name: &str) -> Option<OsString> {
    let value = match name {
        "PORT" => "127.0.0.1:8080",
        "THREADS" => "3",
        "NODE" => "10.0.0.1:80",
        "ZERO" => "0",
        "EMPTY" => "",
        "YES" => "true",
        "SECRET" => "hunter2 hunter2",
        "LONG" => return Some("l0ng".repeat(40).into()),
        "YAML" => "a\"]\nadmin: { bind: 0.0.0.0:1 }",
        "BYTES" => return Some(OsString::from_vec(vec![0xff])),
        "HUGE" => return Some("x".repeat(600_000).into()),
        _ => return None,
    };
    Some(value.into())
}

fn parse(text: &str, dir: &Path) -> Result<Config, String> {
    Config::parse_within(text, "f", dir, &variables).map_err(|faults| faults.to_string())
}

/// Aim: a variable is typed as the text it stands for, with quotes as text; a default counts for a variable that is
/// unset or empty; `$${` is text. Fails if the reader that runs gets the text of the file.
#[test]
fn variables_are_values_of_the_file() {
    let dir = files();
    let text = "\
threads: ${THREADS}
max_connections: ${NONE:-70}${ZERO}
drain_deadline: ${EMPTY:-${}5m
nodes: { n: { address: \"${NODE}\" }, \"${NODE}\": { address: 10.0.0.2:80 } }
listeners:
  - name: a${EMPTY}${NONE:-}
    bind:
      - ${PORT}
    mode: http
    to: n
    pass_forwarded: ${YES}
    plugins:
      - headers: { request: { set: { A: \"$${NODE} ${SECRET} $NODE $$\", B: \"${YAML}\" } } }
";
    let refused = parse(text, dir.path()).expect_err("keys stay as they are");
    assert!(refused.contains("name `${NODE}`"), "{refused}");
    let text = text.replace(", \"${NODE}\": { address: 10.0.0.2:80 }", "");
    let refused = parse(&text, dir.path()).expect_err("a variable in a default");
    let line = "f:3:17: drain_deadline: found `${EMPTY:-${}`; expected `${NAME}` or ";
    assert!(refused.starts_with(line), "{refused}");
    let text = text.replace("${EMPTY:-${}5m", "${EMPTY:-}5m");
    let refused = parse(&text, dir.path()).expect_err("a line end in a header");
    assert!(!refused.contains("admin"), "{refused}");
    let config = parse(&text.replace(", B: \"${YAML}\"", ""), dir.path()).expect("sound");
    assert_eq!(config.threads.map(|n| n.get()), Some(3));
    assert_eq!(config.max_connections.get(), 700);
    assert_eq!(config.drain_deadline.0.as_secs(), 300);
    assert_eq!(config.nodes["n"].address.to_string(), "10.0.0.1:80");
    let listener = &config.listeners[0];
    assert_eq!(
        (listener.name.as_str(), listener.pass_forwarded),
        ("a", true)
    );
    assert_eq!(listener.bind[0].to_string(), "127.0.0.1:8080");
    let plugins = format!("{:?}", listener.plugins);
    assert!(
        plugins.contains("${NODE} hunter2 hunter2 $NODE $$"),
        "{plugins}"
    );
}

const FAULTS: &[(&str, &str)] = &[
    (
        "threads: ${NONE}",
        "f:8:10: threads: environment variable `NONE` is not set; expected the variable, or a default: `${NAME:-default}`",
    ),
    (
        "threads: ${SECRET}",
        "f:8:10: threads: found `${SECRET}`; expected …",
    ),
    (
        "threads: x${SECRET}y",
        "f:8:10: threads: found `x${SECRET}y`; expected …",
    ),
    (
        "threads: ${LONG}",
        "f:8:10: threads: found `${LONG}`; expected …",
    ),
    (
        "threads: \"${THREADS}\"",
        "f:8:10: threads: found `\"${THREADS}\"`; expected …",
    ),
    ("threads: ${EMPTY}", ""),
    (
        "threads: ${BYTES}",
        "f:8:10: threads: environment variable `BYTES` is not UTF-8; expected UTF-8 text",
    ),
    (
        "threads: ${NODE",
        "f:8:10: threads: `${` without `}`; expected …",
    ),
    ("threads: ${}", "f:8:10: threads: found `${}`; expected …"),
    (
        "threads: ${1A}",
        "f:8:10: threads: found `${1A}`; expected …",
    ),
    (
        "threads: ${A-1}",
        "f:8:10: threads: found `${A-1}`; expected …",
    ),
    (
        "pid_file: ${HUGE}${HUGE}",
        "f:8:11: pid_file: more than 1048576 bytes from the environment",
    ),
    (
        "memory: { limit: ${THREADS} }",
        "f:8:…: memory…: not YAML: …; expected quotes around a variable: `\"${NAME}\"`",
    ),
    (
        "    plugins:\n      - host_route: { hosts: { \"a.b\": \"${SECRET}\" } }",
        "f:9:…: listeners[0].plugins[0].host_route.hosts[\"a.b\"]: unknown pool or node `${SECRET}`; expected `n`",
    ),
    (
        "    plugins:\n      - host_route: { hosts: \"${SECRET}\" }",
        "f:9:…: listeners[0].plugins[0].host_route.hosts: found `\"${SECRET}\"`; expected …",
    ),
];

/// Aim: a fault has the place of the value in the file and shows no value of the environment; an unset variable is
/// one fault. Fails if a value is shown, or if what lacks its variable is also called missing.
#[test]
fn faults_name_the_variable_and_not_its_value() {
    let dir = files();
    let base = "nodes:\n  n: { address: 127.0.0.1:2 }\nlisteners:\n  - name: a\n    bind: [127.0.0.1:1]\n    mode: http\n    to: n\n";
    for (tail, expected) in FAULTS {
        let printed = parse(&format!("{base}{tail}\n"), dir.path())
            .err()
            .unwrap_or_default();
        assert!(super::fits(&printed, expected), "{tail}: {printed}");
    }
    let missing = base
        .replace("mode: http", "mode: ${NONE}")
        .replace("127.0.0.1:2", "\"${NONE}\"");
    let printed = parse(&missing, dir.path()).expect_err("unset");
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(
        printed.contains("f:6:11: listeners[0].mode: environment variable"),
        "{printed}"
    );
}
