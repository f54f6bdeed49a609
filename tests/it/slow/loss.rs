//! The silence before a connection is lost: of clients that reset it, and of clients that are gone.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{command, request};
use crate::client::Dial;
use crate::deadline;
use crate::edge::Edge;
use crate::netns::{Host, skipped};
use crate::node::Node;
use crate::vip::Block;

/// Silence of the lost connections.
const SILENT: Duration = Duration::from_millis(1500);

/// Aim: a loss comes with the silence before it: of a client that resets its connection, and of one that is gone when
/// the next message comes; a client that closes is not lost. Fails if the message ends the silence, or if the time
/// until the loss is found counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_comes_with_its_silence() {
    if skipped() {
        return;
    }
    let (block, cut) = (Block::claim(), Host::new());
    let node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let yaml = "
nodes: { n1: { address: 10.0.0.1:8080 } }
listeners:
  - { name: reset, bind: [200.0.0.10:80], mode: http, to: n1 }
  - { name: gone, bind: [HERE:7000], mode: http, tcp: { user_timeout: 1s }, to: n1 }
";
    let edge = Edge::start(&block, &yaml.replace("HERE", &cut.here.to_string())).await;
    let plain = Dial::plain(block.at("200.0.0.10:80"));
    let path = "/sse?every=1&step=1";
    let mut gone = request(cut.connect((cut.here, 7000).into(), None), path).await;
    let mut closes = request(plain.tcp().await, path).await;
    let mut resets = request(plain.tcp().await, path).await;
    for stream in [&mut gone, &mut closes, &mut resets] {
        deadline("a head", stream.read_u8()).await.expect("a head");
    }
    cut.swallow();
    tokio::time::sleep(SILENT).await;
    closes.shutdown().await.expect("FIN");
    let _ = socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO));
    drop(resets);
    node.allow(1);
    edge.wait_metric("pushgate_silence_before_loss_seconds_count", |n| n == 2.0)
        .await;
    let metrics = edge.metrics().await;
    for listener in ["reset", "gone"] {
        let sum = format!(
            "pushgate_silence_before_loss_seconds_sum{{listener=\"{listener}\",peer=\"client\"}}"
        );
        let silent = metrics[&sum];
        assert!(
            (SILENT.as_secs_f64() - 0.1..2.5).contains(&silent),
            "{listener}: {silent}"
        );
    }
    let shown = command(&edge, &["silence"]).await;
    let few =
        "Listener gone: of 1 lost client connections, 0 were lost after a silence of 10 s or more";
    assert!(shown.contains(few), "{shown}");
    drop((gone, closes));
}
