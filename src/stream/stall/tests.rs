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

/// Both sides would be read at once.
const READS: Waits = Waits::READS_CLIENT.with(Waits::READS_NODE, true);

/// For what the flow waits, its sockets, the verdict with the seconds waited, name.
type Case = (Waits, Option<Socket>, Socket, Verdict, &'static str);

fn by(who: Who, why: Why, waited: u64) -> Verdict {
    Verdict {
        who,
        why: Some(why),
        waited: seconds(waited),
    }
}

fn idle() -> Verdict {
    Verdict {
        who: Who::Idle,
        why: None,
        waited: Duration::ZERO,
    }
}

fn check(cases: impl IntoIterator<Item = Case>) {
    for (waits, client, node, verdict, name) in cases {
        assert_eq!(facts(waits, client, node).judge(None), verdict, "{name}");
    }
}

/// Aim: silence is no stall. Fails if a silent flow, or bytes on their way, make anybody slow.
#[test]
fn silence_is_no_stall() {
    let calm = calm();
    check([
        (READS, Some(calm), calm, idle(), "silence"),
        (Waits::NONE, Some(calm), calm, idle(), "nothing to do"),
        (READS, None, calm, idle(), "a silent stream"),
        (
            READS,
            Some(unacknowledged(LATE)),
            calm,
            idle(),
            "on its way",
        ),
        (
            READS,
            None,
            unacknowledged(LATE),
            idle(),
            "on its way to the node",
        ),
    ]);
}

/// Aim: each wait for a client has its cause. Fails if a slow network looks like a program that does not read, or if
/// the kernel's queue is not looked at.
#[test]
fn each_wait_for_a_client_has_its_cause() {
    let (to, calm) = (Waits::TO_CLIENT, calm());
    let is = |why, waited| by(Who::Client, why, waited);
    let gone = unacknowledged(seconds(2));
    check([
        (
            to,
            Some(unsent(0)),
            calm,
            is(Why::NotReading, 3),
            "window full",
        ),
        (
            to,
            Some(unsent(60_000)),
            calm,
            is(Why::Network, 3),
            "window open",
        ),
        (to, None, calm, is(Why::Stream, 3), "a stream's window"),
        (
            READS,
            Some(unsent(0)),
            calm,
            is(Why::NotReading, 5),
            "in the kernel only",
        ),
        (
            to,
            Some(vanished()),
            calm,
            is(Why::Unacknowledged, 3),
            "gone in flight",
        ),
        (
            READS,
            Some(gone),
            calm,
            is(Why::Unacknowledged, 2),
            "no answer",
        ),
        (
            Waits::REQUEST,
            Some(calm),
            calm,
            is(Why::Request, 3),
            "half a request",
        ),
    ]);
}

/// Aim: each wait for a node has its cause. Fails if a node that does not take the request seems to think about it.
#[test]
fn each_wait_for_a_node_has_its_cause() {
    let (client, calm) = (Some(calm()), calm());
    let is = |why, waited| by(Who::Node, why, waited);
    let gone = unacknowledged(seconds(9));
    check([
        (
            Waits::CONNECT,
            client,
            calm,
            is(Why::Connect, 2),
            "no node yet",
        ),
        (
            Waits::ANSWER,
            client,
            calm,
            is(Why::Answer, 2),
            "no answer yet",
        ),
        (
            Waits::ANSWER,
            client,
            unsent(0),
            is(Why::NotReading, 5),
            "request not taken",
        ),
        (
            Waits::TO_NODE,
            client,
            unsent(0),
            is(Why::NotReading, 2),
            "upload not taken",
        ),
        (
            READS,
            client,
            unsent(60_000),
            is(Why::Network, 5),
            "a slow way",
        ),
        (READS, None, gone, is(Why::Unacknowledged, 5), "a dead node"),
    ]);
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
