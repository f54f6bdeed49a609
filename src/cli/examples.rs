//! Examples at the end of `--help`, and of the man pages.

use std::sync::LazyLock;

use crate::init::list;

/// Of the program.
pub const ALL: &str = "\
Examples:
  pushgate quick --node 10.0.0.1:8080 --node 10.0.0.2:8080 --cookie
                                    an edge at once, without a file
  pushgate init 2.B.1.1 > edge.yaml  the file of a deployment option
  pushgate check edge.yaml          every error and warning of a file
  pushgate -T -c edge.yaml          the same, and the file with every default
  pushgate run -c edge.yaml         run it
  pushgate drain ls1 -c edge.yaml   an order to the edge that runs from this file";

/// Of `run`.
pub const RUN: &str = "\
Examples:
  pushgate run                      from /etc/pushgate/pushgate.yaml
  pushgate run -c edge.yaml
  pushgate run -u -c edge.yaml      takes over from the process that runs from this file";

/// Of `check`.
pub const CHECK: &str = "\
Examples:
  pushgate check edge.yaml
  pushgate check --strict edge.yaml  exits 1 if there is a warning, for CI
  pushgate check --json edge.yaml   for programs
  pushgate check -T edge.yaml > all.yaml
                                    the file with every default";

/// Of `quick`.
pub const QUICK: &str = "\
Examples:
  pushgate quick --node 10.0.0.1:8080
  pushgate quick --node a.internal:80 --node b.internal:80 --cookie --tls edge.pem,edge.key
  pushgate quick --node 10.0.0.1:8080 --print > edge.yaml";

/// Of `explain`.
pub const EXPLAIN: &str = "\
Examples:
  pushgate explain edge.yaml --to https://push.mycompany.com/
  pushgate explain edge.yaml --to tcp://200.0.0.10:80 --from 192.0.2.7";

/// Of `simulate`.
pub const SIMULATE: &str = "\
Examples:
  pushgate simulate edge.yaml --clients 100k --fail ls2@60s --return ls2@10m
  pushgate simulate edge.yaml --drain ls3@0s --rebalance push@3m:to-even,rate=200/s,close";

/// Of `keys`.
pub const KEYS: &str = "\
Examples:
  pushgate keys make cookie /etc/pushgate/cookie.keys
  pushgate keys rotate /etc/pushgate/cookie.keys --keep 30d
  pushgate keys show /etc/pushgate/tickets.keys";

/// Of the orders to a running edge.
pub const ORDERS: &str = "\
Examples:
  pushgate drain ls1 -c edge.yaml --deadline 10m --rate 50/s
  pushgate up ls1 -c edge.yaml
  pushgate top --admin http://10.0.0.9:9900 --token-file admin.token

Without --admin and -c, the command asks the endpoint that /etc/pushgate/pushgate.yaml names, or
http://127.0.0.1:9900 if that file cannot be read.";

/// Of `init`, with the list of its options.
pub fn init() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let examples = "\
Examples:
  pushgate init 1.A.2 --vip 192.0.2.10 --node ls1.internal --node ls2.internal
  pushgate init 2.B.1.1 --domain example.org > edge.yaml";
        let options: String = list().lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "{examples}\n\nOptions of the guides:\n{}",
            options.trim_end()
        )
    });
    &TEXT
}
