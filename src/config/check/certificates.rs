//! Checks that certificate files are there, can be read and belong together.
//!
//! In: `certificates`. Out: faults, and the names each sound certificate covers.

use std::collections::BTreeMap;

use super::{Check, steps};
use crate::tls::{Fault, Loaded, key_of, names_of};

/// Names covered, by certificate.
pub(super) type Covered = BTreeMap<String, Vec<String>>;

pub(super) fn check(check: &mut Check<'_>) -> Covered {
    let mut covered = Covered::new();
    let config = check.config;
    for (name, certificate) in &config.certificates {
        let chain_at = steps!["certificates", name.as_str(), "chain"];
        let key_at = steps!["certificates", name.as_str(), "key"];
        // One after the other, because opening both stops at the first fault.
        let names = names_of(&check.dir.join(&certificate.chain));
        let key = key_of(&check.dir.join(&certificate.key));
        if let Err(fault) = &names {
            check.fault(&chain_at, fault.to_string());
        }
        if let Err(fault) = &key {
            check.fault(&key_at, fault.to_string());
        }
        let Ok(names) = names else {
            continue;
        };
        covered.insert(name.clone(), names);
        match key.and_then(|_| Loaded::open(certificate, check.dir).map(|_| ())) {
            Err(fault @ Fault::KeyMismatch { .. }) => check.fault(&key_at, fault.to_string()),
            Err(fault @ (Fault::Order { .. } | Fault::Time { .. })) => {
                check.fault(&chain_at, fault.to_string())
            }
            _ => None,
        };
    }
    covered
}

/// Whether a certificate for `name` is good for `host`. A wildcard stands for one label
/// (RFC 9525 §6.3); a wildcard host is covered where any host below it is.
pub(crate) fn covers(name: &str, host: &str) -> bool {
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
