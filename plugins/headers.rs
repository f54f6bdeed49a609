//! Sets, adds and removes headers of requests and responses, with values fixed at load.
//!
//! In: heads. Out: heads. Headers that frame the message or belong to one connection are refused at load: the
//! core owns them. Removal comes first, then `set`, then `add`.
//! Source: RFC 9110 §5, §7.6.1; RFC 6797 (`Strict-Transport-Security` at the edge).

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::api::{Assignment, EditError, Flow, HeadEditor, Plugin};
use crate::context::{Build, Mode, PluginError};
use crate::head;
use crate::units::Pairs;

/// Block `headers:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Edits of the head on its way to the node.
    #[serde(default)]
    pub request: Edits,
    /// Edits of the head on its way to the client, also of a 101.
    #[serde(default)]
    pub response: Edits,
}

/// Edits of one direction.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// Names to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Headers that replace all others of their name.
    #[serde(default)]
    pub set: Pairs,
    /// Headers that are added to others of their name.
    #[serde(default)]
    pub add: Pairs,
}

/// What stands in place of a value that may be a secret, where a configuration is printed.
const HIDDEN: &str = "***";

/// Headers that say where a message ends or belong to one hop. With a value unlike the core's, client and
/// node could disagree on where a message ends.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

struct Headers {
    request: Ready,
    response: Ready,
}

/// Parsed edits; names keep the case of the file.
#[derive(Default)]
struct Ready {
    remove: Vec<HeaderName>,
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
}

impl Ready {
    fn apply(&self, edits: &mut head::Edits) -> Result<(), EditError> {
        for name in &self.remove {
            edits.remove(name.as_str());
        }
        for (name, value) in &self.set {
            edits.set(name, value)?;
        }
        for (name, value) in &self.add {
            edits.append(name, value)?;
        }
        Ok(())
    }
}

impl Config {
    /// Puts `***` in place of the values that only nodes may see: a request's, and cookies. What a response has
    /// reaches every client.
    pub fn hide(&mut self) {
        let Edits { set, add, .. } = &mut self.request;
        for (_, value) in set.0.iter_mut().chain(&mut add.0) {
            *value = HIDDEN.to_owned();
        }
        let Edits { set, add, .. } = &mut self.response;
        for (name, value) in set.0.iter_mut().chain(&mut add.0) {
            if name.eq_ignore_ascii_case("set-cookie") {
                *value = HIDDEN.to_owned();
            }
        }
    }

    /// Builds the plugin. Errors: mode tcp, no edit at all, an illegal header name or value, a header that
    /// belongs to the core, two values set for one name.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        if on.mode == Mode::Tcp {
            faults.push(PluginError::new(None::<String>, "headers need mode http"));
        }
        let request = self.request.ready("request", &mut faults);
        let response = self.response.ready("response", &mut faults);
        let none = |r: &Ready| r.remove.is_empty() && r.set.is_empty() && r.add.is_empty();
        if faults.is_empty() && none(&request) && none(&response) {
            faults.push(PluginError {
                expected: Some("at least one under `request` or `response`".to_owned()),
                ..PluginError::new(None::<String>, "no edit")
            });
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::editor(Headers { request, response }))
    }
}

impl Edits {
    fn ready(&self, side: &str, faults: &mut Vec<PluginError>) -> Ready {
        let mut ready = Ready::default();
        for (i, name) in self.remove.iter().enumerate() {
            match check_name(name) {
                // HTTP/1.1 requires a `Host`; without it a node would answer 400.
                Ok(n) if n == http::header::HOST && side == "request" => {
                    let why = "a request must have `Host`; use `set` to replace it";
                    faults.push(PluginError::new([side, "remove", &i.to_string()], why));
                }
                Ok(n) => ready.remove.push(n),
                Err(why) => faults.push(why.at([side, "remove", &i.to_string()])),
            }
        }
        ready.set = pairs(&self.set, [side, "set"], faults);
        ready.add = pairs(&self.add, [side, "add"], faults);
        for (i, (name, _)) in ready.set.iter().enumerate() {
            if ready.set[..i]
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
            {
                let why = "the same name is set twice (case does not count)";
                faults.push(PluginError::new([side, "set", name], why));
            }
        }
        ready
    }
}

fn pairs(from: &Pairs, at: [&str; 2], faults: &mut Vec<PluginError>) -> Vec<(String, String)> {
    let mut ready = Vec::new();
    for (name, value) in &from.0 {
        let path = [at[0], at[1], name];
        match check_name(name) {
            // Most nodes answer 400 to a second `Host`; at others it is an attack.
            Ok(n) if n == http::header::HOST && at[1] == "add" => {
                faults.push(PluginError::new(
                    path,
                    "a request has one `Host`; use `set` to replace it",
                ));
            }
            Ok(_) if value == HIDDEN => faults.push(PluginError {
                expected: Some("the value that `check -T` has hidden".to_owned()),
                ..PluginError::new(path, "`***` stands for a secret")
            }),
            Ok(_) => match HeaderValue::from_str(value) {
                Ok(_) => ready.push((name.clone(), value.clone())),
                // The value may be a secret, so the message does not repeat it.
                Err(_) => faults.push(PluginError {
                    expected: Some("visible ASCII in one line".to_owned()),
                    ..PluginError::new(path, "a value that no header can have")
                }),
            },
            Err(why) => faults.push(PluginError {
                on_key: true,
                ..why.at(path)
            }),
        }
    }
    ready
}

fn check_name(name: &str) -> Result<HeaderName, PluginError> {
    let nowhere = None::<String>;
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| PluginError::expected(nowhere.clone(), "a header name"))?;
    if OURS.contains(&parsed.as_str()) {
        let why = format!(
            "`{name}` frames the message or belongs to one connection; only the proxy may set it"
        );
        return Err(PluginError::new(nowhere, why));
    }
    Ok(parsed)
}

impl HeadEditor for Headers {
    fn request(
        &self,
        _: &Flow<'_>,
        _: &Assignment<'_>,
        edits: &mut head::Edits,
    ) -> Result<(), EditError> {
        self.request.apply(edits)
    }

    fn response(
        &self,
        _: &Flow<'_>,
        _: &Assignment<'_>,
        edits: &mut head::Edits,
    ) -> Result<(), EditError> {
        self.response.apply(edits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::How;
    use crate::testing::{
        Facts, answer, assigned, build, edits, faults, head_with, texts, undecodable,
    };

    #[test]
    fn edits_are_made_in_order_and_keep_their_case() {
        let block = "{ remove: [Server], set: { X-edGE: one }, add: { Via: 1.1 pushgate } }";
        let p = build(&format!(
            "headers: {{ request: {block}, response: {block} }}"
        ));
        let (facts, to) = (Facts::default(), assigned("ls1", How::Balanced));
        let before = [
            ("Server", "x"),
            ("x-edge", "a"),
            ("X-Edge", "b"),
            ("Via", "1.0 other"),
        ];
        let mut req = edits(&head_with("GET", "/", &before));
        let mut resp = answer(101, &before);
        p.request(&facts.flow(None), &to, &mut req).expect("edits");
        p.response(&facts.flow(None), &to, &mut resp)
            .expect("edits");
        let mut wire = Vec::new();
        req.write(&mut wire);
        assert!(String::from_utf8_lossy(&wire).contains("X-edGE: one\r\n"));
        for headers in [&req, &resp] {
            assert!(!headers.contains("server"));
            assert_eq!(texts(headers, "x-edge"), ["one"]);
            assert_eq!(texts(headers, "via"), ["1.0 other", "1.1 pushgate"]);
        }
    }

    #[test]
    fn illegal_headers_are_faults() {
        let side = "{ remove: [Connection, a b, Host], set: { Content-Length: '0', X-A: \"a\\r\\nB: c\", \
                    X-B: '1', x-b: '2' }, add: { ':path': /, Host: x } }";
        let found = faults(&format!("headers: {{ request: {side} }}"), Mode::Http);
        for want in [
            "request.remove.0: `Connection` frames",
            "request.remove.1: expected a header name",
            "request.remove.2: a request must have",
            "request.set.Content-Length: `Content-Length` frames",
            "request.set.X-A: expected visible ASCII",
            "request.add.:path: expected a header name",
            "request.add.Host: a request has one",
            "request.set.x-b: the same name",
        ] {
            assert!(
                found.iter().any(|f| f.starts_with(want)),
                "{want} in {found:?}"
            );
        }
        assert_eq!(found.len(), 8);
        assert_eq!(faults("headers: {}", Mode::Tcp).len(), 1);
        assert!(faults("headers: {}", Mode::Http)[0].contains("at least one under"));
        assert!(undecodable("headers: { set: {} }"));
    }
}
