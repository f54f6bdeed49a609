//! Reads the files of TLS towards a node: authorities, revocation lists, our own certificate.
//!
//! In: a node's `tls:` and the loaded certificates. Out: [`Secure`], for a plan or for a node that runs.
//! Source: FAULTS D37.

use crate::config::{self, Address, Config};
use crate::credentials::{Crls, TlsError, authorities_of};
use crate::tls::{Store, forgives, lists_of, store_of};
use crate::upstream::tls::{Secure, Trusted};

/// Returns the TLS settings towards a node, with the files its block names.
pub fn secure(
    config: &Config,
    conf: &config::Node,
    store: &Store,
) -> Result<Option<Secure>, String> {
    let Some(tls) = &conf.tls else {
        return Ok(None);
    };
    let text = |e: TlsError| e.to_string();
    let authorities = tls.ca_file.as_ref();
    let authorities = authorities.map(|file| authorities_of(&config.dir.join(file)));
    let authorities = authorities.transpose().map_err(text)?;
    let revoked = match (&authorities, &tls.crl_file) {
        (Some(authorities), Some(file)) => lists_of(&config.dir.join(file), authorities),
        _ => Ok(Crls::default()),
    };
    let revoked = revoked.map_err(text)?;
    let own = tls.client_certificate.as_ref().map(|name| {
        let own = store.get(name);
        own.ok_or_else(|| format!("unknown certificate `{name}`"))
    });
    let own = own.transpose()?;
    let address = match &conf.address {
        Address::Socket(address) => address.ip().to_string(),
        Address::Unix(_) => "localhost".to_owned(),
        Address::Host(named) => named.host.bare().to_owned(),
    };
    let name = tls.server_name.as_deref().unwrap_or(&address);
    let identity = own.map(|own| (&*own.leaf, own.issuers.as_slice(), &*own.key));
    let trusted = authorities.map(|all| store_of(&all, &revoked)).transpose();
    let trusted = trusted.map_err(|e| e.to_string())?;
    let trusted = trusted.map(|(store, material)| Trusted {
        store,
        material,
        callback: forgives,
    });
    Secure::new(name, tls.verify, trusted, identity)
        .map(Some)
        .map_err(|e| e.to_string())
}
