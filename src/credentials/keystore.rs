//! Opens a PKCS#12 keystore with all its keys: rust-openssl shows only the first.
//!
//! In: the file and its password. Out: each private key with its alias, and all certificates.
//! Source: RFC 7292 §4; `PKCS12_unpack_authsafes(3)`, `PKCS12_SAFEBAG_get1_cert(3)`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use foreign_types::ForeignType;
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use openssl_sys::{EVP_PKCS82PKEY, PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free};

use super::TlsError;
use super::files::{malformed, read};

/// First bytes of Java's own keystore format.
const JKS: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
/// First bytes of JCEKS, Java's variant of that format with stronger encryption.
const JCEKS: [u8; 4] = [0xCE, 0xCE, 0xCE, 0xCE];
/// Most entries of a keystore; real ones hold a few keys and some hundred authorities.
const MAX_ENTRIES: usize = 4096;
/// Most bags inside bags.
const MAX_DEPTH: usize = 4;

/// NIDs of the kinds of a bag, from OpenSSL's `obj_mac.h`.
const KEY_BAG: c_int = 150;
const SHROUDED_KEY_BAG: c_int = 151;
const CERT_BAG: c_int = 152;
const SAFE_CONTENTS_BAG: c_int = 155;

/// What a keystore holds.
#[derive(Default)]
pub(super) struct Keystore {
    /// Each private key with its alias, which may be empty, in the order of the file.
    pub keys: Vec<(String, PKey<Private>)>,
    /// All certificates, of keys and of authorities.
    pub certificates: Vec<X509>,
}

impl Keystore {
    /// Opens the keystore at `path`.
    ///
    /// Errors: [`TlsError::JavaKeystore`] for Java's old formats, [`TlsError::WrongPassword`],
    /// [`TlsError::OldCipher`], [`TlsError::Malformed`].
    pub fn open(path: &Path, password: &str) -> Result<Keystore, TlsError> {
        Keystore::opened(&read(path)?, path, password)
    }

    /// Opens the keystore `der`, called `path` in errors. Errors as [`Keystore::open`].
    pub fn opened(der: &[u8], path: &Path, password: &str) -> Result<Keystore, TlsError> {
        if der.starts_with(&JKS) || der.starts_with(&JCEKS) {
            return Err(TlsError::JavaKeystore {
                path: path.to_owned(),
            });
        }
        let store = Pkcs12::from_der(der)
            .map_err(|e| malformed(path, "expected a PKCS#12 keystore", &e))?;
        // Checks the password and the ciphers; its errors are the ones to tell.
        store.parse2(password).map_err(|e| unopened(path, &e))?;
        let mut keystore = Keystore::default();
        // An empty password is encoded in two ways (RFC 7292 §B.1); OpenSSL tries both, too.
        let password = CString::new(password).map_err(|_| TlsError::WrongPassword {
            path: path.to_owned(),
        })?;
        let mut walked = keystore.walk(&store, Some(&password));
        if walked.is_err() && password.is_empty() {
            keystore = Keystore::default();
            walked = keystore.walk(&store, None);
        }
        walked.map_err(|e| malformed(path, "the keystore cannot be opened", &e))?;
        Ok(keystore)
    }

    fn walk(&mut self, store: &Pkcs12, password: Option<&CStr>) -> Result<(), ErrorStack> {
        // SAFETY: the keystore is live. The stack belongs to us and is freed below, with its elements.
        unsafe {
            let safes = PKCS12_unpack_authsafes(store.as_ptr().cast());
            if safes.is_null() {
                return Err(ErrorStack::get());
            }
            let mut walked = Ok(());
            for i in 0..OPENSSL_sk_num(safes) {
                let safe = OPENSSL_sk_value(safes, i);
                let bags = unpacked(safe, password);
                if bags.is_null() {
                    walked = Err(ErrorStack::get());
                    break;
                }
                // What the wrong way of unpacking left in the queue is no error of anyone's.
                drop(ErrorStack::get());
                walked = self.bags(bags, password, 0);
                OPENSSL_sk_pop_free(bags, PKCS12_SAFEBAG_free);
                if walked.is_err() {
                    break;
                }
            }
            OPENSSL_sk_pop_free(safes, PKCS7_free);
            walked
        }
    }

    /// Takes the keys and certificates of `bags`.
    ///
    /// # Safety
    /// `bags` must be a live stack of `PKCS12_SAFEBAG`.
    unsafe fn bags(
        &mut self,
        bags: *const c_void,
        password: Option<&CStr>,
        depth: usize,
    ) -> Result<(), ErrorStack> {
        // SAFETY: the caller's promise; each element lives as long as the stack.
        unsafe {
            for i in 0..OPENSSL_sk_num(bags) {
                let bag = OPENSSL_sk_value(bags, i);
                if self.keys.len() + self.certificates.len() >= MAX_ENTRIES {
                    return Ok(());
                }
                match PKCS12_SAFEBAG_get_nid(bag) {
                    CERT_BAG => {
                        let certificate = PKCS12_SAFEBAG_get1_cert(bag);
                        // Another kind of certificate (SDSI) is none of ours.
                        if !certificate.is_null() {
                            self.certificates.push(X509::from_ptr(certificate.cast()));
                        }
                    }
                    KEY_BAG => {
                        let key = EVP_PKCS82PKEY(PKCS12_SAFEBAG_get0_p8inf(bag));
                        self.key(bag, key)?;
                    }
                    SHROUDED_KEY_BAG => {
                        let (text, length) = parts(password);
                        let plain = PKCS12_decrypt_skey(bag, text, length);
                        if plain.is_null() {
                            return Err(ErrorStack::get());
                        }
                        let key = EVP_PKCS82PKEY(plain);
                        PKCS8_PRIV_KEY_INFO_free(plain);
                        self.key(bag, key)?;
                    }
                    SAFE_CONTENTS_BAG if depth < MAX_DEPTH => {
                        let inner = PKCS12_SAFEBAG_get0_safes(bag);
                        if !inner.is_null() {
                            self.bags(inner, password, depth + 1)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// # Safety
    /// `bag` must be live, and `key` ours or null.
    unsafe fn key(
        &mut self,
        bag: *const c_void,
        key: *mut openssl_sys::EVP_PKEY,
    ) -> Result<(), ErrorStack> {
        if key.is_null() {
            return Err(ErrorStack::get());
        }
        // SAFETY: the caller's promise. The name is a string of ours, freed after it was copied.
        unsafe {
            let key = PKey::from_ptr(key);
            let name = PKCS12_get_friendlyname(bag);
            let alias = match name.is_null() {
                true => String::new(),
                false => {
                    let alias = CStr::from_ptr(name).to_string_lossy().into_owned();
                    CRYPTO_free(name.cast(), c"".as_ptr(), 0);
                    alias
                }
            };
            self.keys.push((alias, key));
        }
        Ok(())
    }
}

/// Unpacks a safe: plain, or encrypted with the password. Null if it is neither.
///
/// # Safety
/// `safe` must be a live `PKCS7`.
unsafe fn unpacked(safe: *const c_void, password: Option<&CStr>) -> *mut c_void {
    let (text, length) = parts(password);
    // SAFETY: the caller's promise; the password outlives the call.
    unsafe {
        let plain = PKCS12_unpack_p7data(safe);
        match plain.is_null() {
            true => PKCS12_unpack_p7encdata(safe, text, length),
            false => plain,
        }
    }
}

fn parts(password: Option<&CStr>) -> (*const c_char, c_int) {
    match password {
        Some(text) => (text.as_ptr(), text.count_bytes() as c_int),
        None => (ptr::null(), 0),
    }
}

fn unopened(path: &Path, e: &ErrorStack) -> TlsError {
    let says = |word: &str| {
        let mut errors = e.errors().iter();
        errors.any(|e| e.reason().is_some_and(|r| r.contains(word)))
    };
    if says("mac verify failure") {
        return TlsError::WrongPassword {
            path: path.to_owned(),
        };
    }
    if says("unsupported") || says("unknown pbe algorithm") {
        // Java 8 encrypts with 40-bit RC2, which OpenSSL 3 has only in its legacy provider.
        return TlsError::OldCipher {
            path: path.to_owned(),
        };
    }
    malformed(path, "the keystore cannot be opened", e)
}

// SAFETY: declared as in OpenSSL 3's `pkcs12.h`, `safestack.h` and `crypto.h`. Stacks, safes and bags are
// opaque here.
unsafe extern "C" {
    fn PKCS12_unpack_authsafes(store: *const c_void) -> *mut c_void;
    fn PKCS12_unpack_p7data(safe: *const c_void) -> *mut c_void;
    fn PKCS12_unpack_p7encdata(
        safe: *const c_void,
        password: *const c_char,
        length: c_int,
    ) -> *mut c_void;
    fn PKCS12_SAFEBAG_get_nid(bag: *const c_void) -> c_int;
    fn PKCS12_SAFEBAG_get1_cert(bag: *const c_void) -> *mut c_void;
    fn PKCS12_SAFEBAG_get0_p8inf(bag: *const c_void) -> *const PKCS8_PRIV_KEY_INFO;
    fn PKCS12_SAFEBAG_get0_safes(bag: *const c_void) -> *const c_void;
    fn PKCS12_decrypt_skey(
        bag: *const c_void,
        password: *const c_char,
        length: c_int,
    ) -> *mut PKCS8_PRIV_KEY_INFO;
    fn PKCS12_get_friendlyname(bag: *const c_void) -> *mut c_char;
    fn PKCS12_SAFEBAG_free(bag: *mut c_void);
    fn PKCS7_free(safe: *mut c_void);
    fn OPENSSL_sk_num(stack: *const c_void) -> c_int;
    fn OPENSSL_sk_value(stack: *const c_void, i: c_int) -> *mut c_void;
    fn OPENSSL_sk_pop_free(stack: *mut c_void, free: unsafe extern "C" fn(*mut c_void));
    fn CRYPTO_free(text: *mut c_void, file: *const c_char, line: c_int);
}
