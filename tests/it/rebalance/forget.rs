//! The order that forgets assignments, through the API and the command line.
//!
//! Source: Lightstreamer clustering §5.1; issue 14, section 8.

use std::process::Command;

use super::*;

/// A client of one plugin: its requests carry what it is known by.
struct Known {
    setup: Setup,
    cookie: String,
    node: String,
}

impl Known {
    /// Starts an edge with `plugin` and makes the client known to it.
    async fn by(plugin: &str) -> Known {
        let pool = "    balance: round_robin\n";
        let setup = Setup::with(2, &format!("[{{ {plugin} }}]"), pool).await;
        let first = H1::connect(&setup.plain())
            .await
            .get("/hello?u=1", &[])
            .await;
        let cookies = first.cookies();
        let cookie = cookies.first().map_or(String::new(), |_| pair(&cookies));
        let node = first.node().to_owned();
        Known {
            setup,
            cookie,
            node,
        }
    }

    /// Sends a request; returns whether its node was recalled.
    async fn is_recalled(&self) -> bool {
        let balanced = self.balanced().await;
        let headers = [("Cookie", self.cookie.as_str())];
        let sent = usize::from(!self.cookie.is_empty());
        let mut client = H1::connect(&self.setup.plain()).await;
        let answer = client.get("/hello?u=1", &headers[..sent]).await;
        assert_eq!(answer.status, 200);
        let is_recalled = self.balanced().await == balanced;
        assert!(!is_recalled || answer.node() == self.node);
        is_recalled
    }

    async fn balanced(&self) -> f64 {
        let metrics = self.setup.edge.metrics().await;
        let of = metrics.iter().filter(|(name, _)| {
            name.starts_with("pushgate_assignments_total") && name.contains("how=\"balanced\"")
        });
        of.map(|(_, n)| n).sum()
    }

    /// Orders to forget; asserts the answer's `status` and returns its body.
    async fn forget(&self, query: &str, status: u16) -> String {
        let path = format!("/api/pools/p/forget{query}");
        let answer = self.setup.edge.admin("POST", &path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        answer.text()
    }
}

/// Aim: the order forgets what each plugin remembers of the node it names, or of the whole pool, and nothing
/// else. Live flows go on, and what is learned afterwards stays. Fails if a plugin still recalls the node, if
/// clients of another node are forgotten, or if the order ends a flow.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_forgets_assignments() {
    for plugin in [
        "sticky_cookie: {}",
        "sticky_ip: {}",
        "sticky_param: { from: [{ query: u }] }",
    ] {
        for whole in [false, true] {
            let known = Known::by(plugin).await;
            let headers = [("Cookie", known.cookie.as_str())];
            let sent = usize::from(!known.cookie.is_empty());
            let dial = known.setup.plain();
            let mut live = ws::connect(&dial, "/ws/echo?u=1", &headers[..sent]).await;
            assert_eq!(live.node(), known.node);
            let other = if known.node == "n1" { "n2" } else { "n1" };
            known.forget(&format!("?node={other}"), 200).await;
            assert!(known.is_recalled().await, "{plugin}: of another node");
            let query = match whole {
                true => String::new(),
                false => format!("?node={}", known.node),
            };
            let said: Value = serde_json::from_str(&known.forget(&query, 200).await).expect("JSON");
            assert!(said["pool"] == "p" && said["before"].is_u64(), "{said}");
            assert!(!known.is_recalled().await, "{plugin}{query}");
            live.say("still here").await;
            assert_eq!(live.hear().await, "still here", "{plugin}{query}");
            // The old cookie stays forgotten; tables have learned the client anew.
            if known.cookie.is_empty() {
                let before = known.balanced().await;
                let mut client = H1::connect(&dial).await;
                assert_eq!(client.get("/hello?u=1", &[]).await.status, 200);
                assert_eq!(known.balanced().await, before, "{plugin}{query}");
            }
        }
    }
}

/// Aim: senseless orders are refused with a sentence, and the command line says what the API says. Fails if a
/// misspelt word forgets a whole pool.
#[tokio::test(flavor = "multi_thread")]
async fn senseless_orders_forget_nothing() {
    let known = Known::by("sticky_cookie: {}").await;
    for (query, status, why) in [
        (
            "?nod=n1",
            400,
            "unknown `nod`; expected `node`, `before` or `here`",
        ),
        ("?node=n1&node=n2", 400, "`node` is given twice"),
        (
            "?before=soon",
            400,
            "before: found `soon`; expected seconds",
        ),
        ("?before=99999999999", 400, "in the future"),
        ("?node=n9", 404, "no node `n9` in pool `p`"),
    ] {
        let said = known.forget(query, status).await;
        assert!(said.contains(why), "{query}: {said}");
    }
    let edge = &known.setup.edge;
    assert_eq!(edge.admin("POST", "/api/pools/q/forget").await.status, 404);
    assert_eq!(edge.admin("GET", "/api/pools/p/forget").await.status, 405);
    assert!(known.is_recalled().await);
    // A second that has begun after the assignment was made, and is over.
    let before = known.forget("?before=1000000000", 200).await;
    assert!(before.contains("1000000000") && known.is_recalled().await);
    let admin = format!("http://{}", known.setup.block.admin());
    let run = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["forget", "p", "--node", &known.node, "--admin", &admin])
        .output()
        .expect("the built program starts");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(
        said,
        format!("p: assignments to {} are forgotten\n", known.node)
    );
    assert!(!known.is_recalled().await);
}
