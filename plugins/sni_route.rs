//! Routes by the server name of the TLS handshake, read without ending TLS.
//!
//! In: the SNI. Out: a pool, a node or a refusal, by the same rules as `host_route`. On a listener that ends
//! TLS it also uses the handshake's name, whatever host the requests name.
//! Source: Lightstreamer clustering §3.2.1.1 (several names on one balancer); RFC 6066 §3.

use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::context::{Build, Mode, PluginError};
use crate::host_route::{self, HostRoute, Unknown};
use crate::units::Pairs;

/// Block `sni_route:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Server name (`push1.mycompany.com`, `*.mycompany.com`) to pool or node.
    pub names: Pairs,
    /// What to do with a flow that sent no server name, or one that is not listed; default `pass`.
    #[serde(default)]
    pub unknown: Unknown,
}

struct SniRoute(HostRoute);

impl Config {
    /// Builds the plugin. Errors: those of `host_route`; a plain HTTP listener, which sees no server name.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        if on.mode == Mode::Http && !on.tls {
            let why = "a plain listener sees no server name; use `host_route`";
            return Err(vec![PluginError::new::<String>([], why)]);
        }
        let by_name = host_route::Config {
            hosts: self.names.clone(),
            unknown: self.unknown.clone(),
        };
        let renamed = |mut fault: PluginError| {
            if fault.path.first().is_some_and(|p| p == "hosts") {
                fault.path[0] = "names".to_owned();
            }
            fault
        };
        match by_name.router(on) {
            Ok(inner) => Ok(Plugin::router(SniRoute(inner))),
            Err(faults) => Err(faults.into_iter().map(renamed).collect()),
        }
    }
}

impl Router for SniRoute {
    fn wants_sni(&self) -> bool {
        true
    }

    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        self.0.route(&by_name(flow))
    }

    fn rule(&self, flow: &Flow<'_>) -> Vec<String> {
        let mut path = self.0.rule(&by_name(flow));
        if path.len() > 1 {
            path[0] = "names".to_owned();
        }
        path
    }
}

/// Returns the flow with the server name as its host.
fn by_name<'a>(flow: &Flow<'a>) -> Flow<'a> {
    let host = flow.tls.and_then(|t| t.sni).unwrap_or_default();
    Flow { host, ..*flow }
}
