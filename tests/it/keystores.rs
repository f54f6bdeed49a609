//! Keystores as Java's keytool writes them, and PEM keys under a password.
//!
//! In: `tests/keystores/` (made by its `make.sh`), passwords from files and the environment. Out: what the
//! edge serves, or its error. Source: Lightstreamer clustering §3 (`push.keystore`); RFC 7292.

use std::path::{Path, PathBuf};

use openssl::pkey::Id;
use openssl::symm::Cipher;
use pushgate::config::Certificate;
use pushgate::credentials::Loaded;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::edge::Edge;
use crate::tls_node;
use crate::vip::Block;

/// Path of a file in `tests/keystores/`.
fn keystore(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.join("tests/keystores").join(name)
}

/// Aim: the edge opens keytool's keystore and gets each certificate of its chain once, in order, even if the
/// file also holds the authority as trusted. Each error says what to do. Fails if `in_order` takes a root
/// twice, or if an old format is reported as damage.
#[test]
fn keytools_files_are_opened_or_explained() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("write");
        Some(PathBuf::from(name))
    };
    let right = write("right", "changeit\nnot read\n");
    let wrong = write("wrong", "changed\n");
    let empty = write("empty", "\n");
    let open = |file: PathBuf, password: &Option<PathBuf>| {
        let files = Certificate {
            keystore: Some(file),
            password_file: password.clone(),
            ..Certificate::default()
        };
        Loaded::open(&files, dir.path()).map_err(|fault| fault.to_string())
    };
    let loaded = open(keystore("push.keystore"), &right).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.names, ["push.mycompany.com", "*.push.mycompany.com"]);
    assert_eq!((loaded.issuers.len(), loaded.kind()), (1, "ecdsa"));
    std::fs::write(dir.path().join("half"), [0x30, 0x82]).expect("write");
    for (file, password, expected) in [
        (
            keystore("push.keystore"),
            &wrong,
            "the password does not open it",
        ),
        (
            keystore("push.keystore"),
            &None,
            "the password does not open it",
        ),
        (
            keystore("push.keystore"),
            &empty,
            "the first line must be the password",
        ),
        (
            keystore("push.jks"),
            &right,
            "push.jks.p12 -deststoretype PKCS12",
        ),
        (
            keystore("push-java8.keystore"),
            &right,
            "encrypted with a cipher that is no longer safe",
        ),
        ("half".into(), &right, "expected a PKCS#12 keystore"),
    ] {
        let fault = open(file.clone(), password).err();
        let fault = fault.unwrap_or_else(|| panic!("{file:?} passes"));
        assert!(fault.contains(expected), "{file:?}: {fault}");
        assert!(
            !fault.contains("change"),
            "no message has the password: {fault}"
        );
    }
}

/// Aim: a client that knows RSA only and one that prefers ECDSA both get their key of one keystore; clients of
/// another keystore get the key of their name. Source: `tests/keystores/make.sh`. Fails if only the first key
/// of a keystore is served.
#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_keystore_are_served() {
    let block = Block::claim();
    let certs = Certs::new();
    std::fs::write(certs.dir().join("pass"), "changeit\n").expect("write");
    for (file, name, algorithms, kind) in [
        ("two-kinds.keystore", "push", "rsa_pss_rsae_sha256", Id::RSA),
        (
            "two-kinds.keystore",
            "push",
            "ecdsa_secp256r1_sha256",
            Id::EC,
        ),
        (
            "two-names.keystore",
            "push",
            "ecdsa_secp256r1_sha256",
            Id::EC,
        ),
        (
            "two-names.keystore",
            "other",
            "ecdsa_secp256r1_sha256",
            Id::EC,
        ),
    ] {
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n  \
             java: {{ keystore: {}, password_file: {}/pass }}\nlisteners:\n  \
             - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [java] }} }}\n",
            keystore(file).display(),
            certs.dir().display()
        );
        let _edge = Edge::start_unready(&block, &yaml).await;
        let host = format!("{name}.mycompany.com");
        let dial = Dial::tls(block.at("200.0.0.10:443"), &host, certs.ca());
        let shown = tls_node::shown_with(&dial, algorithms).await;
        let leaf = openssl::x509::X509::from_der(&shown).expect("DER");
        assert_eq!(leaf.public_key().expect("a key").id(), kind, "{file}");
        let names = leaf.subject_alt_names().expect("names");
        assert_eq!(names[0].dnsname(), Some(host.as_str()), "{file}");
    }
}

/// Aim: the program serves a keystore whose password is in the environment, and a PEM key whose password is
/// in a file. Fails if either password is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn sealed_keys_are_served() {
    let (block, certs) = (Block::claim(), Certs::new());
    let pem = certs.leaf("pem", &["pem.example"], Key::Ecdsa);
    let key = pushgate::credentials::key_of(&pem.key, None).expect("PEM");
    let sealed = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"sesame");
    std::fs::write(&pem.key, sealed.expect("PEM")).expect("write");
    std::fs::write(certs.dir().join("pem.pass"), "sesame\n").expect("write");
    let (dir, store) = (certs.dir().display(), keystore("push.keystore"));
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n  \
         java: {{ keystore: {}, password_env: STORE_PASSWORD }}\n  \
         pem: {{ chain: {dir}/pem.pem, key: {dir}/pem.key, password_file: {dir}/pem.pass }}\n\
         listeners:\n  - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [java, pem] }} }}\n",
        store.display()
    );
    let _edge = Edge::start_with(&block, &yaml, &[("STORE_PASSWORD", "changeit")]).await;
    let at = block.at("200.0.0.10:443");
    for host in ["push.mycompany.com", "pem.example"] {
        let shown = tls_node::shown(&Dial::tls(at, host, certs.ca())).await;
        let leaf = openssl::x509::X509::from_der(&shown).expect("DER");
        let names = leaf.subject_alt_names().expect("names");
        assert_eq!(names[0].dnsname(), Some(host));
    }
}
