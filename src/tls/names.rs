//! Maps the host names that a listener's certificates cover to OpenSSL contexts.
//!
//! In: certificates and the listener's rules. Out: the context for a client's server name: of the exact name, else
//! of the wildcard one label up. Source: RFC 6125 §6.4.3.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::SslContext;

use super::context::Rules;
use crate::credentials::{Loaded, TlsError, unix_now};

/// Certificates with their names in the configuration.
pub(super) type Served<'a> = Vec<(&'a String, Arc<Loaded>)>;

/// Maps each name in the certificates (`push.example`, `*.example`) to its OpenSSL context.
pub(super) struct Names {
    by_name: HashMap<String, SslContext>,
    /// Each context, by the addresses of the certificates it shows. They are held, so that no other certificate
    /// can get such an address.
    contexts: HashMap<Vec<usize>, (Vec<Arc<Loaded>>, SslContext)>,
    rules: Arc<Rules>,
}

impl Names {
    /// Builds the map. For each kind of key the certificate listed first gets the name; one that is not valid
    /// now gets only a name that no valid one covers. Names with the same certificates share a context, because
    /// a context takes some 20 KiB. A context of `old` serves on if neither its certificates nor the rules have
    /// changed: to build one takes some 0.2 ms.
    pub fn new(
        rules: &Arc<Rules>,
        served: &Served<'_>,
        old: Option<&Names>,
    ) -> Result<Names, TlsError> {
        let old = old.filter(|old| old.rules.is_same(rules));
        let now = unix_now();
        let in_time = |one: &Loaded| one.is_in_time(now);
        let mut shown: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, (_, loaded)) in served.iter().enumerate() {
            for name in &loaded.names {
                if loaded.is_placeholder && is_covered(served, name) {
                    continue;
                }
                let those = shown.entry(name).or_default();
                let as_good = |j: &usize| in_time(&served[*j].1) == in_time(loaded);
                if those
                    .iter()
                    .all(|j| served[*j].1.kind() != loaded.kind() && as_good(j))
                {
                    those.push(i);
                }
            }
        }
        let mut all = Names {
            by_name: HashMap::with_capacity(shown.len()),
            contexts: HashMap::new(),
            rules: rules.clone(),
        };
        for (name, those) in shown {
            let certificates: Vec<_> = those.iter().map(|i| served[*i].1.clone()).collect();
            let word = those.first().map_or("", |i| served[*i].0.as_str());
            let context = all.context(certificates, old);
            let context = context.map_err(|e| refused(word, &e))?;
            all.by_name.insert(name.to_owned(), context);
        }
        Ok(all)
    }

    fn context(
        &mut self,
        certificates: Vec<Arc<Loaded>>,
        old: Option<&Names>,
    ) -> Result<SslContext, ErrorStack> {
        let key: Vec<_> = certificates
            .iter()
            .map(|c| Arc::as_ptr(c) as usize)
            .collect();
        let known = self.contexts.get(&key);
        if let Some((_, context)) = known.or_else(|| old?.contexts.get(&key)) {
            let context = context.clone();
            self.contexts.insert(key, (certificates, context.clone()));
            return Ok(context);
        }
        let context = self.rules.context(&certificates)?.build().into_context();
        self.contexts.insert(key, (certificates, context.clone()));
        Ok(context)
    }

    /// Returns the context for `name`: of the exact name, else of the wildcard one label up.
    pub fn find(&self, name: &str) -> Option<&SslContext> {
        patterns(name).find_map(|pattern| self.by_name.get(&*pattern))
    }
}

/// Whether a certificate that is valid now covers `name`, be it by a wildcard.
pub(super) fn is_covered(served: &Served<'_>, name: &str) -> bool {
    let now = unix_now();
    let covers = |one: &Loaded| patterns(name).any(|p| one.names.iter().any(|n| *n == p));
    served
        .iter()
        .any(|(_, one)| one.is_in_time(now) && covers(one))
}

/// Returns the names in a certificate that cover `name`, best first.
pub(super) fn patterns(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let wildcard = name.split_once('.').into_iter();
    let wildcard = wildcard.map(|(_, parent)| Cow::Owned(format!("*.{parent}")));
    std::iter::once(Cow::Borrowed(name)).chain(wildcard)
}

pub(super) fn refused(certificate: &str, e: &ErrorStack) -> TlsError {
    TlsError::Refused {
        certificate: certificate.to_owned(),
        why: e.to_string(),
    }
}
