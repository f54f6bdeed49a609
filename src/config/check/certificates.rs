//! Checks that certificate files are there, can be read and belong together.
//!
//! In: `certificates`. Out: faults, and the names each sound certificate covers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::{Check, steps};
use crate::config::error::echo;

/// Names covered, by certificate.
pub(super) type Covered = BTreeMap<String, Vec<String>>;

/// Largest PEM file read; a chain of five RSA-4096 certificates has 12 KiB.
const MAX_PEM: u64 = 256 * 1024;

pub(super) fn check(check: &mut Check<'_>) -> Covered {
    let mut covered = Covered::new();
    let config = check.config;
    for (name, certificate) in &config.certificates {
        let chain_at = steps!["certificates", name.as_str(), "chain"];
        let key_at = steps!["certificates", name.as_str(), "key"];
        let chain = chain(&check.dir.join(&certificate.chain));
        let key = key(&check.dir.join(&certificate.key));
        match (&chain, &key) {
            (Ok(leaf), Ok(key)) if !belongs(leaf, key) => check.expect(
                &key_at,
                "the key is not that of the first certificate in `chain`",
                "the private key of that certificate",
            ),
            _ => {}
        }
        if let Err(message) = key {
            check.expect(&key_at, message, "a PEM private key without passphrase");
        }
        match chain {
            Err(message) => check.expect(&chain_at, message, "PEM certificates, leaf first"),
            Ok(leaf) => {
                covered.insert(name.clone(), names(&leaf));
            }
        }
    }
    covered
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = echo(&path.display().to_string());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("`{shown}` cannot be read: {e}"))?;
    match bytes.len() as u64 > MAX_PEM {
        true => Err(format!("`{shown}` is larger than {MAX_PEM} bytes")),
        false => Ok(bytes),
    }
}

/// The leaf of the chain in `path`.
fn chain(path: &Path) -> Result<X509, String> {
    let pem = read(path)?;
    let not = |why: &str| {
        format!(
            "`{}` holds no certificate{why}",
            echo(&path.display().to_string())
        )
    };
    let chain = X509::stack_from_pem(&pem).map_err(|e| not(&reason(&e)))?;
    chain.into_iter().next().ok_or_else(|| not(""))
}

fn key(path: &Path) -> Result<PKey<Private>, String> {
    let pem = read(path)?;
    // Without a callback OpenSSL would ask for the passphrase on the terminal.
    PKey::private_key_from_pem_callback(&pem, |_| Ok(0)).map_err(|e| {
        format!(
            "`{}` holds no usable key{}",
            echo(&path.display().to_string()),
            reason(&e)
        )
    })
}

/// OpenSSL's own word on it; it never holds bytes of the file.
fn reason(e: &ErrorStack) -> String {
    e.errors()
        .first()
        .and_then(|e| e.reason())
        .map(|r| format!(": {r}"))
        .unwrap_or_default()
}

fn belongs(leaf: &X509, key: &PKey<Private>) -> bool {
    leaf.public_key().is_ok_and(|public| public.public_eq(key))
}

/// Names a certificate covers: its subject alternative names; without any, its common name.
fn names(leaf: &X509) -> Vec<String> {
    if let Some(names) = leaf.subject_alt_names() {
        return names
            .iter()
            .filter_map(|name| {
                let address = || match name.ipaddress()? {
                    ip if ip.len() == 4 => <[u8; 4]>::try_from(ip).ok().map(IpAddr::from),
                    ip => <[u8; 16]>::try_from(ip).ok().map(IpAddr::from),
                };
                name.dnsname()
                    .map(str::to_owned)
                    .or_else(|| address().map(|ip| ip.to_string()))
            })
            .collect();
    }
    let common = leaf.subject_name().entries_by_nid(Nid::COMMONNAME);
    common.filter_map(|e| e.data().to_string().ok()).collect()
}

/// Whether a certificate for `name` is good for `host`. A wildcard stands for one label
/// (RFC 9525 §6.3); a wildcard host is covered where any host below it is.
pub(super) fn covers(name: &str, host: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if name == host {
        return true;
    }
    if let Some(zone) = host.strip_prefix('*') {
        return zone.len() > 1 && name.ends_with(zone);
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(zone), Some((label, rest))) => !label.is_empty() && zone == rest,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (name, host, expected) in [
            ("*.mycompany.com", "mycompany.com", false),
            ("*.mycompany.com", "a.push.mycompany.com", false),
            ("*.mycompany.com", ".mycompany.com", false),
            ("push.mycompany.com", "push1.mycompany.com", false),
            ("*.other.com", "*.mycompany.com", false),
            ("*.mycompany.com", "push1.mycompany.com", true),
            ("*.MyCompany.com", "PUSH1.mycompany.com.", true),
            ("push1.mycompany.com", "push1.mycompany.com", true),
            ("push1.mycompany.com", "*.mycompany.com", true),
            ("*.mycompany.com", "*.mycompany.com", true),
        ] {
            assert_eq!(covers(name, host), expected, "{name} for {host}");
        }
    }
}
