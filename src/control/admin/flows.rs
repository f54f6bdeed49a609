//! Shows live flows to the operator, in pages: what each has moved, how long it is silent, and who makes it wait.
//!
//! In: filters and a cursor, or the number of flows that wait longest. Out: JSON. A page locks a node's list for one
//! slice at a time, asks the kernel about the flows it shows, and never waits for a data thread.
//! Source: issue "who is slow".

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::shared::Admin;
use crate::stream::meter::Ticks;
use crate::stream::stall::{Facts, LATE, Socket, Verdict, Who};
use crate::upstream::live_flow::FlowOwner;
use crate::upstream::{LiveFlow, Node};

/// Flows of a page without `limit`, and the most it may have.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Flows read at a time. Between two slices other tasks of the admin endpoint run.
const SLICE: usize = 512;
/// Flows that one page looks at, at most: few of them may pass its filter.
const MAX_LOOKS: usize = 10_000;

/// Handles `GET /api/flows`.
pub(super) async fn all(
    Shared(admin): Shared<Arc<Admin>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let wanted = match Wanted::of(query) {
        Ok(wanted) => wanted,
        Err(fault) => return (StatusCode::BAD_REQUEST, format!("{fault}\n")).into_response(),
    };
    let nodes = admin.running.listed().into_iter().map(|listed| listed.node);
    let named = |node: &Arc<Node>| wanted.node.as_ref().is_none_or(|name| *name == node.name);
    let nodes: Vec<Arc<Node>> = nodes.filter(named).collect();
    Json(match wanted.top {
        Some(most) => json!({ "flows": longest(&wanted, &nodes, most).await, "next": null }),
        None => page(&wanted, &nodes).await,
    })
    .into_response()
}

/// The query of a page.
#[derive(Default)]
struct Wanted {
    node: Option<String>,
    client: Option<Client>,
    listener: Option<String>,
    who: Option<String>,
    after: u64,
    limit: Option<usize>,
    top: Option<usize>,
}

/// The clients that are meant.
enum Client {
    One(SocketAddr),
    Net(IpNet),
}

impl std::str::FromStr for Client {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let net = text
            .parse()
            .or_else(|_| text.parse().map(|ip: IpAddr| ip.into()));
        let one = |_| text.parse().map(Client::One).map_err(drop);
        net.map(Client::Net).or_else(one)
    }
}

impl Client {
    fn is(&self, client: SocketAddr) -> bool {
        match self {
            Client::One(one) => *one == client,
            Client::Net(net) => net.contains(&client.ip()),
        }
    }
}

impl Wanted {
    fn of(query: Vec<(String, String)>) -> Result<Self, String> {
        let mut wanted = Wanted::default();
        for (key, value) in query {
            let wrong = |expected: &str| format!("{key}: found `{value}`; expected {expected}");
            let count = || {
                let count = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
                count.ok_or_else(|| wrong(&format!("a number from 1 to {MAX_PAGE}")))
            };
            match key.as_str() {
                "limit" => wanted.limit = Some(count()?),
                "top" => wanted.top = Some(count()?),
                "after" => {
                    wanted.after = value.parse().map_err(|_| wrong("the `next` of a page"))?
                }
                "client" => {
                    let client = value
                        .parse()
                        .map_err(|()| wrong("an address, with or without a port, or a network"));
                    wanted.client = Some(client?);
                }
                "who" if WHO.iter().any(|who| who.as_str() == value) => wanted.who = Some(value),
                "who" => return Err(wrong("`client`, `node`, `edge` or `idle`")),
                "node" => wanted.node = Some(value),
                "listener" => wanted.listener = Some(value),
                _ => {
                    return Err(format!(
                        "unknown `{key}`; expected `node`, `client`, `listener`, `who`, `after`, `limit` or `top`"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn has(&self, owner: &dyn FlowOwner) -> bool {
        let listener = self.listener.as_ref();
        listener.is_none_or(|name| name == owner.listener())
            && self
                .client
                .as_ref()
                .is_none_or(|client| client.is(owner.client()))
    }
}

const WHO: [Who; 4] = [Who::Client, Who::Node, Who::Edge, Who::Idle];

/// A flow that may be shown. It does not keep the flow's owner: a flow that ends meanwhile is over at once.
struct Row {
    flow: Arc<LiveFlow>,
    node: Arc<Node>,
    facts: Facts,
    /// The facts a moment ago, if bytes could be read then.
    before: Option<Facts>,
}

impl Row {
    fn verdict(&self) -> Verdict {
        self.facts.judge(self.before.as_ref())
    }

    /// Returns the flow as JSON; `None`: it has ended.
    fn shown(&self) -> Option<Value> {
        let owner = self.flow.owner()?;
        let (facts, verdict) = (&self.facts, self.verdict());
        let seconds = |span: Duration| (span.as_secs_f64() * 1000.0).round() / 1000.0;
        let about = owner.describe();
        let [method, host, path] = &about.request;
        let socket = |socket: &Socket| {
            let info = &socket.info;
            json!({
                "unsent_bytes": info.unsent, "unacknowledged_bytes": socket.unacknowledged,
                "unread_bytes": socket.unread, "window_bytes": info.window, "retransmits": info.retransmits,
                "round_trip_seconds": info.round_trip.as_secs_f64(), "unheard_seconds": seconds(info.silent),
                "busy_seconds": seconds(info.busy), "window_limited_seconds": seconds(info.window_limited),
                "buffer_limited_seconds": seconds(info.buffer_limited),
            })
        };
        Some(json!({
            "flow": self.flow.id, "listener": owner.listener(), "client": owner.client(),
            "node": self.node.name, "protocol": about.protocol,
            "method": method, "host": host, "path": path,
            "seconds": seconds(self.flow.age(Instant::now())), "silent_seconds": seconds(facts.noted.silent),
            "bytes_up": facts.noted.bytes.0, "bytes_down": facts.noted.bytes.1, "hidden_bytes": facts.hidden(),
            "who": verdict.who.as_str(), "why": verdict.why.map(|why| why.as_str()),
            "waited_seconds": seconds(verdict.waited),
            "client_socket": facts.client.as_ref().map(socket), "node_socket": facts.node.as_ref().map(socket),
        }))
    }
}

/// Returns a page, and the cursor of the next one.
async fn page(wanted: &Wanted, nodes: &[Arc<Node>]) -> Value {
    let (most, mut after) = (wanted.limit.unwrap_or(PAGE), wanted.after);
    let (mut found, mut looks) = (Vec::new(), 0);
    loop {
        let slice = slice(nodes, after);
        let Some((last, _)) = slice.last() else {
            return json!({ "flows": found, "next": null });
        };
        (after, looks) = (last.id, looks + slice.len());
        let room = most - found.len();
        let rows: Vec<Row> = slice
            .into_iter()
            .filter_map(|(flow, node)| row(wanted, flow, node))
            .collect();
        let rows = looked_again(rows).await;
        let is_meant = |row: &&Row| {
            let who = row.verdict().who.as_str();
            wanted.who.as_ref().is_none_or(|wanted| wanted == who)
        };
        let shown: Vec<&Row> = rows.iter().filter(is_meant).take(room + 1).collect();
        if shown.len() > room {
            after = shown[room - 1].flow.id;
        }
        found.extend(shown.iter().take(room).filter_map(|row| row.shown()));
        if found.len() >= most || looks >= MAX_LOOKS {
            return json!({ "flows": found, "next": after });
        }
    }
}

/// Returns some flows behind `after`, the lowest numbers first. Of many nodes, each gives few.
fn slice(nodes: &[Arc<Node>], after: u64) -> Vec<(Arc<LiveFlow>, Arc<Node>)> {
    let each = (2 * SLICE / nodes.len().max(1)).clamp(8, SLICE);
    let (mut all, mut complete) = (Vec::new(), u64::MAX);
    for node in nodes {
        let flows = node.flows.page(after, each);
        if let Some(last) = flows.last().filter(|_| flows.len() == each) {
            // The node may have more flows behind it, and they come before the later ones of others.
            complete = complete.min(last.id);
        }
        all.extend(flows.into_iter().map(|flow| (flow, node.clone())));
    }
    all.retain(|(flow, _)| flow.id <= complete);
    all.sort_by_key(|(flow, _)| flow.id);
    all
}

fn row(wanted: &Wanted, flow: Arc<LiveFlow>, node: Arc<Node>) -> Option<Row> {
    flow.owner().filter(|owner| wanted.has(&**owner))?;
    Some(Row {
        facts: Facts::of(&flow.meter),
        flow,
        node,
        before: None,
    })
}

/// Looks again, a moment later, at flows whose bytes could be read: their thread may have been about to read them.
async fn looked_again(mut rows: Vec<Row>) -> Vec<Row> {
    let is_readable = |row: &Row| row.facts.is_readable();
    match rows.iter().any(is_readable) {
        true => tokio::time::sleep(LATE).await,
        false => tokio::task::yield_now().await,
    }
    for row in rows.iter_mut().filter(|row| row.facts.is_readable()) {
        let now = Facts::of(&row.flow.meter);
        row.before = Some(std::mem::replace(&mut row.facts, now));
    }
    rows
}

/// Returns the `most` flows that wait longest. Reads only what the relays have noted, and asks the kernel about those.
async fn longest(wanted: &Wanted, nodes: &[Arc<Node>], most: usize) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let slice = slice(nodes, after);
        let Some((last, _)) = slice.last() else {
            break;
        };
        after = last.id;
        let now = Ticks::now();
        for (flow, node) in slice {
            let (client, other) = flow.meter.noted(now).waited;
            let waited = client.max(other);
            if !waited.is_zero() && flow.owner().is_some_and(|owner| wanted.has(&*owner)) {
                found.push((waited, flow, node));
            }
        }
        found.sort_by_key(|(waited, ..)| std::cmp::Reverse(*waited));
        found.truncate(most);
        tokio::task::yield_now().await;
    }
    let rows = found
        .into_iter()
        .filter_map(|(_, flow, node)| row(wanted, flow, node));
    let rows = looked_again(rows.collect()).await;
    rows.iter().filter_map(Row::shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Result<Wanted, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Wanted::of(pairs.iter().map(owned).collect())
    }

    /// Aim: a wrong filter is refused with what was expected. Fails if it is ignored: the list would look complete.
    #[test]
    fn a_wrong_filter_is_refused() {
        let cases = [
            (
                ("limit", "0"),
                "limit: found `0`; expected a number from 1 to 1000",
            ),
            (
                ("top", "x"),
                "top: found `x`; expected a number from 1 to 1000",
            ),
            (
                ("after", "-1"),
                "after: found `-1`; expected the `next` of a page",
            ),
            (
                ("client", "a"),
                "client: found `a`; expected an address, with or without a port, or a network",
            ),
            (
                ("who", "me"),
                "who: found `me`; expected `client`, `node`, `edge` or `idle`",
            ),
            (
                ("nodes", "a"),
                "unknown `nodes`; expected `node`, `client`, `listener`, `who`, `after`, `limit` or `top`",
            ),
        ];
        for (pair, expected) in cases {
            assert_eq!(wanted(&[pair]).err().as_deref(), Some(expected));
        }
    }

    /// Aim: clients are named by address, by address and port, or by network. Fails if the port of an address counts
    /// although none was given.
    #[test]
    fn clients_are_meant_by_address_or_network() {
        let client: SocketAddr = "10.1.2.3:4567".parse().expect("an address");
        for (text, is) in [
            ("10.1.2.3", true),
            ("10.1.2.3:4567", true),
            ("10.1.2.3:4568", false),
            ("10.1.0.0/16", true),
            ("10.2.0.0/16", false),
            ("2001:db8::/32", false),
        ] {
            let parsed: Client = text.parse().expect("a client");
            assert_eq!(parsed.is(client), is, "{text}");
        }
    }
}
