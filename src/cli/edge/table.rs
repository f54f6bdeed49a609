//! Shows answers of the admin endpoint as tables.
//!
//! In: JSON. Out: aligned text. A missing value is shown as `-`.

use std::time::Duration;

use serde_json::Value;

/// Shows nodes. With `before`, the answer of a second ago, also shows new flows per second.
pub fn nodes(now: &Value, before: Option<&Value>) -> String {
    let head = [
        "NODE", "STATE", "FOR", "FLOWS", "NEW/S", "WEIGHT", "ADDRESS", "POOLS", "WHY",
    ];
    let total = |all: &Value, one: &Value| {
        let is = |n: &&Value| ["name", "address"].iter().all(|key| n[key] == one[key]);
        all.as_array()?.iter().find(is)?["flows_total"].as_u64()
    };
    let row = |n: &Value| {
        let new = before.and_then(|b| {
            let (now, before) = (total(now, n)?, total(b, n)?);
            Some(now.saturating_sub(before).to_string())
        });
        let removed = match n["removed"].as_bool() {
            Some(true) => " (removed)",
            _ => "",
        };
        let pools = n["pools"].as_array().into_iter().flatten();
        vec![
            format!("{}{removed}", word(&n["name"])),
            word(&n["state"]),
            span(&n["state_seconds"]),
            flows(n),
            new.unwrap_or_else(|| "-".into()),
            word(&n["weight"]),
            word(&n["address"]),
            pools.map(word).collect::<Vec<_>>().join(","),
            why(n),
        ]
    };
    aligned(&head, now.as_array().into_iter().flatten().map(row))
}

/// Spells the flows of a node or pool: those of this edge, and of the site where it has more.
fn flows(one: &Value) -> String {
    match (one["flows"].as_u64(), one["site_flows"].as_u64()) {
        (Some(here), Some(site)) if site > here => format!("{here} of {site}"),
        _ => word(&one["flows"]),
    }
}

/// Returns the cause of a node's state, how long it is held, its last check if that did not pass, and what its agent
/// adds.
fn why(n: &Value) -> String {
    let mut said = vec![word(&n["why"])];
    if n["held_seconds"].is_u64() {
        said.push(format!("held {} more", span(&n["held_seconds"])));
    }
    let check = word(&n["check"]["said"]);
    let is_bad = !matches!(n["check"]["outcome"].as_str(), None | Some("pass"));
    if is_bad && !said[0].contains(&check) {
        said.push(check);
    }
    let agent = &n["agent"];
    match agent["outcome"].as_str() {
        None => {}
        Some("pass") => match (
            agent["overruled"].as_bool(),
            agent["weight_percent"].as_u64(),
        ) {
            (Some(true), _) => said.push(format!("against its agent: {}", word(&agent["said"]))),
            (_, Some(percent)) if percent != 100 => said.push(format!("agent: {percent}%")),
            _ => {}
        },
        Some(_) => said.push(format!("no answer of its agent: {}", word(&agent["said"]))),
    }
    said.join("; ")
}

/// Spells whole seconds; `-` without a number.
pub(super) fn span(seconds: &Value) -> String {
    let span = seconds.as_u64().map(Duration::from_secs);
    span.map_or_else(|| "-".into(), |s| humantime::format_duration(s).to_string())
}

/// Shows pools.
pub fn pools(all: &Value) -> String {
    let head = ["POOL", "FLOWS", "EVENNESS", "WAITING", "REBALANCE"];
    let row = |p: &Value| {
        vec![
            word(&p["name"]),
            flows(p),
            word(&p["evenness"]),
            word(&p["waiting"]),
            word(&p["rebalance"]["state"]),
        ]
    };
    aligned(&head, all.as_array().into_iter().flatten().map(row))
}

/// Shows the progress of a rebalance, or the result of a dry run.
pub fn rebalance(p: &Value) -> String {
    let what = match p["dry_run"].as_bool() {
        Some(true) => format!("would move {} clients", word(&p["left"])),
        _ => format!(
            "{}, {} moved, {} left ({} s)",
            word(&p["state"]),
            word(&p["moved"]),
            word(&p["left"]),
            word(&p["eta_seconds"])
        ),
    };
    let head = ["NODE", "FLOWS", "MAY KEEP", "TO MOVE", "MOVED", "FORGOTTEN"];
    let row = |n: &Value| {
        let keys = ["name", "flows", "most", "moves", "moved", "forgotten"];
        keys.map(|key| word(&n[key])).to_vec()
    };
    let rows = p["nodes"].as_array().into_iter().flatten().map(row);
    format!(
        "pool {}: {what}, evenness {}\n{}",
        word(&p["pool"]),
        word(&p["evenness"]),
        aligned(&head, rows)
    )
}

/// Spells a value; `-` for none.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Lines the columns up.
pub(super) fn aligned(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..all[0].len()).map(|c| width(c).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded: String = cells.map(|(cell, w)| format!("{cell:<w$}  ")).collect();
        format!("{}\n", padded.trim_end())
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned_and_show_what_is_missing() {
        let node = |flows: u64, total: u64| {
            json!([{ "name": "ls1", "state": "up", "flows": flows, "flows_total": total,
                "weight": 1, "address": "10.0.0.1:80", "pools": ["a", "b"], "state_seconds": 61,
                "why": "ordered", "held_seconds": 9,
                "check": { "outcome": "fail", "said": "check: slow" } }, {}])
        };
        let shown = nodes(&node(7, 30), Some(&node(5, 20)));
        assert_eq!(
            shown,
            "NODE  STATE  FOR    FLOWS  NEW/S  WEIGHT  ADDRESS      POOLS  WHY\n\
             ls1   up     1m 1s  7      10     1       10.0.0.1:80  a,b    ordered; held 9s more; check: slow\n\
             -     -      -      -      -      -       -                   -\n"
        );
        let dry = json!({ "pool": "p", "dry_run": true, "left": 3, "evenness": 1.5, "nodes": [] });
        assert!(rebalance(&dry).starts_with("pool p: would move 3 clients, evenness 1.5\n"));
        assert_eq!(
            pools(&json!([])),
            "POOL  FLOWS  EVENNESS  WAITING  REBALANCE\n"
        );
    }
}
