//! Passes the client's certificate to the node, in headers that no client can forge.
//!
//! In: the client's certificate and its verification result. Out: the request's head, without any such header
//! that the client wrote.
//! Source: RFC 4514 (names as text); FAULTS D14.

use http::HeaderName;
use serde::Deserialize;

use crate::api::{Assignment, EditError, Flow, HeadEditor, Plugin};
use crate::context::{Build, Mode, PluginError};
use crate::head::Edits;
use crate::spelling;

/// Most bytes of one header: a certificate may have thousands of names.
const MAX_VALUE: usize = 4096;

/// Block `client_certificate:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Prefix of the header names; default `X-Client-Cert`.
    #[serde(default = "prefix")]
    pub prefix: String,
}

fn prefix() -> String {
    "X-Client-Cert".to_owned()
}

struct ClientCertificate {
    /// Lower case.
    prefix: String,
    names: [HeaderName; 6],
}

/// What each header holds; the verification result comes first.
const PARTS: [&str; 6] = [
    "verify",
    "subject",
    "issuer",
    "serial",
    "san",
    "fingerprint",
];

impl Config {
    /// Builds the plugin. Errors: mode tcp, a listener without TLS, a prefix that no header name can have.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        if on.mode == Mode::Tcp {
            faults.push(PluginError::new(None::<String>, "headers need mode http"));
        } else if !on.tls {
            let why = "only a listener with `tls` sees client certificates";
            faults.push(PluginError::new(None::<String>, why));
        }
        let prefix = self.prefix.to_ascii_lowercase();
        let name = |part: &str| HeaderName::from_bytes(format!("{prefix}-{part}").as_bytes());
        let names: Result<Vec<_>, _> = PARTS.iter().map(|part| name(part)).collect();
        match names.ok().and_then(|names| names.try_into().ok()) {
            Some(names) if faults.is_empty() && !prefix.is_empty() => {
                Ok(Plugin::editor(ClientCertificate { prefix, names }))
            }
            Some(_) if !prefix.is_empty() => Err(faults),
            _ => {
                let expected = "the beginning of a header name, such as `X-Client-Cert`";
                faults.push(PluginError::expected(["prefix"], expected));
                Err(faults)
            }
        }
    }
}

impl ClientCertificate {
    /// Returns whether only the edge may write `name`.
    fn is_ours(&self, name: &str) -> bool {
        spelling::begins(name.as_bytes(), self.prefix.as_bytes())
    }
}

impl HeadEditor for ClientCertificate {
    fn request(
        &self,
        flow: &Flow<'_>,
        _: &Assignment<'_>,
        edits: &mut Edits,
    ) -> Result<(), EditError> {
        edits.retain(|name, _| !self.is_ours(name));
        let client = flow.tls.and_then(|tls| tls.client);
        let verify = self.names[0].as_str();
        match client.map(|c| c.failure) {
            None => edits.set(verify, "NONE")?,
            Some(None) => edits.set(verify, "SUCCESS")?,
            Some(Some(why)) => edits.set_fmt(verify, format_args!("FAILED: {why}"))?,
        }
        // A name from an unverified certificate proves nothing.
        let Some(client) = client.filter(|c| c.failure.is_none()) else {
            return Ok(());
        };
        let sans = client.sans.join(",");
        let values = [
            client.subject,
            client.issuer,
            client.serial,
            &sans,
            client.fingerprint,
        ];
        for (name, value) in self.names[1..].iter().zip(values) {
            if value.len() > MAX_VALUE {
                return Err(format!("{name}: longer than {MAX_VALUE} bytes").into());
            }
            if !value.is_empty() {
                edits.set(name.as_str(), value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClientFacts, How, TlsFacts};
    use crate::testing::{Facts, assigned, build_tls, edits, faults, head_with};

    fn told(client: Option<ClientFacts<'_>>) -> Vec<(String, String)> {
        let forged = [
            "X-Client-Cert-Subject",
            "x_client_cert_verify",
            "X-Client-Cert-Other",
            "X.Client.Cert.Verify",
        ];
        written("client_certificate: {}", &forged, client)
    }

    /// Returns the lines of the request that the node gets, if a client wrote `forged`.
    fn written(
        yaml: &str,
        forged: &[&str],
        client: Option<ClientFacts<'_>>,
    ) -> Vec<(String, String)> {
        let plugin = build_tls(yaml);
        let mut request = edits(&head_with(
            "GET",
            "/",
            &forged.iter().map(|n| (*n, "CN=forged")).collect::<Vec<_>>(),
        ));
        let facts = Facts::default();
        let mut flow = facts.flow(None);
        flow.tls = Some(TlsFacts {
            client,
            ..TlsFacts::default()
        });
        plugin
            .request(&flow, &assigned("ls1", How::Balanced), &mut request)
            .expect("edits");
        let text = |v: &[u8]| String::from_utf8(v.to_vec()).expect("text");
        let lines = request.fields();
        lines.map(|(k, v)| (k.to_owned(), text(v))).collect()
    }

    /// Fails if any such header that the client wrote is left.
    #[test]
    fn the_node_reads_only_what_we_wrote() {
        let sans = ["DNS:a.example".to_owned(), "email:a@b.example".to_owned()];
        let good = ClientFacts {
            subject: "CN=alice",
            issuer: "CN=ca",
            serial: "0A",
            sans: &sans,
            fingerprint: "ab",
            failure: None,
        };
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter()
                .map(|(k, v)| (format!("x-client-cert-{k}"), (*v).to_owned()))
                .collect()
        };
        let mut all = told(Some(good));
        all.sort();
        let expected = pairs(&[
            ("fingerprint", "ab"),
            ("issuer", "CN=ca"),
            ("san", "DNS:a.example,email:a@b.example"),
            ("serial", "0A"),
            ("subject", "CN=alice"),
            ("verify", "SUCCESS"),
        ]);
        assert_eq!(all, expected);
        assert_eq!(told(None), pairs(&[("verify", "NONE")]));
        let bad = ClientFacts {
            failure: Some("certificate has expired"),
            ..good
        };
        assert_eq!(
            told(Some(bad)),
            pairs(&[("verify", "FAILED: certificate has expired")])
        );
    }

    /// Fails if `_` of the prefix is not compared as `-`: with `X_SSL_Client` a client's `X-SSL-Client-Verify`
    /// would pass.
    #[test]
    fn every_spelling_of_the_prefix_is_removed() {
        let forged = [
            "X-SSL-Client-Verify",
            "X_SSL-Client.Subject",
            "x.ssl.client.san",
        ];
        for prefix in ["X_SSL_Client", "X-SSL-Client", "X.SSL.Client"] {
            let yaml = format!("client_certificate: {{ prefix: {prefix} }}");
            let verify = format!("{}-verify", prefix.to_ascii_lowercase());
            let lines = written(&yaml, &forged, None);
            assert_eq!(lines, [(verify, "NONE".to_owned())], "{prefix}");
        }
    }

    #[test]
    fn blocks_that_cannot_work_are_faults() {
        for (block, mode, want) in [
            ("{}", Mode::Tcp, ": headers need mode http"),
            ("{}", Mode::Http, ": only a listener with `tls`"),
        ] {
            let found = faults(&format!("client_certificate: {block}"), mode);
            assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}");
        }
        let found = faults("client_certificate: { prefix: 'a b' }", Mode::Http);
        assert!(
            found[1].starts_with("prefix: expected the beginning"),
            "{found:?}"
        );
    }
}
