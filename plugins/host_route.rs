//! Routes by the requested host name: exact name first, then the longest wildcard.
//!
//! In: the flow's host (`:authority`, `Host`; at layer 4 the SNI). Out: a pool, a node or a refusal. The edge
//! routes each request by its own name, never a connection by its first request: browsers send `push1` over
//! the HTTP/2 connection of `push` if one certificate covers both.
//! Source: Lightstreamer clustering §2.2.1 (Option 1.B.1), §3.2.2.3, §6.

use std::collections::HashMap;

use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::bounds::Refusal;
use crate::context::{Build, PluginError};
use crate::host::{normalise, to_ascii};
use crate::units::Pairs;

/// Block `host_route:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Host name (`push1.mycompany.com`, `*.mycompany.com`) to pool or node.
    pub hosts: Pairs,
    /// What to do with a flow whose name is not listed; default [`Unknown::Pass`].
    #[serde(default)]
    pub unknown: Unknown,
}

/// What to do with a flow whose name is not listed.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unknown {
    /// The next plugin decides; after the last one the listener's `to:` does.
    #[default]
    Pass,
    /// The edge answers with this status, 400 to 599 (421: this name is not served here), or closes at layer
    /// 4.
    Refuse(Refusal),
    /// The flow goes to this pool or node.
    To(String),
}

pub(crate) struct HostRoute {
    exact: HashMap<String, Entry>,
    /// Keyed by the part after the star: `.mycompany.com`.
    wildcard: HashMap<String, Entry>,
    unknown: Option<Route>,
}

/// A name as written in the file, and its route.
struct Entry {
    name: String,
    route: Route,
}

impl Config {
    /// Builds the plugin. Errors: an unknown target, an illegal name, two entries for one name, a status
    /// outside 400 to 599.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        self.router(on).map(Plugin::router)
    }

    /// Builds the router alone. Errors as for [`Config::build`].
    pub(crate) fn router(&self, on: &Build<'_>) -> Result<HostRoute, Vec<PluginError>> {
        let mut faults = Vec::new();
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        if self.hosts.0.is_empty() {
            faults.push(PluginError::expected(["hosts"], "at least one host name"));
        }
        for (name, target) in &self.hosts.0 {
            let ascii = to_ascii(name);
            if let Err(why) = check_name(&ascii) {
                faults.push(PluginError::key(["hosts", name], why));
            }
            let route = match on.target_at(target, ["hosts", name]) {
                Ok(t) => Route::To(t),
                Err(f) => {
                    faults.push(f);
                    continue;
                }
            };
            let key = normalise(&ascii).into_owned();
            let entry = Entry {
                name: name.clone(),
                route,
            };
            let twin = match key.strip_prefix('*') {
                Some(suffix) => wildcard.insert(suffix.to_owned(), entry),
                None => exact.insert(key, entry),
            };
            if twin.is_some() {
                let why =
                    "the same host name is listed twice (case, port and last dot do not count)";
                faults.push(PluginError::new(["hosts", name], why));
            }
        }
        let unknown = self.unknown.route(on).unwrap_or_else(|f| {
            faults.push(f);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(HostRoute {
            exact,
            wildcard,
            unknown,
        })
    }
}

impl Unknown {
    pub(crate) fn route(&self, on: &Build<'_>) -> Result<Option<Route>, PluginError> {
        match self {
            Unknown::Pass => Ok(None),
            Unknown::To(t) => on
                .target_at(t, ["unknown", "to"])
                .map(|t| Some(Route::To(t))),
            Unknown::Refuse(status) => Ok(Some(Route::Refuse(status.0))),
        }
    }
}

/// Checks a name of the file. A port is refused: the entry would apply to every port, which would mislead;
/// `vip_route` routes by port.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name == "*" {
        return Err("a name; all other names are `unknown: { to: … }`");
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if plain.starts_with('[') {
        let inner = plain.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
        return match inner.map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(_)) if plain == name => Ok(()),
            _ => Err("an IPv6 address in brackets without port"),
        };
    }
    let plain = plain.strip_suffix('.').unwrap_or(plain);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if plain.len() <= 253 && plain.split('.').all(label) {
        return Ok(());
    }
    Err("a host name without port, or one that begins with `*.`")
}

impl Router for HostRoute {
    fn wants_sni(&self) -> bool {
        true
    }

    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        let found = self.find(&normalise(flow.host)).map(|e| &e.route);
        found.or(self.unknown.as_ref()).cloned()
    }

    fn rule(&self, flow: &Flow<'_>) -> Vec<String> {
        match self.find(&normalise(flow.host)) {
            Some(entry) => vec!["hosts".to_owned(), entry.name.clone()],
            None => vec!["unknown".to_owned()],
        }
    }

    fn routes_host(&self, host: &str) -> bool {
        self.find(host).is_some()
    }
}

impl HostRoute {
    fn find(&self, host: &str) -> Option<&Entry> {
        if let Some(entry) = self.exact.get(host) {
            return Some(entry);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        // The search runs from the left, so the first hit is the longest suffix. It skips a leading dot: the
        // star needs a label.
        let mut dots = host.match_indices('.').filter(|(i, _)| *i > 0);
        dots.find_map(|(i, _)| self.wildcard.get(&host[i..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{NodeId, PoolId, Target};
    use crate::context::Mode;
    use crate::testing::{Facts, build, faults, undecodable};

    fn routed(yaml: &str, host: &'static str) -> Option<Route> {
        let facts = Facts {
            host,
            ..Facts::default()
        };
        build(yaml).route(&facts.flow(None))
    }

    /// Lightstreamer clustering §2.2.1: `push` balances, `push1` and `push2` go to their server.
    #[test]
    fn exact_then_longest_wildcard_then_unknown() {
        let yaml = "host_route: { hosts: { push.mycompany.com: push, Push1.mycompany.com.: ls1, \
                    '*.mycompany.com': ls2, '*.eu.mycompany.com': ls3, '[2001:db8::1]': ls4 } }";
        let node = |n| Some(Route::To(Target::Node(NodeId::of(n))));
        for (host, want) in [
            ("", None),
            (".", None),
            ("mycompany.com", None),
            (".mycompany.com", None),
            ("xmycompany.com", None),
            ("push.mycompany.com.evil", None),
            (
                "push.mycompany.com",
                Some(Route::To(Target::Pool(PoolId::of("push")))),
            ),
            ("push1.mycompany.com", node("ls1")),
            ("PUSH1.mycompany.com.:8443", node("ls1")),
            ("other.mycompany.com", node("ls2")),
            ("a.b.mycompany.com", node("ls2")),
            ("a.eu.mycompany.com", node("ls3")),
            ("a.b.eu.mycompany.com", node("ls3")),
            ("eu.mycompany.com", node("ls2")),
            ("[2001:db8::1]:80", node("ls4")),
        ] {
            assert_eq!(routed(yaml, host), want, "{host:?}");
        }
    }

    /// IDN: the file may have either form, clients send `xn--…`.
    #[test]
    fn names_beyond_ascii_are_found() {
        let yaml = "host_route: { hosts: { bücher.example: ls1, '*.größe.example': ls2 } }";
        let node = |n| Some(Route::To(Target::Node(NodeId::of(n))));
        assert_eq!(routed(yaml, "xn--bcher-kva.example"), node("ls1"));
        assert_eq!(routed(yaml, "a.xn--gre-6ka8i.example"), node("ls2"));
        let twice = "host_route: { hosts: { bücher.example: ls1, XN--BCHER-KVA.example: ls2 } }";
        assert!(faults(twice, Mode::Http)[0].contains("listed twice"));
    }

    #[test]
    fn unknown_hosts_may_be_refused_or_sent_elsewhere() {
        let with = |u| format!("host_route: {{ hosts: {{ a.com: ls1 }}, unknown: {u} }}");
        assert_eq!(routed(&with("pass"), "b.com"), None);
        let refused = Some(Route::Refuse(http::StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(routed(&with("{ refuse: 421 }"), "b.com"), refused);
        let sent = Some(Route::To(Target::Node(NodeId::of("ls2"))));
        assert_eq!(routed(&with("{ to: ls2 }"), "b.com"), sent);
    }

    #[test]
    fn every_fault_is_found_in_one_run() {
        let yaml = "host_route: { hosts: { a.com: nowhere, A.com.: ls1, a.COM: ls1, '*': ls1, \
                    'b.com:80': ls1, 'a*b.com': ls1, '[::1': ls1 }, unknown: { to: nobody } }";
        let found = faults(yaml, Mode::Tcp);
        for (i, want) in [
            "hosts.a.com: unknown pool or node `nowhere`",
            "hosts.a.COM: the same host name",
            "hosts.*: expected a name",
            "hosts.b.com:80: expected a host name",
            "hosts.a*b.com: expected a host name",
            "hosts.[::1: expected an IPv6",
            "unknown.to: unknown pool or node `nobody`",
        ]
        .iter()
        .enumerate()
        {
            assert!(found[i].starts_with(want), "{want} in {found:?}");
        }
        assert_eq!(faults("host_route: { hosts: {} }", Mode::Http).len(), 1);
        for status in ["200", "399", "600"] {
            let yaml = format!(
                "host_route: {{ hosts: {{ a.com: ls1 }}, unknown: {{ refuse: {status} }} }}"
            );
            assert!(undecodable(&yaml), "{status}");
        }
        assert!(undecodable("host_route: { host: {} }"));
    }
}
