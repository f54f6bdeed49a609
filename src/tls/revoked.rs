//! Makes a handshake look at revocation lists.
//!
//! In: authorities, and the lists that they signed. Out: a store of authorities that also knows what they
//! revoked. A list that is over still revokes what it names, and admits the others with a warning: a fetch
//! that failed must not shut out every client. A list whose time has not begun counts at once. Source: RFC 5280 §6.3.

use std::path::Path;

use foreign_types::ForeignType;
use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;
use openssl::x509::store::{X509Store, X509StoreBuilder, X509StoreBuilderRef};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509StoreContextRef, X509VerifyResult};

use super::guard::guard;
use crate::credentials::{Crls, TlsError, unix_now};
use crate::observe::metrics;

/// `X509_V_ERR_UNABLE_TO_GET_CRL` of OpenSSL's `x509_vfy.h`.
const NO_CRL: libc::c_int = 3;
/// `X509_V_ERR_CRL_NOT_YET_VALID`: the clock of the authority is ahead.
const CRL_NOT_YET_VALID: libc::c_int = 11;
/// `X509_V_ERR_CRL_HAS_EXPIRED`.
const CRL_HAS_EXPIRED: libc::c_int = 12;

/// Reads the revocation lists at `path`, as [`Crls::open`], and tells an operator when the next one is due.
///
/// Errors: as [`Crls::open`].
pub fn lists_of(path: &Path, authorities: &[X509]) -> Result<Crls, TlsError> {
    let lists = Crls::open(path, authorities)?;
    if let Some(next) = lists.next_update() {
        let file = path.display().to_string();
        let known = metrics::get().crl_next.with_label_values(&[&file]);
        // Told once for each list, not each second while another file is tried again.
        if next < unix_now() && known.get() != next {
            log::warn!(
                "{file}: a revocation list is over; certificates revoked since then are accepted; fetch the \
                 new list"
            );
        }
        known.set(next);
    }
    Ok(lists)
}

/// Makes verification with `store` look at `revoked`: whoever issued the peer's certificate must have a list.
/// Verification must also have the callback [`forgives`].
pub fn install(revoked: &Crls, store: &mut X509StoreBuilderRef) -> Result<(), ErrorStack> {
    let mut any = false;
    for list in revoked.iter() {
        // SAFETY: both are live; the store takes a reference of its own.
        if unsafe { X509_STORE_add_crl(store.as_ptr(), list.as_ptr()) } != 1 {
            return Err(ErrorStack::get());
        }
        any = true;
    }
    match any {
        true => store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL),
        false => Ok(()),
    }
}

/// Makes a store of `authorities` that looks at `revoked`. An authority of the list is trusted although its own
/// issuer is not there. Also returns what it is made of, so that a change can be detected.
pub fn store_of(
    authorities: &[X509],
    revoked: &Crls,
) -> Result<(X509Store, Vec<Vec<u8>>), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    let mut material = revoked.ders()?;
    for authority in authorities {
        store.add_cert(authority.clone())?;
        material.push(authority.to_der()?);
    }
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    install(revoked, &mut store)?;
    Ok((store.build(), material))
}

/// Callback of a verification with [`Crls`]: passes over a list that is out of time, and over the missing lists of
/// those who issued an issuer.
pub fn forgives(good: bool, verification: &mut X509StoreContextRef) -> bool {
    guard("verification", || forgiven(good, verification), || false)
}

fn forgiven(good: bool, verification: &mut X509StoreContextRef) -> bool {
    let forgiven = match verification.error().as_raw() {
        _ if good => return true,
        NO_CRL => verification.error_depth() > 0,
        CRL_HAS_EXPIRED | CRL_NOT_YET_VALID => true,
        _ => false,
    };
    if forgiven {
        verification.set_error(X509VerifyResult::OK);
        // An error left in OpenSSL's queue would be taken for an error of the socket.
        drop(ErrorStack::get());
    }
    forgiven
}

/// Lets a handshake go on whatever the verification of the client finds. Verification ends at its first failure,
/// which stays the result: if it went on, an error that [`forgives`] passes over would wipe that result.
pub fn only_judge(context: &mut SslContextBuilder) {
    // SAFETY: the context is live; the callback is a function of this program and takes no argument.
    unsafe {
        SSL_CTX_set_cert_verify_callback(context.as_ptr(), Some(judge), std::ptr::null_mut())
    };
}

unsafe extern "C" fn judge(
    verification: *mut openssl_sys::X509_STORE_CTX,
    _: *mut libc::c_void,
) -> libc::c_int {
    let judged = || {
        // SAFETY: OpenSSL passes a context that is ready for this call. The verdict stays in it.
        unsafe { openssl_sys::X509_verify_cert(verification) };
        // An error left in OpenSSL's queue would be taken for an error of the socket.
        drop(ErrorStack::get());
        1
    };
    guard("client certificate", judged, || 0)
}

type Judge =
    unsafe extern "C" fn(*mut openssl_sys::X509_STORE_CTX, *mut libc::c_void) -> libc::c_int;

// SAFETY: declared as in OpenSSL's `ssl.h` and `x509_vfy.h`, 3.0 and 4.0.
unsafe extern "C" {
    fn SSL_CTX_set_cert_verify_callback(
        context: *mut openssl_sys::SSL_CTX,
        callback: Option<Judge>,
        argument: *mut libc::c_void,
    );
    fn X509_STORE_add_crl(
        store: *mut openssl_sys::X509_STORE,
        crl: *mut openssl_sys::X509_CRL,
    ) -> libc::c_int;
}
