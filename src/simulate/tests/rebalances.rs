//! Tests rebalances on the run's clock, by order and automatic: number of moves, rate, refusals.

use super::{Report, run, shares};

const LINE: &str = "--clients 3000 --arrive 30s --rebind 100s --duration 240s --reconnect 0s..1s \
                    --drain ls3@0s --return ls3@60s";
const ORDER: &str = "--rebalance push@70s:to-even,rate=50/s,tolerance=5%,close";

fn most_new_after(r: &Report, t: usize) -> u64 {
    let new = r.seconds[t..].iter().map(|s| s.new[2]);
    new.max().unwrap_or(0)
}

/// Aim: "≤ 2 % more moves than the minimum" (issue 6), with 1,500 clients on each of two nodes when a third
/// comes back. Fails if a rebalance closes the flow of another client than it forgets. With
/// `sticky_session` 104 of 3,000 too many moved, because flows that create a session had their own mark.
#[test]
fn no_more_sessions_move_than_are_due() {
    for plugin in [
        "{ sticky_cookie: {} }",
        "{ sticky_ip: {} }",
        "{ sticky_session: { preset: lightstreamer } }",
        "{ sticky_session: { preset: diffusion } }",
    ] {
        let r = run(plugin, "balance: round_robin", &format!("{LINE} {ORDER}")).expect("a run");
        let told = &r.rebalances[0];
        assert_eq!(
            (told.by, told.state, told.due),
            ("operator", "done", 900),
            "{plugin}"
        );
        let moved = r.moved.rebalanced + r.moved.unstuck;
        assert!(
            (895..=918).contains(&moved),
            "{plugin}: {:?} {told:?}",
            r.moved
        );
        assert!(told.evenness <= 1.055, "{plugin}: {told:?}");
        assert!((17.0..22.0).contains(&told.seconds), "{plugin}: {told:?}");
        assert!(most_new_after(&r, 75) <= 110, "{}", most_new_after(&r, 75));
        assert!(shares(&r, 239).iter().all(|s| (s - 1.0 / 3.0).abs() < 0.04));
    }
}

/// Aim: with `rebalance.auto` a return starts a rebalance; without it no client moves. Source:
/// Lightstreamer clustering §5.
#[test]
fn a_return_starts_a_rebalance() {
    for (auto, moved) in [("true", 600..=640), ("false", 0..=0)] {
        let pool = format!(
            "balance: least_flows, rebalance: {{ auto: {auto}, delay: 20s, rate: 100/s, close: true, tolerance: 20% }}"
        );
        let r = run("{ sticky_cookie: {} }", &pool, LINE).expect("a run");
        assert!(moved.contains(&r.moved.rebalanced), "{auto}: {:?}", r.moved);
        if let Some(told) = r.rebalances.first() {
            assert!(
                told.by == "auto" && (80.0..81.5).contains(&told.at),
                "{told:?}"
            );
            let said = r.to_string();
            assert!(said.contains("push: rebalance begins (auto)"), "{said}");
            assert!(
                said.contains("rebalance push at 1:20 (auto): done after"),
                "{said}"
            );
        }
    }
}

/// Aim: without `close` clients move when they rebind. A second order during a rebalance is refused, as the
/// edge does.
#[test]
fn one_rebalance_runs_at_a_time() {
    let line = format!(
        "{LINE} --rebalance push@70s:from=ls1,share=40%,rate=20/s --rebalance push@75s:close"
    );
    let r = run("{ sticky_cookie: {} }", "balance: least_flows", &line).expect("a run");
    assert_eq!((r.rebalances.len(), r.moved.rebalanced), (1, 0));
    assert!(r.moved.unstuck.abs_diff(600) < 60, "{:?}", r.moved);
    let busy = |e: &super::super::report::Event| e.what.contains("a rebalance is running");
    assert!(r.events.iter().any(busy), "{:?}", r.events);
}
