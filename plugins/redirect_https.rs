//! Redirects plain HTTP requests to the same URL over TLS.
//!
//! In: host and target of a plain request. Out: a redirect. Requests over TLS pass.
//! Source: RFC 9110 §15.4.9 (308 keeps the method), RFC 6797 §7.2.

use std::fmt;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::api::{Flow, Plugin, Route, Router};
use crate::bounds::Whole;
use crate::context::{Build, Mode, PluginError};

/// Block `redirect_https:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Status, 301, 302, 303, 307 or 308; default 308, which keeps method and body.
    #[serde(
        default = "permanent",
        deserialize_with = "redirect",
        serialize_with = "crate::written::status"
    )]
    pub status: StatusCode,
    /// Port of the TLS listener; default 443, which the redirect's URL omits.
    #[serde(default = "https", deserialize_with = "Whole::<1, 65_535>::read")]
    pub port: u16,
}

fn permanent() -> StatusCode {
    StatusCode::PERMANENT_REDIRECT
}

/// Reads a status that sends a client elsewhere.
fn redirect<'de, D: Deserializer<'de>>(d: D) -> Result<StatusCode, D::Error> {
    struct V;
    impl Visitor<'_> for V {
        type Value = StatusCode;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`301`, `302`, `303`, `307` or `308`")
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<StatusCode, E> {
            let wrong = || E::invalid_value(Unexpected::Unsigned(number), &self);
            match number {
                301 | 302 | 303 | 307 | 308 => {
                    StatusCode::from_u16(number as u16).map_err(|_| wrong())
                }
                _ => Err(wrong()),
            }
        }
    }
    d.deserialize_any(V)
}

fn https() -> u16 {
    443
}

struct RedirectHttps {
    status: StatusCode,
    port: u16,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp, a listener with TLS.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        if on.mode == Mode::Tcp {
            faults.push(PluginError::new(
                None::<String>,
                "a redirect needs mode http",
            ));
        }
        if on.tls {
            let why =
                "clients of this listener already use TLS; put this plugin on the plain listener";
            faults.push(PluginError::new(None::<String>, why));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::router(RedirectHttps {
            status: self.status,
            port: self.port,
        }))
    }
}

impl Router for RedirectHttps {
    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        let request = flow.request.filter(|_| flow.tls.is_none())?;
        if flow.host.is_empty() {
            // HTTP/1.0 without a host: the redirect would have no name.
            return Some(Route::Refuse(StatusCode::BAD_REQUEST));
        }
        let (path, query) = match request.origin_form() {
            // The target of `OPTIONS *` is not a path.
            Some("*") => ("/", None),
            Some(form) => (form, None),
            None => ("/", request.query()),
        };
        let question = if query.is_some() { "?" } else { "" };
        let query = query.unwrap_or_default();
        let host = flow.host;
        let to = match self.port {
            443 => format!("https://{host}{path}{question}{query}"),
            port => format!("https://{host}:{port}{path}{question}{query}"),
        };
        Some(Route::Redirect(self.status, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Facts, build, faults, head};

    #[test]
    fn plain_requests_are_sent_to_tls() {
        for (block, tls, host, path, want) in [
            (
                "{}",
                false,
                "push.example",
                "/a?b=c",
                Some((308, "https://push.example/a?b=c")),
            ),
            (
                "{ port: 8443, status: 302 }",
                false,
                "push.example",
                "/",
                Some((302, "https://push.example:8443/")),
            ),
            (
                "{}",
                false,
                "[::1]",
                "//evil.example/",
                Some((308, "https://[::1]//evil.example/")),
            ),
            (
                "{}",
                false,
                "push.example",
                "*",
                Some((308, "https://push.example/")),
            ),
            (
                "{}",
                false,
                "push.example",
                "http://evil.example/a?b#c",
                Some((308, "https://push.example/a?b")),
            ),
            (
                "{}",
                false,
                "push.example",
                "http://evil.example?b",
                Some((308, "https://push.example/?b")),
            ),
            ("{}", true, "push.example", "/", None),
        ] {
            let plugin = build(&format!("redirect_https: {block}"));
            let facts = Facts {
                host,
                tls,
                ..Facts::default()
            };
            let request = head("GET", path);
            let want = want.map(|(status, to)| {
                Route::Redirect(StatusCode::from_u16(status).expect("status"), to.to_owned())
            });
            assert_eq!(
                plugin.route(&facts.flow(Some(&request))),
                want,
                "{block} {host} {path}"
            );
        }
    }

    #[test]
    fn a_request_without_host_is_refused() {
        let facts = Facts {
            host: "",
            ..Facts::default()
        };
        let request = head("GET", "/");
        let route = build("redirect_https: {}").route(&facts.flow(Some(&request)));
        assert_eq!(route, Some(Route::Refuse(StatusCode::BAD_REQUEST)));
    }

    #[test]
    fn blocks_that_cannot_work_are_faults() {
        for (block, mode, want) in [
            ("{}", Mode::Tcp, ": a redirect needs mode http"),
            ("{ status: 200 }", Mode::Http, "status: expected `301`"),
            (
                "{ port: 0 }",
                Mode::Http,
                "port: expected a whole number from 1",
            ),
        ] {
            let found = faults(&format!("redirect_https: {block}"), mode);
            assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}");
        }
    }
}
