//! Runs whose outcome is known: shares, failures, returns, stickiness, and the same again.

use std::path::Path;

use clap::Parser;

use super::{Report, Settings, simulate};
use crate::config::Config;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn file(plugins: &str, pool: &str) -> String {
    format!(
        "nodes: {{ ls1: {{ address: 10.0.0.1:80 }}, ls2: {{ address: 10.0.0.2:80 }}, ls3: {{ address: 10.0.0.3:80 }} }}\n\
         pools: {{ push: {{ nodes: [ls1, ls2, ls3], {pool} }} }}\n\
         listeners: [{{ name: push, bind: [200.0.0.10:80], mode: http, to: push, plugins: [{plugins}] }}]\n"
    )
}

fn run(plugins: &str, pool: &str, line: &str) -> Result<Report, String> {
    let text = file(plugins, pool);
    let config = Config::parse(&text, "f", Path::new(".")).unwrap_or_else(|f| panic!("{f}"));
    let words = std::iter::once("simulate").chain(line.split_whitespace());
    let settings = Line::try_parse_from(words)
        .unwrap_or_else(|e| panic!("{e}"))
        .settings;
    simulate(&config, &settings)
}

/// Shares of live flows at the end of second `t`, from 1.
fn shares(report: &Report, t: usize) -> Vec<f64> {
    let live = &report.seconds[t - 1].live;
    let all: usize = live.iter().sum();
    live.iter().map(|n| *n as f64 / all as f64).collect()
}

const CUT: &str = "--clients 3000 --arrive 30s --duration 300s --fail ls2@60s --return ls2@120s --reconnect 0s..5s";

/// Lightstreamer clustering §5: a failed node's clients are balanced over the others, and stuck ones stay
/// there when it is back. Fails if a dead node is given flows, or clients are not counted where they are.
#[test]
fn clients_of_a_failed_node_go_elsewhere_and_stay() {
    let r = run("{ sticky_cookie: {} }", "balance: least_flows", CUT).expect("a run");
    for (t, want) in [
        (31, [1.0 / 3.0; 3]),
        (59, [1.0 / 3.0; 3]),
        (80, [0.5, 0.0, 0.5]),
        (299, [0.5, 0.0, 0.5]),
    ] {
        for (got, want) in shares(&r, t).iter().zip(want) {
            assert!((got - want).abs() < 0.02, "second {t}: {:?}", shares(&r, t));
        }
    }
    let failure = &r.failures[0];
    assert!(failure.cut.abs_diff(1_000) < 30, "{failure:?}");
    assert!(
        failure.all.is_some_and(|s| (4.0..6.0).contains(&s)),
        "{failure:?}"
    );
    assert!(
        failure.median.is_some_and(|s| (2.0..3.0).contains(&s)),
        "{failure:?}"
    );
    assert_eq!((r.moved.failed, r.moved.unstuck), (failure.cut as u64, 0));
    assert_eq!(
        r.returns[0].even_after, None,
        "nothing brings stuck clients back"
    );
    assert_eq!(r.refused, 0);
}

/// Clients that come and go even the load out again; without stickiness rebinds do, and lose sessions.
#[test]
fn a_returned_node_fills_as_clients_come() {
    let stuck = run(
        "{ sticky_cookie: {} }",
        "balance: least_flows",
        &format!("{CUT} --stay 60s"),
    )
    .expect("a run");
    let even = stuck.returns[0].even_after.expect("even again");
    assert!((1.0..120.0).contains(&even), "{even}");
    let free = run("", "balance: least_flows", &format!("{CUT} --rebind 20s")).expect("a run");
    assert!(
        free.returns[0].even_after.is_some_and(|s| s < 60.0),
        "{:?}",
        free.returns
    );
    assert!(free.moved.unstuck > 1_000, "{:?}", free.moved);
}

/// FAULTS D47: behind one address, by address all go to one node, by session they are spread and stuck
/// though nobody returns a cookie.
#[test]
fn one_address_is_spread_by_session_only() {
    let nat =
        "--clients 600 --nat 100% --per-address 600 --cookies 0% --rebind 30s --duration 200s";
    let by_ip = run("{ sticky_ip: {} }", "balance: least_flows", nat).expect("a run");
    assert!(
        shares(&by_ip, 199).contains(&1.0),
        "{:?}",
        shares(&by_ip, 199)
    );
    for plugin in [
        "{ sticky_session: { preset: lightstreamer } }",
        "{ sticky_session: { preset: diffusion } }",
    ] {
        let r = run(plugin, "balance: least_flows", nat).expect("a run");
        let lightstreamer = plugin.contains("lightstreamer");
        assert_eq!(
            r.moved.unstuck == 0,
            lightstreamer,
            "{plugin}: {:?}",
            r.moved
        );
        assert!(shares(&r, 199).iter().all(|s| (s - 1.0 / 3.0).abs() < 0.05));
    }
}

/// A drain keeps stuck clients, and nobody new comes. Fails if a drain cuts.
#[test]
fn a_drain_moves_nobody() {
    let r = run(
        "{ sticky_cookie: {} }",
        "balance: round_robin",
        "--clients 900 --arrive 10s --rebind 20s --duration 120s --drain ls1@30s --return ls1@90s",
    )
    .expect("a run");
    assert_eq!(
        (r.moved.drained, r.moved.unstuck, r.failures.len()),
        (0, 0, 0)
    );
    assert!((shares(&r, 89)[0] - 1.0 / 3.0).abs() < 0.01);
    let events: Vec<_> = r.events.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(events, ["ls1 is drained", "ls1 is back", "ls1 is up"]);
}

/// The same seed gives the same run to the last byte, another seed another.
#[test]
fn a_run_can_be_repeated() {
    let json = |seed| {
        let line = format!("{CUT} --nat 30% --cookies 50% --stay 100s --seed {seed}");
        let r = run(
            "{ sticky_cookie: {} }, { sticky_ip: {} }",
            "balance: random",
            &line,
        );
        serde_json::to_string(&r.expect("a run")).expect("JSON")
    };
    assert_eq!(json(7), json(7));
    assert_ne!(json(7), json(8));
}

#[test]
fn what_cannot_be_simulated_says_why() {
    for (plugins, line, want) in [
        ("", "--fail ls9@1s", "unknown node `ls9`"),
        ("", "--to http://200.0.0.11/", "no listener is bound"),
        (
            "{ host_route: { hosts: { a.com: ls1 }, unknown: { refuse: 421 } } }",
            "",
            "refused with 421",
        ),
    ] {
        let e = run(plugins, "balance: hash", &format!("--clients 5 {line}")).expect_err(line);
        assert!(e.contains(want), "{e}");
    }
}

/// What is printed is complete: a line a step, peaks, failure, return, moved.
#[test]
fn the_report_tells_it_all() {
    let told = run("{ sticky_cookie: {} }", "balance: least_flows", CUT)
        .expect("a run")
        .to_string();
    for want in [
        "1:00  ls2 fails",
        "1:01  ls2 is down",
        "2:00  ls2 is back",
        "ls2 is up",
        "peak      ls1:",
        "failure   ls2 at 1:00:",
        "return    ls2 at 2:0",
        "not within the run",
        "refused   0 flows",
    ] {
        assert!(told.contains(want), "no {want:?} in\n{told}");
    }
    assert_eq!(
        told.lines()
            .filter(|l| l.contains('%') && !l.contains("99 %"))
            .count(),
        6,
        "{told}"
    );
}

/// FAULTS D65: a node that returns is given flows at `slow_start`, survivors of a failure at `admit_rate`; who
/// finds no room waits, and is refused when it takes too long. Fails if gates are left out, or run on
/// another clock.
#[test]
fn gates_hold_in_the_run() {
    let line = "--clients 3000 --arrive 30s --rebind 10m --stay 40s --duration 200s --fail ls2@60s --return ls2@120s --reconnect 0s..1s";
    let ramp = run(
        "{ sticky_cookie: {} }",
        "balance: least_flows, slow_start: 20/s",
        line,
    )
    .expect("a run");
    let free = run("{ sticky_cookie: {} }", "balance: least_flows", line).expect("a run");
    let after = |r: &Report, t: usize| r.seconds[t..t + 10].iter().map(|s| s.new[1]).max();
    assert!(
        after(&ramp, 123).is_some_and(|n| n <= 22),
        "{:?}",
        after(&ramp, 123)
    );
    assert!(
        after(&free, 123).is_some_and(|n| n > 40),
        "{:?}",
        after(&free, 123)
    );
    let gate = "balance: least_flows, admit_rate: 60/s, queue: 300, queue_timeout: 2s";
    let storm = run("{ sticky_cookie: {} }", gate, line).expect("a run");
    for node in [0, 2] {
        assert!(storm.peak(node).0 <= 64, "{:?}", storm.peak(node));
    }
    assert!(storm.seconds.iter().any(|s| s.waiting > 100));
    assert!(storm.refused > 100, "{}", storm.refused);
    assert!(free.peak(0).0 > 200, "{:?}", free.peak(0));
    let all = storm.failures[0].all.expect("all are back");
    assert!(
        all > 5.0 && storm.seconds[199].live.iter().sum::<usize>() > 2_900,
        "{all}"
    );
}
