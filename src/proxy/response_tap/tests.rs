//! The bytes of an answer that a tap shows, for each framing and split.

use std::sync::Arc;

use parking_lot::Mutex;

use pushgate_plugins::api::{Mark, PoolId};

use super::*;
use crate::config::{self, OnDown};
use crate::upstream::live_flows::Stickiness;

fn node() -> Arc<Node> {
    let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
    Node::new("n", &conf, OnDown::Evict, None)
}

#[derive(Default)]
struct Shown {
    head: String,
    body: String,
    ended: usize,
}

/// Records what it is shown, and wants no more after `most` bytes of body.
struct Recorder(Arc<Mutex<Shown>>, usize);

impl Watch for Recorder {
    fn head(&mut self, head: &[u8], _: Instant) {
        self.0.lock().head += &String::from_utf8_lossy(head);
    }

    fn body(&mut self, bytes: &[u8], _: Instant) -> bool {
        let mut shown = self.0.lock();
        shown.body += &String::from_utf8_lossy(bytes);
        shown.body.len() < self.1
    }

    fn ended(&mut self, _: Instant) {
        self.0.lock().ended += 1;
    }
}

/// Shows `answer`, cut at `at`. Returns what the tap showed, and whether it wanted more at the end.
fn shown(answer: &[u8], at: usize, most: usize) -> (Arc<Mutex<Shown>>, bool) {
    let shown = Arc::new(Mutex::new(Shown::default()));
    let recorder = Recorder(shown.clone(), most);
    let mut tap = ResponseTap::tap(vec![Box::new(recorder)], false, &LiveFlow::new(), &node())
        .expect("a plugin watches");
    let (a, b) = answer.split_at(at);
    let mut more = true;
    for part in [a, b] {
        more = more && (part.is_empty() || tap.saw(part));
    }
    drop(tap);
    (shown, more)
}

fn frame(first: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match text.len() {
        n @ 0..126 => bytes.push(n as u8),
        n => {
            bytes.push(126);
            bytes.extend((n as u16).to_be_bytes());
        }
    }
    bytes.extend(text);
    bytes
}

/// Aim: the same text is shown for every framing and at every split, and the watch learns of the flow's end.
/// Fails if a state is lost between two reads, or if framing is shown as content.
#[test]
fn bodies_are_shown_without_their_framing_at_every_split() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let long = "x".repeat(200);
    let mut socket = switch.to_vec();
    for part in [
        frame(0x81, b"WSOK\r\n"),
        frame(0x89, b"ping"),
        frame(0x01, b"CONOK,"),
        frame(0x8a, b"pong"),
        frame(0x80, b"S1,50\r\n"),
        frame(0x82, b"binary"),
        frame(0xc1, b"compressed"),
        frame(0x81, long.as_bytes()),
    ] {
        socket.extend(part);
    }
    let cases: [(&str, Vec<u8>, String); 6] = [
        (
            "length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nCONOK,S1\r\n".to_vec(),
            "CONOK,S1\r\n".into(),
        ),
        (
            "until close, behind an interim answer",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nCONOK,S1\r\n"
                .to_vec(),
            "CONOK,S1\r\n".into(),
        ),
        (
            "chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3;x=\"y\"\r\nCON\r\n00A\r\nOK,S1\r\nabc\r\n0\r\n\r\n"
                .to_vec(),
            "CONOK,S1\r\nabc".into(),
        ),
        (
            "websocket",
            socket,
            format!("\nWSOK\r\n\nCONOK,S1,50\r\n\n{long}"),
        ),
        (
            "no body",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n".to_vec(),
            String::new(),
        ),
        (
            "not HTTP",
            b"garbage\r\n\r\nCONOK,S1\r\n".to_vec(),
            String::new(),
        ),
    ];
    for (name, answer, want) in cases {
        for at in 0..=answer.len() {
            let (shown, _) = shown(&answer, at, usize::MAX);
            let shown = shown.lock();
            assert_eq!(shown.body, want, "{name} cut at {at}");
            assert_eq!(shown.ended, 1, "{name}");
            let interim = shown.head.contains("103");
            assert!(!interim && shown.head.matches("HTTP/1.1").count() <= 1);
        }
    }
}

/// Aim: a watch that has seen enough is shown no more, and no watch is shown more than the limit. Fails
/// without either.
#[test]
fn no_more_is_shown_than_wanted() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let long = [head.clone(), vec![b'x'; 3 * BODY_PREFIX]].concat();
    let (seen, more) = shown(&long, head.len() + 5, usize::MAX);
    assert_eq!((seen.lock().body.len(), more), (BODY_PREFIX, false));
    let (seen, more) = shown(&long[..head.len() + 20], head.len() + 10, 10);
    assert_eq!((seen.lock().body.len(), more), (10, false));
    let (_, more) = shown(&vec![b'x'; MAX_HEAD + 1], 0, 1);
    assert!(!more, "no head is collected for ever");
    assert!(ResponseTap::tap(Vec::new(), false, &LiveFlow::new(), &node()).is_none());
}

/// A watch that learns the session from a complete line.
struct Learner(Option<Mark>);

impl Watch for Learner {
    fn body(&mut self, bytes: &[u8], _: Instant) -> bool {
        let told = bytes.ends_with(b"\n");
        self.0 = told.then(|| Mark::of_flow(7, 1));
        !told
    }

    fn mark(&self) -> Option<Mark> {
        self.0
    }
}

/// Aim: once a flow has created a session and the id has passed, a rebalance knows the flow by that session.
/// Fails if the flow keeps its own mark: the session would be forgotten at another place of the rule.
#[test]
fn a_flow_gets_the_mark_of_the_session_it_created() {
    let (node, flow, pool) = (node(), LiveFlow::new(), PoolId::of("p"));
    let own = Mark::of_flow(1, 1);
    let _entered = node.enter(&flow, Some(Stickiness { pool, mark: own }));
    let learner = Box::new(Learner(None));
    let mut tap = ResponseTap::tap(vec![learner], false, &flow, &node).expect("a plugin watches");
    let known_as = || node.flows.movable(pool)[0].mark.id;
    assert!(tap.saw(b"HTTP/1.1 200 OK\r\n\r\nCONOK,S1"));
    assert_eq!(known_as(), 1);
    assert!(!tap.saw(b",5\n"));
    assert_eq!(known_as(), 7);
}
