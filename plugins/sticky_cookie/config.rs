//! Defines the block `sticky_cookie:`, its faults and its defaults.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::token::Ring;
use super::{StickyCookie, keys};
use crate::api::Plugin;
use crate::bounds::Whole;
use crate::context::{Build, Mode, PluginError};
use crate::forget_rules::ForgetRules;
use crate::lifetime::{JITTER, Lifetime};
use crate::units::{MaybeSpan, Share};

/// Default `max_age`, a working day: a session seldom lasts longer, and an imbalance is gone the next
/// morning. Each expiry interrupts a session whose client connects anew (Lightstreamer clustering §4).
const MAX_AGE: MaybeSpan = MaybeSpan(Some(Duration::from_secs(8 * 3_600)));

/// Shortest life that a cookie may have, `jitter` taken off. A mobile client needs three round trips of 150 ms to
/// bring it back on a new TLS connection.
const SHORTEST_LIFE: Duration = Duration::from_millis(500);

/// Default `max_flows`: as many as the streams of one HTTP/2 connection. A browser has one connection over HTTP/2,
/// six over HTTP/1.1. Whoever replays one cookie from many connections is no browser.
const MAX_FLOWS: NonZeroUsize = NonZeroUsize::new(100).expect("a constant above zero");

/// Block `sticky_cookie:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cookie's name (RFC 9110 token); default `PUSHGATE`.
    #[serde(default = "name")]
    pub name: String,
    /// Longest life of an assignment, counted from when the node was chosen and never renewed; from 1 s, or `none`;
    /// default 8h.
    #[serde(default = "max_age")]
    pub max_age: MaybeSpan,
    /// Largest part of `max_age` by which a token lives shorter; default 10%. A token lives between `max_age` × (1
    /// − jitter) and `max_age`.
    #[serde(default = "jitter")]
    pub jitter: Share,
    /// Whether a flow that is open when its assignment reaches `max_age` is cut; default off: the flow goes on, and
    /// the client's next flow is balanced anew.
    #[serde(default)]
    pub cut_at_max_age: bool,
    /// Most live flows that one cookie brings to its node, 1 to 1,000,000; default 100. A request beyond them is
    /// answered with 429: no other node has the client's session.
    #[serde(
        default = "max_flows",
        deserialize_with = "Whole::<1, 1_000_000>::read"
    )]
    pub max_flows: NonZeroUsize,
    /// `Secure`: sent only over TLS; default off, because the Lightstreamer Node client never returns such a
    /// cookie.
    #[serde(default)]
    pub secure: bool,
    /// `SameSite`; default absent (browsers then assume `Lax`).
    #[serde(default)]
    pub same_site: Option<SameSite>,
    /// `Partitioned`: for use in pages of other sites; requires `secure`; default off.
    #[serde(default)]
    pub partitioned: bool,
    /// `Domain`; default absent: only the host that set it.
    #[serde(default)]
    pub domain: Option<String>,
    /// `Path`; default `/`.
    #[serde(default = "path")]
    pub path: String,
    /// `HttpOnly`: hides the cookie from scripts; default on.
    #[serde(default = "yes")]
    pub http_only: bool,
    /// File with the key ring: one key a line, hexadecimal or base64; the first signs, all verify. Default: a
    /// random key, which reloads keep and a successor takes over. A restart ends it, and other edges do not know
    /// it.
    #[serde(default)]
    pub key_file: Option<String>,
}

/// When browsers send the cookie on requests from pages of other sites.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Never.
    Strict,
    /// On top-level navigation.
    Lax,
    /// Always; requires `secure`.
    None,
}

fn name() -> String {
    "PUSHGATE".to_owned()
}

fn max_age() -> MaybeSpan {
    MAX_AGE
}

fn max_flows() -> NonZeroUsize {
    MAX_FLOWS
}

fn jitter() -> Share {
    JITTER
}

fn path() -> String {
    "/".to_owned()
}

fn yes() -> bool {
    true
}

impl Config {
    /// Builds the plugin and reads the key file. Errors: mode tcp, values that no cookie can have, attributes
    /// that contradict each other, a key file that is missing or wrong.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = self.faults(on);
        let own = self.key_file.is_none().then(|| random_key(on));
        let secrets = match (&self.key_file, &own) {
            (Some(file), _) => file_keys(&on.dir.join(file)),
            (None, own) => Ok(own.iter().map(|key| key.0.clone()).collect()),
        };
        let secrets = secrets.unwrap_or_else(|why| {
            faults.push(PluginError::new(["key_file"], why));
            Vec::new()
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        let plugin = Arc::new(StickyCookie {
            name: self.name.as_bytes().into(),
            attributes: self.attributes().into_bytes().into(),
            lifetime: Lifetime {
                max_age: self.max_age.0,
                jitter: self.jitter,
            },
            cut_at_max_age: self.cut_at_max_age,
            max_flows: self.max_flows,
            ring: Ring::new(&secrets, on.pools),
            forget_rules: on.keep.get_or("sticky_cookie epochs", ForgetRules::default),
            _own_key: own,
        });
        Ok(Plugin {
            sticky: Some(plugin.clone()),
            editor: Some(plugin),
            ..Plugin::default()
        })
    }

    fn faults(&self, on: &Build<'_>) -> Vec<PluginError> {
        let mut faults = Vec::new();
        if on.mode != Mode::Http {
            let why = "a cookie needs mode http; at layer 4 use sticky_ip";
            faults.push(PluginError::new(None::<String>, why));
        }
        faults.extend(self.illegal());
        let mut check = |right: bool, key: &str, why: &str| {
            if !right {
                faults.push(PluginError::new([key], why));
            }
        };
        let why = "`cut_at_max_age` needs a finite `max_age`";
        check(
            !self.cut_at_max_age || self.max_age.0.is_some(),
            "cut_at_max_age",
            why,
        );
        let jitter = self.jitter.0;
        let shortest = self.max_age.0.map(|age| age.mul_f64(1.0 - jitter));
        if shortest.is_some_and(|life| life < SHORTEST_LIFE) {
            let why = format!(
                "with `jitter: {}%` a cookie may live less than 500ms, and its client brings it back too late",
                (jitter * 100.0).round()
            );
            faults.push(PluginError::new(["max_age"], why));
        }
        let mut check = |right: bool, key: &str, why: &str| {
            if !right {
                faults.push(PluginError::new([key], why));
            }
        };
        let why = "`same_site: none` requires `secure: true`: browsers drop the cookie otherwise";
        check(
            self.same_site != Some(SameSite::None) || self.secure,
            "same_site",
            why,
        );
        let why = "`partitioned` requires `secure: true`: browsers drop the cookie otherwise";
        check(!self.partitioned || self.secure, "partitioned", why);
        // Browsers compare the prefixes without case (RFC 6265bis §4.1.3).
        let lower = self.name.to_ascii_lowercase();
        let why = "a name that begins with `__Secure-` requires `secure: true`";
        check(!lower.starts_with("__secure-") || self.secure, "name", why);
        let host = self.secure && self.domain.is_none() && self.path == "/";
        let why =
            "a name that begins with `__Host-` requires `secure: true`, `path: /` and no domain";
        check(!lower.starts_with("__host-") || host, "name", why);
        faults
    }

    /// Returns the faults of values that no cookie can have.
    fn illegal(&self) -> Vec<PluginError> {
        let token = !self.name.is_empty() && self.name.bytes().all(is_token);
        let path = self.path.starts_with('/') && self.path.bytes().all(is_attribute);
        let domain = self.domain.as_deref().is_none_or(is_domain);
        [
            (token, "name", "letters, digits and !#$%&'*+-.^_`|~"),
            (path, "path", "a path that begins with `/`, without `;`"),
            (domain, "domain", "a domain name, such as `mycompany.com`"),
        ]
        .into_iter()
        .filter(|(legal, ..)| !legal)
        .map(|(_, key, expected)| PluginError::expected([key], expected))
        .collect()
    }

    /// Returns the cookie's attributes. `Max-Age` and `Expires` are left out: the guide asks for a session cookie
    /// (§2.1.2), the edge decides by the signed date, and nothing stays on the client's disk.
    fn attributes(&self) -> String {
        let mut s = format!("; Path={}", self.path);
        if let Some(d) = &self.domain {
            s.push_str("; Domain=");
            s.push_str(d);
        }
        let same_site = self.same_site.map(|v| match v {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        s.push_str(if self.http_only { "; HttpOnly" } else { "" });
        s.push_str(if self.secure { "; Secure" } else { "" });
        s.push_str(same_site.unwrap_or(""));
        s.push_str(if self.partitioned {
            "; Partitioned"
        } else {
            ""
        });
        s
    }
}

/// Returns the random key of this process and its successors, for a block without `key_file`.
fn random_key(on: &Build<'_>) -> Arc<keys::Random> {
    on.keep.get_or("sticky_cookie random key", || {
        log::info!(
            "sticky_cookie: no key_file, signing with a random key: cookies end with this process \
             and its successors, and other edges reject them; set key_file to share a key"
        );
        keys::Random::new()
    })
}

fn file_keys(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("cannot read key file `{}`: {e}", file.display()))?;
    keys::parse(&text)
}

/// Returns whether a token may contain `b` (RFC 9110 §5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Returns whether an attribute may contain `b` (RFC 6265 §4.1.1, `path-value`).
fn is_attribute(b: u8) -> bool {
    (0x20..0x7f).contains(&b) && b != b';'
}

fn is_domain(d: &str) -> bool {
    let label =
        |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    d.len() <= 253 && d.strip_prefix('.').unwrap_or(d).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use crate::context::Mode;
    use crate::testing::{faults, undecodable};

    #[test]
    fn faults_are_found_in_one_run() {
        for (block, want) in [
            ("name: ''", "name: expected letters"),
            ("name: 'a b'", "name: expected letters"),
            ("name: \"a\\r\\nX\"", "name: expected letters"),
            ("name: 'a;b'", "name: expected letters"),
            ("name: __Host-x", "name: a name that begins with `__Host-`"),
            (
                "name: __SECURE-x",
                "name: a name that begins with `__Secure-`",
            ),
            ("max_age: 0s", "max_age: expected a duration from 1s"),
            (
                "max_age: 2s, jitter: 80%",
                "max_age: with `jitter: 80%` a cookie may",
            ),
            ("path: push", "path: expected a path"),
            ("path: '/;x'", "path: expected a path"),
            ("domain: 'a;b'", "domain: expected a domain"),
            ("same_site: none", "same_site: `same_site: none` requires"),
            ("partitioned: true", "partitioned: `partitioned` requires"),
        ] {
            let found = faults(&format!("sticky_cookie: {{ {block} }}"), Mode::Http);
            assert!(
                found.len() == 1 && found[0].starts_with(want),
                "{block}: {found:?}"
            );
        }
        let all = faults(
            "sticky_cookie: { name: '', path: '', key_file: nowhere }",
            Mode::Tcp,
        );
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all[0].contains("mode http"), "{all:?}");
        for bad in [
            "max_age: 8",
            "jitter: 0.1",
            "samesite: lax",
            "same_site: Lax",
        ] {
            assert!(undecodable(&format!("sticky_cookie: {{ {bad} }}")), "{bad}");
        }
    }
}
