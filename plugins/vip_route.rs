//! Routes by the destination address that the client reached, for one port or for every port.
//!
//! In: the VIP. Out: a pool or a node. Also works at layer 4: a TLS stream that passes through has a
//! destination even if its server name cannot be read.
//! Source: Lightstreamer clustering §3.2.1.1 (Option 2.B.1.1), §3.2.2.1, §3.2.2.3.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::context::{Build, PluginError};
use crate::units::Pairs;

/// Block `vip_route:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Destination (`200.0.0.1`, `200.0.0.1:443`, `[2001:db8::1]:443`) to pool or node. An entry with a port
    /// wins over one without. The next plugin decides on a destination that is not listed.
    pub vips: Pairs,
}

struct VipRoute {
    exact: HashMap<SocketAddr, Entry>,
    any_port: HashMap<IpAddr, Entry>,
}

/// An address as written in the file, and its route.
struct Entry {
    vip: String,
    route: Route,
}

impl Config {
    /// Builds the plugin. Errors: an unknown target, an illegal address, two entries for one address.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        let (mut exact, mut any_port) = (HashMap::new(), HashMap::new());
        if self.vips.0.is_empty() {
            let expected = "at least one destination address";
            faults.push(PluginError::expected(["vips"], expected));
        }
        for (vip, target) in &self.vips.0 {
            let entry = match on.target_at(target, ["vips", vip]) {
                Ok(t) => Entry {
                    vip: vip.clone(),
                    route: Route::To(t),
                },
                Err(f) => {
                    faults.push(f);
                    continue;
                }
            };
            let twin = if let Ok(a) = vip.parse::<SocketAddr>() {
                exact.insert(canonical(a), entry)
            } else if let Ok(ip) = vip.parse::<IpAddr>() {
                any_port.insert(ip.to_canonical(), entry)
            } else {
                let expected = "an address, such as `200.0.0.1` or `200.0.0.1:443`";
                faults.push(PluginError::key(["vips", vip], expected));
                None
            };
            if twin.is_some() {
                faults.push(PluginError::new(
                    ["vips", vip],
                    "the same address is listed twice",
                ));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::router(VipRoute { exact, any_port }))
    }
}

/// Returns `a` with a mapped address as IPv4: a socket on `[::]` sees IPv4 destinations as mapped ones.
fn canonical(a: SocketAddr) -> SocketAddr {
    SocketAddr::new(a.ip().to_canonical(), a.port())
}

impl Router for VipRoute {
    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        self.find(flow).map(|e| e.route.clone())
    }

    fn rule(&self, flow: &Flow<'_>) -> Vec<String> {
        let entry = self.find(flow);
        entry.map_or_else(Vec::new, |e| vec!["vips".to_owned(), e.vip.clone()])
    }
}

impl VipRoute {
    fn find(&self, flow: &Flow<'_>) -> Option<&Entry> {
        let vip = canonical(flow.vip);
        let by_address = || self.any_port.get(&vip.ip());
        self.exact.get(&vip).or_else(by_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{NodeId, PoolId, Target};
    use crate::context::{Keep, Mode};
    use crate::testing::{Facts, built, faults, undecodable};

    /// Lightstreamer clustering §3.2.1.1: 200.0.0.10 balances, 200.0.0.1 and .2 go to their server.
    #[test]
    fn port_then_address_then_nothing() {
        let yaml = "vip_route: { vips: { 200.0.0.10: push, 200.0.0.1: ls1, '200.0.0.1:444': ls2, \
                    '[2001:db8::1]:443': ls3, '2001:db8::2': ls4 } }";
        let dir = std::path::Path::new(".");
        let p = built(yaml, Mode::Tcp, &Keep::default(), dir);
        let node = |n| Some(Route::To(Target::Node(NodeId::of(n))));
        for (vip, want) in [
            ("200.0.0.3:443", None),
            ("[2001:db8::1]:80", None),
            (
                "200.0.0.10:443",
                Some(Route::To(Target::Pool(PoolId::of("push")))),
            ),
            ("200.0.0.1:443", node("ls1")),
            ("200.0.0.1:444", node("ls2")),
            ("[::ffff:200.0.0.1]:444", node("ls2")),
            ("[2001:db8::1]:443", node("ls3")),
            ("[2001:db8::2]:9", node("ls4")),
        ] {
            let facts = Facts {
                vip: vip.parse().expect("vip"),
                ..Facts::default()
            };
            assert_eq!(p.route(&facts.flow(None)), want, "{vip}");
        }
    }

    #[test]
    fn faults_name_the_address() {
        let yaml = "vip_route: { vips: { push.mycompany.com: ls1, 200.0.0.1: ls9, 200.0.0.2: ls1, \
                    '::ffff:200.0.0.2': ls2, 200.0.0.256: ls1 } }";
        let found = faults(yaml, Mode::Http);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("vips.push.mycompany.com: expected an address"));
        assert!(found[1].starts_with("vips.200.0.0.1: unknown pool or node `ls9`"));
        assert!(found[2].ends_with("listed twice"));
        assert_eq!(faults("vip_route: { vips: {} }", Mode::Tcp).len(), 1);
        assert!(undecodable("vip_route: {}"));
    }
}
