//! The life of a table: first node kept, age and absence, races, rebalance.

mod limits;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::api::{Forget, How, NodeId, PoolId, unix_seconds};
use crate::context::{Keep, Mode};
use crate::testing::{Built, Facts, assigned, build, built, head_with};
use crate::trust::X_FORWARDED_FOR;

const HOUR: Duration = Duration::from_secs(3_600);

fn push() -> PoolId {
    PoolId::of("push")
}

fn forget(p: &Built, node: &str, at: &Facts, share: f64) {
    p.forget(&Forget {
        pool: push(),
        node: Some(NodeId::of(node)),
        before: unix_seconds(at.wall),
        share,
        spares_live: false,
    });
}

fn recalled(p: &Built, f: &Facts) -> Option<NodeId> {
    p.recall(&f.flow(None), push()).map(|r| r.node)
}

fn learn(p: &Built, f: &Facts, node: &str) -> Option<NodeId> {
    p.learn(
        &f.flow(None),
        push(),
        &assigned(node, How::Balanced),
        &|_| true,
    )
}

fn end(p: &Built, f: &Facts) {
    p.ended(p.client(&f.flow(None)), push(), f.now);
}

/// Lightstreamer clustering §2.1.1: later flows of an address reach the node of its first.
#[test]
fn an_address_keeps_its_first_node() {
    let p = build("sticky_ip: {}");
    let f = Facts::default();
    assert_eq!(recalled(&p, &f), None);
    assert_eq!(learn(&p, &f, "ls2"), None);
    let other_port = Facts::default().client("192.0.2.1:9");
    let mapped = Facts::default().client("[::ffff:192.0.2.1]:9");
    for same in [&f, &other_port, &mapped, &f.after(Duration::from_secs(9))] {
        assert_eq!(
            recalled(&p, same),
            Some(NodeId::of("ls2")),
            "{}",
            same.client
        );
    }
    assert_eq!(recalled(&p, &Facts::default().client("192.0.2.2:9")), None);
    assert!(
        p.recall(&f.flow(None), PoolId::of("other")).is_none(),
        "other pool"
    );
    let first = p
        .recall(&f.after(HOUR).flow(None), push())
        .expect("recalled");
    assert_eq!((first.age, first.remembered), (HOUR, true));
}

/// FAULTS D47: 500 clients behind one address begin at the same instant. The balancer spreads them; they get
/// one node.
#[test]
fn simultaneous_first_flows_get_one_node() {
    let p = build("sticky_ip: {}");
    let (strays, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let settled = parking_lot::Mutex::new(std::collections::HashSet::new());
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..125 {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let mine = ["ls1", "ls2", "ls3"][i % 3];
                    let instead = learn(&p, &Facts::default(), mine);
                    strays.fetch_add(usize::from(instead.is_some()), Ordering::Relaxed);
                    settled.lock().insert(instead.unwrap_or(NodeId::of(mine)));
                }
            });
        }
    });
    assert_eq!(settled.into_inner().len(), 1);
    assert!(
        strays.into_inner() > 300,
        "two of three were sent elsewhere"
    );
}

#[test]
fn a_node_that_cannot_be_used_is_replaced() {
    let p = build("sticky_ip: {}");
    let f = Facts::default();
    learn(&p, &f, "ls1");
    let down = |n| n != NodeId::of("ls1");
    let got = p.learn(
        &f.flow(None),
        push(),
        &assigned("ls2", How::Balanced),
        &down,
    );
    assert_eq!((got, recalled(&p, &f)), (None, Some(NodeId::of("ls2"))));
    // A cookie behind the same address does not move the others.
    let how = How::Recalled {
        by: "sticky_cookie",
        age: HOUR,
    };
    p.learn(&f.flow(None), push(), &assigned("ls3", how), &|_| true);
    assert_eq!(recalled(&p, &f), Some(NodeId::of("ls2")));
}

/// Lightstreamer clustering §4: `max_age` is absolute, also while flows are live; `expiry` counts from the
/// end of the last flow.
#[test]
fn age_and_absence_end_an_assignment() {
    let p = build("sticky_ip: { max_age: 8h, expiry: 1h }");
    let f = Facts::default();
    let ls1 = Some(NodeId::of("ls1"));
    learn(&p, &f, "ls1");
    learn(&p, &f, "ls1");
    end(&p, &f.after(HOUR));
    assert_eq!(
        recalled(&p, &f.after(7 * HOUR)),
        ls1,
        "a live flow is no absence"
    );
    assert_eq!(
        recalled(&p, &f.after(8 * HOUR)),
        None,
        "too old in spite of it"
    );
    end(&p, &f.after(2 * HOUR));
    let second = Duration::from_secs(1);
    assert_eq!(recalled(&p, &f.after(3 * HOUR - second)), ls1);
    assert_eq!(recalled(&p, &f.after(3 * HOUR)), None, "away for an hour");
    end(&p, &f.after(2 * HOUR));

    let p = build("sticky_ip: {}");
    let how = How::Recalled {
        by: "sticky_cookie",
        age: 3 * HOUR,
    };
    p.learn(&f.flow(None), push(), &assigned("ls1", how), &|_| true);
    assert_eq!(recalled(&p, &f.after(4 * HOUR)), ls1);
    assert_eq!(
        recalled(&p, &f.after(5 * HOUR)),
        None,
        "keeps the age it had"
    );
    let how = How::Recalled {
        by: "sticky_ip",
        age: 4 * HOUR,
    };
    p.learn(
        &f.after(4 * HOUR).flow(None),
        push(),
        &assigned("ls1", how),
        &|_| true,
    );
    assert_eq!(
        recalled(&p, &f.after(5 * HOUR)),
        None,
        "use does not renew it"
    );
}

/// Lightstreamer clustering §5.1. A table is shared by name and survives a reload.
#[test]
fn a_rebalance_forgets_its_share_and_live_flows_still_count() {
    let keep = Keep::default();
    let make = |yaml| built(yaml, Mode::Tcp, &keep, Path::new("."));
    let p = make("sticky_ip: { table: shared }");
    let (start, later) = (Facts::default(), Facts::default().after(HOUR));
    let client = |i: u32, f: &Facts| Facts {
        client: (std::net::Ipv4Addr::from(i), 1).into(),
        ..f.after(Duration::ZERO)
    };
    for i in 0..2_000 {
        learn(&p, &client(i, &start), "ls1");
    }
    forget(&p, "ls2", &later, 1.0);
    forget(&p, "ls1", &later, 0.25);
    drop(p);
    let p = make("sticky_ip: { table: shared, max_age: 9h }");
    let left: Vec<_> = (0..2_000)
        .filter(|i| recalled(&p, &client(*i, &later)).is_some())
        .collect();
    assert!(left.len().abs_diff(1_500) < 60, "{}", left.len());
    let gone = (0..2_000)
        .find(|i| !left.contains(i))
        .expect("some are gone");
    // Its old flow is live, and a new one moves. The end of the old flow does not make the client idle.
    let c = client(gone, &later);
    // A flow recalled just before the rebalance goes on to its node, but does not restore the assignment.
    let how = How::Recalled {
        by: "sticky_ip",
        age: HOUR,
    };
    p.learn(&c.flow(None), push(), &assigned("ls1", how), &|_| true);
    assert_eq!(recalled(&p, &c), None);
    end(&p, &c);
    assert_eq!(learn(&p, &c, "ls3"), None);
    end(&p, &c);
    assert_eq!(recalled(&p, &c.after(2 * HOUR)), Some(NodeId::of("ls3")));
    end(&p, &c);
    assert_eq!(recalled(&p, &c.after(2 * HOUR)), None);
    assert_eq!(
        recalled(&make("sticky_ip: {}"), &client(left[0], &later)),
        None,
        "own table"
    );
}

#[test]
fn an_ipv6_prefix_makes_one_client_of_a_network() {
    let p = build("sticky_ip: { ipv6_prefix: 64 }");
    learn(&p, &Facts::default().client("[2001:db8:1:2::1]:1"), "ls1");
    let at = |a: &str| recalled(&p, &Facts::default().client(a));
    assert!(at("[2001:db8:1:2:ffff::9]:1").is_some());
    assert_eq!(at("[2001:db8:1:3::1]:1"), None);
    let raw = "2001:db8:1:2::1".parse().expect("ip");
    p.ended(raw, push(), Facts::default().now);
    let later = Facts::default().after(HOUR);
    let gone = recalled(&p, &later.client("[2001:db8:1:2::1]:1"));
    assert_eq!(
        gone, None,
        "filed under the network, ended by any of its addresses"
    );
    let exact = build("sticky_ip: { ipv6_prefix: 128 }");
    for (one, p) in [(true, build("sticky_ip: {}")), (false, exact)] {
        learn(&p, &Facts::default().client("[2001:db8::1]:1"), "ls1");
        let neighbour = recalled(&p, &Facts::default().client("[2001:db8::2]:1"));
        assert_eq!(neighbour.is_some(), one);
    }
    let wide = build("sticky_ip: { ipv6_prefix: 1 }");
    learn(&wide, &Facts::default().client("[2001:db8::1]:1"), "ls1");
    assert!(recalled(&wide, &Facts::default().client("[::2]:1")).is_some());
}

/// FAULTS D15: an untrusted X-Forwarded-For moves no client.
#[test]
fn only_a_trusted_senders_header_is_followed() {
    let p = build("sticky_ip: { from: x_forwarded_for, trust: [10.0.0.0/8] }");
    let says = |ip: &str| head_with("GET", "/", &[(X_FORWARDED_FOR, ip)]);
    let lb = Facts::default().client("10.0.0.9:1");
    let (a, b) = (says("192.0.2.1"), says("192.0.2.2"));
    p.learn(
        &lb.flow(Some(&a)),
        push(),
        &assigned("ls1", How::Balanced),
        &|_| true,
    );
    assert!(p.recall(&lb.flow(Some(&a)), push()).is_some());
    assert!(p.recall(&lb.flow(Some(&b)), push()).is_none());
    let stranger = Facts::default().client("203.0.113.1:1");
    assert!(p.recall(&stranger.flow(Some(&a)), push()).is_none());
    let filed = p.client(&lb.flow(Some(&a)));
    assert_eq!(
        filed.to_string(),
        "192.0.2.1",
        "ended() gets the address it was filed under"
    );
    let plain = build("sticky_ip: {}");
    plain.learn(
        &lb.flow(Some(&a)),
        push(),
        &assigned("ls1", How::Balanced),
        &|_| true,
    );
    assert!(
        plain.recall(&lb.flow(Some(&b)), push()).is_some(),
        "the sender counts"
    );
}

#[test]
fn hash_mode_computes_and_keeps_a_client_together_when_its_node_is_down() {
    let (a, b) = (
        build("sticky_ip: { mode: hash }"),
        build("sticky_ip: { mode: hash }"),
    );
    for i in 0..100_u8 {
        let f = Facts::default().client(&format!("192.0.2.{i}:1"));
        let first = a.recall(&f.flow(None), push()).expect("computed");
        assert!(!first.remembered);
        assert_eq!(b.recall(&f.flow(None), push()), Some(first), "edges agree");
        let up = |n| n != first.node;
        let second = ["ls1", "ls2", "ls3"].map(|balanced| {
            let to = assigned(balanced, How::Balanced);
            a.learn(&f.flow(None), push(), &to, &up).unwrap_or(to.node)
        });
        assert!(second.iter().all(|n| *n == second[0] && *n != first.node));
    }
}
