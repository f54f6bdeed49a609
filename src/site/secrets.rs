//! What the files of the block `state` hold: a password, and the authorities of the server's certificate.

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::store::X509StoreBuilder;

use crate::config::Redis;
use crate::credentials::{authorities_of, password_in};

/// The contents of the files that a store needs.
pub struct Secrets {
    /// Password of the user.
    pub password: Option<String>,
    /// For `rediss://`.
    pub connector: Option<SslConnector>,
}

impl Secrets {
    /// Reads the files of `conf`; relative paths are below `dir`.
    ///
    /// Errors: a file that cannot be read or used.
    pub fn read(conf: &Redis, dir: &Path) -> Result<Secrets, String> {
        let password = conf.password_file.as_ref().map(|file| {
            let read = password_in(&dir.join(file));
            read.map_err(|e| format!("state.redis.password_file: {e}"))
        });
        let tls = conf.url.0.iter().any(|url| url.tls);
        let connector =
            tls.then(|| connector(conf.ca_file.as_ref().map(|f| dir.join(f)).as_deref()));
        Ok(Secrets {
            password: password.transpose()?,
            connector: connector.transpose()?,
        })
    }
}

fn connector(ca_file: Option<&Path>) -> Result<SslConnector, String> {
    let told = |e: ErrorStack| format!("state.redis.ca_file: {e}");
    let authorities = ca_file.map(authorities_of).transpose();
    let authorities = authorities.map_err(|e| format!("state.redis.ca_file: {e}"))?;
    let made = || {
        let mut context = SslConnector::builder(SslMethod::tls_client())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        if let Some(authorities) = authorities {
            let mut store = X509StoreBuilder::new()?;
            for authority in authorities {
                store.add_cert(authority)?;
            }
            context.set_cert_store(store.build());
        } else if let Some(file) = openssl_probe::probe().cert_file {
            // The built-in OpenSSL does not know where the system keeps its authorities.
            context.set_ca_file(file)?;
        }
        Ok(context.build())
    };
    made().map_err(told)
}
