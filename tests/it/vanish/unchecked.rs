//! Nodes without checks that vanish: the edge notices by their sockets alone.

use super::*;

/// Aim: without checks, the edge notices a vanished node on its flows: on silent ones by keep-alive, on those
/// whose client sends by unacknowledged bytes, at both layers, before and within an answer. Fails if
/// `nodes.<name>.tcp` is ignored: the defaults take twice the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_is_noticed_without_checks() {
    if skipped() {
        return;
    }
    for (fault, cut) in FAULTS {
        let (host, block) = (Host::new(), Block::claim());
        let far = Node::on("far", host.listen(8080), Sessions::new("far"), None);
        let edge = Edge::start(&block, &yaml(&host)).await;
        let [http, raw] = dials(&block);
        let silent = [
            ws::connect(&http, "/ws/silent", &[]).await,
            ws::connect(&raw, "/ws/silent", &[]).await,
        ];
        let busy = [
            ws::connect(&http, "/ws/echo", &[]).await,
            ws::connect(&raw, "/ws/echo", &[]).await,
        ];
        let mut answer = H1::connect(&http).await;
        answer
            .send("GET", "/sse?silent=1", &[], b"")
            .await
            .expect("send");
        answer.head().await.expect("the head");
        edge.wait_nodes("five flows", |n| n[0]["flows"] == 5).await;
        cut(&host);
        let vanished = Instant::now();
        let quiet = silent
            .into_iter()
            .map(|mut s| async move { s.ended().await });
        let loud = busy.into_iter().map(sends_on);
        tokio::join!(
            futures_util::future::join_all(quiet),
            futures_util::future::join_all(loud),
            async { assert!(deadline("its end", answer.rest()).await.is_err()) },
        );
        println!("{fault}: all five noticed after {:?}", vanished.elapsed());
        let lines = edge.wait_access("five ends", |l| l.len() == 5).await;
        let all = lines.iter().all(|l| l["reason"] == "node_failed");
        assert!(all, "{lines:?}");
        drop(far);
    }
}

/// Aim: the same for a request that is not answered yet; it is tried again, and its client finally gets an
/// error. Fails as above.
#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_node_is_noticed_before_an_answer() {
    if skipped() {
        return;
    }
    let (host, block) = (Host::new(), Block::claim());
    let far = Node::on("far", host.listen(8080), Sessions::new("far"), None);
    far.hold_polls();
    let edge = Edge::start(&block, &yaml(&host)).await;
    let mut poll = H1::connect(&dials(&block)[0]).await;
    poll.send("GET", "/poll", &[], b"").await.expect("send");
    far.wait("the poll", |s| s.open_now() == 1).await;
    host.swallow();
    let head = deadline("an answer", poll.head()).await.expect("an answer");
    assert!(matches!(head.status, 502 | 504), "{}", head.status);
    edge.wait_nodes("no flow", |n| n[0]["flows"] == 0).await;
}

fn yaml(host: &Host) -> String {
    format!(
        "nodes: {{ far: {{ address: '{}:8080', tcp: {{ keepalive: 1s, user_timeout: 1s }} }} }}\n\
         pools: {{ p: {{ nodes: [far], on_lost: 502 }} }}\nlisteners:\n\
         - {{ name: http, bind: [200.0.0.10:80], mode: http, to: p }}\n\
         - {{ name: raw, bind: [200.0.0.10:81], mode: tcp, to: p }}\n",
        host.there
    )
}

fn dials(block: &Block) -> [Dial; 2] {
    [80, 81].map(|port| Dial::plain(block.at(&format!("200.0.0.10:{port}"))))
}
