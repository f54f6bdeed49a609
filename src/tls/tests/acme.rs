//! Tests what a listener shows for names that no authority has issued a certificate for, and to the authority itself.

use std::collections::BTreeSet;

use openssl::ssl::SslVersion;
use openssl::x509::X509;

use super::super::fixtures::{Folder, Leaf, client, front_of, shake};
use super::super::{Choice, Store, Which, choice};
use super::{ANY, vip};
use crate::acme::{Proof, answer_all};
use crate::config::{Config, Listener};
use crate::credentials::whole;

/// A listener with the certificates `words`: `push` is one of `acme` for `push.example`, the others are files.
fn listener(folder: &Folder, words: &str, more: &str) -> (Config, Listener) {
    let (mut config, listener) = folder.config(
        &["wild"],
        "http",
        &format!("{{ certificates: [{words}]{more} }}"),
    );
    let block = "acme: { domains: [push.example], state: state }";
    let push = serde_yaml::from_str(block).unwrap();
    config.certificates.insert("push".into(), push);
    config.name_acme();
    (config, listener)
}

fn subject(der: &[u8]) -> String {
    format!("{:?}", X509::from_der(der).unwrap().subject_name())
}

/// Aim: a placeholder is shown only for names that no valid certificate covers, and `choice` says the same. Source:
/// issue 15 §4. Fails if an order that takes long takes a name away from a wildcard that served it.
#[test]
fn a_placeholder_comes_last() {
    let folder = Folder::new();
    let wild = folder.issue("wild", &Leaf::of(&["*.example"]));
    let over = Leaf {
        until: -60,
        ..Leaf::of(&["*.example"])
    };
    for (words, shown) in [
        ("push", "push"),
        ("push, wild", "wild"),
        ("wild, push", "wild"),
    ] {
        let (config, listener) = listener(&folder, words, "");
        let front = front_of(&listener, &config).unwrap();
        let name = Some("push.example");
        let seen = shake(front.acceptor(vip(ANY)), &client().build(), name, |_| ());
        let leaf = seen.unwrap().leaf_der;
        match shown {
            "wild" => assert_eq!(leaf, wild.to_der().unwrap(), "{words}"),
            _ => assert!(subject(&leaf).contains("placeholder"), "{words}"),
        }
        let store = Store::load(&config, &Store::default()).unwrap();
        let said = choice(listener.tls.as_ref().unwrap(), &store, vip(ANY), name);
        let word = matches!(&said, Choice::Name(word, _) if word == shown);
        assert!(word, "{words}: {said:?}");
    }
    folder.issue("wild", &over);
    let (config, listener) = listener(&folder, "wild, push", "");
    let front = front_of(&listener, &config).unwrap();
    let name = Some("push.example");
    let seen = shake(front.acceptor(vip(ANY)), &client().build(), name, |_| ());
    assert!(subject(&seen.unwrap().leaf_der).contains("placeholder"));
}

/// Aim: a certificate of files that becomes one of `acme`, or whose file somebody removes, or that gets another first
/// name, serves on until the new one is there, whatever the order of its names. Fails if the placeholder takes its place: clients would be refused for as
/// long as the authority is away.
#[test]
fn a_placeholder_replaces_nothing() {
    let folder = Folder::new();
    let files = folder.issue("push", &Leaf::of(&["other.example", "push.example"]));
    let (before, _) = folder.config(&["push"], "http", "{ certificates: [push] }");
    let before = Store::load(&before, &Store::default()).unwrap();
    let (config, _) = listener(&folder, "push", "");
    let leaf = |store: &Store| store.get("push").unwrap().leaf.to_der().unwrap();
    // `listener` names `wild` too, which has no file here.
    folder.issue("wild", &Leaf::of(&["*.test"]));
    let store = Store::load(&config, &before).unwrap();
    assert_eq!(leaf(&store), files.to_der().unwrap());
    assert!(store.failed()["push"].contains("no authority has issued it yet"));
    let got = folder.issue("got", &Leaf::of(&["push.example"]));
    std::fs::create_dir(folder.dir.path().join("state")).unwrap();
    let read = |file| std::fs::read_to_string(folder.dir.path().join(file)).unwrap();
    let content = whole("https://ca/dir", &read("got.key"), &read("got.pem"));
    folder.write("state/push.pem", content.as_bytes());
    let store = store.refreshed(&config, Which::Failed, &BTreeSet::new());
    assert_eq!(leaf(&store), got.to_der().unwrap());
    let mut more = config.clone();
    let acme = more.certificates.get_mut("push").unwrap().acme.as_mut();
    acme.unwrap().domains.insert(0, "new.example".into());
    for before in [&store, &Store::default()] {
        let store = Store::load(&more, before).unwrap();
        assert_eq!(leaf(&store), got.to_der().unwrap(), "a name in front");
    }
    std::fs::remove_file(folder.dir.path().join("state/push.pem")).unwrap();
    let store = store.refreshed(&config, Which::All, &BTreeSet::new());
    assert_eq!(leaf(&store), got.to_der().unwrap(), "its file is gone");
    let started = Store::load(&config, &Store::default()).unwrap();
    assert!(subject(&leaf(&started)).contains("placeholder"));
}

/// Aim: an authority gets the proof of a name in each version of TLS, also where only known names are served, and a
/// client that speaks HTTP too gets the usual certificate. Source: RFC 8737 §3. Fails if the handshake of TLS 1.2 ends
/// with an alert because it has no ticket keys.
#[test]
fn an_authority_gets_its_proof() {
    let folder = Folder::new();
    let wild = folder.issue("wild", &Leaf::of(&["*.example"]));
    let (config, listener) = listener(&folder, "wild", ", strict_sni: true");
    let front = front_of(&listener, &config).unwrap();
    answer_all(&[Proof {
        token: "t".into(),
        name: "other.test".into(),
        authorization: "t.mark".into(),
    }]);
    let shake = |name, alpn: &[u8], version| {
        let mut client = client();
        client.set_alpn_protos(alpn).unwrap();
        client.set_max_proto_version(Some(version)).unwrap();
        shake(
            front.acceptor(vip(ANY)),
            &client.build(),
            Some(name),
            |_| (),
        )
    };
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let seen = shake("other.test", b"\x0aacme-tls/1", version).unwrap();
        assert_eq!(seen.alpn.as_deref(), Some("acme-tls/1"));
        let leaf = X509::from_der(&seen.leaf_der).unwrap();
        let names = leaf.subject_alt_names().unwrap();
        assert_eq!(names[0].dnsname(), Some("other.test"));
        let hash = openssl::sha::sha256(b"t.mark");
        assert!(seen.leaf_der.windows(32).any(|part| part == hash));
        let seen = shake("a.example", b"\x0aacme-tls/1\x08http/1.1", version).unwrap();
        assert_eq!(seen.leaf_der, wild.to_der().unwrap());
        assert!(
            shake("a.example", b"\x0aacme-tls/1", version).is_err(),
            "no challenge"
        );
    }
    answer_all(&[]);
}
