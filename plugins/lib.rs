//! Pushgate's decisions: where a flow goes, which node a client is stuck to, which headers change.
//!
//! One macro call lists the plugins: each word is the file, the YAML key and the metrics label.
//! A third party adds a file and a word. Nothing here imports the edge itself.

pub mod api;
pub mod context;
mod forget_rules;
pub mod head;
pub mod host;
mod lifetime;
mod memory;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod units;

use context::{Build, PluginError};

/// Declares each plugin's module, the YAML block `- word: {…}` and its builder.
macro_rules! plugins {
    ($($(#[$doc:meta])* $word:ident => $variant:ident),+ $(,)?) => {
        $($(#[$doc])* pub mod $word;)+

        /// One block of a listener's `plugins:`; the key says which plugin.
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum PluginConfig {
            $($(#[$doc])* $variant($word::Config),)+
        }

        /// The words of all plugins compiled in.
        pub const WORDS: &[&str] = &[$(stringify!($word)),+];

        impl PluginConfig {
            /// The plugin's word.
            pub fn as_str(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($word),)+ }
            }

            /// Checks the block against the rest of the configuration and builds the plugin.
            ///
            /// Errors: every fault of the block, each with its path below the block.
            pub fn build(&self, on: &Build<'_>) -> Result<Box<dyn api::Plugin>, Vec<PluginError>> {
                match self {
                    $(Self::$variant(c) => c.build(on),)+
                }
            }
        }
    };
}

plugins! {
    /// Routes by the host name asked for.
    host_route => HostRoute,
    /// Routes by the destination address reached.
    vip_route => VipRoute,
    /// Routes by the server name of the TLS handshake.
    sni_route => SniRoute,
    /// Routes by the path of a request.
    path_route => PathRoute,
    /// Lets clients in by their address, or keeps them out.
    access => Access,
    /// Sticks a client to a node by a cookie the proxy inserts.
    sticky_cookie => StickyCookie,
    /// Sticks a client to a node by its source address.
    sticky_ip => StickyIp,
    /// Sticks a client to a node by the id of its push session.
    sticky_session => StickySession,
    /// Sticks a client to a node by a value its requests carry.
    sticky_param => StickyParam,
    /// Sends clients that speak plain HTTP to TLS.
    redirect_https => RedirectHttps,
    /// Tells the node who the client is.
    forwarded => Forwarded,
    /// Tells the node which certificate the client showed.
    client_certificate => ClientCertificate,
    /// Tells the node who the client is, before the first byte.
    proxy_protocol => ProxyProtocol,
    /// Sets, adds and removes headers by fixed values.
    headers => Headers,
}

/// The worked example of CONTRIBUTING.md, which `cargo test` compiles.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
struct Contributing;
