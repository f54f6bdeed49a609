//! What the servers' files leave open: the check that they answer, names and domains.

use std::path::Path;

use super::{Own, http, https, server};
use crate::config::Config;
use crate::import::write;

/// Aim: the check is one that the servers answer. Fails if a server whose `<healthcheck_url>` is off is asked for
/// it: no node would come Up. Source: issue 15 §3.
#[test]
fn the_check_follows_healthcheck_url() {
    let on = "<healthcheck_url><enabled>Y</enabled></healthcheck_url>";
    let off = "<healthcheck_url>N</healthcheck_url>";
    let path = "http: { path: /lightstreamer/healthcheck }";
    for (tls, elements, expected, note) in [
        (false, ["", ""], path, "needs <healthcheck_url>"),
        (false, [on, on], path, ""),
        (false, [on, off], "tcp: {}", "<healthcheck_url> is off"),
        (true, ["", ""], "tcp: {}", ""),
        (
            true,
            [on, on],
            "tls: {}, http: { path: /lightstreamer/healthcheck }",
            "",
        ),
        (true, [on, off], "tcp: {}", "<healthcheck_url> is off"),
    ] {
        let socket = |n: usize| match tls {
            true => https(443, &format!("10.0.0.{n}"), "a"),
            false => http(&format!("10.0.0.{n}")),
        };
        let of = |n: usize| server(n, &[socket(n), elements[n - 1].to_owned()]);
        let yaml = write(&[of(1), of(2)], &Own::default())
            .expect("an option")
            .yaml;
        let health = format!("    health: {{ {expected} }}\n");
        assert!(yaml.contains(&health), "{elements:?}: {yaml}");
        assert_eq!(
            yaml.contains("healthcheck_url"),
            !note.is_empty(),
            "{elements:?}: {yaml}"
        );
        assert!(yaml.contains(note), "{elements:?}: {yaml}");
        let config = Config::parse(&yaml, "f", Path::new(".")).unwrap_or_else(|e| panic!("{e}"));
        assert!(config.admin.is_some() && config.log != crate::config::Log::default());
    }
}

/// Aim: a domain and host names complete what the files leave open. Fails if a machine's name is used alone.
/// Source: issue 15 §3.
#[test]
fn a_domain_completes_machine_names() {
    let machine = |n| format!("<control_link_machine_name>push{n}</control_link_machine_name>");
    let servers = [1, 2].map(|n| server(n, &[http(""), machine(n)]));
    let own = Own {
        nodes: ["ls1.internal", "ls2.internal:81"]
            .map(|a| a.parse().expect("a name"))
            .into(),
        ..Own::default()
    };
    let refused = write(&servers, &own).expect_err("no domain");
    assert!(refused.contains("--domain"), "{refused}");
    let own = Own {
        domain: "example.org".parse().ok(),
        ..own
    };
    let yaml = write(&servers, &own).expect("an option").yaml;
    for line in [
        "push2.example.org: ls2",
        "ls1: { address: ls1.internal:80 }",
        "address: ls2.internal:81",
    ] {
        assert!(yaml.contains(line), "{line}\n{yaml}");
    }
    if let Err(faults) = Config::parse(&yaml, "f", Path::new(".")) {
        panic!("{faults}\n{yaml}");
    }
}
