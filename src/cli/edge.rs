//! Commands that query or control a running edge through its admin endpoint.
//!
//! In: a command and the endpoint's URL. Out: the endpoint's answer, as a table or as JSON. Answers are
//! shown, not checked: an edge of another version may have more fields.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::examples::ORDERS;

mod client;
mod flows;
mod reload;
mod sites;
mod table;
mod text;

use client::Edge;
pub use client::{At, Place};
use sites::{edges, reach};
use table::{nodes, pools, rebalance};
use text::{query, text};

/// A query or an order to a running edge.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Show the nodes of a running edge.
    #[command(after_help = ORDERS)]
    Nodes {
        #[command(flatten)]
        at: At,
    },
    /// Show the edges of the site, and the orders that hold at all of them.
    #[command(after_help = ORDERS)]
    Edges {
        #[command(flatten)]
        at: At,
    },
    /// Show live flows: their bytes, how long they are silent, and who makes them wait.
    Flows(flows::Flows),
    /// Show after how much silence connections were lost, and the keep-alive that prevents it.
    Silence {
        #[command(flatten)]
        at: At,
    },
    /// Let a node's live flows end, and give it flows of its stuck clients only.
    #[command(after_help = ORDERS)]
    Drain {
        #[command(flatten)]
        which: Which,
        /// Close the flows that are left after this time, such as `10m`.
        #[arg(long, value_name = "TIME")]
        deadline: Option<String>,
        /// Rate at which they are then closed, such as `50/s`; without a deadline the node is Down at once.
        #[arg(long, value_name = "RATE")]
        rate: Option<String>,
    },
    /// Take a node out of service now and close its flows.
    #[command(after_help = ORDERS)]
    Down(Which),
    /// Let a node follow its health checks again: undoes `drain` and `down`.
    #[command(after_help = ORDERS)]
    Up(Which),
    /// Give a node another weight, until the next order, a restart, or another weight in the file.
    Weight {
        #[command(flatten)]
        which: Which,
        /// The weight, 0 to 1000, or a percentage of the file's, such as `50%`.
        weight: String,
    },
    /// Close a node's live flows, but keep its state.
    #[command(after_help = ORDERS)]
    Evict(Which),
    /// Move clients of a pool off the nodes that have too many.
    #[command(after_help = ORDERS)]
    Rebalance(Rebalance),
    /// Forget to which nodes the clients of a pool are stuck. Live flows go on.
    #[command(after_help = ORDERS)]
    Forget(Forget),
    /// Read the file again: waits for the result, exits 1 if the edge refuses the file.
    #[command(after_help = ORDERS)]
    Reload(reload::Reload),
    /// Ask a running edge whether it lives; exits 1 if not. For containers and scripts.
    #[command(after_help = ORDERS)]
    Healthcheck {
        /// Ask whether it is ready for clients: not draining, and each pool has a node.
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        at: Place,
    },
    /// Show nodes, pools and the flows that wait longest, refreshed each second.
    #[command(after_help = ORDERS)]
    Top {
        /// Stop after this many refreshes.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        #[command(flatten)]
        at: At,
    },
}

/// The node an order is for.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// Name of the node.
    node: String,
    /// Means the node of that name that a reload removed or replaced.
    #[arg(long)]
    removed: bool,
    /// Means this edge alone, not all edges of its site.
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    at: At,
}

/// A rebalance, or a question about the last one.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// Name of the pool.
    pool: String,
    /// Move clients until no node has more than its share plus the tolerance (the default).
    #[arg(long, conflicts_with = "from")]
    to_even: bool,
    /// Move clients off this node only, a share of them.
    #[arg(long, value_name = "NODE", requires = "share")]
    from: Option<String>,
    /// That share, such as `30%`.
    #[arg(long, value_name = "PERCENT", requires = "from")]
    share: Option<String>,
    /// Clients moved per second, such as `50/s`.
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Flows that a node may have above its share, such as `5%`.
    #[arg(long, value_name = "PERCENT", conflicts_with = "from")]
    tolerance: Option<String>,
    /// Close live flows; otherwise only assignments are forgotten.
    #[arg(long)]
    close: bool,
    /// Only show what would be moved.
    #[arg(long)]
    dry_run: bool,
    /// Move only assignments made before this time (seconds since 1970), the same on several edges.
    #[arg(long, value_name = "SECONDS")]
    before: Option<u64>,
    /// Move clients of this edge alone, not of all edges of its site.
    #[arg(long)]
    here: bool,
    /// Wait until the rebalance is over.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Show the progress of the last rebalance.
    #[arg(long, conflicts_with_all = ["close", "dry_run", "from", "to_even", "cancel"])]
    status: bool,
    /// Stop the running rebalance where it is.
    #[arg(long, conflicts_with_all = ["close", "dry_run", "from", "to_even"])]
    cancel: bool,
    #[command(flatten)]
    at: At,
}

/// An order to forget assignments.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// Name of the pool.
    pool: String,
    /// Forget only assignments to this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Forget only assignments made before this time (seconds since 1970), the same on several edges.
    #[arg(long, value_name = "SECONDS")]
    before: Option<u64>,
    /// Forget them at this edge alone, not at all edges of its site.
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    at: At,
}

/// Pause between two refreshes of `top`, and between two queries of `--wait`.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs the command and returns the text to print.
///
/// Errors: the endpoint cannot be reached, or its refusal in its own words.
pub fn run(action: Action) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(done(action))
}

async fn done(action: Action) -> Result<String, String> {
    match action {
        Action::Nodes { at } => {
            let edge = Edge::new(&at.place)?;
            let answer = edge.ask(Method::GET, "/api/nodes").await?;
            Ok(if at.json {
                text(&answer)
            } else {
                nodes(&answer, None)
            })
        }
        Action::Edges { at } => {
            let answer = Edge::new(&at.place)?.ask(Method::GET, "/api/edges").await?;
            Ok(if at.json {
                text(&answer)
            } else {
                edges(&answer)
            })
        }
        Action::Flows(what) => flows::list(what).await,
        Action::Silence { at } => flows::silence(&at).await,
        Action::Drain {
            which,
            deadline,
            rate,
        } => order(&which, "drain", [("deadline", deadline), ("rate", rate)]).await,
        Action::Down(which) => order(&which, "down", []).await,
        Action::Up(which) => order(&which, "up", []).await,
        Action::Weight { which, weight } => order(&which, "weight", [("to", Some(weight))]).await,
        Action::Evict(which) => order(&which, "evict", []).await,
        Action::Rebalance(what) => moved(what).await,
        Action::Forget(what) => forgotten(what).await,
        Action::Reload(what) => reload::reload(what).await,
        Action::Healthcheck { ready, at } => {
            let path = if ready { "/readyz" } else { "/livez" };
            let said = Edge::new(&at)?.body(Method::GET, path).await?;
            Ok(String::from_utf8_lossy(&said).into_owned())
        }
        Action::Top { count, at } => top(&at, count).await,
    }
}

async fn order<const N: usize>(
    Which {
        node,
        removed,
        here,
        at,
    }: &Which,
    word: &str,
    words: [(&str, Option<String>); N],
) -> Result<String, String> {
    let flag = |word, on: bool| (word, on.then(|| "true".to_owned()));
    let flags = [flag("removed", *removed), flag("here", *here)];
    let words = words.into_iter().chain(flags);
    let path = format!("/api/nodes/{}/{word}{}", name(node)?, query(words));
    let answer = Edge::new(&at.place)?.ask(Method::POST, &path).await?;
    if at.json {
        return Ok(text(&answer));
    }
    let site = reach(&answer);
    if let Value::Number(weight) = &answer["weight"] {
        return Ok(format!("{node} has weight {weight}{site}\n"));
    }
    if let (Value::String(state), Value::String(why)) = (&answer["state"], &answer["why"]) {
        return Ok(format!("{node} is still {state}: {why}{site}\n"));
    }
    Ok(match (&answer["state"], &answer["evicted"]) {
        (Value::String(state), _) => format!("{node} is {state}{site}\n"),
        (_, Value::Number(flows)) => format!("{node}: {flows} flows closed{site}\n"),
        _ => text(&answer),
    })
}

async fn moved(what: Rebalance) -> Result<String, String> {
    let edge = Edge::new(&what.at.place)?;
    let path = format!("/api/pools/{}/rebalance", name(&what.pool)?);
    let mut answer = if what.status {
        edge.ask(Method::GET, &path).await?
    } else if what.cancel {
        edge.ask(Method::POST, &format!("{path}/cancel")).await?
    } else {
        let flag = |on: bool| on.then(|| "true".to_owned());
        let words = [
            ("to_even", flag(what.to_even)),
            ("from", what.from.clone()),
            ("share", what.share.clone()),
            ("rate", what.rate.clone()),
            ("tolerance", what.tolerance.clone()),
            ("close", flag(what.close)),
            ("dry_run", flag(what.dry_run)),
            ("before", what.before.map(|b| b.to_string())),
            ("here", flag(what.here)),
        ];
        edge.ask(Method::POST, &format!("{path}{}", query(words)))
            .await?
    };
    while what.wait && matches!(answer["state"].as_str(), Some("running" | "settling")) {
        tokio::time::sleep(LOOK_AGAIN).await;
        answer = edge.ask(Method::GET, &path).await?;
    }
    Ok(if what.at.json {
        text(&answer)
    } else {
        rebalance(&answer)
    })
}

async fn forgotten(what: Forget) -> Result<String, String> {
    let words = [
        ("node", what.node.clone()),
        ("before", what.before.map(|b| b.to_string())),
        ("here", what.here.then(|| "true".to_owned())),
    ];
    let path = format!("/api/pools/{}/forget{}", name(&what.pool)?, query(words));
    let answer = Edge::new(&what.at.place)?.ask(Method::POST, &path).await?;
    if what.at.json {
        return Ok(text(&answer));
    }
    let to = what.node.map_or(String::new(), |n| format!(" to {n}"));
    let site = reach(&answer);
    Ok(format!(
        "{}: assignments{to} are forgotten{site}\n",
        what.pool
    ))
}

async fn top(at: &At, count: Option<u64>) -> Result<String, String> {
    use std::io::{IsTerminal, Write};
    let edge = Edge::new(&at.place)?;
    let mut out = std::io::stdout();
    let mut before = None;
    for n in 0..count.unwrap_or(u64::MAX) {
        if n > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let now = edge.ask(Method::GET, "/api/nodes").await?;
        let all = edge.ask(Method::GET, "/api/pools").await?;
        let clear = if out.is_terminal() {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        let nodes = nodes(&now, before.as_ref());
        let waiting = flows::longest(&edge).await?;
        let shown = format!("{clear}{nodes}\n{}{waiting}", pools(&all));
        // The reader has closed the pipe, as in `pushgate top | head`.
        if out
            .write_all(shown.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
        before = Some(now);
    }
    Ok(String::new())
}

/// Returns `name` if it is safe in a path. Errors: no node or pool can have that name.
fn name(name: &str) -> Result<&str, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !name.is_empty() && name.chars().all(legal) {
        true => Ok(name),
        false => Err(format!("`{name}` is not a legal name of a node or pool")),
    }
}

#[cfg(test)]
mod tests;
