//! Shows live flows and lost silences of a running edge.
//!
//! In: filters. Out: tables, or the JSON of all pages.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::client::{At, Edge};
use super::table::{aligned, span, word};
use super::text::{query, text};

/// Flows of `top`.
const TOP: usize = 20;
/// Flows of one request.
const PAGE: usize = 500;

/// Which flows to show.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Only flows of this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only flows of this client: an address, an address with a port, or a network such as `10.1.0.0/16`.
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Only flows of this listener.
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
    /// Only flows that wait for this one: `client`, `node` or `edge`; `idle`: for nobody.
    #[arg(long, value_name = "WHO")]
    who: Option<String>,
    /// Show at most so many flows.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    at: At,
}

/// Lists flows.
///
/// Errors: the endpoint's refusal.
pub async fn list(what: Flows) -> Result<String, String> {
    let edge = Edge::new(&what.at.place)?;
    let (mut found, mut after) = (Vec::new(), None);
    while found.len() < what.limit {
        let words = [
            ("node", what.node.clone()),
            ("client", what.client.clone()),
            ("listener", what.listener.clone()),
            ("who", what.who.clone()),
            (
                "limit",
                Some((what.limit - found.len()).min(PAGE).to_string()),
            ),
            ("after", after.map(|n: u64| n.to_string())),
        ];
        let mut page = edge
            .ask(Method::GET, &format!("/api/flows{}", query(words)))
            .await?;
        if let Value::Array(flows) = page["flows"].take() {
            found.extend(flows);
        }
        after = page["next"].as_u64();
        if after.is_none() {
            break;
        }
    }
    Ok(match what.at.json {
        true => text(&Value::Array(found)),
        false => flows(&found),
    })
}

/// Shows the flows that wait longest; nothing if no flow waits.
///
/// Errors: the endpoint cannot be reached.
pub(super) async fn longest(edge: &Edge) -> Result<String, String> {
    let answer = edge
        .ask(Method::GET, &format!("/api/flows?top={TOP}"))
        .await?;
    Ok(match answer["flows"].as_array() {
        Some(found) if !found.is_empty() => format!("\n{}", flows(found)),
        _ => String::new(),
    })
}

/// Shows after how much silence connections were lost.
///
/// Errors: the endpoint's refusal.
pub async fn silence(at: &At) -> Result<String, String> {
    let answer = Edge::new(&at.place)?
        .ask(Method::GET, "/api/silence")
        .await?;
    Ok(match at.json {
        true => text(&answer),
        false => losses(&answer),
    })
}

fn flows(all: &[Value]) -> String {
    let head = [
        "FLOW",
        "CLIENT",
        "LISTENER",
        "NODE",
        "PROTOCOL",
        "AGE",
        "SILENT",
        "UP",
        "DOWN",
        "HIDDEN",
        "WAITS FOR",
        "WHY",
        "SINCE",
    ];
    let whole = |seconds: &Value| span(&seconds.as_f64().map(|s| s as u64).into());
    let row = |f: &Value| {
        let waits = f["who"] != "idle";
        vec![
            word(&f["flow"]),
            word(&f["client"]),
            word(&f["listener"]),
            word(&f["node"]),
            word(&f["protocol"]),
            whole(&f["seconds"]),
            whole(&f["silent_seconds"]),
            word(&f["bytes_up"]),
            word(&f["bytes_down"]),
            word(&f["hidden_bytes"]),
            if waits { word(&f["who"]) } else { "-".into() },
            word(&f["why"]),
            if waits {
                tenths(&f["waited_seconds"])
            } else {
                "-".into()
            },
        ]
    };
    aligned(&head, all.iter().map(row))
}

fn tenths(seconds: &Value) -> String {
    seconds
        .as_f64()
        .map_or_else(|| "-".into(), |s| format!("{s:.1}s"))
}

fn losses(all: &Value) -> String {
    let head = [
        "LISTENER",
        "PEER",
        "LOSSES",
        "AFTER SILENCE",
        "MOST AFTER",
        "KEEP-ALIVE",
        "BETTER",
    ];
    let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |r: &Value| {
        let peak = &r["peak"];
        vec![
            word(&r["listener"]),
            word(&r["peer"]),
            word(&r["losses"]),
            word(&r["after_silence"]),
            span(&peak["from_seconds"]),
            span(&r["keepalive_seconds"]),
            span(&peak["keepalive_seconds"]),
        ]
    };
    let advice: String = all
        .iter()
        .map(|r| format!("\n{}\n", word(&r["advice"])))
        .collect();
    match all.is_empty() {
        true => "no connection was lost since the start\n".to_owned(),
        false => aligned(&head, all.iter().map(row)) + &advice,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Aim: the table says who makes a flow wait, and nothing where nobody does. Fails if a silent flow looks stalled.
    #[test]
    fn flows_and_their_waits_are_shown() {
        let flow = |who: &str, why: Value| {
            json!({ "flow": 7, "client": "10.0.0.1:5", "listener": "push", "node": "ls1", "protocol": "tcp",
                "seconds": 61.5, "silent_seconds": 3.2, "bytes_up": 1, "bytes_down": 2, "hidden_bytes": 3,
                "who": who, "why": why, "waited_seconds": 2.25 })
        };
        let shown = flows(&[flow("client", json!("network")), flow("idle", Value::Null)]);
        assert_eq!(
            shown,
            "FLOW  CLIENT      LISTENER  NODE  PROTOCOL  AGE    SILENT  UP  DOWN  HIDDEN  WAITS FOR  WHY      SINCE\n\
             7     10.0.0.1:5  push      ls1   tcp       1m 1s  3s      1   2     3       client     network  2.2s\n\
             7     10.0.0.1:5  push      ls1   tcp       1m 1s  3s      1   2     3       -          -        -\n"
        );
    }

    #[test]
    fn losses_come_with_their_advice() {
        assert_eq!(
            losses(&json!([])),
            "no connection was lost since the start\n"
        );
        let one = json!([{ "listener": "push", "peer": "client", "losses": 9, "after_silence": 7,
            "keepalive_seconds": 600, "peak": { "from_seconds": 300, "keepalive_seconds": 150 },
            "advice": "Set it." }]);
        assert_eq!(
            losses(&one),
            "LISTENER  PEER    LOSSES  AFTER SILENCE  MOST AFTER  KEEP-ALIVE  BETTER\n\
             push      client  9       7              5m          10m         2m 30s\n\nSet it.\n"
        );
    }
}
