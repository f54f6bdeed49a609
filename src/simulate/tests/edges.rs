//! Tests runs with several edges: with a store they decide as one, without it each for itself.

use super::run;

const CLIENTS: &str = "--clients 1500 --arrive 60s --rebind 20s --duration 180s --cookies 0%";

/// Aim: issue 16 §9. Clients whose flows reach any of three edges stay at their node if the edges share a store, and do
/// not otherwise. Fails if the edges have one memory without a store, or two with it.
#[test]
fn edges_with_a_store_decide_as_one() {
    let sticky = "{ sticky_ip: {} }";
    let with = format!("{CLIENTS} --edges 3 --store true");
    let r = run(sticky, "balance: least_flows", &with).expect("a run");
    assert_eq!(r.moved.unstuck, 0, "{r}");
    assert!(r.evenness < 1.05, "{r}");
    assert!(
        r.to_string()
            .contains("edges     3 with a store: 0 sessions"),
        "{r}"
    );
    let without = format!("{CLIENTS} --edges 3 --store false");
    let r = run(sticky, "balance: least_flows", &without).expect("a run");
    assert!(r.moved.unstuck > 500, "{r}");
}

/// Aim: in a storm no node gets the clients of a whole second, although each edge knows the flows of the others only once
/// a second. Fails if each edge fills the emptiest node by itself.
#[test]
fn edges_with_a_store_do_not_herd() {
    let line = "--clients 9000 --arrive 30s --rebind 2h --duration 40s --edges 3 --store true";
    let r = run("{ sticky_ip: {} }", "balance: least_flows", line).expect("a run");
    let most = (0..3).map(|n| r.peak(n).0).max();
    // 100 a second for each node, if all were even.
    assert!(most <= Some(150), "{r}");
    assert!(r.evenness < 1.01, "{r}");
}

/// Aim: `max_flows` and `admit_rate` are the site's. Fails if three edges give a node three times its limits.
#[test]
fn edges_with_a_store_share_limits() {
    let pool = "balance: random, max_flows: 400, admit_rate: 30/s, queue: 1000";
    let line = "--clients 1300 --arrive 1s --duration 60s --edges 3";
    for (store, most, rate) in [(true, 402, 30), (false, 440, 90)] {
        let r = run("", pool, &format!("{line} --store {store}")).expect("a run");
        let live = r.seconds.iter().flat_map(|s| s.live.clone()).max();
        let new = r.seconds.iter().flat_map(|s| s.new.clone()).max();
        let (live, new) = (live.unwrap_or(0), new.unwrap_or(0));
        match store {
            true => assert!(
                live <= most && new <= rate,
                "{live} live, {new} a second\n{r}"
            ),
            false => assert!(live > 402 && new > 60, "{live} live, {new} a second\n{r}"),
        }
        assert!(live <= most + 100, "{r}");
    }
}

/// Aim: a rebalance of a site moves the fewest clients, at the site's pace. Fails if each edge closes its own excess.
#[test]
fn edges_with_a_store_rebalance_once() {
    let line = "--clients 900 --arrive 10s --rebind 2h --duration 120s --fail ls3@20s --return ls3@30s --edges 3 \
                --reconnect 0s..1s --store true --rebalance push@60s:to-even,tolerance=0%,rate=50/s,close";
    let r = run("{ sticky_ip: {} }", "balance: least_flows", line).expect("a run");
    assert_eq!(r.rebalances.len(), 1, "{r}");
    let run = &r.rebalances[0];
    assert_eq!((run.state, run.moved), ("done", 300), "{r}");
    assert!((5.5..9.0).contains(&run.seconds), "{r}");
    assert!(r.evenness < 1.01, "{r}");
}
