//! The decisions on one flow, each in isolation: routing, tokens, heads, framing, one step of the relay.
//!
//! In: heads and bodies as push clients and servers send them. Out: [`cases`], which `micro` times with
//! criterion and `budget` counts under callgrind. Each case checks its own result.

mod pieces;
mod site;

use std::future::{pending, poll_fn};
use std::hint::black_box;
use std::sync::Arc;
use std::task::Poll;

use pushgate::proxy::http1::request_head::{self, HeadSearch};
use pushgate::proxy::http1::response_head;
use pushgate::route::{Assigned, Decision};
use pushgate::stream::framing::{Framing, Wrap};
use pushgate::stream::meter::{Measured, Meter, Waits};
use pushgate::stream::relay::{Relay, Relaying, Rules};
use pushgate::stream::side::Side;
use pushgate::stream::socket::Tcp;
use pushgate_plugins::api::{How, PoolId};
use pushgate_plugins::head::{Edits, Head};
use site::{Site, flow, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An operation that is run many times.
pub struct Case {
    /// `group/what`.
    pub name: String,
    /// Runs the operation once.
    pub once: Box<dyn FnMut()>,
}

/// Builds all cases.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    decide(&mut all);
    token(&mut all);
    heads(&mut all);
    pieces::add(&mut all);
    framing(&mut all);
    relayed(&mut all);
    metered(&mut all);
    all
}

fn case(all: &mut Vec<Case>, name: impl Into<String>, once: impl FnMut() + 'static) {
    all.push(Case {
        name: name.into(),
        once: Box::new(once),
    });
}

/// Head of a browser's request; `{}` is the place of our cookie among others.
const HEAD: &str = "GET /lightstreamer?LS_protocol=TLCP-2.5.0 HTTP/1.1\r\n\
     Host: push.mycompany.com\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36\r\n\
     Accept: */*\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n\
     Origin: https://www.mycompany.com\r\nReferer: https://www.mycompany.com/portfolio\r\n\
     Cookie: theme=dark; {}consent=yes\r\n\r\n";

/// Head of a push server's answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: Lightstreamer-Server/7.4.5\r\n\
     Content-Type: text/enriched; charset=UTF-8\r\nCache-Control: no-store\r\n\
     Access-Control-Allow-Origin: https://www.mycompany.com\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sizes of the pools, in nodes.
const NODES: [usize; 2] = [2, 1000];

/// Stickiness of a typical push site.
const STICKY: &str = "{ sticky_cookie: { name: PUSHGATE, max_age: 8h } }";

impl Site {
    /// Returns an assignment to the last node, the one found last if a search were linear.
    fn assigned(&self) -> Assigned {
        Assigned {
            node: self.pool.nodes.last().expect("a node").clone(),
            pool: Some(self.pool.clone()),
            how: How::Balanced,
            mark: None,
        }
    }

    /// Returns the cookie that a client gets with its first answer.
    fn cookie(&self) -> String {
        let plain = request("a=b");
        let mut answer = answer();
        for p in &self.table.plugins.editors {
            p.response(&flow(&plain), &self.assigned().facts(), &mut answer)
                .expect("a legal head");
        }
        let line = answer.values("Set-Cookie").next();
        let line = line.expect("the plugin sets its cookie");
        let line = std::str::from_utf8(line).expect("a cookie is ASCII");
        line.split(';')
            .next()
            .expect("a line has a first part")
            .to_owned()
    }
}

/// Returns an answer's head without edits.
fn answer() -> Edits {
    Edits::new(Arc::new(Head::response(ANSWER).expect("a legal head")))
}

/// Adds the cases of flow → node: balanced and recalled by a cookie, with few and with many nodes.
fn decide(all: &mut Vec<Case>) {
    for count in NODES {
        let site = Arc::new(Site::new(count, STICKY));
        let (new, stuck) = (request("a=b"), request(&site.cookie()));
        let recalled = site.table.decide(&flow(&stuck), &[]);
        assert!(matches!(recalled, Decision::Node(a) if a.how_str() == "sticky_cookie"));
        for (what, head) in [("balanced", new), ("recalled by cookie", stuck)] {
            let site = site.clone();
            case(all, format!("decide/{what}, {count} nodes"), move || {
                let decision = site.table.decide(black_box(&flow(&head)), &[]);
                assert!(matches!(decision, Decision::Node(_)));
            });
        }
    }
    for (what, method, weights) in [
        ("round_robin", "round_robin", 1),
        ("hash", "hash", 1),
        ("hash by weight", "hash", 7),
    ] {
        let (site, head) = (Site::balanced(method, 1000, ""), request("a=b"));
        for (node, weight) in site.pool.nodes.iter().zip((1..=weights).cycle()) {
            node.set_weight(weight);
        }
        case(all, format!("decide/{what}, 1000 nodes"), move || {
            let decision = site.table.decide(black_box(&flow(&head)), &[]);
            assert!(matches!(decision, Decision::Node(_)));
        });
    }
    let site = Site::balanced("round_robin", 1000, "");
    for node in site.pool.nodes.iter().step_by(2) {
        node.judged(false, "bench");
    }
    let head = request("a=b");
    let decide = move || {
        let decision = site.table.decide(black_box(&flow(&head)), &[]);
        assert!(matches!(decision, Decision::Node(_)));
    };
    // These runs move all Down nodes out of the rotation.
    (0..1000).for_each(|_| decide());
    case(all, "decide/round_robin, 500 of 1000 nodes down", decide);
    computed(all);
    let site = Site::new(2, "{ sticky_ip: {} }");
    let head = request("a=b");
    case(all, "decide/recalled by address, 2 nodes", move || {
        let known = flow(&head);
        let decision = site.table.decide(black_box(&known), &[]);
        site.table.ended(known.client.ip(), &[], site.pool.id);
        assert!(matches!(decision, Decision::Node(_)));
    });
}

/// Adds the cases of flow → node by `mode: hash`, with the first node of the client Up and Down.
fn computed(all: &mut Vec<Case>) {
    for down in [false, true] {
        let site = Site::new(1000, "{ sticky_ip: { mode: hash } }");
        let head = request("a=b");
        let decide = move || match site.table.decide(black_box(&flow(&head)), &[]) {
            Decision::Node(to) => to,
            _ => panic!("all others are up"),
        };
        let first = decide().node;
        if down {
            first.judged(false, "bench");
        }
        let word = if down { "computed anew" } else { "computed" };
        case(all, format!("decide/{word}, 1000 nodes"), move || {
            assert_eq!(decide().node.id != first.id, down);
        });
    }
}

/// Adds the cases of one token: verified in a request, signed into an answer, refused if forged.
fn token(all: &mut Vec<Case>) {
    let site = Arc::new(Site::new(2, STICKY));
    let cookie = site.cookie();
    let last = if cookie.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{last}", &cookie[..cookie.len() - 1]);
    for (what, cookie, good) in [("verified", cookie, true), ("forged", forged, false)] {
        let (site, head) = (site.clone(), request(&cookie));
        case(all, format!("token/{what}"), move || {
            let known = flow(&head);
            let recalled =
                site.table.plugins.sticky[0].recall(black_box(&known), PoolId::of("push"));
            assert_eq!(recalled.is_some(), good);
        });
    }
    let (to, head) = (site.assigned(), request("a=b"));
    let plain = Arc::new(Head::response(ANSWER).expect("a legal head"));
    case(all, "token/signed into an answer", move || {
        let mut answer = Edits::new(plain.clone());
        let signed = site.table.plugins.editors[0].response(&flow(&head), &to.facts(), &mut answer);
        assert!(signed.is_ok() && answer.contains("Set-Cookie"));
    });
}

/// Adds the cases that parse a request's head and an answer's.
fn heads(all: &mut Vec<Case>) {
    let limits = Site::new(2, "").limits;
    let own = "PUSHGATE=AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA; ";
    let text = HEAD.replace("{}", own);
    let (again, same) = (text.clone(), limits.clone());
    case(all, "request_head/end", move || {
        let end = HeadSearch::default().end(black_box(text.as_bytes()), &limits);
        assert_eq!(end.ok().flatten(), Some(text.len()));
    });
    case(all, "request_head/judge", move || {
        assert!(request_head::judge(black_box(again.as_bytes()), &same).is_ok());
    });
    case(all, "response_head/judge", || {
        let asked = response_head::RequestKind::default();
        assert!(response_head::judge(black_box(ANSWER), asked).is_ok());
    });
}

/// Adds the cases that find the end of a body: one chunk of 100 bytes, and 16 KiB in chunks of 100 and of
/// 4,096 bytes.
fn framing(all: &mut Vec<Case>) {
    for (what, chunk, count) in [
        ("one chunk of 100 B", 100, 1),
        ("16 KiB by 100 B", 100, 164),
        ("16 KiB by 4 KiB", 4096, 4),
    ] {
        let size = format!("{chunk:x}\r\n");
        let one = [size.as_bytes(), &vec![b'x'; chunk], b"\r\n"].concat();
        let body = one.repeat(count);
        let mut framing = Framing::chunked();
        case(all, format!("framing/{what}"), move || {
            assert_eq!(framing.advance(black_box(&body)), Ok(body.len()));
        });
    }
}

/// Adds the case of a 100-byte message through the relay, from the node's write to the client's read. It
/// has four sockets on loopback and one thread, so the kernel takes nearly all of its time.
fn relayed(all: &mut Vec<Case>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let (mut client, mut node) = runtime.block_on(async {
        let (client, ours) = pair().await;
        let (node, theirs) = pair().await;
        let side = |stream| Side::Plain(Tcp::new(stream));
        let (rules, none) = (
            Rules {
                unsent: 8192,
                bulk: true,
            },
            Framing::Done,
        );
        let mut relay = Relay::request(side(ours), side(theirs), rules, (none, Wrap::AsIs), false);
        relay.measure(&Arc::default());
        // A WebSocket, because the relay follows its frames.
        let switched = poll_fn(|cx| Poll::Ready(relay.switch(cx, &mut Vec::new(), b"")));
        switched.await.expect("the client is there");
        tokio::spawn(Relaying::new(relay, pending()));
        (client, node)
    });
    let mut got = [0; 100];
    case(all, "relay/message of 100 B", move || {
        runtime.block_on(async {
            node.write_all(&[b'm'; 100]).await.expect("the relay reads");
            client.read_exact(&mut got).await.expect("the relay writes");
        });
    });
}

/// Returns both ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, (other, _)) = (one.expect("it listens"), other.expect("it was connected"));
    for s in [&one, &other] {
        s.set_nodelay(true).expect("a TCP socket");
    }
    (one, other)
}

/// Adds the case of what the relay notes of each message, so that it is known who makes a flow wait.
fn metered(all: &mut Vec<Case>) {
    let meter = Arc::new(Meter::default());
    let (mut measured, mut bytes) = (Measured::begin(&meter, None, None), 0);
    case(all, "meter/message of 100 B", move || {
        bytes += 100;
        measured.note(black_box((0, bytes)), 0, Waits::READS_NODE);
    });
}
