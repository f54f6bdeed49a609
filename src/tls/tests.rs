//! Tests real handshakes over loopback against a [`TlsFront`], and the errors of certificate files.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use openssl::ssl::{SslConnectorBuilder, SslSession, SslSessionCacheMode, SslVersion};
use openssl::symm::Cipher;
use openssl::x509::X509;

use super::fixtures::{Folder, Leaf, client, ec_key, front_of, rsa_key, shake};
use super::tickets::Ring;
use super::{Store, TlsFront};
use crate::config::{Config, Listener};
use crate::credentials::{Loaded, TlsError, names_of};

mod acme;
mod chains;
mod vips;

const ANY: &str = "127.0.0.1:443";

fn vip(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Makes a folder with `push` (push.example), `wild` (*.example, example) and `other` (other.test).
fn three() -> (Folder, [X509; 3]) {
    let folder = Folder::new();
    let leaves = [
        folder.issue("push", &Leaf::of(&["push.example"])),
        folder.issue("wild", &Leaf::of(&["*.EXAMPLE", "example"])),
        folder.issue("other", &Leaf::of(&["other.test"])),
    ];
    (folder, leaves)
}

const WORDS: &[&str] = &["push", "wild", "other"];

fn front(folder: &Folder, mode: &str, tls: &str) -> TlsFront {
    let (config, listener) = folder.config(WORDS, mode, tls);
    front_of(&listener, &config).unwrap_or_else(|e| panic!("{e}"))
}

/// Loads all certificates again, as a reload of the whole configuration does.
fn reload(front: &TlsFront, listener: &Listener, config: &Config) -> Result<(), TlsError> {
    front.reload(
        listener,
        &Store::load(config, &Store::default())?,
        &config.dir,
    )
}

/// Aim: the exact name decides, then the wildcard, then the VIP's default, then the list's order.
/// Source: docs/configuration.md, `listeners[].tls`; FAULTS D31. Fails if one of the four steps is missing.
#[test]
fn certificate_is_chosen_by_name_then_by_vip() {
    let (folder, [push, wild, other]) = three();
    let tls = "{ certificates: [other, wild, push], by_vip: { '127.0.0.9:443': wild } }";
    let front = front(&folder, "http", tls);
    let nine = "127.0.0.9:443";
    let cases: &[(&str, Option<&str>, &str, &X509)] = &[
        ("exact before wildcard", Some("push.example"), ANY, &push),
        ("case and dot", Some("PUSH.example."), ANY, &push),
        ("wildcard", Some("x.example"), ANY, &wild),
        (
            "wildcard stands for one label",
            Some("x.y.example"),
            ANY,
            &other,
        ),
        (
            "the parent is no match of a wildcard",
            Some("example"),
            ANY,
            &wild,
        ),
        ("unknown name", Some("nobody.test"), ANY, &other),
        ("no name", None, ANY, &other),
        ("address as name", Some("10.0.0.1"), ANY, &other),
        ("no name on its VIP", None, nine, &wild),
        (
            "no name on its VIP, mapped",
            None,
            "[::ffff:127.0.0.9]:443",
            &wild,
        ),
        ("address as name on its VIP", Some("127.0.0.9"), nine, &wild),
        ("a name wins over the VIP", Some("other.test"), nine, &other),
        ("another port is another VIP", None, "127.0.0.9:444", &other),
    ];
    for (case, name, at, expected) in cases {
        let seen = shake(front.acceptor(vip(at)), &client().build(), *name, |_| ()).unwrap();
        assert_eq!(seen.leaf_der, expected.to_der().unwrap(), "{case}");
        assert_eq!(
            seen.server_name.as_deref(),
            *name,
            "{case}: name readable after it"
        );
        assert_eq!(seen.chain_len, 2, "{case}: the issuer is sent along");
    }
}

/// Aim: with `strict_sni` a name that no certificate covers is refused with `unrecognized_name`, and so is a
/// client without a name or with an address. Source: RFC 6066 §3; h2o#2404. Fails without the `None if strict`
/// arm, or if only names are looked at.
#[test]
fn strict_sni_refuses_uncovered_names() {
    let (folder, _) = three();
    let front = front(
        &folder,
        "http",
        "{ certificates: [wild], strict_sni: true }",
    );
    let shake = |name| shake(front.acceptor(vip(ANY)), &client().build(), name, |_| ());
    for name in [Some("nobody.test"), Some("10.0.0.1"), None] {
        let refusal = shake(name).unwrap_err();
        assert!(refusal.contains("unrecognized name"), "{name:?}: {refusal}");
    }
    assert!(shake(Some("x.example")).is_ok());
}

/// The protocol that both sides agree on; `Err` if the client is refused.
type Negotiated = Result<Option<&'static str>, ()>;

/// Aim: the listener's order of protocols decides. `h2: false` and layer 4 never select h2. A client of a
/// layer-7 listener that offers no common protocol is refused. Source: RFC 7301 §3.2.
#[test]
fn alpn_follows_the_listener() {
    let (folder, _) = three();
    let h2 = front(&folder, "http", "{ certificates: [push] }");
    let h1 = front(&folder, "http", "{ certificates: [push], h2: false }");
    let bytes = front(&folder, "tcp", "{ certificates: [push] }");
    let both = b"\x08http/1.1\x02h2".as_slice();
    let alien = b"\x04mqtt".as_slice();
    let cases: &[(&str, &TlsFront, &[u8], Negotiated)] = &[
        ("our order", &h2, both, Ok(Some("h2"))),
        ("h1 client", &h2, b"\x08http/1.1", Ok(Some("http/1.1"))),
        ("no ALPN", &h2, b"", Ok(None)),
        ("no overlap", &h2, alien, Err(())),
        ("h2 off", &h1, both, Ok(Some("http/1.1"))),
        ("h2 off, h2 only", &h1, b"\x02h2", Err(())),
        ("layer 4", &bytes, both, Ok(Some("http/1.1"))),
        ("layer 4, h2 only", &bytes, b"\x02h2", Ok(None)),
        ("layer 4, other protocol", &bytes, alien, Ok(None)),
    ];
    for (case, front, offered, expected) in cases {
        let mut client = client();
        if !offered.is_empty() {
            client.set_alpn_protos(offered).unwrap();
        }
        // With a server name the context is switched; ALPN must still work after that.
        let name = Some("push.example");
        let seen = shake(front.acceptor(vip(ANY)), &client.build(), name, |_| ());
        match (seen, expected) {
            (Ok(seen), Ok(expected)) => {
                assert_eq!(seen.alpn.as_deref(), *expected, "{case}");
                assert_eq!(seen.server_alpn, seen.alpn, "{case}: readable on our side");
            }
            (Err(e), Err(())) => assert!(e.contains("no application protocol"), "{case}: {e}"),
            (seen, _) => panic!("{case}: {seen:?}"),
        }
    }
}

/// Aim: TLS 1.1 is refused, 1.2 and 1.3 are accepted. Source: FAULTS D35, RFC 8996.
#[test]
fn old_versions_are_refused() {
    let (folder, _) = three();
    let front = front(&folder, "http", "{ certificates: [push] }");
    let cases = [
        (SslVersion::TLS1_1, false),
        (SslVersion::TLS1_2, true),
        (SslVersion::TLS1_3, true),
    ];
    for (version, spoken) in cases {
        let mut client = client();
        // At a higher security level the client itself would not try TLS 1.1.
        client.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        client.set_min_proto_version(Some(version)).unwrap();
        client.set_max_proto_version(Some(version)).unwrap();
        let seen = shake(front.acceptor(vip(ANY)), &client.build(), None, |_| ());
        match seen {
            Ok(seen) => assert!(spoken && seen.version == version, "{seen:?}"),
            Err(e) => assert!(
                !spoken && e.contains("alert protocol version"),
                "{version:?}: {e}"
            ),
        }
    }
}

/// Returns a client that stores the last session it got.
fn keeping(version: SslVersion) -> (SslConnectorBuilder, Arc<Mutex<Option<SslSession>>>) {
    let kept = Arc::new(Mutex::new(None));
    let mut client = client();
    client.set_min_proto_version(Some(version)).unwrap();
    client.set_max_proto_version(Some(version)).unwrap();
    client.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    let keep = kept.clone();
    client.set_new_session_callback(move |_, session| *keep.lock().unwrap() = Some(session));
    (client, kept)
}

/// Aim: a ticket is valid on every VIP and listener with the same certificate, and after a reload. It is
/// never valid for another certificate, other ticket keys or other client authentication. Source: PINGORA
/// W13; FAULTS D34. Fails without the shared ticket keys or their overlap (first cases), or without the
/// resumption scope (last cases).
#[test]
fn tickets_resume_under_their_certificate_only() {
    let (folder, _) = three();
    let tls = "{ certificates: [push, wild, other], by_vip: { '127.0.0.9:443': other } }";
    let asks = "{ certificates: [push], client_ca: push.pem, client_certificate: optional }";
    let (config, _) = folder.config(WORDS, "http", tls);
    let (store, ring) = (
        Store::load(&config, &Store::default()).unwrap(),
        Ring::new(&config).unwrap(),
    );
    let of = |tls: &str| {
        let (config, listener) = folder.config(WORDS, "http", tls);
        TlsFront::new(&listener, &store, ring.clone(), &config.dir).unwrap()
    };
    let (here, there, asking) = (of(tls), of(tls), of(asks));
    let elsewhere = front(&folder, "http", tls);
    let nine = "127.0.0.9:443";
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let cases: &[(&str, &TlsFront, &str, Option<&str>, bool)] = &[
            ("same name", &here, ANY, Some("push.example"), true),
            (
                "same name, other VIP",
                &here,
                nine,
                Some("push.example"),
                true,
            ),
            ("same certificate by default", &here, ANY, None, true),
            (
                "other certificate by name",
                &here,
                ANY,
                Some("x.example"),
                false,
            ),
            ("other certificate by VIP", &here, nine, None, false),
            ("other listener", &there, ANY, Some("push.example"), true),
            ("other keys", &elsewhere, ANY, Some("push.example"), false),
            (
                "a listener that asks for certificates",
                &asking,
                ANY,
                Some("push.example"),
                false,
            ),
        ];
        for (case, front, at, name, resumed) in cases {
            let (client, kept) = keeping(version);
            let client = client.build();
            let first = Some("push.example");
            let seen = shake(here.acceptor(vip(ANY)), &client, first, |_| ()).unwrap();
            assert!(!seen.resumed, "{case}: the first is full");
            let session = kept.lock().unwrap().take().expect("a ticket");
            let same = if std::ptr::eq(*front, &asking) {
                asks
            } else {
                tls
            };
            let (config, listener) = folder.config(WORDS, "http", same);
            reload(front, &listener, &config).unwrap();
            ring.rotate(std::time::Instant::now() + config.tickets.rotate.0);
            let seen = shake(front.acceptor(vip(at)), &client, *name, |ssl| {
                // SAFETY: the session comes from this very client context.
                unsafe { ssl.set_session(&session).unwrap() }
            });
            let seen = seen.unwrap();
            assert_eq!(seen.resumed, *resumed, "{case}, {version:?}");
            if name.is_some() {
                assert_eq!(seen.server_name.as_deref(), *name, "{case}: name readable");
            }
        }
    }
}

/// Aim: a reload serves the new certificate; a failed reload changes nothing. Source: FAULTS D36.
#[test]
fn reload_swaps_or_leaves_all_as_it_was() {
    let (folder, [old, ..]) = three();
    let tls = "{ certificates: [push] }";
    let front = front(&folder, "http", tls);
    let (config, listener) = folder.config(WORDS, "http", tls);
    let shown = || {
        let name = Some("push.example");
        shake(front.acceptor(vip(ANY)), &client().build(), name, |_| ())
            .unwrap()
            .leaf_der
    };
    folder.write("push.key", &ec_key().private_key_to_pem_pkcs8().unwrap());
    let fault = reload(&front, &listener, &config).unwrap_err().to_string();
    assert!(fault.contains("is not the private key of"), "{fault}");
    assert_eq!(shown(), old.to_der().unwrap());
    let new = folder.issue("push", &Leaf::of(&["push.example"]));
    reload(&front, &listener, &config).unwrap();
    assert_eq!(shown(), new.to_der().unwrap());
}

/// Aim: each fault in a file is found at load, and the error names file and fault. Source: FAULTS D36.
#[test]
fn faults_of_the_files_are_named() {
    let (folder, _) = three();
    let issue = |word: &str, leaf: Leaf<'_>| folder.issue(word, &leaf);
    let stranger = Folder::new();
    let leaf = issue("strange", Leaf::of(&["a.example"])).to_pem().unwrap();
    let chain = [leaf.clone(), stranger.ca.to_pem().unwrap()].concat();
    folder.write("strange.pem", &chain);
    issue("sealed", Leaf::of(&["a.example"]));
    let sealed = ec_key().private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret");
    folder.write("sealed.key", &sealed.unwrap());
    issue("blank", Leaf::of(&["a.example"]));
    folder.write("blank.pem", b"");
    issue("garbled", Leaf::of(&["a.example"]));
    folder.write(
        "garbled.key",
        b"-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n",
    );
    issue("huge", Leaf::of(&["a.example"]));
    folder.write("huge.pem", &leaf.repeat(2 * 1024 * 1024 / leaf.len()));
    let cases = [
        (
            "strange",
            "strange.pem: certificate 1 is not followed by its issuer",
        ),
        ("sealed", "sealed.key: the private key is encrypted"),
        ("blank", "blank.pem: expected PEM certificates, found none"),
        ("garbled", "garbled.key: expected a PEM private key"),
        (
            "huge",
            "huge.pem: cannot be read: larger than 1048576 bytes",
        ),
        ("absent", "absent.pem: cannot be read: No such file"),
    ];
    for (word, expected) in cases {
        let fault = Loaded::open(&Folder::certificate(word), folder.dir.path()).err();
        let fault = fault.unwrap_or_else(|| panic!("{word} passes")).to_string();
        assert!(fault.contains(expected), "{word}: {fault}");
    }
}

/// Aim: an empty list, an unknown certificate and a weak key are refused, and the error names them.
#[test]
fn faults_of_the_list_are_named() {
    let (folder, _) = three();
    folder.issue(
        "weak",
        &Leaf {
            key: rsa_key(1024),
            ..Leaf::of(&["a.example"])
        },
    );
    let cases = [
        ("{ certificates: [] }", "needs at least one certificate"),
        (
            "{ certificates: [nope] }",
            "listener `push`: unknown certificate `nope`",
        ),
        (
            "{ certificates: [push], by_vip: { '127.0.0.9:443': nope } }",
            "unknown certificate `nope`",
        ),
        (
            "{ certificates: [weak] }",
            "certificate `weak`: OpenSSL refuses it",
        ),
    ];
    for (tls, expected) in cases {
        let (config, listener) = folder.config(&["push", "weak"], "http", tls);
        let fault = front_of(&listener, &config).err();
        let fault = fault.unwrap_or_else(|| panic!("{tls} passes")).to_string();
        assert!(fault.contains(expected), "{tls}: {fault}");
    }
}

/// Aim: names come from the subjectAltName only. Source: RFC 6125 §6.4.4, CA/B forum.
#[test]
fn common_name_covers_nothing() {
    let folder = Folder::new();
    let leaf = |names| Leaf {
        common_name: "cn.example",
        ..Leaf::of(names)
    };
    folder.issue("bare", &leaf(&[]));
    folder.issue("full", &leaf(&["*.A.example", "b.example"]));
    let names = |file: &str| names_of(&folder.dir.path().join(file)).unwrap();
    assert_eq!(names("bare.pem"), Vec::<String>::new());
    assert_eq!(names("full.pem"), ["*.a.example", "b.example"]);
}
