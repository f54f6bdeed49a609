//! Chooses the keys of a keystore: the one of an alias, or all that can be served side by side.
//!
//! In: an opened keystore, the alias that the configuration names, the time. Out: each chosen key with its
//! chain. Two keys between which only the operator can choose are a fault that names them.
//! Source: Lightstreamer clustering §3 (`push.keystore`); a Java server shows its EC and its RSA key.

use std::path::Path;

use openssl::x509::{X509, X509Ref};

use super::TlsError;
use super::chain::{self, Material, Warning, kind, names, out_of_time};
use super::keystore::Keystore;

/// Chooses keys of the keystore at `path` at `now`, in seconds since 1970. The result is never empty.
///
/// Errors: [`TlsError::Malformed`]: no key has a certificate; [`TlsError::Alias`]: no key is called `alias`;
/// [`TlsError::Aliases`]: several keys of one kind cover one name, and no alias is given.
pub(super) fn chosen(
    path: &Path,
    store: Keystore,
    alias: Option<&str>,
    now: i64,
) -> Result<Vec<Material>, TlsError> {
    let mut all = paired(store, now);
    if all.is_empty() {
        return Err(TlsError::Malformed {
            path: path.to_owned(),
            why: "expected a keystore with a private key and its certificate".into(),
        });
    }
    if let Some(alias) = alias {
        // Java's own keystores compare aliases without case.
        let called = |m: &Material| shown(m).eq_ignore_ascii_case(alias);
        let Some(at) = all.iter().position(called) else {
            return Err(TlsError::Alias {
                path: path.to_owned(),
                alias: alias.to_owned(),
                known: listed(&all),
            });
        };
        return Ok(vec![all.swap_remove(at)]);
    }
    let mut left_out = Vec::new();
    let mut kept = without_useless(all, now, &mut left_out);
    if let Some((a, b)) = rivals(&kept) {
        return Err(TlsError::Aliases {
            path: path.to_owned(),
            known: listed([a, b]),
        });
    }
    if let Some(first) = kept.first_mut() {
        first.chain.warnings.append(&mut left_out);
    }
    Ok(kept)
}

/// Pairs each key with its certificate and chain. Of several certificates for one key the one that is valid,
/// else the one that ends last, counts. A key without a certificate is left out.
fn paired(store: Keystore, now: i64) -> Vec<Material> {
    let in_time = |c: &X509Ref| out_of_time(c, now).is_none();
    let mut all: Vec<Material> = Vec::new();
    for (alias, key) in store.keys {
        let own = |c: &&X509| c.public_key().is_ok_and(|public| public.public_eq(&key));
        let rank = |c: &&X509| (in_time(c), chain::unix(c.not_after()));
        let Some(leaf) = store.certificates.iter().filter(own).max_by_key(rank) else {
            continue;
        };
        if all.iter().any(|m| m.chain.leaf == *leaf) {
            continue;
        }
        let others = store.certificates.iter().filter(|c| *c != leaf).cloned();
        let chain = chain::of_keystore(leaf.clone(), others.collect(), in_time);
        all.push(Material {
            chain,
            key,
            alias: Some(alias),
        });
    }
    all
}

/// Keeps the keys that are valid and cover a name. If there is none, keeps the valid one, else the one that
/// ends last.
fn without_useless(all: Vec<Material>, now: i64, left_out: &mut Vec<Warning>) -> Vec<Material> {
    let why = |m: &Material| match out_of_time(&m.chain.leaf, now) {
        Some(why) => Some(format!("its certificate {why}")),
        None if names(&m.chain.leaf).is_empty() => Some("its certificate has no name".to_owned()),
        None => None,
    };
    let (mut kept, mut rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|m| why(m).is_none());
    let rank = |m: &Material| {
        let in_time = out_of_time(&m.chain.leaf, now).is_none();
        (in_time, chain::unix(m.chain.leaf.not_after()))
    };
    let best = (0..rest.len()).max_by_key(|i| rest.get(*i).map(rank));
    if let Some(best) = best.filter(|_| kept.is_empty()) {
        kept.push(rest.remove(best));
    }
    for one in rest {
        let why = why(&one).unwrap_or_default();
        left_out.push(Warning::KeyLeftOut(shown(&one).to_owned(), why));
    }
    kept
}

/// Returns two keys of one kind that cover one name.
fn rivals(all: &[Material]) -> Option<(&Material, &Material)> {
    let clash = |a: &Material, b: &Material| {
        let theirs = names(&b.chain.leaf);
        kind(&a.key) == kind(&b.key) && names(&a.chain.leaf).iter().any(|n| theirs.contains(n))
    };
    let pairs = all.iter().enumerate();
    let mut pairs = pairs.flat_map(|(i, a)| all.iter().skip(i + 1).map(move |b| (a, b)));
    pairs.find(|(a, b)| clash(a, b))
}

fn shown(of: &Material) -> &str {
    of.alias.as_deref().unwrap_or_default()
}

fn listed<'a>(all: impl IntoIterator<Item = &'a Material>) -> String {
    let one = |m: &Material| {
        let names = names(&m.chain.leaf).join(", ");
        format!(
            "`{}` ({}; until {})",
            shown(m),
            names,
            m.chain.leaf.not_after()
        )
    };
    all.into_iter().map(one).collect::<Vec<_>>().join(", ")
}
