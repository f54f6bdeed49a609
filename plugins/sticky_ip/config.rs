//! Defines the block `sticky_ip:`, its faults and its defaults.

use std::time::Duration;

use serde::Deserialize;

use super::StickyIp;
use crate::api::Plugin;
use crate::bounds::Whole;
use crate::context::{self, Build, PluginError};
use crate::memory::source::OWNED_PREFIX;
use crate::memory::{Capacity, Keys, Mode};
use crate::trust::Trust;
use crate::units::{MaybeSpan, Share};
use crate::written::TableKeys;

/// Default `max_age`, a working day as for the cookie.
const MAX_AGE: MaybeSpan = MaybeSpan(Some(Duration::from_secs(8 * 3_600)));

/// Default prefix: what one client owns. It takes a new address within it every day (RFC 8981), and could
/// otherwise fill the table from 2^64 addresses.
const IPV6_PREFIX: u8 = OWNED_PREFIX;

/// Block `sticky_ip:`.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether assignments are remembered (`table`, default) or computed (`hash`).
    #[serde(default)]
    pub mode: Mode,
    /// Longest life of an assignment, counted from when it was learned; from 1 s, or `none`;
    /// default 8h. Only with `table`.
    #[serde(default)]
    pub max_age: Option<MaybeSpan>,
    /// Largest part of `max_age` by which an assignment may live shorter; default 10%. Only with `table`.
    #[serde(default)]
    pub jitter: Option<Share>,
    /// Longest time that a client may be away (no live flow); from 1 s, or `none`; default 1h. Only with
    /// `table`.
    #[serde(default)]
    pub expiry: Option<MaybeSpan>,
    /// Most entries, 130 to 200 bytes each; 1 to 100,000,000; default 1,000,000. A full table evicts the entry
    /// that has been idle longest, or of an IPv6 /64 with several entries its oldest, never one with a live
    /// flow. Only with `table`.
    #[serde(default, deserialize_with = "Capacity::read")]
    pub capacity: Option<usize>,
    /// Whether a flow is cut when its assignment reaches `max_age`; default off. Only with `table`.
    #[serde(default)]
    pub cut_at_max_age: bool,
    /// Name of the table; listeners with the same name share it. Default: the listener's name. Only with
    /// `table`.
    #[serde(default)]
    pub table: Option<String>,
    /// Leading bits of an IPv6 address that count, 1 to 128; default 64.
    #[serde(default, deserialize_with = "Whole::<1, 128>::read")]
    pub ipv6_prefix: Option<u8>,
    /// Source of the client's address; default `client`.
    #[serde(default)]
    pub from: From,
    /// Senders whose X-Forwarded-For is trusted; required with `from: x_forwarded_for`.
    #[serde(default)]
    pub trust: Trust,
}

/// Source of the client's address.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// The connection's source, or that of the PROXY protocol if the listener accepts it.
    #[default]
    Client,
    /// X-Forwarded-For, if a trusted sender wrote it.
    XForwardedFor,
}

impl Config {
    /// Puts the default in place of each key that is not given.
    pub(crate) fn fill(&mut self) {
        self.ipv6_prefix.get_or_insert(IPV6_PREFIX);
        let keys = TableKeys {
            max_age: &mut self.max_age,
            jitter: &mut self.jitter,
            expiry: &mut self.expiry,
            capacity: &mut self.capacity,
        };
        if self.mode == Mode::Table {
            keys.fill(MAX_AGE);
        }
    }

    /// Builds the plugin. Errors: values out of bounds, keys of the table with `hash`, X-Forwarded-For at
    /// layer 4 or without a trusted sender.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let faults = self.faults(on);
        if !faults.is_empty() {
            return Err(faults);
        }
        let trust = (self.from == From::XForwardedFor).then(|| self.trust.clone());
        let plugin = Plugin::sticky(StickyIp {
            trust: trust.clone(),
            ipv6_prefix: self.ipv6_prefix.unwrap_or(IPV6_PREFIX),
            memory: self.keys().memory(on, MAX_AGE),
        });
        Ok(plugin.trusting(trust.unwrap_or_default()))
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            word: super::NAME,
            mode: self.mode,
            max_age: self.max_age,
            jitter: self.jitter,
            expiry: self.expiry,
            capacity: self.capacity,
            cut_at_max_age: self.cut_at_max_age,
            table: self.table.as_deref(),
        }
    }

    fn faults(&self, on: &Build<'_>) -> Vec<PluginError> {
        let mut faults = self.keys().faults();
        let mut check = |right: bool, key: &str, why: &str| {
            if !right {
                faults.push(PluginError::new([key], why));
            }
        };
        let forwarded = self.from == From::XForwardedFor;
        let why = "X-Forwarded-For needs mode http; at layer 4 use the listener's `accept_proxy`";
        check(!forwarded || on.mode == context::Mode::Http, "from", why);
        let why = "`from: x_forwarded_for` requires `trust`: any client can write the header";
        check(!forwarded || !self.trust.is_empty(), "trust", why);
        let why = "`trust` needs `from: x_forwarded_for`";
        check(forwarded || self.trust.is_empty(), "trust", why);
        faults
    }
}

#[cfg(test)]
mod tests {
    use crate::context::Mode;
    use crate::testing::{documented, faults, table_defaults_are_documented, undecodable};

    #[test]
    fn documented_defaults_are_those_in_force() {
        table_defaults_are_documented("sticky_ip", super::MAX_AGE);
        assert_eq!(
            documented("sticky_ip", "ipv6_prefix"),
            super::IPV6_PREFIX.to_string()
        );
    }

    #[test]
    fn faults_are_found_in_one_run() {
        for (block, want) in [
            ("max_age: 0s", "max_age: expected"),
            ("expiry: 10ms", "expiry: expected"),
            (
                "mode: hash, jitter: 5%",
                "jitter: `mode: hash` remembers nothing",
            ),
            ("capacity: 0", "capacity: expected"),
            ("capacity: 100000001", "capacity: expected"),
            ("ipv6_prefix: 0", "ipv6_prefix: expected"),
            ("ipv6_prefix: 129", "ipv6_prefix: expected"),
            (
                "mode: hash, expiry: 1h",
                "expiry: `mode: hash` remembers nothing",
            ),
            (
                "from: x_forwarded_for",
                "trust: `from: x_forwarded_for` requires",
            ),
            ("trust: [10.0.0.1]", "trust: `trust` needs `from"),
        ] {
            let found = faults(&format!("sticky_ip: {{ {block} }}"), Mode::Http);
            assert!(
                found.len() == 1 && found[0].starts_with(want),
                "{block}: {found:?}"
            );
        }
        let tcp = faults(
            "sticky_ip: { from: x_forwarded_for, trust: [10.0.0.0/8] }",
            Mode::Tcp,
        );
        assert!(
            tcp.len() == 1 && tcp[0].starts_with("from: X-Forwarded-For needs"),
            "{tcp:?}"
        );
        assert!(undecodable("sticky_ip: { trust: [10.0.0.0/40] }"));
        assert!(undecodable("sticky_ip: { ip: x }"));
    }
}
