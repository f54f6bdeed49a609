//! Allows or refuses clients by their address.
//!
//! In: the client's address. Out: a refusal, or nothing, which leaves the flow to the next plugin. Put it
//! first in the list, because the first plugin that routes wins. Also works at layer 4.
//! Source: FAULTS D41 (only a trusted sender may name the client).

use std::net::IpAddr;

use http::StatusCode;
use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::bounds::Refusal;
use crate::context::{Build, Mode, PluginError};
use crate::trust::Trust;

/// Block `access:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Networks that are allowed; if empty, all networks that `deny` does not list.
    #[serde(default)]
    pub allow: Trust,
    /// Networks that are refused, even if `allow` lists them.
    #[serde(default)]
    pub deny: Trust,
    /// Status of the refusal, 400 to 599; default 403. At layer 4 the connection is closed.
    #[serde(default = "forbidden")]
    pub status: Refusal,
    /// Senders whose `X-Forwarded-For` is trusted; default none: the flow's own client counts.
    #[serde(default)]
    pub trust: Trust,
}

fn forbidden() -> Refusal {
    Refusal(StatusCode::FORBIDDEN)
}

struct Access {
    allow: Trust,
    deny: Trust,
    status: StatusCode,
    trust: Trust,
}

impl Config {
    /// Builds the plugin. Errors: neither list given, `trust` at layer 4.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        if self.allow.is_empty() && self.deny.is_empty() {
            faults.push(PluginError {
                expected: Some("networks under `allow` or `deny`".to_owned()),
                ..PluginError::new(None::<String>, "nobody is admitted or refused")
            });
        }
        if on.mode == Mode::Tcp && !self.trust.is_empty() {
            let why =
                "X-Forwarded-For needs mode http; at layer 4 use the listener's `accept_proxy`";
            faults.push(PluginError::new(["trust"], why));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::router(Access {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            status: self.status.0,
            trust: self.trust.clone(),
        })
        .trusting(self.trust.clone()))
    }
}

impl Access {
    /// Returns the name of the list that refuses `client`.
    fn refuses(&self, client: IpAddr) -> Option<&'static str> {
        if self.deny.contains(client) {
            return Some("deny");
        }
        (!self.allow.is_empty() && !self.allow.contains(client)).then_some("allow")
    }
}

impl Router for Access {
    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        self.refuses(self.trust.client(flow))
            .map(|_| Route::Refuse(self.status))
    }

    fn rule(&self, flow: &Flow<'_>) -> Vec<String> {
        let list = self.refuses(self.trust.client(flow));
        list.map(str::to_owned).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Facts, build, faults, head_with, undecodable};
    use crate::trust::X_FORWARDED_FOR;

    #[test]
    fn deny_goes_before_allow() {
        let both = "{ allow: [10.0.0.0/8, '2001:db8::/32'], deny: [10.9.0.0/16] }";
        let deny = "{ deny: [192.0.2.7], status: 451 }";
        for (block, client, want) in [
            (both, "10.1.2.3:1", None),
            (both, "10.9.2.3:1", Some(403)),
            (both, "192.0.2.1:1", Some(403)),
            (both, "[2001:db8::1]:1", None),
            (both, "[::ffff:10.1.2.3]:1", None),
            (deny, "192.0.2.7:1", Some(451)),
            (deny, "192.0.2.8:1", None),
        ] {
            let plugin = build(&format!("access: {block}"));
            let facts = Facts::default().client(client);
            let want = want.map(|s| Route::Refuse(StatusCode::from_u16(s).expect("status")));
            assert_eq!(plugin.route(&facts.flow(None)), want, "{block} {client}");
        }
    }

    /// FAULTS D41: only a trusted sender may name the client.
    #[test]
    fn only_a_trusted_sender_names_the_client() {
        let plugin = build("access: { deny: [192.0.2.7], trust: [10.0.0.0/8] }");
        let request = head_with("GET", "/", &[(X_FORWARDED_FOR, "192.0.2.7")]);
        for (sender, refused) in [("10.0.0.1:1", true), ("203.0.113.1:1", false)] {
            let facts = Facts::default().client(sender);
            let got = plugin.route(&facts.flow(Some(&request)));
            assert_eq!(got.is_some(), refused, "{sender}");
        }
    }

    #[test]
    fn faults_are_found_in_one_run() {
        for (block, mode, want) in [
            ("{}", Mode::Http, ": expected networks under `allow`"),
            (
                "{ deny: [10.0.0.1], status: 200 }",
                Mode::Http,
                "status: expected",
            ),
            (
                "{ deny: [10.0.0.1], trust: [10.0.0.2] }",
                Mode::Tcp,
                "trust: X-Forwarded-For",
            ),
        ] {
            let found = faults(&format!("access: {block}"), mode);
            assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}");
        }
        assert!(undecodable("access: { allow: [10.0.0.0/40] }"));
    }
}
