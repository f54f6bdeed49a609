//! D43–D45: forged cookies, cookies for nodes that are gone, cookies of applications.
//!
//! Source: Lightstreamer clustering §2.1.2, §4; RFC 6265 §5.4.

use http::header::COOKIE;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::{H1, Response};
use crate::client::h2::H2;
use crate::edge::Edge;

use super::{Rig, Verdict, request};

const YAML: &str = "
nodes:
  n1: { address: 10.0.0.1:8080 }
  n2: { address: 10.0.0.2:8080 }
pools: { p: { nodes: [n1, n2], balance: round_robin }, q: { nodes: [n1, n2], balance: round_robin } }
listeners:
  - name: push
    bind: [200.0.0.10:80]
    mode: http
    to: p
    plugins: [{ host_route: { hosts: { other.mycompany.com: q } } }, { sticky_cookie: { KEYS } }]
";

const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The edge's own cookie in an answer.
fn ours(answer: &Response) -> Option<String> {
    let all = answer.cookies();
    let found: Vec<_> = all.iter().filter(|c| c.starts_with("PUSHGATE=")).collect();
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|c| (**c).to_owned())
}

async fn get(dial: &Dial, cookie: &str) -> Response {
    let headers = [("Cookie", cookie)];
    let sent = usize::from(!cookie.is_empty());
    let mut client = H1::connect(dial).await;
    client.get("/hello", &headers[..sent]).await
}

/// Returns a cookie that leads to `node`.
async fn cookie_for(dial: &Dial, node: &str) -> String {
    for _ in 0..8 {
        let answer = get(dial, "").await;
        if answer.node() == node {
            return ours(&answer).expect("a cookie with a new assignment");
        }
    }
    panic!("no flow went to {node}");
}

/// Sends `cookie` eight times. Returns whether all went to one node, and whether each answer set a new
/// cookie.
async fn sticks(dial: &Dial, cookie: &str) -> (bool, bool) {
    let (mut nodes, mut renewed) = (std::collections::BTreeSet::new(), true);
    for _ in 0..8 {
        let answer = get(dial, cookie).await;
        assert_eq!(answer.status, 200, "{cookie}");
        nodes.insert(answer.node().to_owned());
        renewed &= ours(&answer).is_some();
    }
    (nodes.len() == 1, renewed)
}

/// D43: the edge ignores a cookie that it did not issue, balances the client, and sets its own cookie. Fails
/// if a forged cookie is honoured, answered with an error, or repeated in Set-Cookie.
#[tokio::test(flavor = "multi_thread")]
async fn forged_cookies_are_ignored() {
    let mut rig = Rig::start(2, &YAML.replace(" KEYS ", "")).await;
    let good = cookie_for(&rig.good, "n1").await;
    assert_eq!(sticks(&rig.good, &good).await, (true, false), "{good}");
    let value = good.trim_start_matches("PUSHGATE=");
    let last = if value.ends_with('A') { "Q" } else { "A" };
    let mutated = format!("PUSHGATE={}{last}", &value[..value.len() - 1]);
    let first = if value.starts_with('A') { "B" } else { "A" };
    let rows: &[(&str, String)] = &[
        ("forged", "PUSHGATE=n1".into()),
        (
            "forged length",
            format!("PUSHGATE={}", "A".repeat(value.len())),
        ),
        ("mutated tail", mutated),
        ("mutated head", format!("PUSHGATE={first}{}", &value[1..])),
        (
            "truncated",
            format!("PUSHGATE={}", &value[..value.len() / 2]),
        ),
        ("longer", format!("{good}A")),
        ("empty", "PUSHGATE=".into()),
        ("10 KiB", format!("PUSHGATE={}", "A".repeat(10 << 10))),
        (
            "another case",
            good.to_lowercase().replace("pushgate", "PUSHGATE"),
        ),
        ("another name", good.replace("PUSHGATE", "pushgate")),
        (
            "quoted attributes",
            "PUSHGATE=x; Domain=evil; HttpOnly".into(),
        ),
        ("bytes", "PUSHGATE=\u{e9}\u{1F600}".into()),
        ("twenty", vec!["PUSHGATE=x"; 20].join("; ")),
    ];
    for (row, cookie) in rows {
        assert_eq!(sticks(&rig.good, cookie).await, (false, true), "{row}");
    }
    // A good cookie works twice in one request, and after a forged one.
    for cookie in [format!("{good}; {good}"), format!("PUSHGATE=x; {good}")] {
        assert_eq!(sticks(&rig.good, &cookie).await, (true, false), "{cookie}");
    }
    // The pool of another virtual host has other assignments.
    let other = rig.good.clone().host("other.mycompany.com");
    assert_eq!(sticks(&other, &good).await, (false, true), "another vhost");
    for (row, byte) in [("NUL", "\0"), ("CR", "\r"), ("LF", "\n")] {
        let bytes = request("GET", "/hello", &format!("Cookie: PUSHGATE=x{byte}y\r\n"));
        rig.judge(row, &bytes, Verdict::refused(400)).await;
    }
    rig.rest().await;
}

/// D43: the previous key verifies as long as it is in the ring. Fails if a rotation loses sessions, or if a
/// retired key still counts.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("keys");
    let keys = |text: &str| std::fs::write(&file, text).expect("write keys");
    keys(OLD);
    let yaml = YAML.replace("KEYS", &format!("key_file: {}", file.display()));
    let mut rig = Rig::start(2, &yaml).await;
    let cookie = cookie_for(&rig.good, "n2").await;
    for (text, expected) in [
        (format!("{NEW}\n{OLD}\n"), (true, false)),
        (format!("{NEW}\n"), (false, true)),
    ] {
        keys(&text);
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(sticks(&rig.good, &cookie).await, expected, "{text}");
    }
    rig.rest().await;
}

/// D44: cookies of a Draining node are honoured; of a Down node, replaced; of a removed or renamed one,
/// ignored.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_nodes_that_go() {
    let mut rig = Rig::start(2, &YAML.replace(" KEYS ", "")).await;
    let cookie = cookie_for(&rig.good, "n1").await;
    let order = async |edge: &Edge, word: &str| {
        let answer = edge.admin("POST", &format!("/api/nodes/n1/{word}")).await;
        assert_eq!(answer.status, 200, "{word}: {}", answer.text());
    };
    order(&rig.edge, "drain").await;
    assert_eq!(sticks(&rig.good, &cookie).await, (true, false), "draining");
    assert_eq!(get(&rig.good, &cookie).await.node(), "n1");
    assert_eq!(
        get(&rig.good, "").await.node(),
        "n2",
        "new flows go elsewhere"
    );
    order(&rig.edge, "down").await;
    assert_eq!(sticks(&rig.good, &cookie).await, (true, true), "down");
    assert_eq!(get(&rig.good, &cookie).await.node(), "n2");
    order(&rig.edge, "up").await;
    for (row, changed) in [
        ("renamed", YAML.replace("n1", "m1")),
        (
            "removed",
            YAML.replace("  n1: { address: 10.0.0.1:8080 }\n", "")
                .replace("n1, ", ""),
        ),
    ] {
        rig.edge.rewrite(&rig.block, &changed.replace(" KEYS ", ""));
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{row}: {}", answer.text());
        assert!(sticks(&rig.good, &cookie).await.1, "{row}: a new cookie");
    }
    rig.rest().await;
}

/// D45: application cookies pass byte for byte, and our cookie is removed, whatever surrounds it. Fails if
/// one byte of an application's cookie changes, or if ours reaches a node.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_the_application() {
    let mut rig = Rig::start(2, &YAML.replace(" KEYS ", "")).await;
    let mut client = H1::connect(&rig.good).await;
    let clash = client.get("/hello?cookie=PUSHGATE=app", &[]).await;
    let good = ours(&clash).expect("a cookie");
    assert!(!clash.cookies().contains(&"PUSHGATE=app"), "ours wins");
    let set = client
        .get("/hello?cookie=app=1", &[("Cookie", &good)])
        .await;
    assert_eq!(set.cookies(), ["app=1"]);
    let fifty: Vec<_> = (0..50).map(|n| format!("app{n}=\"v {n}\"=,==")).collect();
    let fifty = fifty.join("; ");
    for (n, (sent, arrives)) in [
        (fifty.clone(), fifty.clone()),
        (format!("{good}; {fifty}"), fifty.clone()),
        (format!("{fifty}; {good}"), fifty.clone()),
        (format!("a=1; {good}; b=2;c=3"), "a=1; b=2;c=3".to_owned()),
        (
            "a=1; b; =; ;; XPUSHGATE=1; PUSHGATEX=2".to_owned(),
            "a=1; b; =; ;; XPUSHGATE=1; PUSHGATEX=2".to_owned(),
        ),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/hello?fifty={n}");
        client.get(&path, &[("Cookie", sent)]).await;
        let seen: Vec<_> = rig.nodes.iter().map(|n| n.seen()).collect();
        let mut all = seen.iter().flat_map(|s| s.requests());
        let request = all.rfind(|r| r.target == path).expect("seen");
        assert_eq!(request.header("cookie"), [arrives.as_str()], "{sent}");
    }
    drop(client);
    rig.rest().await;
}

/// D45: HTTP/2 splits Cookie into several fields (crumbs). Fails if our cookie is not found among them, or if
/// the node gets more than one Cookie line (RFC 9113 §8.2.3).
#[tokio::test(flavor = "multi_thread")]
async fn cookies_in_crumbs() {
    let certs = Certs::new();
    let leaf = certs.leaf("push", &["*.mycompany.com"], Key::Ecdsa);
    let tls = format!(
        "certificates: {{ push: {{ chain: {}, key: {} }} }}\n",
        leaf.chain.display(),
        leaf.key.display()
    );
    let secured = "mode: http\n    tls: { certificates: [push] }";
    let yaml = YAML.replace(" KEYS ", "").replace("mode: http", secured) + &tls;
    let mut rig = Rig::start_tls(2, &yaml, certs.ca()).await;
    let good = cookie_for(&rig.good, "n2").await;
    for n in 0..6 {
        let path = format!("/hello?crumb={n}");
        let crumbs = [
            ("cookie", "a=1"),
            ("cookie", good.as_str()),
            ("cookie", "b=2"),
        ];
        let answer = H2::connect(&rig.good).await.get(&path, &crumbs).await;
        assert_eq!(answer.headers()["x-node"], "n2");
        assert!(!answer.headers().contains_key("set-cookie"));
        let seen = rig.nodes[1].seen();
        let all = seen.requests();
        let request = all.iter().rfind(|r| r.target == path).expect("seen");
        assert_eq!(request.header(COOKIE.as_str()), ["a=1; b=2"]);
    }
    rig.rest().await;
}
