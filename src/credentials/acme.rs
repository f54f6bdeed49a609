//! The block of a certificate that the edge gets itself, by ACME.
//!
//! In: a block `acme:`. Out: names, paths, words, the authority's URL. Nothing is read or sent here.
//! Source: RFC 8555 §7.1.1.

use std::path::PathBuf;

use pushgate_plugins::host::to_ascii;
use serde::Deserialize;

/// Word for Let's Encrypt, the default of `directory`: free, and trusted by every client.
const LETSENCRYPT: &str = "letsencrypt";
/// Word for its staging authority, whose limits allow trials.
const STAGING: &str = "staging";
/// Folder of keys and certificates: systemd's `StateDirectory=pushgate` makes its parent.
const STATE: &str = "/var/lib/pushgate/acme";

/// A certificate that the edge orders from an authority (RFC 8555), and renews.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// Name of the certificate in the configuration, which puts it in; it names the file in `state`.
    #[serde(skip)]
    pub name: String,
    /// Host names of the certificate.
    pub domains: Vec<String>,
    /// Where the authority may write to; absent: nowhere.
    #[serde(default)]
    pub email: Option<String>,
    /// The authority: `letsencrypt`, `staging`, or the URL of its directory.
    #[serde(default = "letsencrypt")]
    pub directory: String,
    /// Authorities (PEM) that may have issued the certificate of the directory's own server; absent: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Account at the authority's own site to which the edge's account belongs; absent: none.
    #[serde(default)]
    pub external_account: Option<ExternalAccount>,
    /// How to prove that the names lead here; absent: by what the listeners can answer.
    #[serde(default)]
    pub challenge: Option<Challenge>,
    /// Folder of account, keys, certificates and open challenges; several edges may share it.
    #[serde(default = "state")]
    pub state: PathBuf,
}

/// An account that the authority's site has given, for authorities that register nobody else (RFC 8555 §7.3.4).
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// The key's identifier.
    pub id: String,
    /// File whose first line is the key, in base64url.
    pub key_file: PathBuf,
}

/// How the authority asks whether a name leads to this edge.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// A request to port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http,
    /// A TLS handshake at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Acme {
    /// Returns the URL of the authority's directory.
    pub fn url(&self) -> &str {
        match self.directory.as_str() {
            LETSENCRYPT => "https://acme-v02.api.letsencrypt.org/directory",
            STAGING => "https://acme-staging-v02.api.letsencrypt.org/directory",
            url => url,
        }
    }

    /// Returns the host names as certificates have them: ASCII, lower case, no dot at the end.
    pub fn names(&self) -> Vec<String> {
        let name = |domain: &String| to_ascii(domain.trim_end_matches('.')).to_ascii_lowercase();
        self.domains.iter().map(name).collect()
    }

    /// Returns the file of key and chain, both in one so that they change in one step. It has the name of the
    /// certificate, so that another order of `domains` finds it.
    pub fn file(&self) -> PathBuf {
        self.state.join(format!("{}.pem", self.name))
    }
}

fn letsencrypt() -> String {
    LETSENCRYPT.to_owned()
}

fn state() -> PathBuf {
    PathBuf::from(STATE)
}
