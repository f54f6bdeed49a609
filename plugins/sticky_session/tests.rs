//! The life of a session: learned from its node, recalled wherever its id is, live as long as one of its
//! flows.

use std::time::Duration;

use crate::api::{BODY_PREFIX, Flow, Forget, How, NodeId, PoolId, Watch, unix_seconds};
use crate::context::Mode;
use crate::head::Head;
use crate::testing::{
    Built, Facts, assigned, build, faults, head, head_with, table_defaults_are_documented,
    undecodable,
};

const LIGHTSTREAMER: &str = "sticky_session: { preset: lightstreamer }";
const HOUR: Duration = Duration::from_secs(3_600);

fn push() -> PoolId {
    PoolId::of("push")
}

fn post(path: &str) -> Head {
    head("POST", path)
}

fn with(method: &str, path: &str, line: (&'static str, &str)) -> Head {
    head_with(method, path, &[line])
}

fn recalled(p: &Built, facts: &Facts, request: &Head, body: &str) -> Option<NodeId> {
    let body = body.as_bytes();
    let flow = Flow {
        body,
        ..facts.flow(Some(request))
    };
    p.recall(&flow, push()).map(|r| r.node)
}

/// Watches the answer of a flow that goes to `node`.
fn watch(p: &Built, facts: &Facts, request: &Head, node: &str) -> Box<dyn Watch> {
    let flow = facts.flow(Some(request));
    let to = assigned(node, How::Balanced);
    p.watch(&flow, push(), &to).expect("every flow is watched")
}

/// Makes a session that `node` created and whose flow is over.
fn create(p: &Built, facts: &Facts, node: &str, id: &str) {
    let request = post("/lightstreamer/create_session.txt");
    let mut w = watch(p, facts, &request, node);
    w.body(
        format!("CONOK,{id},50000,5000,*\r\nLOOP,0\r\n").as_bytes(),
        facts.now,
    );
    w.ended(facts.now);
}

/// FAULTS D47: only the id counts, in query and form, whichever client sends it.
#[test]
fn a_session_is_recalled_by_query_and_form() {
    let p = build(LIGHTSTREAMER);
    let f = Facts::default();
    create(&p, &f, "ls2", "S2x");
    let (bind, control) = (
        post("/lightstreamer/bind_session.txt"),
        post("/c.txt?a=b&LS_session=S2x"),
    );
    let ls2 = Some(NodeId::of("ls2"));
    for (request, body, want) in [
        (&bind, "", None),
        (&bind, "LS_session=S2", None),
        (&bind, "LS_polling=true&LS_session=S2x", ls2),
        (&control, "", ls2),
        (&control, "LS_session=other", ls2),
    ] {
        assert_eq!(recalled(&p, &f, request, body), want, "{body}");
    }
    let flow = f.flow(Some(&control));
    assert!(
        p.recall(&flow, PoolId::of("other")).is_none(),
        "another pool"
    );
    assert!(!p.wants_body(&flow), "the query tells");
    assert!(p.wants_body(&f.flow(Some(&bind))));
    assert!(!p.wants_body(&f.flow(Some(&head("GET", "/lightstreamer")))));
}

/// The line may come in any split and after other lines, but only within the first 4 KiB.
#[test]
fn the_line_is_found_in_any_split() {
    let answer = "WSOK\r\n\nCONOK,S1,50000\r\n";
    let control = post("/c?LS_session=S1");
    for at in 0..=answer.len() {
        let p = build(LIGHTSTREAMER);
        let f = Facts::default();
        let mut w = watch(&p, &f, &post("/"), "ls1");
        let (a, b) = answer.split_at(at);
        let more = w.body(a.as_bytes(), f.now);
        assert_eq!(more, at < answer.len(), "cut at {at}");
        assert!(!(w.body(b.as_bytes(), f.now) && more));
        assert_eq!(
            recalled(&p, &f, &control, ""),
            Some(NodeId::of("ls1")),
            "cut at {at}"
        );
    }
    for (answer, found) in [
        ("xCONOK,S1\n".to_owned(), false),
        ("CONOK,\n".to_owned(), false),
        ("CONOK,S1".to_owned(), false),
        (format!("{}\nCONOK,S1\n", "x".repeat(BODY_PREFIX)), false),
        (
            format!("{}\nCONOK,S1\n", "x".repeat(BODY_PREFIX - 10)),
            true,
        ),
    ] {
        let (p, f) = (build(LIGHTSTREAMER), Facts::default());
        let mut w = watch(&p, &f, &post("/"), "ls1");
        w.body(answer.as_bytes(), f.now);
        let got = recalled(&p, &f, &control, "").is_some();
        assert_eq!(got, found, "{:.20}", answer);
    }
}

/// A client that asks the wrong node is not stuck to it. The node that confirms the session has it.
#[test]
fn a_session_is_learned_only_from_its_node() {
    let p = build(LIGHTSTREAMER);
    let f = Facts::default();
    let control = post("/c?LS_session=S1");
    let mut w = watch(&p, &f, &control, "ls1");
    w.body(b"CONERR,20,unknown\r\n", f.now);
    w.ended(f.now);
    assert_eq!(recalled(&p, &f, &control, ""), None);
    create(&p, &f, "ls1", "S1");
    create(&p, &f, "ls2", "S1");
    assert_eq!(recalled(&p, &f, &control, ""), Some(NodeId::of("ls2")));
}

/// An open silent stream keeps its session; `max_age` counts from learning, rebinds included.
#[test]
fn a_session_lives_as_long_as_a_flow_of_it() {
    let p = build("sticky_session: { preset: lightstreamer, max_age: 8h, jitter: 0% }");
    let f = Facts::default();
    let bind = post("/b?LS_session=S1");
    let ls1 = Some(NodeId::of("ls1"));
    create(&p, &f, "ls1", "S1");
    let mut stream = watch(&p, &f, &bind, "ls1");
    stream.body(b"CONOK,S1,1\r\n", f.now);
    assert_eq!(
        recalled(&p, &f.after(7 * HOUR), &bind, ""),
        ls1,
        "a flow is live"
    );
    stream.ended(f.after(7 * HOUR).now);
    let second = Duration::from_secs(1);
    assert_eq!(recalled(&p, &f.after(8 * HOUR - second), &bind, ""), ls1);
    assert_eq!(recalled(&p, &f.after(8 * HOUR), &bind, ""), None, "max_age");
    let p = build(LIGHTSTREAMER);
    create(&p, &f, "ls1", "S1");
    assert_eq!(recalled(&p, &f.after(HOUR - second), &bind, ""), ls1);
    assert_eq!(
        recalled(&p, &f.after(HOUR), &bind, ""),
        None,
        "away for an hour"
    );
}

/// Lightstreamer clustering §5.1: an operator's order forgets a share of a node's sessions.
#[test]
fn a_rebalance_forgets_its_share() {
    let p = build(LIGHTSTREAMER);
    let f = Facts::default();
    for i in 0..2_000 {
        create(&p, &f, "ls1", &format!("S{i}"));
    }
    p.forget(&Forget {
        pool: push(),
        node: Some(NodeId::of("ls1")),
        before: unix_seconds(f.after(HOUR).wall),
        share: 0.25,
        spares_live: false,
    });
    let at = |i| recalled(&p, &f, &post(&format!("/c?LS_session=S{i}")), "");
    let left = (0..2_000).filter(|i| at(*i).is_some()).count();
    assert!(left.abs_diff(1_500) < 80, "{left}");
}

/// The flow that creates a session has the same mark as those that recall it, so a rule decides alike for
/// both. Fails if a rebalance handles a session twice, by the mark of its first flow and by its own.
#[test]
fn a_session_has_one_mark() {
    let p = build(LIGHTSTREAMER);
    let f = Facts::default();
    let mut creating = watch(&p, &f, &post("/lightstreamer/create_session.txt"), "ls1");
    assert_eq!(creating.mark(), None, "nobody knows its id");
    creating.body(b"CONOK,S1,1\r\nCONOK,S2,1\r\n", f.now);
    let bind = post("/b?LS_session=S1");
    let recalled = p.recall(&f.flow(Some(&bind)), push()).expect("known");
    assert!(recalled.mark.is_some());
    assert_eq!(creating.mark(), recalled.mark);
}

/// A rebalance that closes a stream also forgets its session. Otherwise the client would ask for the session
/// and return to the node that it must leave.
#[test]
fn a_closed_stream_forgets_its_session() {
    let p = build(LIGHTSTREAMER);
    let f = Facts::default();
    let bind = post("/lightstreamer/bind_session.txt?LS_session=S1");
    for (closed, left) in [(false, Some(NodeId::of("ls1"))), (true, None)] {
        create(&p, &f, "ls1", "S1");
        let mut stream = watch(&p, &f, &bind, "ls1");
        if closed {
            stream.forget();
        }
        stream.ended(f.now);
        assert_eq!(recalled(&p, &f, &bind, ""), left);
    }
}

/// Diffusion, "Routing strategies at your load balancer": the cookie `session`; and an operator's own rules.
#[test]
fn ids_are_learned_from_cookies_and_headers() {
    let answer = b"HTTP/1.1 200 OK\r\nX-Session: H1\r\nset-cookie: other=1\r\n\
                   Set-Cookie: session=c04815df-00; HttpOnly\r\n\r\n";
    let own = "sticky_session: { learn: [{ header: x-session }], \
               recall: [{ header: x-session }, { path: /s/ }] }";
    let diffusion = "sticky_session: { preset: diffusion }";
    for (yaml, request, found) in [
        (
            diffusion,
            with("GET", "/diffusion", ("cookie", "a=b; session=c04815df-00")),
            true,
        ),
        (
            diffusion,
            with("GET", "/diffusion", ("cookie", "other=1")),
            false,
        ),
        (
            diffusion,
            with("GET", "/?session=c04815df-00", ("cookie", "a=b")),
            false,
        ),
        (own, with("GET", "/", ("x-session", "H1")), true),
        (own, head("GET", "/s/H1/events?x"), true),
        (own, head("GET", "/s/"), false),
        (own, head("GET", "/x/s/H1"), false),
    ] {
        let (p, f) = (build(yaml), Facts::default());
        let mut w = watch(&p, &f, &head("GET", "/"), "ls3");
        w.head(answer, f.now);
        assert!(!w.body(b"CONOK,S1\n", f.now), "no body is of use");
        let got = recalled(&p, &f, &request, "");
        assert_eq!(
            got,
            found.then(|| NodeId::of("ls3")),
            "{yaml} {}",
            request.target()
        );
    }
}

#[test]
fn documented_defaults_are_those_in_force() {
    table_defaults_are_documented("sticky_session", super::config::MAX_AGE);
}

#[test]
fn faults_are_found_in_one_run() {
    for (block, want) in [
        ("", "learn: expected 1 to 8 places"),
        (
            "preset: diffusion, learn: [{ cookie: a }]",
            "learn: the preset already",
        ),
        ("preset: diffusion, max_age: 0s", "max_age: expected"),
        ("preset: diffusion, expiry: 1ms", "expiry: expected"),
        ("preset: diffusion, capacity: 0", "capacity: expected"),
        (
            "learn: [{ cookie: a }], recall: [{ query: 'a=b' }]",
            "recall.0.query: expected",
        ),
        (
            "learn: [{ cookie: 'a b' }], recall: [{ form: a }]",
            "learn.0.cookie: expected",
        ),
        (
            "learn: [{ line: '' }], recall: [{ form: a }]",
            "learn.0.line: expected",
        ),
        (
            "learn: [{ json: '' }], recall: [{ query: a }]",
            "learn.0.json: expected a name",
        ),
        (
            "learn: [{ line: a }], recall: [{ form: a }, { path: s }]",
            "recall.1.path: expected",
        ),
    ] {
        let found = faults(&format!("sticky_session: {{ {block} }}"), Mode::Http);
        let first = found.first().map(String::as_str).unwrap_or_default();
        assert!(first.starts_with(want), "{block}: {found:?}");
    }
    let tcp = faults(LIGHTSTREAMER, Mode::Tcp);
    assert!(tcp[0].contains("expected mode http"), "{tcp:?}");
    assert!(undecodable("sticky_session: { preset: other }"));
    assert!(undecodable("sticky_session: { learn: [{ body: x }] }"));
}

/// Aim: a client that begins sessions without end takes room only from itself. Fails if the sessions of others
/// are forgotten.
#[test]
fn one_client_does_not_displace_the_sessions_of_others() {
    let p = build("sticky_session: { preset: lightstreamer, capacity: 100 }");
    let at = |last: u8| Facts::default().client(&format!("192.0.2.{last}:1"));
    (0..60).for_each(|i| create(&p, &at(i), "ls1", &format!("S{i}")));
    (0..20_000).for_each(|i| create(&p, &at(200), "ls2", &format!("T{i}")));
    let known =
        |id: &str| recalled(&p, &at(1), &post(&format!("/c?LS_session={id}")), "").is_some();
    assert_eq!((0..60).filter(|i| !known(&format!("S{i}"))).count(), 0);
    assert!(known("T19999"));
}

/// Aim: the ids of Socket.IO and SignalR, which stand inside JSON on a line that never ends, are found, by the
/// presets and by rules of an operator. Fails if the id is learned only with the line's end, or ends at another
/// character than the quote.
#[test]
fn ids_are_learned_from_json() {
    let open = r#"0{"sid":"Kx-1","upgrades":["websocket"],"pingInterval":25000}"#;
    let negotiated = r#"{"negotiateVersion":1,"connectionId":"C1","connectionToken":"Kx-1"}"#;
    let old = r#"{"negotiateVersion":0,"connectionId":"Kx-1","availableTransports":[]}"#;
    for (block, answer, request) in [
        (
            "preset: socketio",
            open,
            "/socket.io/?EIO=4&transport=polling&sid=Kx-1",
        ),
        ("preset: signalr", negotiated, "/hub?id=Kx-1"),
        ("preset: signalr", old, "/hub?id=Kx-1"),
        (
            "learn: { json: sid }, recall: { query: sid }",
            open,
            "/?sid=Kx-1",
        ),
        (
            "learn: [{ line: '0{\"sid\":\"' }], recall: [{ query: sid }]",
            open,
            "/?sid=Kx-1",
        ),
    ] {
        let (p, f) = (
            build(&format!("sticky_session: {{ {block} }}")),
            Facts::default(),
        );
        let mut w = watch(&p, &f, &head("GET", "/"), "ls2");
        let (a, b) = answer.split_at(12);
        let more = w.body(a.as_bytes(), f.now);
        assert!(
            more && !w.body(b.as_bytes(), f.now),
            "{block}: it has seen enough"
        );
        let got = recalled(&p, &f, &head("GET", request), "");
        assert_eq!(got, Some(NodeId::of("ls2")), "{block}: {answer}");
    }
}

/// Aim: an object of more than 4 KiB yields what stands in its beginning. Fails if the watch waits for its end.
#[test]
fn json_is_read_up_to_the_limit() {
    let (p, f) = (
        build("sticky_session: { preset: signalr }"),
        Facts::default(),
    );
    let mut w = watch(&p, &f, &head("POST", "/hub/negotiate"), "ls2");
    let long = format!(
        r#"{{"connectionId":"C1","x":"{}"}}"#,
        "x".repeat(BODY_PREFIX)
    );
    assert!(!w.body(long.as_bytes(), f.now));
    assert!(recalled(&p, &f, &head("GET", "/hub?id=C1"), "").is_some());
}
