//! Pushgate's decisions: where a flow goes, which node a client is stuck to, which headers change.
//!
//! One macro call lists the plugins. Each word is at once the file, the YAML key and the metrics label. A
//! third party adds a plugin with one file and one word. This crate imports nothing of the edge.

pub mod api;
pub mod bounds;
pub mod context;
mod forget_rules;
pub mod head;
pub mod host;
mod lifetime;
mod memory;
pub mod rendezvous;
pub mod spelling;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod units;
pub mod unix;
mod written;

use context::{Build, PluginError};

/// Declares each plugin's module, the YAML block `- word: {…}` and its builder.
macro_rules! plugins {
    ($($(#[$doc:meta])* $word:ident => $variant:ident),+ $(,)?) => {
        $($(#[$doc])* pub mod $word;)+

        /// One block of a listener's `plugins:`. Its key names the plugin.
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum PluginConfig {
            $($(#[$doc])* $variant($word::Config),)+
        }

        /// The words of all plugins that are compiled in.
        pub const WORDS: &[&str] = &[$(stringify!($word)),+];

        impl PluginConfig {
            /// The plugin's word.
            pub fn as_str(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($word),)+ }
            }

            /// Checks the block against the rest of the configuration and builds the plugin.
            ///
            /// Errors: every fault of the block, each with its path below the block.
            pub fn build(&self, on: &Build<'_>) -> Result<api::Plugin, Vec<PluginError>> {
                match self {
                    $(Self::$variant(c) => c.build(on),)+
                }
            }
        }
    };
}

plugins! {
    /// Routes by the requested host name.
    host_route => HostRoute,
    /// Routes by the destination address that the client reached.
    vip_route => VipRoute,
    /// Routes by the server name of the TLS handshake.
    sni_route => SniRoute,
    /// Routes by the path of a request.
    path_route => PathRoute,
    /// Allows or refuses clients by their address.
    access => Access,
    /// Sticks a client to a node by a cookie the proxy inserts.
    sticky_cookie => StickyCookie,
    /// Sticks a client to a node by its source address.
    sticky_ip => StickyIp,
    /// Sticks a client to a node by the id of its push session.
    sticky_session => StickySession,
    /// Sticks a client to a node by a value in its requests.
    sticky_param => StickyParam,
    /// Redirects plain HTTP requests to TLS.
    redirect_https => RedirectHttps,
    /// Passes the client's address to the node in headers.
    forwarded => Forwarded,
    /// Passes the client's certificate to the node in headers.
    client_certificate => ClientCertificate,
    /// Passes the client's address to the node in the PROXY protocol.
    proxy_protocol => ProxyProtocol,
    /// Sets, adds and removes headers with fixed values.
    headers => Headers,
}

/// The worked example of CONTRIBUTING.md, which `cargo test` compiles.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
struct Contributing;

impl PluginConfig {
    /// Puts the default in place of each key of a table that is not given.
    pub fn fill(&mut self) {
        match self {
            PluginConfig::StickyIp(block) => block.fill(),
            PluginConfig::StickyParam(block) => block.fill(),
            PluginConfig::StickySession(block) => block.fill(),
            _ => {}
        }
    }
}
