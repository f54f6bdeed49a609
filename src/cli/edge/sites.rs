//! Shows the edges of a site, and how far an order got in it.
//!
//! In: JSON of the admin endpoint. Out: text.

use serde_json::Value;

use super::table::{aligned, span, word};
use crate::clock;

/// Shows the edges, the state of their store, and the orders that hold.
pub fn edges(all: &Value) -> String {
    edges_at(all, now())
}

fn now() -> u64 {
    let since = clock::wall().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn edges_at(all: &Value, now: u64) -> String {
    let head = [
        "EDGE",
        "FLOWS",
        "FOR",
        "VERSION",
        "CONFIGURATION",
        "ADDRESSES",
        "WARNINGS",
    ];
    let list = |value: &Value, gap: &str| {
        let words = value.as_array().into_iter().flatten().map(word);
        words.collect::<Vec<_>>().join(gap)
    };
    let since = |value: &Value| match value.as_u64() {
        Some(at) => span(&now.saturating_sub(at).into()),
        None => "-".into(),
    };
    let row = |e: &Value| {
        let here = if e["here"] == true { " (this)" } else { "" };
        let draining = (e["draining"] == true).then(|| "draining".to_owned());
        let warnings = Some(list(&e["warnings"], "; ")).filter(|w| !w.is_empty());
        let said: Vec<_> = draining.into_iter().chain(warnings).collect();
        vec![
            format!("{}{here}", word(&e["name"])),
            word(&e["flows"]),
            since(&e["since"]),
            word(&e["version"]),
            word(&e["configuration"]),
            list(&e["addresses"], ","),
            said.join("; "),
        ]
    };
    let store = match (&all["store"]["state"], &all["store"]["seconds"]) {
        (Value::String(state), seconds) if seconds.is_u64() => {
            format!("store: {state} for {}", span(seconds))
        }
        (Value::String(state), _) => format!("store: {state}"),
        _ => "no store is configured: this edge is alone".to_owned(),
    };
    let edges = all["edges"].as_array().into_iter().flatten().map(row);
    let mut shown = format!("{store}\n{}", aligned(&head, edges));
    let order = |o: &Value| {
        let here = if o["here"] == true {
            " (here only)"
        } else {
            ""
        };
        let ago = since(&o["at"]);
        vec![
            format!("{}{here}", word(&o["subject"])),
            word(&o["order"]),
            word(&o["edge"]),
            ago,
        ]
    };
    let orders: Vec<_> = all["orders"].as_array().into_iter().flatten().collect();
    if !orders.is_empty() {
        let head = ["ORDER", "SAYS", "GIVEN AT", "AGO"];
        shown += &format!("\n{}", aligned(&head, orders.into_iter().map(order)));
    }
    shown
}

/// Returns what an answer says of how far an order got in the site; empty without a site.
pub fn reach(answer: &Value) -> String {
    match answer["site"].as_str() {
        None => String::new(),
        Some("everywhere") => ", at all edges".to_owned(),
        Some("later") => {
            ", here only: the store is away, and the other edges follow when it is back".to_owned()
        }
        Some("not elsewhere") => ", here only: the store is away".to_owned(),
        Some(said) => format!(", but {said}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fails if a difference between edges, or an order for one edge alone, is not shown.
    #[test]
    fn edges_and_orders_are_shown() {
        let all = json!({
            "edge": "a", "store": { "state": "ok", "seconds": 61 },
            "edges": [
                { "name": "a", "here": true, "flows": 3, "since": 40, "version": "1", "configuration": "c1",
                  "addresses": ["1.2.3.4:80"], "draining": false, "warnings": [] },
                { "name": "b", "here": false, "flows": 4, "since": 90, "version": "1", "configuration": "c2",
                  "addresses": [], "draining": true, "warnings": ["configuration differs"] },
            ],
            "orders": [{ "subject": "state:ls1", "order": "down", "edge": "b", "at": 95, "here": true }],
        });
        assert_eq!(
            edges_at(&all, 100),
            "store: ok for 1m 1s\n\
             EDGE      FLOWS  FOR  VERSION  CONFIGURATION  ADDRESSES   WARNINGS\n\
             a (this)  3      1m   1        c1             1.2.3.4:80\n\
             b         4      10s  1        c2                         draining; configuration differs\n\
             \n\
             ORDER                  SAYS  GIVEN AT  AGO\n\
             state:ls1 (here only)  down  b         5s\n"
        );
        let alone = json!({ "store": null, "edges": [], "orders": [] });
        assert!(edges_at(&alone, 0).starts_with("no store is configured"));
        assert_eq!(reach(&json!({})), "");
        let overruled = json!({ "site": "overruled by `up` of edge b" });
        assert_eq!(reach(&overruled), ", but overruled by `up` of edge b");
    }
}
