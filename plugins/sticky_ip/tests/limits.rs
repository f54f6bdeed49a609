//! How many entries a table holds, and how long each of them lives.

use std::time::{Duration, Instant};

use super::{HOUR, learn, push, recalled};
use crate::api::{How, NodeId};
use crate::lifetime::{JITTER, Lifetime};
use crate::memory::source::Source;
use crate::memory::table::{Key, Limits, Table, Verdict};
use crate::testing::{Facts, build};

/// Lightstreamer clustering §4; FAULTS D65. Clients that came together after a storm lose their nodes over a
/// tenth of `max_age`, each at its own moment. `cut_at_max_age` cuts at that same moment.
#[test]
fn each_assignment_has_its_own_lifetime() {
    for (keys, least, at_once) in [("", 9 * HOUR, false), (", jitter: 0%", 10 * HOUR, true)] {
        let p = build(&format!(
            "sticky_ip: {{ max_age: 10h, expiry: none, cut_at_max_age: true{keys} }}"
        ));
        let start = Facts::default();
        let client = |i: u32, age: Duration| Facts {
            client: (std::net::Ipv4Addr::from(i), 1).into(),
            ..start.after(age)
        };
        let is_known = |i, age| recalled(&p, &client(i, age)).is_some();
        for i in 0..1_000 {
            learn(&p, &client(i, Duration::ZERO), "ls1");
        }
        let left = |age| (0..1_000).filter(|i| is_known(*i, age)).count();
        let second = Duration::from_secs(1);
        assert_eq!(left(least - second), 1_000, "{keys}");
        assert_eq!(left(10 * HOUR), 0, "{keys}");
        let half = left(10 * HOUR - HOUR / 2);
        assert_eq!(half.abs_diff(500) < 60, !at_once, "{keys}: {half}");
        for i in 0..100 {
            let recalled = p.recall(&client(i, Duration::ZERO).flow(None), push());
            let mark = recalled.and_then(|r| r.mark).expect("stuck");
            let life = mark.cut_after.expect("it is cut");
            let around = (is_known(i, life - second), is_known(i, life + second));
            assert_eq!(around, (true, false), "{keys}: {life:?}");
        }
    }
}

/// A reload makes a table smaller than its number of live clients, or another listener's flow finds it above
/// its own `capacity`. Fails if a new flow of a client with live flows makes the table forget that client.
#[test]
fn a_table_made_smaller_keeps_live_clients() {
    let (t, now) = (Table::new(4), Instant::now());
    let key = |i: u8| Key::new([192, 0, 2, i].into(), push());
    let learn = |i, node: &str, capacity| {
        t.learn(
            (key(i), Source::OWN),
            &balanced(node),
            &limits(capacity),
            (now, 0),
            &|_| true,
        )
    };
    (0..4).for_each(|i| assert_eq!(learn(i, "ls1", 4), None));
    for i in 0..4 {
        assert_eq!(learn(i, "ls2", 1), Some(NodeId::of("ls1")), "client {i}");
    }
    let small = limits(1);
    let known = |i, after| t.recall(&key(i), &small, now + after).is_some();
    t.ended(&key(0), &small, now);
    assert!(known(0, 2 * HOUR), "its other flow is live");
    t.ended(&key(0), &small, now);
    assert!(!known(0, 2 * HOUR) && known(1, 2 * HOUR));
}

/// A flow that began when other clients filled the table is live as well. Its end must not count for a later,
/// filed flow of the same client. The client is idle when both have ended.
#[test]
fn an_unfiled_flow_ends_without_touching_filed_ones() {
    let (t, now) = (Table::new(1), Instant::now());
    let key = |i: u8| Key::new([192, 0, 2, i].into(), push());
    let one = limits(1);
    let learn = |i, node: &str| {
        t.learn(
            (key(i), Source::OWN),
            &balanced(node),
            &one,
            (now, 0),
            &|_| true,
        )
    };
    let known = |i, after| t.recall(&key(i), &one, now + after).is_some();
    learn(1, "ls1");
    learn(2, "ls2");
    learn(2, "ls3");
    assert!(!known(2, Duration::ZERO), "full");
    t.ended(&key(2), &one, now);
    t.ended(&key(1), &one, now);
    learn(2, "ls2");
    t.ended(&key(2), &one, now);
    assert!(known(2, 2 * HOUR), "one of its flows is live");
    t.ended(&key(2), &one, now);
    assert!(known(2, HOUR / 2) && !known(2, 2 * HOUR));
    // A surplus end changes nothing.
    t.ended(&key(2), &one, now);
    learn(2, "ls2");
    assert!(known(2, 2 * HOUR));
}

fn limits(capacity: usize) -> Limits {
    Limits {
        lifetime: Lifetime {
            max_age: None,
            jitter: JITTER,
        },
        expiry: Some(HOUR),
        capacity,
        cut_at_max_age: false,
    }
}

fn balanced(node: &str) -> Verdict {
    Verdict {
        node: NodeId::of(node),
        how: How::Balanced,
        own: false,
    }
}

/// Learns an assignment of a client that fills the table by itself.
fn own(t: &Table, key: Key, node: &str, limits: &Limits, now: Instant) {
    t.learn(
        (key, Source::OWN),
        &balanced(node),
        limits,
        (now, 0),
        &|_| true,
    );
}

/// FAULTS D46: 400,000 networks and room for 20,000; the 1,000 live ones stay.
#[test]
fn the_table_is_bounded_and_spares_live_clients() {
    let (limits, small) = (limits(20_000), limits(2));
    let (t, now) = (Table::new(limits.capacity), Instant::now());
    let key = |i: u128| Key::new(std::net::IpAddr::V6((i << 64).into()), push());
    for i in 0..1_000 {
        own(&t, key(i), "ls1", &limits, now);
    }
    for i in 1_000..400_000 {
        own(&t, key(i), "ls2", &limits, now);
        t.ended(&key(i), &limits, now);
        assert!(i % 10_000 != 0 || t.len() <= 20_000);
    }
    assert!((19_000..=20_000).contains(&t.len()), "{}", t.len());
    assert!(
        (0..1_000).all(|i| t.recall(&key(i), &limits, now).is_some()),
        "live ones stay"
    );
    assert!(
        t.recall(&key(399_999), &limits, now).is_some(),
        "the newest stays"
    );
    assert!(
        t.recall(&key(1_000), &limits, now).is_none(),
        "the oldest idle one went"
    );

    // The table is full of live clients: a newcomer is not filed, and its end affects no other client.
    let t = Table::new(2);
    for i in 0..3 {
        own(&t, key(i), "ls1", &small, now);
    }
    t.ended(&key(2), &small, now);
    assert!(t.recall(&key(0), &small, now).is_some() && t.recall(&key(2), &small, now).is_none());

    // Newcomers replace clients that have been away for long.
    let t = Table::new(20_000);
    for i in 0..1_000 {
        own(&t, key(i), "ls1", &limits, now);
        t.ended(&key(i), &limits, now);
    }
    for i in 1_000..3_000 {
        t.learn(
            (key(i), Source::OWN),
            &balanced("ls1"),
            &limits,
            (now + HOUR, 0),
            &|_| true,
        );
    }
    assert!(t.len() < 2_100, "{}", t.len());
}

/// Aim: an IPv6 client with 2^64 addresses takes room only from itself. Fails if it makes the table forget the
/// clients that came before it.
#[test]
fn a_network_cannot_make_the_table_forget_others() {
    for prefix in [64, 128] {
        let p = build(&format!(
            "sticky_ip: {{ capacity: 100, ipv6_prefix: {prefix} }}"
        ));
        let others = |i| match i % 2 {
            0 => format!("192.0.2.{i}:1"),
            _ => format!("[2001:db8:0:{i}::1]:1"),
        };
        let come = |client: String| {
            let f = Facts::default().client(&client);
            learn(&p, &f, "ls1");
            p.ended(p.client(&f.flow(None)), push(), f.now);
        };
        (0..90).for_each(|i| come(others(i)));
        (0..8_000).for_each(|i| come(format!("[2001:db8:1:1::{i:x}]:1")));
        let lost =
            (0..90).filter(|i| recalled(&p, &Facts::default().client(&others(*i))).is_none());
        assert_eq!(lost.count(), 0, "prefix {prefix}");
        let last = Facts::default().client("[2001:db8:1:1::1f3f]:1");
        assert!(recalled(&p, &last).is_some(), "it is stuck like others");
    }
}
