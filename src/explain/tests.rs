//! Questions and their answers: listener, certificate, route, node, and the line that decides.

use std::path::Path;

use clap::Parser;

use super::{Question, explain};
use crate::config::{Config, Places};

const FILE: &str = "\
nodes:
  ls1: { address: 10.0.0.1:80 }
  ls2: { address: 10.0.0.2:80, weight: 2 }
pools:
  push: { nodes: [ls1, ls2] }
  hashed:
    nodes: [ls1, ls2]
    balance: hash
listeners:
  - name: push
    bind: [200.0.0.10:80, 200.0.0.1:80]
    mode: http
    to: push
    plugins:
      - host_route:
          hosts:
            Push1.mycompany.com: ls1
            '*.other.com': hashed
          unknown: pass
      - vip_route: { vips: { 200.0.0.1: ls1 } }
      - sticky_cookie: { key_file: cookie.keys }
      - sticky_ip: {}
  - name: layer4
    bind: [0.0.0.0:443]
    mode: tcp
    plugins:
      - sni_route: { names: { push2.mycompany.com: ls2 }, unknown: { refuse: 421 } }
  - name: hash
    bind: [200.0.0.10:81]
    mode: http
    to: push
    plugins: [{ sticky_ip: { mode: hash } }]
  - name: plain
    bind: [200.0.0.10:82]
    mode: http
    plugins: [{ redirect_https: { port: 8443 } }]
";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    question: Question,
}

/// Returns the answer to a command line, or the error.
fn answer(line: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("cookie.keys"),
        "00112233445566778899aabbccddeeff\n",
    )
    .expect("keys");
    answer_in(dir.path(), line)
}

fn answer_in(dir: &Path, line: &str) -> String {
    answer_of(FILE, dir, line)
}

fn answer_of(file: &str, dir: &Path, line: &str) -> String {
    let config = Config::parse(file, "edge.yaml", dir).unwrap_or_else(|f| panic!("{f}"));
    let words = std::iter::once("explain").chain(line.split('|').map(str::trim));
    let question = Line::try_parse_from(words)
        .unwrap_or_else(|e| panic!("{e}"))
        .question;
    explain(&config, &Places::parse(file, "edge.yaml"), &question).unwrap_or_else(|e| e)
}

/// Aim: each decision is shown with the place of the entry that made it. Fails if a plugin names another
/// entry than the one by which it decides.
#[test]
fn decisions_are_shown_with_their_line() {
    for (line, lines) in [
        (
            "--to=http://push1.mycompany.com/ | --vip=200.0.0.10",
            &[
                "listener      push, 200.0.0.10:80",
                "              edge.yaml:11:12: listeners[0].bind[0]",
                "route         node ls1",
                "edge.yaml:17:13: listeners[0].plugins[0].host_route.hosts[\"Push1.mycompany.com\"]",
                "node          ls1 at 10.0.0.1:80, pinned",
            ] as &[&str],
        ),
        (
            "--to=http://a.other.com/x | --vip=200.0.0.10 | --from=192.0.2.9",
            &[
                "route         pool hashed",
                "hosts[\"*.other.com\"]",
                "balanced by hash among ls1 (weight 1), ls2 (weight 2)",
                "edge.yaml:8:5: pools.hashed.balance",
            ],
        ),
        (
            "--to=http://200.0.0.1/",
            &[
                "listeners[0].bind[1]",
                "edge.yaml:20:30: listeners[0].plugins[1].vip_route.vips[\"200.0.0.1\"]",
                "pinned",
            ],
        ),
        (
            "--to=http://push.mycompany.com/ | --vip=200.0.0.10",
            &[
                "route         pool push",
                "edge.yaml:13:5: listeners[0].to",
                "balanced by least_flows",
                "edge.yaml:5:3: pools.push",
                "stickiness    sticky_cookie",
                "stickiness    sticky_ip",
                "edge.yaml:22:9: listeners[0].plugins[3].sticky_ip",
            ],
        ),
        (
            "--to=https://push2.mycompany.com/",
            &[
                "listener      layer4, 0.0.0.0:443",
                "certificate   the node's; TLS passes through",
                "node ls2",
                "sni_route.names[\"push2.mycompany.com\"]",
            ],
        ),
        (
            "--to=https://push2.mycompany.com/ | --sni=x.com",
            &["route         refused with 421", "sni_route.unknown"],
        ),
        (
            "--to=http://push.mycompany.com:81/",
            &[
                "recalled by sticky_ip",
                "edge.yaml:32:17: listeners[2].plugins[0].sticky_ip",
            ],
        ),
        (
            "--to=http://push.mycompany.com:82/a?b",
            &["redirected with 308 to https://push.mycompany.com:8443/a?b"],
        ),
    ] {
        let told = answer(line);
        for want in lines {
            assert!(told.contains(want), "{line}: no {want:?} in\n{told}");
        }
    }
}

/// Aim: a question without a single answer gets an error that says what is missing. Fails if a listener is
/// guessed.
#[test]
fn questions_without_an_answer_say_why() {
    for (line, want) in [
        ("--to=push.mycompany.com", "expected a URL as"),
        (
            "--to=http://push.mycompany.com:99/",
            "no listener is bound to 0.0.0.0:99",
        ),
        (
            "--to=http://push.mycompany.com/",
            "several listeners have port 80: push (200.0.0.10:80), push (200.0.0.1:80); choose one with --vip",
        ),
        (
            "--to=https://push.mycompany.com:81/",
            "listener hash at 200.0.0.10:81 speaks plain; expected an http URL",
        ),
        (
            "--to=http://200.0.0.1/ | --header=X",
            "expected `Name: value`",
        ),
        ("--to=http://200.0.0.1/ | --header=a b: c", "make no header"),
    ] {
        let told = answer(line);
        assert!(told.contains(want), "{line}: {told}");
    }
}

/// A listener is found by its bound address, even if that is the wildcard.
#[test]
fn a_wildcard_address_is_found_by_itself() {
    let told = answer("--to=https://0.0.0.0/");
    assert!(told.contains("listener      layer4, 0.0.0.0:443"), "{told}");
}

/// Aim: names are shown as the file writes them. Fails if a name that `explain` does not look up is shown as
/// an address, or as a pool without nodes.
#[test]
fn names_are_not_looked_up() {
    const NAMES: &str = "\
nodes:
  ls1: { address: ls1.internal:80 }
pools:
  push: { discover: { host: push.internal:80 } }
listeners:
  - { name: pool, bind: [200.0.0.10:80], mode: http, to: push }
  - { name: node, bind: [200.0.0.11:80], mode: http, to: ls1 }
";
    for (line, expected) in [
        (
            "--to=http://a/ | --vip=200.0.0.10",
            "node          one that the running edge discovers by DNS\n              edge.yaml:4:11: pools.push.discover",
        ),
        (
            "--to=http://a/ | --vip=200.0.0.11",
            "node          ls1 at ls1.internal:80, pinned",
        ),
    ] {
        let told = answer_of(NAMES, Path::new("/"), line);
        assert!(told.contains(expected), "{line}: {told}");
    }
}
