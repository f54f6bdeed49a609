//! Redirects plain HTTP requests to the same URL over TLS.
//!
//! In: host and target of a plain request. Out: a redirect. Requests over TLS pass.
//! Source: RFC 9110 §15.4.9 (308 keeps the method), RFC 6797 §7.2.

use http::StatusCode;
use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::context::{Build, Mode, PluginError};

/// Block `redirect_https:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Status, 301, 302, 303, 307 or 308; default 308, which keeps method and body.
    #[serde(default = "permanent")]
    pub status: u16,
    /// Port of the TLS listener; default 443, which the redirect's URL omits.
    #[serde(default = "https")]
    pub port: u16,
}

fn permanent() -> u16 {
    308
}

fn https() -> u16 {
    443
}

struct RedirectHttps {
    status: StatusCode,
    port: u16,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp, a listener with TLS, a status that is no redirect.
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
        if self.port == 0 {
            faults.push(PluginError::new(
                ["port"],
                "expected a port from 1 to 65535",
            ));
        }
        let redirects = matches!(self.status, 301 | 302 | 303 | 307 | 308);
        match StatusCode::from_u16(self.status) {
            Ok(status) if redirects && faults.is_empty() => Ok(Plugin::router(RedirectHttps {
                status,
                port: self.port,
            })),
            _ => {
                if !redirects {
                    let why = format!("expected 301, 302, 303, 307 or 308, not {}", self.status);
                    faults.push(PluginError::new(["status"], why));
                }
                Err(faults)
            }
        }
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
            ("{ status: 200 }", Mode::Http, "status: expected 301"),
            ("{ port: 0 }", Mode::Http, "port: expected a port"),
        ] {
            let found = faults(&format!("redirect_https: {block}"), mode);
            assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}");
        }
    }
}
