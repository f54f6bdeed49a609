//! Peers that end while no direction reads from them, between real sockets.

use std::future::{pending, poll_fn};
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::PollFlags;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::observe::end_reason::EndReason;
use crate::stream::dead_peer;
use crate::stream::fixtures::{pair, soon};
use crate::stream::framing::{Framing, Wrap};
use crate::stream::kernel;
use crate::stream::relay::{End, Relay, Relaying, Rules};
use crate::stream::side::Side;

/// `user_timeout` of both sides. A round of the watch comes each 250 ms.
const LIMIT: Duration = Duration::from_secs(1);
const RULES: Rules = Rules {
    unsent: 4096,
    bulk: false,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flow {
    Layer4,
    WebSocket,
    Upload,
}

/// A running flow between two peers.
struct Running {
    client: TcpStream,
    node: TcpStream,
    /// The relay's sockets: the client's and the node's.
    fds: [i32; 2],
    task: JoinHandle<End>,
}

impl Running {
    async fn start(flow: Flow) -> Running {
        tokio::spawn(dead_peer::watch());
        let ((client, mut c), (node, mut n)) = (pair().await, pair().await);
        for peer in [&client, &node] {
            let small = SockRef::from(peer).set_recv_buffer_size(4096);
            small.expect("SO_RCVBUF");
        }
        let fds = [&mut c, &mut n].map(|side| {
            let tcp = side.tcp_mut().expect("a socket");
            tcp.watch(LIMIT);
            tcp.fd()
        });
        let task = tokio::spawn(run(flow, c, n));
        Running {
            client,
            node,
            fds,
            task,
        }
    }

    /// Writes at `from` until its bytes wait in the kernel of the relay, which has no place for them.
    async fn fill(from: &mut TcpStream, fd: i32) -> usize {
        let (mut sent, mut waits) = (0, 0);
        while waits < 10 {
            // Its end must still fit into the relay's kernel behind these bytes.
            if kernel::unread(fd) == 0 {
                from.write_all(&[7; 512]).await.expect("send");
                (sent, waits) = (sent + 512, 0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            waits += usize::from(kernel::unread(fd) > 0);
        }
        sent
    }
}

async fn run(flow: Flow, client: Side, node: Side) -> End {
    let whole = match flow {
        Flow::Layer4 => return Relaying::new(Relay::layer4(client, node, RULES), pending()).await,
        Flow::WebSocket => Framing::Done,
        Flow::Upload => Framing::length(1 << 30),
    };
    let mut relay = Relay::request(client, node, RULES, (whole, Wrap::AsIs), false);
    if flow == Flow::WebSocket {
        let switched = poll_fn(|cx| std::task::Poll::Ready(relay.switch(cx, &mut Vec::new(), b"")));
        switched.await.expect("the client is connected");
        return Relaying::new(relay, pending()).await;
    }
    let mut got = Vec::new();
    let ended = poll_fn(|cx| relay.poll_answer(cx, &mut got)).await;
    relay.broken(ended.expect_err("no answer")).await
}

async fn reset(peer: TcpStream) {
    peer.set_zero_linger().expect("a socket");
    drop(peer);
}

async fn is_reset(mut peer: TcpStream) -> bool {
    let read = soon("its end", peer.read_to_end(&mut Vec::new())).await;
    read.is_err()
}

/// Aim: a client that has sent FIN and still reads keeps its layer-4 flow beyond every limit. When it resets,
/// its flow ends, though no direction reads from it. Fails if FIN counts, or if nobody looks.
#[tokio::test]
async fn a_half_closed_client_keeps_its_flow_until_it_leaves() {
    let mut flow = Running::start(Flow::Layer4).await;
    flow.client.shutdown().await.expect("FIN");
    let none = soon("FIN", flow.node.read_to_end(&mut Vec::new())).await;
    assert_eq!(none.expect("an orderly end"), 0);
    // Bounded hold: two rounds behind the limit.
    tokio::time::sleep(LIMIT * 2).await;
    flow.node.write_all(b"answer").await.expect("send");
    let mut got = [0; 6];
    soon("bytes", flow.client.read_exact(&mut got))
        .await
        .expect("the flow lives");
    let (client, node) = (flow.client, flow.node);
    reset(client).await;
    let end = soon("the end", flow.task).await.expect("no panic");
    assert_eq!((&got, end.reason), (b"answer", EndReason::ClientFailed));
    // A read would report the FIN that came before.
    let events = kernel::events(node.as_raw_fd(), PollFlags::empty());
    assert!(events.contains(PollFlags::ERR), "the node sees no reset");
}

/// Aim: the same for a node that has sent FIN and resets while its client is silent.
#[tokio::test]
async fn a_node_that_leaves_after_its_fin_ends_the_flow() {
    let mut flow = Running::start(Flow::Layer4).await;
    flow.node.shutdown().await.expect("FIN");
    let none = soon("FIN", flow.client.read_to_end(&mut Vec::new())).await;
    assert_eq!(none.expect("an orderly end"), 0);
    reset(flow.node).await;
    let end = soon("the end", flow.task).await.expect("no panic");
    assert_eq!(end.reason, EndReason::NodeClosed);
}

/// Aim: a client that closes or resets while its node does not read is let go, whatever it speaks. The node
/// sees a cut. Fails if a flow waits for its node, or if a part looks like all to the node.
#[tokio::test]
async fn a_client_that_leaves_while_its_node_does_not_read_is_let_go() {
    for flow in [Flow::Layer4, Flow::WebSocket, Flow::Upload] {
        for by_reset in [false, true] {
            let name = format!("{flow:?}, by reset: {by_reset}");
            let mut flow = Running::start(flow).await;
            Running::fill(&mut flow.client, flow.fds[0]).await;
            let (client, node) = (flow.client, flow.node);
            match by_reset {
                true => reset(client).await,
                false => drop(client),
            }
            let end = soon(&name, flow.task).await.expect("no panic");
            let reason = match by_reset {
                true => EndReason::ClientFailed,
                false => EndReason::ClientClosed,
            };
            assert_eq!(end.reason, reason, "{name}");
            assert!(is_reset(node).await, "{name}");
        }
    }
}

/// Aim: a node that reads slowly, but reads, gets every byte of a client that has closed, and its FIN. Fails
/// if the end counts while bytes move.
#[tokio::test]
async fn a_slow_node_gets_every_byte_of_a_client_that_closed() {
    for flow in [Flow::Layer4, Flow::WebSocket] {
        let mut flow = Running::start(flow).await;
        let sent = Running::fill(&mut flow.client, flow.fds[0]).await;
        let (client, mut node) = (flow.client, flow.node);
        drop(client);
        // The node's kernel makes room, in which bytes move, when the node has read half of them: each LIMIT / 2.
        let (mut got, mut piece) = (0, vec![0; sent / 4]);
        loop {
            tokio::time::sleep(LIMIT / 4).await;
            match soon("bytes", node.read(&mut piece)).await.expect("no cut") {
                0 => break,
                n => got += n,
            }
        }
        assert_eq!(got, sent);
        drop(node);
        let end = soon("the end", flow.task).await.expect("no panic");
        assert_eq!(end.reason, EndReason::ClientClosed);
    }
}

/// Aim: a node that resets while its client does not read ends the flow once the client takes no byte. A node
/// that closes in order does not: a client that reads again gets every byte. Fails if either is confused.
#[tokio::test]
async fn a_node_that_leaves_while_its_client_does_not_read() {
    for flow in [Flow::Layer4, Flow::WebSocket] {
        let mut cut = Running::start(flow).await;
        Running::fill(&mut cut.node, cut.fds[1]).await;
        let (client, node) = (cut.client, cut.node);
        reset(node).await;
        let end = soon("the end", cut.task).await.expect("no panic");
        assert_eq!(end.reason, EndReason::NodeFailed);
        assert!(is_reset(client).await);

        let mut whole = Running::start(flow).await;
        let sent = Running::fill(&mut whole.node, whole.fds[1]).await;
        let (mut client, node) = (whole.client, whole.node);
        drop(node);
        // Bounded hold: two rounds behind the limit.
        tokio::time::sleep(LIMIT * 2).await;
        let mut got = Vec::new();
        let read = soon("every byte", client.read_to_end(&mut got)).await;
        assert_eq!(read.expect("an orderly end"), sent);
    }
}
