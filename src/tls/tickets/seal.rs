//! Gives OpenSSL the key of a ticket, through a callback that rust-openssl does not wrap.
//!
//! In: a context that carries its [`Ring`]. Out: cipher and MAC set up for one ticket.
//! Source: `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`; RFC 5077 §4.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::rand::rand_bytes;
use openssl::ssl::{SslContext, SslContextBuilder, SslRef, SslVersion};
use openssl_sys::{EVP_CIPHER_CTX, SSL, SSL_CTX};

use super::Ring;
use crate::config::defaults::TICKET_LIFETIME;
use crate::credentials::ticket_keys::{HALF, Key, NAME};
use crate::tls::guard::guard;

/// Bytes of an AES block, and of the initialisation vector.
const IV: usize = 16;
/// `OSSL_PARAM_UTF8_STRING`.
const UTF8_STRING: c_uint = 4;

/// `OSSL_PARAM` of OpenSSL's `core.h`.
#[repr(C)]
struct Param {
    key: *const c_char,
    data_type: c_uint,
    data: *mut c_void,
    data_size: usize,
    return_size: usize,
}

type Callback = unsafe extern "C" fn(
    *mut SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut EVP_CIPHER_CTX,
    *mut c_void,
    c_int,
) -> c_int;

// SAFETY: declared as in OpenSSL 3's ssl.h, tls1.h and evp.h; EVP_MAC_CTX is opaque.
unsafe extern "C" {
    fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, seconds: c_long) -> c_long;
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx: *mut SSL_CTX, callback: Callback) -> c_int;
    fn EVP_MAC_init(
        ctx: *mut c_void,
        key: *const c_uchar,
        key_bytes: usize,
        params: *const Param,
    ) -> c_int;
}

/// Returns the ex_data index at which a context stores its ring.
fn index() -> Result<Index<SslContext, Arc<Ring>>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Arc<Ring>>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => {
            let index = SslContext::new_ex_index()?;
            Ok(*INDEX.get_or_init(|| index))
        }
    }
}

/// Makes `context` seal and open tickets with `ring`.
pub(in crate::tls) fn install(
    context: &mut SslContextBuilder,
    ring: Arc<Ring>,
) -> Result<(), ErrorStack> {
    context.set_ex_data(index()?, ring);
    // SAFETY: the context is live, and the callback has the type this function wants.
    let installed = unsafe {
        SSL_CTX_set_timeout(context.as_ptr(), TICKET_LIFETIME.0.as_secs() as c_long);
        SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), ticket)
    };
    match installed {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// The callback that OpenSSL calls for each ticket. Returns 1: the key is set up; 2: it is set up, send a
/// new ticket too; 0: unknown key, do a full handshake; -1: an internal error.
unsafe extern "C" fn ticket(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut c_void,
    seals: c_int,
) -> c_int {
    // SAFETY: OpenSSL passes a live handshake, and room for a key name and an initialisation vector.
    let (ssl, name, iv) = unsafe {
        (
            SslRef::from_ptr(ssl),
            std::slice::from_raw_parts_mut(name, NAME),
            std::slice::from_raw_parts_mut(iv, IV),
        )
    };
    let answer = || {
        let (key, word) = match key_for(ssl, name, iv, seals == 1) {
            Ok(found) => found,
            Err(word) => return word,
        };
        // SAFETY: both contexts belong to OpenSSL and live until the callback returns.
        match unsafe { set_up(&key, iv, cipher, mac, seals == 1) } {
            true => word,
            false => -1,
        }
    };
    guard("session ticket", answer, || -1)
}

/// Returns the key of a ticket and what the callback answers once that key is set up. Writes `name` and `iv` to
/// seal a ticket, reads them to open one.
///
/// Errors: the callback's answer if there is no key.
fn key_for(
    ssl: &SslRef,
    name: &mut [u8],
    iv: &mut [u8],
    seals: bool,
) -> Result<(Key, c_int), c_int> {
    let ring = index().ok().and_then(|i| ssl.ssl_context().ex_data(i));
    // The proof of a name to an authority has no ring: nothing resumes it.
    let ring = ring.ok_or(0)?;
    if seals {
        let key = ring.seal().ok_or(-1)?;
        rand_bytes(iv).map_err(|_| -1)?;
        name.copy_from_slice(&key.name);
        Ok((key, 1))
    } else {
        // A TLS 1.3 client uses a ticket once (RFC 8446 §C.4). Without a new ticket it could not resume
        // again.
        let once = ssl.version2() == Some(SslVersion::TLS1_3);
        match ring.open(name) {
            Some((key, true)) if !once => Ok((key, 1)),
            Some((key, _)) => Ok((key, 2)),
            None => Err(0),
        }
    }
}

/// Sets up AES-256-CBC and HMAC-SHA-256.
///
/// # Safety
/// Both contexts must be live, and `iv` must hold one AES block.
unsafe fn set_up(
    key: &Key,
    iv: &[u8],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut c_void,
    seals: bool,
) -> bool {
    const DIGEST: &CStr = c"digest";
    const SHA256: &CStr = c"SHA256";
    let end = Param {
        key: ptr::null(),
        data_type: 0,
        data: ptr::null_mut(),
        data_size: 0,
        return_size: 0,
    };
    let digest = Param {
        key: DIGEST.as_ptr(),
        data_type: UTF8_STRING,
        data: SHA256.as_ptr().cast_mut().cast(),
        data_size: SHA256.count_bytes(),
        return_size: usize::MAX,
    };
    let params = [digest, end];
    let init = if seals {
        openssl_sys::EVP_EncryptInit_ex
    } else {
        openssl_sys::EVP_DecryptInit_ex
    };
    // SAFETY: keys and parameters outlive the calls, which copy them. A null engine means no engine.
    unsafe {
        EVP_MAC_init(mac, key.hmac.as_ptr(), HALF, params.as_ptr()) == 1
            && init(
                cipher,
                openssl_sys::EVP_aes_256_cbc(),
                ptr::null_mut(),
                key.aes.as_ptr(),
                iv.as_ptr(),
            ) == 1
    }
}
