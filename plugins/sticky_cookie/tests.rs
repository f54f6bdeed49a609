//! The life of a cookie: issued once, honoured, aged, forgotten, forged.

use std::path::Path;
use std::time::Duration;

use crate::api::{Forget, How, NodeId, PoolId, unix_seconds};
use crate::context::{Keep, Mode};
use crate::head::Head;
use crate::testing::{
    Built, Facts, Rng, answer, assigned, build, build_on, built, edits, head_with, texts,
};

const KEY: &str = "00112233445566778899aabbccddeeff";
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

/// Returns the `Set-Cookie` lines of a response to `facts` whose request had `cookies`.
fn set(p: &Built, facts: &Facts, how: How, cookies: &[&str], status: u16) -> Vec<String> {
    let req = with(cookies);
    let mut resp = answer(status, &[]);
    p.response(&facts.flow(Some(&req)), &assigned("ls2", how), &mut resp)
        .expect("edits");
    texts(&resp, "set-cookie")
}

/// Returns `PUSHGATE=…` of a new assignment.
fn issue(p: &Built, facts: &Facts) -> String {
    let lines = set(p, facts, How::Balanced, &[], 200);
    let pair = lines.first().and_then(|l| l.split(';').next());
    pair.expect("a cookie").to_owned()
}

fn with(cookies: &[&str]) -> Head {
    let lines: Vec<_> = cookies.iter().map(|c| ("Cookie", *c)).collect();
    head_with("GET", "/", &lines)
}

fn recalled(p: &Built, facts: &Facts, cookies: &[&str]) -> Option<Duration> {
    let req = with(cookies);
    let got = p.recall(&facts.flow(Some(&req)), push())?;
    assert_eq!(got.node, NodeId::of("ls2"));
    Some(got.age)
}

#[test]
fn a_new_assignment_sets_one_cookie() {
    let p = build("sticky_cookie: {}");
    let now = Facts::default();
    let lines = set(&p, &now, How::Balanced, &["a=1"], 200);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("PUSHGATE="), "{lines:?}");
    assert!(lines[0].ends_with("; Path=/; HttpOnly"), "{lines:?}");
    let cookie = issue(&p, &now);
    assert_eq!(cookie.len(), "PUSHGATE=".len() + 48);
    let later = now.after(HOUR);
    assert_eq!(
        recalled(&p, &later, &["a=1", &format!("b=2; {cookie}; c=3")]),
        Some(HOUR)
    );
    let by_us = How::Recalled {
        by: "sticky_cookie",
        age: HOUR,
    };
    assert!(
        set(&p, &later, by_us, &[&cookie], 200).is_empty(),
        "not re-issued while good"
    );
    assert!(set(&p, &later, How::Pinned, &[], 200).is_empty(), "pinned");
    assert_eq!(
        set(&p, &now, How::Balanced, &[], 101).len(),
        1,
        "on a 101 (CLIENTS.md)"
    );
    assert!(
        set(&p, &now, How::Balanced, &[], 103).is_empty(),
        "not on early hints"
    );
    let moved = set(&p, &later, How::Balanced, &[&cookie], 200);
    assert!(
        moved.is_empty(),
        "balanced onto the node its cookie names already"
    );
}

#[test]
fn another_plugins_assignment_keeps_its_age() {
    let p = build("sticky_cookie: { max_age: 2h, jitter: 0% }");
    let now = Facts::default();
    let by = |age| How::Recalled {
        by: "sticky_ip",
        age,
    };
    assert!(
        set(&p, &now, by(2 * HOUR), &[], 200).is_empty(),
        "older than a token lives"
    );
    let line = set(&p, &now, by(HOUR), &[], 200).remove(0);
    let cookie = line.split(';').next().expect("pair");
    assert_eq!(recalled(&p, &now, &[cookie]), Some(HOUR));
    assert!(
        set(&p, &now, by(HOUR), &[cookie], 200).is_empty(),
        "told before"
    );
}

/// Lightstreamer clustering §4: the age is absolute; use does not renew it.
#[test]
fn age_decides_with_each_tokens_own_jitter() {
    let plain = build("sticky_cookie: { max_age: 8h, jitter: 0% }");
    let start = Facts::default();
    let cookie = issue(&plain, &start);
    let second = Duration::from_secs(1);
    assert!(recalled(&plain, &start.after(8 * HOUR - second), &[&cookie]).is_some());
    assert_eq!(recalled(&plain, &start.after(8 * HOUR), &[&cookie]), None);
    let ever = build("sticky_cookie: { max_age: none }");
    let cookie = issue(&ever, &start);
    assert!(recalled(&ever, &start.after(20_000 * HOUR), &[&cookie]).is_some());

    let spread = build("sticky_cookie: { max_age: 10h, jitter: 10% }");
    let mut rng = Rng(5);
    let cookies: Vec<_> = (0..1_000)
        .map(|_| {
            issue(
                &spread,
                &Facts {
                    random: rng.next(),
                    ..Facts::default()
                },
            )
        })
        .collect();
    let alive = |tenths: u32| {
        let at = start.after(9 * HOUR + HOUR * tenths / 10);
        cookies
            .iter()
            .filter(|c| recalled(&spread, &at, &[c]).is_some())
            .count()
    };
    let before = start.after(9 * HOUR - second);
    assert!(
        cookies
            .iter()
            .all(|c| recalled(&spread, &before, &[c]).is_some())
    );
    assert_eq!(alive(10), 0);
    for tenths in 1..10 {
        let want = 1_000 - 100 * tenths as usize;
        assert!(
            alive(tenths).abs_diff(want) < 60,
            "{tenths}: {}",
            alive(tenths)
        );
    }
}

/// FAULTS D48: a token may be dated an hour ahead: this edge's clock was set back since, or another edge with a
/// fast clock issued it. A later date is a fault.
#[test]
fn future_dates_are_ignored_beyond_the_skew() {
    let p = build("sticky_cookie: {}");
    let now = Facts::default();
    let ahead = |s| issue(&p, &now.after(Duration::from_secs(s)));
    assert_eq!(recalled(&p, &now, &[&ahead(3_660)]), Some(Duration::ZERO));
    assert_eq!(recalled(&p, &now, &[&ahead(3_661)]), None);
}

/// FAULTS D43, D45.
#[test]
fn false_tokens_are_ignored_and_the_first_true_one_counts() {
    let p = build("sticky_cookie: {}");
    let now = Facts::default();
    let good = issue(&p, &now);
    let foreign = issue(&build("sticky_cookie: {}"), &now);
    let long = format!("PUSHGATE={}", "A".repeat(10 * 1024));
    let forged = format!("PUSHGATE={}", "A".repeat(48));
    let bad = [
        foreign.as_str(),
        &long,
        &forged,
        "PUSHGATE=",
        "PUSHGATE=10.0.0.1:80",
        "pushgate=x",
    ];
    assert_eq!(recalled(&p, &now, &bad), None);
    for line in bad {
        assert!(recalled(&p, &now, &[line, &good]).is_some(), "{line}");
        assert!(
            recalled(&p, &now, &[&format!("{line}; {good}")]).is_some(),
            "{line}"
        );
    }
    let many = vec![forged.as_str(); super::MAX_TRIED];
    let last = [many.as_slice(), &[good.as_str()]].concat();
    assert_eq!(
        recalled(&p, &now, &last),
        None,
        "no more than eight are tried"
    );
    let req = with(&[&good]);
    assert_eq!(
        p.recall(&now.flow(Some(&req)), PoolId::of("other")),
        None,
        "other pool's"
    );
    assert_eq!(p.recall(&now.flow(None), push()), None, "no head");
}

#[test]
fn a_cookie_beside_non_text_bytes_is_found() {
    let p = build("sticky_cookie: {}");
    let now = Facts::default();
    let line = [b"a=\xff\xfe; ".as_slice(), issue(&p, &now).as_bytes()].concat();
    let req = Head::make_request("GET", "/", [("Cookie", line.as_slice())]).expect("head");
    assert!(p.recall(&now.flow(Some(&req)), push()).is_some());
    let mut req = edits(&req);
    p.request(&now.flow(None), &assigned("ls2", How::Balanced), &mut req)
        .expect("strips");
    assert_eq!(req.values("cookie").next(), Some(&b"a=\xff\xfe"[..]));
}

#[test]
fn our_cookie_wins_and_is_private() {
    let p = build("sticky_cookie: {}");
    let facts = Facts::default();
    let sent = [
        ("Set-Cookie", "PUSHGATE=app; Path=/"),
        ("Set-Cookie", "app=1"),
        ("Cache-Control", "max-age=60"),
    ];
    let mut resp = answer(200, &sent);
    p.response(
        &facts.flow(None),
        &assigned("ls2", How::Balanced),
        &mut resp,
    )
    .expect("edits");
    let cookies = texts(&resp, "set-cookie");
    assert_eq!(cookies[0], "app=1");
    assert!(cookies[1].ends_with("; Path=/; HttpOnly"));
    assert_eq!(texts(&resp, "cache-control"), ["max-age=60", "private"]);
    let names: Vec<_> = resp.fields().map(|(name, _)| name).collect();
    let written = ["Set-Cookie", "Cache-Control", "Set-Cookie", "Cache-Control"];
    assert_eq!(names, written);

    let mut resp = answer(200, &[("Set-Cookie", "PUSHGATE=app")]);
    let by_us = How::Recalled {
        by: "sticky_cookie",
        age: HOUR,
    };
    p.response(&facts.flow(None), &assigned("ls2", by_us), &mut resp)
        .expect("edits");
    let left: Vec<_> = resp.fields().collect();
    assert!(left.is_empty(), "the node's goes, none comes: {left:?}");
}

/// Lightstreamer clustering §5.1: every listener gets the rule, and a reload keeps it.
#[test]
fn a_rebalance_forgets_its_share_on_every_listener() {
    let keep = Keep::default();
    let make = || built("sticky_cookie: {}", Mode::Http, &keep, Path::new("."));
    let (p, start) = (make(), Facts::default());
    let mut rng = Rng(11);
    let cookies: Vec<_> = (0..2_000)
        .map(|_| {
            issue(
                &p,
                &Facts {
                    random: rng.next(),
                    ..Facts::default()
                },
            )
        })
        .collect();
    let later = start.after(HOUR);
    forget(&p, "ls1", &later, 1.0);
    forget(&p, "ls2", &later, 0.25);
    drop(p);
    let reloaded = make();
    let left = cookies
        .iter()
        .filter(|c| recalled(&reloaded, &later, &[c]).is_some());
    assert!(left.count().abs_diff(1_500) < 60);
    let new = issue(&reloaded, &later);
    assert!(
        recalled(&reloaded, &later, &[&new]).is_some(),
        "issued after the rebalance"
    );
}

/// Cookies became invalid at the first reload: nobody held the random key, so the sweep after the reload
/// dropped it. Seen when a successor did not accept its predecessor's cookies.
#[test]
fn a_random_key_outlives_reloads_and_the_process() {
    let make = |keep: &Keep| built("sticky_cookie: {}", Mode::Http, keep, Path::new("."));
    let (mut keep, now) = (Keep::default(), Facts::default());
    let mut p = make(&keep);
    let cookie = issue(&p, &now);
    for _ in 0..2 {
        p = make(&keep);
        keep.sweep();
        assert!(recalled(&p, &now, &[&cookie]).is_some(), "after a reload");
    }
    keep = Keep::inherit(keep.save());
    let successor = make(&keep);
    assert!(recalled(&successor, &now, &[&cookie]).is_some());
}

#[test]
fn two_edges_with_one_key_file_agree_and_keys_rotate() {
    let dir = std::env::temp_dir().join(format!("pushgate-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("folder");
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).expect("file");
    write("a.key", &format!("# ring\n{KEY}\n"));
    write("b.key", &format!("{}\n{KEY}\n", "ab".repeat(32)));
    write("short.key", "abcd");
    let yaml = |file: &str| format!("sticky_cookie: {{ key_file: {file} }}");
    let edge = |file: &str| built(&yaml(file), Mode::Http, &Keep::default(), &dir);
    let now = Facts::default();
    let a = edge("a.key");
    let cookie = issue(&a, &now);
    for other in ["a.key", "b.key"] {
        let p = edge(other);
        assert!(recalled(&p, &now, &[&cookie]).is_some(), "{other}");
    }
    let b = edge("b.key");
    assert_eq!(
        recalled(&a, &now, &[&issue(&b, &now)]),
        None,
        "key unknown to the first"
    );
    for (file, why) in [
        ("none.key", "cannot read"),
        ("short.key", "shorter than 16"),
    ] {
        let found = build_on(&yaml(file), Mode::Http, &Keep::default(), &dir);
        let found = found.err().expect(file);
        assert!(
            found[0].message.contains(why) && found[0].path == ["key_file"],
            "{found:?}"
        );
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn attributes_are_as_asked() {
    let yaml = "sticky_cookie: { name: __Secure-LB, secure: true, same_site: none, partitioned: true, \
                domain: mycompany.com, path: /push, http_only: false }";
    let line = set(&build(yaml), &Facts::default(), How::Balanced, &[], 200).remove(0);
    let want = "; Path=/push; Domain=mycompany.com; Secure; SameSite=None; Partitioned";
    assert!(
        line.starts_with("__Secure-LB=") && line.ends_with(want),
        "{line}"
    );
}

/// Aim: short ages are exact: `max_age: 3s` lived 1.0 to 1.9 s, and `1s` set no cookie. Fails if ages are counted
/// in whole seconds.
#[test]
fn ages_have_milliseconds() {
    let ms = Duration::from_millis;
    for (age, life) in [("1s", 1_000), ("3s", 3_000)] {
        let p = build(&format!("sticky_cookie: {{ max_age: {age}, jitter: 0% }}"));
        for begin in [0, 1, 499, 999] {
            let f = Facts::default().after(ms(begin));
            let cookie = issue(&p, &f);
            let known = |age| recalled(&p, &f.after(ms(age)), &[&cookie]).is_some();
            assert!(known(0) && known(life - 1), "{age} at {begin}");
            assert!(!known(life), "{age} at {begin}");
        }
    }
}
