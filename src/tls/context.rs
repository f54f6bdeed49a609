//! Builds one OpenSSL context: the rules of a handshake and the certificate it shows.
//!
//! In: a [`Loaded`] certificate and the listener's [`Rules`]. Out: an acceptor's builder.
//! Source: Mozilla Server Side TLS, "intermediate" 5.x; RFC 7301 §3.2 (ALPN); FAULTS D33–D35.

use std::ffi::c_void;

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslAcceptorBuilder, SslContextBuilder, SslMethod, SslMode, SslOptions,
    SslSessionCacheMode, SslVersion, select_next_proto,
};

use super::store::Loaded;

/// Key exchange, best first: the hybrid keeps recorded traffic safe from a later quantum computer.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// `SSL_CTRL_SET_TLSEXT_TICKET_KEYS` of OpenSSL's `tls1.h`; rust-openssl has no call for it.
const SET_TICKET_KEYS: libc::c_int = 59;
/// Key name, HMAC key and AES key, as OpenSSL 3 expects them.
const TICKET_KEYS_BYTES: usize = 16 + 32 + 32;

const H2_THEN_H1: &[u8] = b"\x02h2\x08http/1.1";
const H1: &[u8] = b"\x08http/1.1";

/// Keys that seal session tickets: contexts that share them resume each other's sessions.
#[derive(Clone)]
pub(super) struct TicketKeys([u8; TICKET_KEYS_BYTES]);

impl TicketKeys {
    pub(super) fn random() -> Result<TicketKeys, ErrorStack> {
        let mut keys = [0; TICKET_KEYS_BYTES];
        rand_bytes(&mut keys)?;
        Ok(TicketKeys(keys))
    }

    fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let mut keys = self.0;
        // SAFETY: the context is live; OpenSSL reads exactly `keys.len()` bytes and copies them,
        // or answers 0 if it expected another length.
        let done = unsafe {
            openssl_sys::SSL_CTX_ctrl(
                context.as_ptr(),
                SET_TICKET_KEYS,
                TICKET_KEYS_BYTES as libc::c_long,
                keys.as_mut_ptr().cast::<c_void>(),
            )
        };
        if done == 1 {
            Ok(())
        } else {
            Err(ErrorStack::get())
        }
    }
}

/// What all contexts of a listener have in common.
pub(super) struct Rules {
    /// Protocols offered by ALPN.
    pub alpn: Alpn,
    /// Keys of the listener's session tickets.
    pub tickets: TicketKeys,
}

/// Protocols offered by ALPN, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// `h2`, `http/1.1`; a client that offers neither is refused (RFC 7301 §3.2).
    H2ThenH1,
    /// `http/1.1`; a client that offers something else only is refused.
    H1,
    /// Layer 4: `http/1.1` if the client offers it, else no answer. Never `h2`: the node behind
    /// speaks plain bytes and was not asked.
    Bytes,
}

impl Rules {
    /// A builder with every rule and the certificate `shown` installed.
    pub(super) fn context(&self, shown: &Loaded) -> Result<SslAcceptorBuilder, ErrorStack> {
        let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        context.set_groups_list(GROUPS)?;
        context.set_options(
            SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE
                // A client that puts ChaCha20 first has no AES in hardware: let it have it.
                | SslOptions::PRIORITIZE_CHACHA,
        );
        // 34 KiB less for each silent connection.
        context.set_mode(SslMode::RELEASE_BUFFERS);
        // Resumption is by ticket alone: a cache of ours would grow with the clients.
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        self.tickets.install(&mut context)?;
        self.install_alpn(&mut context);
        // Says "name accepted" to the client; the choice itself was made at the ClientHello.
        context.set_servername_callback(|_, _| Ok(()));
        context.set_certificate(&shown.leaf)?;
        context.set_private_key(&shown.key)?;
        for issuer in &shown.issuers {
            context.add_extra_chain_cert(issuer.clone())?;
        }
        context.set_session_id_context(&resumption_scope(shown)?)?;
        Ok(context)
    }

    fn install_alpn(&self, context: &mut SslContextBuilder) {
        let alpn = self.alpn;
        context.set_alpn_select_callback(move |_, offered| {
            let ours = if alpn == Alpn::H2ThenH1 {
                H2_THEN_H1
            } else {
                H1
            };
            let none = match alpn {
                Alpn::Bytes => AlpnError::NOACK,
                Alpn::H2ThenH1 | Alpn::H1 => AlpnError::ALERT_FATAL,
            };
            select_next_proto(ours, offered).ok_or(none)
        });
    }
}

/// Sessions resume only under the certificate they were made under: without this a ticket of one
/// virtual host opens another (CVE-2025-23419 was that, in a peer).
fn resumption_scope(shown: &Loaded) -> Result<[u8; 32], ErrorStack> {
    let mut hash = Sha256::new();
    hash.update(&shown.leaf.to_der()?);
    Ok(hash.finish())
}
