//! Keeps a panic in an OpenSSL callback inside the handshake that called it.
//!
//! In: the work of a callback, and what to answer if it panics. Out: the callback's answer.
//! Since Rust 1.81 a panic that reaches an `extern "C"` function aborts the process. rust-openssl calls our
//! closures from such functions, so they need this guard as much as the callback that we register ourselves.
//! Source: FAULTS D75.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work` and returns its answer. If it panics, logs an error and returns the answer of `failure`.
///
/// `callback` is the name in the log. The panic hook prints the message and the line of code before.
pub(super) fn guard<T>(callback: &str, work: impl FnOnce() -> T, failure: impl FnOnce() -> T) -> T {
    let work = || {
        #[cfg(test)]
        tests::panic_if_planned(callback);
        work()
    };
    // `work` changes only its handshake, which fails; all else that it borrows is read-only.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        log::error!("TLS: the {callback} callback panicked, a bug in pushgate; only this handshake is affected");
        failure()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use openssl::ssl::{SslFiletype, SslVersion, StatusType};

    use super::super::fixtures::{Folder, Leaf, client, front_of, shake};

    thread_local! {
        /// The callback that panics on this thread.
        pub static PLANNED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub fn panic_if_planned(callback: &str) {
        if PLANNED.get() == Some(callback) {
            panic!("planned by a test");
        }
    }

    /// Aim: a panic in any of our callbacks fails the handshake that called it; the next one succeeds.
    /// Source: FAULTS D75. Fails, by an abort of the test process, for a callback without its guard.
    #[test]
    fn a_panic_fails_one_handshake() {
        let folder = Folder::new();
        folder.issue("push", &Leaf::of(&["push.example"]));
        let tls = "{ certificates: [push], client_ca: push.pem, client_certificate: optional }";
        let (config, listener) = folder.config(&["push"], "http", tls);
        let front = front_of(&listener, &config).unwrap();
        let shake = || {
            let mut client = client();
            let file = |name: &str| folder.dir.path().join(name);
            client.set_certificate_chain_file(file("push.pem")).unwrap();
            client
                .set_private_key_file(file("push.key"), SslFiletype::PEM)
                .unwrap();
            client.set_alpn_protos(b"\x02h2").unwrap();
            let name = Some("push.example");
            let vip = "127.0.0.1:443".parse().unwrap();
            let seen = shake(front.acceptor(vip), &client.build(), name, |ssl| {
                ssl.set_status_type(StatusType::OCSP).unwrap();
            });
            seen.map(|seen| seen.version)
        };
        for callback in [
            "ClientHello",
            "ALPN",
            "client certificate",
            "session ticket",
            "OCSP staple",
        ] {
            PLANNED.set(Some(callback));
            let failed = shake();
            PLANNED.set(None);
            // A handshake goes on without its staple.
            let expected = callback == "OCSP staple";
            assert_eq!(failed.is_ok(), expected, "{callback}: {failed:?}");
            assert_eq!(shake(), Ok(SslVersion::TLS1_3), "after {callback}");
        }
    }
}
