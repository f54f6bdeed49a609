//! Who makes a flow wait, as a table of cases.

use super::*;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A connection in which nothing waits.
fn calm() -> Socket {
    Socket {
        info: Info {
            window: 65_536,
            silent: seconds(60),
            ..Info::default()
        },
        ..Socket::default()
    }
}

/// Bytes wait in our kernel; the peer's window has room for them, or not.
fn unsent(window: u64) -> Socket {
    let mut socket = calm();
    socket.unacknowledged = 20_000;
    socket.info.silent = Duration::from_millis(200);
    (socket.info.unsent, socket.info.window) = (8_000, window);
    socket
}

/// The peer vanished with bytes in flight, and more wait behind them.
fn vanished() -> Socket {
    let mut socket = unsent(60_000);
    socket.info.silent = seconds(7);
    socket
}

fn unacknowledged(unheard: Duration) -> Socket {
    let mut socket = calm();
    socket.unacknowledged = 100;
    socket.info.silent = unheard;
    socket
}

fn facts(waits: Waits, client: Option<Socket>, node: Socket) -> Facts {
    Facts {
        noted: Noted {
            silent: seconds(5),
            waits,
            waited: (seconds(3), seconds(2)),
            ..Noted::default()
        },
        client,
        node: Some(node),
    }
}

/// Aim: each kind of wait has its cause, and silence has none. Fails if a silent flow counts as stalled, if a slow
/// network looks like a program that does not read, or if the kernel's queue is not looked at.
#[test]
fn each_wait_has_its_cause() {
    let reads = Waits::READS_CLIENT.with(Waits::READS_NODE, true);
    let quiet = Some(calm());
    let cases = [
        (reads, quiet, calm(), "idle", None, "silence"),
        (Waits::NONE, quiet, calm(), "idle", None, "nothing to do"),
        (reads, None, calm(), "idle", None, "a silent stream"),
        (
            Waits::TO_CLIENT,
            Some(unsent(0)),
            calm(),
            "client",
            Some((3, "not_reading")),
            "window full",
        ),
        (
            Waits::TO_CLIENT,
            Some(unsent(60_000)),
            calm(),
            "client",
            Some((3, "network")),
            "window open",
        ),
        (
            Waits::TO_CLIENT,
            None,
            calm(),
            "client",
            Some((3, "stream")),
            "a stream's window",
        ),
        (
            reads,
            Some(unsent(0)),
            calm(),
            "client",
            Some((5, "not_reading")),
            "in the kernel only",
        ),
        (
            Waits::TO_CLIENT,
            Some(vanished()),
            calm(),
            "client",
            Some((3, "unacknowledged")),
            "gone with bytes in flight",
        ),
        (
            reads,
            Some(unacknowledged(seconds(2))),
            calm(),
            "client",
            Some((2, "unacknowledged")),
            "no answer",
        ),
        (
            reads,
            Some(unacknowledged(LATE)),
            calm(),
            "idle",
            None,
            "on its way",
        ),
        (
            Waits::REQUEST,
            quiet,
            calm(),
            "client",
            Some((3, "request")),
            "half a request",
        ),
        (
            Waits::CONNECT,
            quiet,
            calm(),
            "node",
            Some((2, "connect")),
            "no node yet",
        ),
        (
            Waits::ANSWER,
            quiet,
            calm(),
            "node",
            Some((2, "answer")),
            "no answer yet",
        ),
        (
            Waits::ANSWER,
            quiet,
            unsent(0),
            "node",
            Some((5, "not_reading")),
            "the request is not taken",
        ),
        (
            Waits::TO_NODE,
            quiet,
            unsent(0),
            "node",
            Some((2, "not_reading")),
            "an upload is not taken",
        ),
        (
            reads,
            quiet,
            unsent(60_000),
            "node",
            Some((5, "network")),
            "a slow way to the node",
        ),
        (
            reads,
            None,
            unacknowledged(seconds(9)),
            "node",
            Some((5, "unacknowledged")),
            "a dead node",
        ),
    ];
    for (waits, client, node, who, why, name) in cases {
        let verdict = facts(waits, client, node).judge(None);
        let found = verdict
            .why
            .map(|why| (verdict.waited.as_secs(), why.as_str()));
        assert_eq!((verdict.who.as_str(), found), (who, why), "{name}");
    }
}

/// Aim: where both sides make a flow wait, the one that began is the cause: a client that does not read stops its
/// node's program, which then does not read either. Fails if a fixed side wins.
#[test]
fn the_longer_wait_is_the_cause() {
    let both = Waits::TO_CLIENT.with(Waits::TO_NODE, true);
    for (client, node, who) in [(9, 2, Who::Client), (2, 9, Who::Node), (4, 4, Who::Client)] {
        let mut facts = facts(both, Some(unsent(0)), unsent(0));
        facts.noted.waited = (seconds(client), seconds(node));
        let verdict = facts.judge(None);
        let expected = seconds(client.max(node));
        assert_eq!((verdict.who, verdict.waited), (who, expected));
    }
}

/// Aim: the edge is slow if bytes stay readable for a while, whatever else waits. Fails if one look suffices: a
/// thread that is just about to read them would be called slow. Fails if a side counts that the relay must not read.
#[test]
fn the_edge_is_slow_if_bytes_stay_readable() {
    let mut readable = calm();
    readable.unread = 10;
    readable.info.since_received = seconds(1);
    let now = facts(
        Waits::READS_NODE.with(Waits::ANSWER, true),
        Some(calm()),
        readable,
    );
    assert_eq!(now.judge(None).who, Who::Node, "one look");
    let verdict = now.judge(Some(&now));
    assert_eq!((verdict.who, verdict.waited), (Who::Edge, seconds(1)));
    let mut moved = now;
    moved.noted.bytes = (0, 1);
    assert_eq!(now.judge(Some(&moved)).who, Who::Node, "bytes moved");
    let blocked = facts(Waits::TO_CLIENT, Some(unsent(0)), readable);
    assert_eq!(
        blocked.judge(Some(&blocked)).who,
        Who::Client,
        "not to be read now"
    );
}

/// Aim: hidden bytes are those in the relay and in both kernels. Fails if one place is left out.
#[test]
fn hidden_bytes_are_summed_up() {
    let mut node = calm();
    node.unread = 4;
    let mut facts = facts(Waits::NONE, Some(unsent(0)), node);
    facts.noted.held = 64;
    assert_eq!(facts.hidden(), 64 + 4 + 20_000);
}
