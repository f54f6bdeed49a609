//! Tests runs whose outcome is known: shares, failures, returns, stickiness, repeatability.

mod edges;
mod rebalances;

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

const HTTP: &str = "health: { http: { path: /h }, interval: 2s, timeout: 3s, fall: 2, rise: 1 }";

fn run(plugins: &str, pool: &str, line: &str) -> Result<Report, String> {
    let text = file(plugins, pool);
    let config = Config::parse(&text, "f", Path::new(".")).unwrap_or_else(|f| panic!("{f}"));
    let words = std::iter::once("simulate").chain(line.split_whitespace());
    let settings = Line::try_parse_from(words)
        .unwrap_or_else(|e| panic!("{e}"))
        .settings;
    simulate(&config, &settings)
}

/// Returns each node's share of the live flows at the end of second `t`; the first second is 1.
fn shares(report: &Report, t: usize) -> Vec<f64> {
    let live = &report.seconds[t - 1].live;
    let all: usize = live.iter().sum();
    live.iter().map(|n| *n as f64 / all as f64).collect()
}

const CUT: &str = "--clients 3000 --arrive 30s --duration 300s --fail ls2@60s --return ls2@120s --reconnect 0s..5s";

/// Aim: the clients of a failed node are balanced over the others, and stuck clients stay there when the
/// node is back. Source: Lightstreamer clustering §5. Fails if a dead node gets flows, or if clients are
/// counted at another node than theirs.
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

/// Aim: clients that come and go even out the load. Without stickiness rebinds even it out, and lose
/// sessions.
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

/// Aim: `sticky_ip` sends all clients behind one address to one node. `sticky_session` spreads them, and
/// they stick although no client returns a cookie. Source: FAULTS D47.
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

/// Aim: a drained node keeps its stuck clients. Fails if a drain cuts flows.
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

/// Aim: the same seed gives the same run to the last byte, and another seed gives another run.
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
fn an_impossible_run_says_why() {
    for (plugins, line, want) in [
        ("", "--fail ls9@1s", "unknown node `ls9`"),
        ("", "--rebalance ls1@1s", "unknown pool `ls1`"),
        ("", "--rebalance push@1s:rte=5/s", "unknown field `rte`"),
        ("", "--rebalance push@1s:dry-run", "a run is dry"),
        (
            "",
            "--rebalance push@1s:from=ls9,share=5%",
            "no node `ls9` in pool `push`",
        ),
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

/// Aim: the printed report is complete: a line for each step, peaks, failure, return, moved sessions.
#[test]
fn the_printed_report_is_complete() {
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

/// Aim: a returned node gets flows at `slow_start`, and the survivors of a failure at `admit_rate`. A client
/// without room waits, and is refused after `queue_timeout`. Source: FAULTS D65. Fails if the run leaves
/// out the limits, or uses another clock for them.
#[test]
fn slow_start_and_admit_rate_limit_a_run() {
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

/// Aim: a check that waits for an answer finds a hung node after `interval` × `fall` + `timeout`; a check
/// that only connects does not. Source: FAULTS D45. Fails if clients of a hung node are answered, or are
/// evicted before a check finds the node.
#[test]
fn a_hung_node_is_found_by_an_http_check() {
    let line = "--clients 900 --arrive 10s --rebind 10m --duration 120s --reconnect 0s..1s \
                --hang ls2@60s --return ls2@90s";
    let pool = format!("balance: least_flows, {HTTP}");
    let r = run("{ sticky_cookie: {} }", &pool, line).expect("a run");
    assert_eq!((shares(&r, 66)[1], shares(&r, 69)[1]), (1.0 / 3.0, 0.0));
    let failure = &r.failures[0];
    assert_eq!((failure.cut, r.moved.failed), (300, 300), "{failure:?}");
    assert!(
        failure.all.is_some_and(|s| (7.5..8.5).contains(&s)),
        "{failure:?}"
    );
    let tcp = "balance: least_flows, health: { tcp: {}, interval: 2s, timeout: 3s }";
    let r = run("{ sticky_cookie: {} }", tcp, line).expect("a run");
    assert_eq!((shares(&r, 89)[1], r.moved.failed), (1.0 / 3.0, 0));
    let silent = r.failures[0].all.expect("streams continue with the node");
    assert!((30.0..31.0).contains(&silent), "{silent}");
}

/// Aim: a client that comes to a hung node waits there until a check finds the node or it serves again.
#[test]
fn clients_of_a_hung_node_wait() {
    let line =
        "--clients 900 --arrive 10s --rebind 5s --duration 60s --reconnect 0s..1s --hang ls2@20s";
    let pool = format!("balance: least_flows, {HTTP}");
    let r = run("{ sticky_cookie: {} }", &pool, line).expect("a run");
    assert!(shares(&r, 26)[1] > 0.3, "{:?}", shares(&r, 26));
    let half = r.failures[0].median.expect("half of them");
    assert!(
        r.failures[0].cut == 300 && (7.0..8.5).contains(&half),
        "{half}"
    );
    let back = format!("{line} --return ls2@24s");
    let r = run("{ sticky_cookie: {} }", &pool, &back).expect("a run");
    assert_eq!((r.moved.failed, r.moved.unstuck), (0, 0));
    assert!(
        r.failures[0].all.is_some_and(|s| s < 4.5),
        "{:?}",
        r.failures
    );
}

/// Aim: the flows of a Down node end at `evict_rate`, and a node that is back keeps the flows that are left.
/// Source: FAULTS D65. Fails if the run ends all flows at once.
#[test]
fn flows_of_a_down_node_end_at_evict_rate() {
    let line =
        "--clients 900 --arrive 10s --rebind 10m --duration 120s --reconnect 0s..1s --hang ls2@60s";
    let pool = format!("balance: least_flows, evict_rate: 50/s, {HTTP}");
    let r = run("{ sticky_cookie: {} }", &pool, line).expect("a run");
    let left = |r: &Report, t: usize| r.seconds[t - 1].live[1];
    assert_eq!((left(&r, 66), left(&r, 74)), (300, 0));
    for t in 68..72 {
        let ended = left(&r, t) - left(&r, t + 1);
        assert!((48..=52).contains(&ended), "{ended} in second {t}");
    }
    let back = format!("{line} --return ls2@68s");
    let r = run("{ sticky_cookie: {} }", &pool, &back).expect("a run");
    let kept = left(&r, 119);
    assert!((100..200).contains(&kept), "up at 70 s: {kept}");
    let failed = r.moved.failed as usize;
    assert!(failed < 200 && kept >= 300 - failed, "{failed} {kept}");
}

/// Aim: requests and answers carry session ids where the listener's own rule says. Fails if clients know the
/// presets only.
#[test]
fn sessions_follow_the_listeners_own_rule() {
    let nat =
        "--clients 600 --nat 100% --per-address 600 --cookies 0% --rebind 30s --duration 200s";
    for (learn, recall) in [
        ("{ header: X-Id }", "{ header: X-Id }"),
        ("{ line: 'id=' }", "{ path: /s/ }"),
        ("{ line: 'id=' }", "{ form: id }"),
        ("{ cookie: id }", "{ query: id }"),
    ] {
        let plugin = format!("{{ sticky_session: {{ learn: [{learn}], recall: [{recall}] }} }}");
        let r = run(&plugin, "balance: least_flows", nat).expect("a run");
        assert_eq!(r.moved.unstuck, 0, "{plugin}");
        assert!(shares(&r, 199).iter().all(|s| (s - 1.0 / 3.0).abs() < 0.05));
    }
}

/// Aim: a new client queues behind the waiting ones, even if a node has room at that moment. Each client
/// that leaves is followed by a new one. Fails if the new one takes the room, so that the others wait in
/// vain.
#[test]
fn a_new_client_queues_behind_waiting_ones() {
    let pool = "balance: least_flows, max_flows: 100, queue: 600, queue_timeout: 15s";
    let line = "--clients 600 --arrive 1s --rebind 10m --stay 10s --duration 60s";
    let r = run("{ sticky_cookie: {} }", pool, line).expect("a run");
    assert!(r.seconds.iter().skip(2).all(|s| s.waiting > 200));
    assert_eq!(r.refused, 0);
}

#[test]
fn pools_with_discovery_are_refused() {
    let text = file("", "discover: { host: push.internal:80 }");
    let config = Config::parse(&text, "f", Path::new(".")).unwrap_or_else(|f| panic!("{f}"));
    let settings = Line::try_parse_from(["simulate"])
        .expect("no words")
        .settings;
    let told = simulate(&config, &settings).err();
    assert!(told.is_some_and(|e| e.contains("pool `push` are found by DNS")));
}

/// Aim: `--return @10m`, without a name, returns all nodes taken away before. Fails if a name is required, or
/// if a node that fails later returns as well.
#[test]
fn a_return_without_a_name_returns_all_nodes() {
    let gone =
        "--clients 300 --arrive 5s --duration 90s --fail ls1@20s --drain ls2@30s --fail ls3@70s";
    let run = |line: &str| run("{ sticky_cookie: {} }", "balance: least_flows", line);
    let report = run(&format!("{gone} --return @50s")).expect("a run");
    let mut back: Vec<&str> = report.returns.iter().map(|r| r.node.as_str()).collect();
    back.sort_unstable();
    assert_eq!(back, ["ls1", "ls2"]);
    let said = run(&format!("{gone} --return @10s")).err();
    let said = said.unwrap_or_default();
    assert!(
        said.contains("--return @10s: no node was taken away"),
        "{said}"
    );
}

/// Aim: a fault of the script names the option as the command line has it. Fails if it says `--Fail`.
#[test]
fn an_unknown_node_is_named_with_its_option() {
    for option in ["fail", "hang", "return", "drain"] {
        let line = format!("--{option} ls9@20s");
        let said = run("{ sticky_cookie: {} }", "balance: least_flows", &line).err();
        let want = format!("--{option}: unknown node `ls9`");
        assert_eq!(said.unwrap_or_default(), want);
    }
}
