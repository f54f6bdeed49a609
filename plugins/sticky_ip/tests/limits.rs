//! How many entries a table holds, and how long each lives.

use std::time::{Duration, Instant};

use super::super::table::{Key, Limits, Table, Verdict};
use super::{HOUR, learn, push, recalled};
use crate::api::{How, NodeId};
use crate::life::{JITTER, Life};
use crate::testing::{Facts, build};

/// Lightstreamer clustering §4; FAULTS D65. Clients that came together after a storm lose their nodes over a
/// tenth of `max_age`, each at its own moment, which is what is left of it for `cut_at_max_age` too.
#[test]
fn lives_are_spread_and_each_its_own() {
    for (keys, least, at_once) in [("", 9 * HOUR, false), (", jitter: 0%", 10 * HOUR, true)] {
        let p = build(&format!(
            "sticky_ip: {{ max_age: 10h, expiry: none, cut_at_max_age: true{keys} }}"
        ));
        let start = Facts::default();
        let client = |i: u32, age: Duration| Facts {
            client: (std::net::Ipv4Addr::from(i), 1).into(),
            ..start.after(age)
        };
        let is_known = |i, age| recalled(&*p, &client(i, age)).is_some();
        for i in 0..1_000 {
            learn(&*p, &client(i, Duration::ZERO), "ls1");
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

/// FAULTS D46: 400,000 networks against room for 20,000; 1,000 live ones stay.
#[test]
fn the_table_is_bounded_and_spares_live_clients() {
    let limits = Limits {
        life: Life {
            max_age: None,
            jitter: JITTER,
        },
        expiry: Some(HOUR),
        capacity: 20_000,
        cut_at_max_age: false,
    };
    let (t, now) = (Table::new(limits.capacity), Instant::now());
    let key = |i: u128| Key::new(std::net::IpAddr::V6((i << 64).into()), push());
    let to = |n: &str| Verdict {
        node: NodeId::of(n),
        how: How::Balanced,
        own: false,
    };
    for i in 0..1_000 {
        t.learn(key(i), &to("ls1"), &limits, (now, 0), &|_| true);
    }
    for i in 1_000..400_000 {
        t.learn(key(i), &to("ls2"), &limits, (now, 0), &|_| true);
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

    // Full of live clients: a newcomer is not filed, its end harms nobody.
    let small = Limits {
        capacity: 2,
        ..limits
    };
    let t = Table::new(2);
    for i in 0..3 {
        t.learn(key(i), &to("ls1"), &small, (now, 0), &|_| true);
    }
    t.ended(&key(2), &small, now);
    assert!(t.recall(&key(0), &small, now).is_some() && t.recall(&key(2), &small, now).is_none());

    // Those that have been away for long make way for the first ones that come.
    let t = Table::new(20_000);
    for i in 0..1_000 {
        t.learn(key(i), &to("ls1"), &limits, (now, 0), &|_| true);
        t.ended(&key(i), &limits, now);
    }
    for i in 1_000..3_000 {
        t.learn(key(i), &to("ls1"), &limits, (now + HOUR, 0), &|_| true);
    }
    assert!(t.len() < 2_100, "{}", t.len());
}
