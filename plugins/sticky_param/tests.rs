//! The life of a value: its first flow decides, later ones follow, whichever client sends them.

use std::time::Duration;

use crate::api::{How, NodeId, PoolId};
use crate::context::Mode;
use crate::head::Head;
use crate::testing::{
    Built, Facts, assigned, build, faults, head, head_with, table_defaults_are_documented,
    undecodable,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn push() -> PoolId {
    PoolId::of("push")
}

fn recalled(p: &Built, f: &Facts, request: &Head) -> Option<NodeId> {
    p.recall(&f.flow(Some(request)), push()).map(|r| r.node)
}

fn learn(p: &Built, f: &Facts, request: &Head, node: &str) -> Option<NodeId> {
    let to = assigned(node, How::Balanced);
    p.learn(&f.flow(Some(request)), push(), &to, &|_| true)
}

#[test]
fn the_first_flow_of_a_value_decides() {
    let p = build("sticky_param: { from: [{ header: x-user }, { query: user }, { path: /u/ }] }");
    let f = Facts::default();
    let by_header = head_with("GET", "/?user=other", &[("x-user", "alice")]);
    let by_query = head("GET", "/events?user=alice");
    let by_path = head("GET", "/u/alice/events");
    assert_eq!(learn(&p, &f, &by_query, "ls2"), None);
    let elsewhere = Facts::default().client("203.0.113.9:1");
    for request in [&by_header, &by_query, &by_path] {
        assert_eq!(recalled(&p, &elsewhere, request), Some(NodeId::of("ls2")));
    }
    assert_eq!(recalled(&p, &f, &head("GET", "/?user=bob")), None);
    assert_eq!(
        learn(&p, &f, &by_path, "ls1"),
        Some(NodeId::of("ls2")),
        "two at once"
    );
    let bare = head("GET", "/");
    assert_eq!(
        (recalled(&p, &f, &bare), learn(&p, &f, &bare, "ls1")),
        (None, None)
    );
    // The flow's end is filed under an address that no value has.
    p.ended(p.client(&f.flow(Some(&bare))), push(), f.now);
    assert_eq!(recalled(&p, &f, &by_query), Some(NodeId::of("ls2")));
}

#[test]
fn a_value_is_forgotten_when_nobody_uses_it() {
    let p = build("sticky_param: { from: [{ query: user }], max_age: 8h, jitter: 0%, expiry: 1h }");
    let f = Facts::default();
    let request = head("GET", "/?user=alice");
    learn(&p, &f, &request, "ls1");
    let ls1 = Some(NodeId::of("ls1"));
    assert_eq!(
        recalled(&p, &f.after(7 * HOUR), &request),
        ls1,
        "a flow is live"
    );
    let filed = p.client(&f.flow(Some(&request)));
    p.ended(filed, push(), f.after(7 * HOUR).now);
    let second = Duration::from_secs(1);
    assert_eq!(recalled(&p, &f.after(8 * HOUR - second), &request), ls1);
    assert_eq!(recalled(&p, &f.after(8 * HOUR), &request), None);
}

#[test]
fn hash_mode_computes_and_edges_agree() {
    let make = || build("sticky_param: { from: [{ query: user }], mode: hash }");
    let (a, b, f) = (make(), make(), Facts::default());
    let mut nodes = std::collections::HashSet::new();
    for i in 0..100 {
        let request = head("GET", &format!("/?user=u{i}"));
        let node = recalled(&a, &f, &request).expect("computed");
        assert_eq!(recalled(&b, &f, &request), Some(node));
        nodes.insert(node);
    }
    assert_eq!(nodes.len(), 3);
}

#[test]
fn documented_defaults_are_those_in_force() {
    table_defaults_are_documented("sticky_param", super::config::MAX_AGE);
}

#[test]
fn faults_are_found_in_one_run() {
    for (block, want) in [
        ("from: []", "from: expected 1 to 8 places"),
        ("from: [{ query: 'a b' }]", "from.0.query: expected"),
        ("from: [{ query: a }], capacity: 0", "capacity: expected"),
        (
            "from: [{ query: a }], mode: hash, expiry: 1h",
            "expiry: `mode: hash` remembers nothing",
        ),
    ] {
        let found = faults(&format!("sticky_param: {{ {block} }}"), Mode::Http);
        assert!(
            found.len() == 1 && found[0].starts_with(want),
            "{block}: {found:?}"
        );
    }
    let tcp = faults("sticky_param: { from: [{ query: a }] }", Mode::Tcp);
    assert!(tcp[0].contains("expected mode http"), "{tcp:?}");
    assert!(undecodable("sticky_param: {}"));
}

/// Aim: a client that makes up values takes room only from itself. Fails if it makes the table forget the values
/// of others, or is not stuck itself.
#[test]
fn made_up_values_do_not_displace_those_of_others() {
    let p = build("sticky_param: { from: [{ query: user }], capacity: 100 }");
    let at = |last: u8| Facts::default().client(&format!("192.0.2.{last}:1"));
    let user = |i: u32| head("GET", &format!("/?user=u{i}"));
    let come = |f: &Facts, request: &Head| {
        learn(&p, f, request, "ls1");
        p.ended(p.client(&f.flow(Some(request))), push(), f.now);
    };
    (0..60).for_each(|i| come(&at(i), &user(i.into())));
    let attacker = at(200);
    (1_000..40_000).for_each(|i| come(&attacker, &user(i)));
    let lost = (0..60).filter(|i| recalled(&p, &at(*i), &user((*i).into())).is_none());
    assert_eq!(lost.count(), 0);
    assert!(recalled(&p, &attacker, &user(39_999)).is_some());
}

/// Aim: a client with more live flows than the table has entries displaces the idle values of others only up to
/// its share. Fails if open connections with made-up values empty the table.
#[test]
fn live_flows_of_one_client_leave_room_for_others() {
    let p = build("sticky_param: { from: [{ query: user }], capacity: 200 }");
    let at = |last: u8| Facts::default().client(&format!("192.0.2.{last}:1"));
    let user = |i: u32| head("GET", &format!("/?user=u{i}"));
    for i in 0..200 {
        learn(&p, &at(i), &user(i.into()), "ls1");
        p.ended(
            p.client(&at(i).flow(Some(&user(i.into())))),
            push(),
            at(i).now,
        );
    }
    for i in 1_000..5_000 {
        learn(&p, &at(250), &user(i), "ls1");
    }
    let known = (0..200).filter(|i| recalled(&p, &at(*i), &user((*i).into())).is_some());
    assert_eq!(known.count(), 200 - 26, "an eighth of the table, and one");
    let newcomer = at(251);
    learn(&p, &newcomer, &user(9_000), "ls1");
    assert!(recalled(&p, &newcomer, &user(9_000)).is_some());
}

/// Aim: a client whose assignment is replaced while its flows are live counts once against its share. Fails if
/// what it held is never given back: later, in a full table, it would not be remembered any more.
#[test]
fn a_replaced_assignment_gives_its_room_back() {
    let p = build("sticky_param: { from: [{ query: user }], capacity: 100 }");
    let f = Facts::default();
    let user = |i: u32| head("GET", &format!("/?user=u{i}"));
    for i in 0..50 {
        let request = user(i);
        let end = || p.ended(p.client(&f.flow(Some(&request))), push(), f.now);
        learn(&p, &f, &request, "ls1");
        let to = assigned("ls2", How::Rebalanced);
        p.learn(&f.flow(Some(&request)), push(), &to, &|_| true);
        end();
        end();
    }
    let other = |i: u8| Facts::default().client(&format!("198.51.100.{i}:1"));
    for i in 0..100 {
        let (f, request) = (other(i), user(1_000 + u32::from(i)));
        learn(&p, &f, &request, "ls1");
        p.ended(p.client(&f.flow(Some(&request))), push(), f.now);
    }
    learn(&p, &f, &user(9), "ls1");
    assert!(
        recalled(&p, &f, &user(9)).is_some(),
        "it has no live entry any more"
    );
}
