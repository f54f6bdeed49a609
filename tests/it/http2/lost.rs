//! Requests that their node fails: which of them the client may send again.
//!
//! Source: RFC 9113 §5.4.2, §7, §8.7 (REFUSED_STREAM says that nothing was processed).

use h2::Reason;

use super::heads::assert_alive;
use super::rig::{HOST, Rig};
use crate::client::raw_h2::head;

/// Aim: a request that reached no node is refused, so that its client may send it again; a request that its
/// node lost is cancelled. Without `no_node: close`, and with `on_lost: 502`, both are answered. The
/// connection serves on. Fails if the code invites a client to repeat a request that a node has had, or
/// forbids it one that no node has had.
#[tokio::test(flavor = "multi_thread")]
async fn refused_only_if_no_node_had_the_request() {
    for (keys, refused, lost) in [
        (
            "    no_node: close\n    health: { tcp: {}, fall: 100 }\n",
            (0, Some(Reason::REFUSED_STREAM)),
            (0, Some(Reason::CANCEL)),
        ),
        (
            "    on_lost: 502\n    health: { tcp: {}, fall: 100 }\n",
            (502, None),
            (502, None),
        ),
    ] {
        // Without that check the node would be Down a quarter of a second after it is deaf, and the answer a 503.
        let mut rig = Rig::with("", keys, "").await;
        let mut client = rig.client().await;
        let id = client.open(&head("POST", HOST, "/lost", &[]), true).await;
        let (node, _) = rig.asked().await;
        drop(node);
        let answer = client.until(id, |a| a.whole || a.reset.is_some()).await;
        assert_eq!((answer.status, answer.reset), lost, "{keys}: lost");
        rig.deafen();
        let id = client
            .open(&head("POST", HOST, "/refused", &[]), true)
            .await;
        let answer = client.until(id, |a| a.whole || a.reset.is_some()).await;
        assert_eq!((answer.status, answer.reset), refused, "{keys}: refused");
        let lines = rig.lines(2).await;
        assert_eq!(lines[0]["reason"], "node_failed", "{keys}: {}", lines[0]);
        let reason = &lines[1]["reason"];
        assert_eq!(reason, "node_unreachable", "{keys}: {}", lines[1]);
        rig.listen().await;
        assert_alive(&rig, &mut client).await;
    }
}

/// Aim: an idempotent request whose node loses it is repeated with its body, and its client sees one answer.
/// Fails if the second copy of the body is not whole: on a stream it has no framing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_put_is_repeated_with_its_body() {
    let rig = Rig::with("", "    nodes: [n1, n2]\n", "").await;
    let mut client = rig.client().await;
    let id = client.open(&head("PUT", HOST, "/", &[]), false).await;
    let (mut node, _) = rig.asked().await;
    client.data(id, b"one", false).await;
    client.data(id, b"two", true).await;
    let first = node.until(b"0\r\n\r\n").await;
    drop(node);
    let (mut node, _) = rig.asked().await;
    let second = node.until(b"0\r\n\r\n").await;
    let data = |body: &str| {
        body.replace("3\r\n", "")
            .replace("6\r\n", "")
            .replace("\r\n", "")
    };
    assert_eq!(
        (data(&first), data(&second)),
        ("onetwo0".into(), "onetwo0".into())
    );
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = client.answer(id).await;
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(rig.lines(1).await[0]["retries"], 1);
}
