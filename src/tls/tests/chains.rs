//! Tests what is made of chains in the wrong order or out of time, and of keystores with several keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use std::collections::BTreeSet;

use super::super::Which;
use super::super::fixtures::{DAY, Folder, Leaf, client, front_of, shake};
use super::{ANY, Store, vip};
use crate::credentials::{Certificate, Loaded, TlsError, unix_now};

fn opened(folder: &Folder, word: &str) -> Result<Loaded, String> {
    let loaded = Loaded::open(&Folder::certificate(word), folder.dir.path());
    loaded.map_err(|e| e.to_string())
}

fn words(loaded: &Loaded) -> Vec<&'static str> {
    let all = loaded.warnings(unix_now());
    all.iter().map(|w| w.as_str()).collect()
}

/// Aim: a chain in the wrong order, with duplicates or with an issuer that is over is served in order, with a
/// warning; a certificate of another authority is refused. Source: FAULTS D36; AddTrust 2020. Fails if the
/// order of the file is taken as it is, or if an issuer's time is a fault.
#[test]
fn chains_are_put_right() {
    let folder = Folder::new();
    let of = |names: &'static [&'static str]| Leaf::of(names);
    let leaf = folder.issue("a", &of(&["a.example"])).to_pem().unwrap();
    let ca = folder.ca.to_pem().unwrap();
    let over = folder.same_ca(-2 * DAY, -DAY).to_pem().unwrap();
    let renewed = folder.same_ca(-DAY, 2 * DAY).to_pem().unwrap();
    let stranger = Folder::new().ca.to_pem().unwrap();
    type Expected<'a> = Result<(&'a [&'a str], usize), &'a str>;
    let cases: &[(&str, &[&[u8]], Expected<'_>)] = &[
        ("in order", &[&leaf, &ca], Ok((&[], 1))),
        ("leaf last", &[&ca, &leaf], Ok((&["order"], 1))),
        ("twice", &[&leaf, &ca, &ca, &leaf], Ok((&["duplicate"], 1))),
        ("over", &[&leaf, &over], Ok((&["issuer_expired"], 1))),
        // Both are the authority's own certificate; of the two the valid one is shown.
        (
            "one over",
            &[&over, &leaf, &renewed],
            Ok((&["order", "issuer_expired"], 2)),
        ),
        (
            "stranger",
            &[&leaf, &stranger],
            Err("certificate 1 is not followed by its issuer"),
        ),
        ("no leaf", &[&ca], Err("is not the private key of")),
    ];
    for (case, pem, expected) in cases {
        folder.write("a.pem", &pem.concat());
        match (opened(&folder, "a"), expected) {
            (Ok(loaded), Ok((warnings, issuers))) => {
                assert_eq!(loaded.leaf.to_pem().unwrap(), leaf, "{case}");
                assert_eq!(
                    (words(&loaded), loaded.issuers.len()),
                    (warnings.to_vec(), *issuers),
                    "{case}"
                );
            }
            (Err(fault), Err(expected)) => assert!(fault.contains(expected), "{case}: {fault}"),
            (got, _) => panic!("{case}: {:?}", got.map(|l| words(&l))),
        }
    }
}

/// Aim: a certificate that is over serves its names until another one covers them, and its neighbours always.
/// Source: FAULTS D36. Fails if the order of the list alone decides.
#[test]
fn the_valid_certificate_of_a_name_is_served() {
    let folder = Folder::new();
    let over = |names| Leaf {
        until: -DAY / 2,
        ..Leaf::of(names)
    };
    let old = folder.issue("push", &over(&["a.example", "b.example"]));
    let new = folder.issue("wild", &Leaf::of(&["a.example"]));
    let (config, listener) =
        folder.config(&["push", "wild"], "http", "{ certificates: [push, wild] }");
    let front = front_of(&listener, &config).unwrap();
    for (name, expected) in [("a.example", &new), ("b.example", &old)] {
        let seen = shake(
            front.acceptor(vip(ANY)),
            &client().build(),
            Some(name),
            |_| (),
        );
        assert_eq!(seen.unwrap().leaf_der, expected.to_der().unwrap(), "{name}");
    }
}

/// Aim: a renewed certificate whose time has not begun does not replace a valid one and is tried again; a
/// retry reads only what failed. Fails if `take` does not look at the time, or if `refreshed` reads all.
#[test]
fn an_early_renewal_waits_for_its_time() {
    let folder = Folder::new();
    let old = folder.issue("push", &Leaf::of(&["a.example"]));
    folder.issue("wild", &Leaf::of(&["b.example"]));
    let (config, _) = folder.config(&["push", "wild"], "http", "{ certificates: [push, wild] }");
    let first = Store::load(&config, &Store::default()).unwrap();
    let early = Leaf {
        from: DAY / 2,
        ..Leaf::of(&["a.example"])
    };
    folder.issue("push", &early);
    let shown = |store: &Store| store.get("push").map(|l| l.leaf.to_der().unwrap());
    for store in [
        first.refreshed(&config, Which::All, &BTreeSet::new()),
        Store::load(&config, &first).unwrap(),
    ] {
        assert_eq!(shown(&store), Some(old.to_der().unwrap()));
        let why = store
            .failed()
            .get("push")
            .map(String::as_str)
            .unwrap_or_default();
        assert!(why.contains("is not valid before"), "{why}");
        let new = folder.issue("push", &Leaf::of(&["a.example"]));
        folder.write("wild.pem", b"");
        let store = store.refreshed(&config, Which::Failed, &BTreeSet::new());
        assert_eq!(shown(&store), Some(new.to_der().unwrap()));
        assert!(store.failed().is_empty(), "{:?}", store.failed());
        folder.issue("wild", &Leaf::of(&["b.example"]));
        folder.issue("push", &early);
    }
}

/// Opens a keystore of `tests/keystores`.
fn keystore(file: &str, alias: Option<&str>) -> Result<Arc<Loaded>, TlsError> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores");
    let pass = tempfile::tempdir().unwrap();
    std::fs::write(pass.path().join("pw"), "changeit\n").unwrap();
    let files = Certificate {
        keystore: Some(dir.join(file)),
        password_file: Some(PathBuf::from("pw")),
        alias: alias.map(str::to_owned),
        ..Certificate::default()
    };
    Loaded::open(&files, pass.path()).map(Arc::new)
}

/// Aim: keys of a keystore are served side by side if a client can tell them apart; an expired one is left
/// out. Source: `tests/keystores/make.sh`. Fails if the first key is taken without a word.
#[test]
fn each_key_of_a_keystore_has_its_place() {
    type Keys<'a> = &'a [(&'a str, &'a str, &'a str)];
    let cases: &[(&str, Option<&str>, Keys<'_>, &[&str])] = &[
        (
            "two-names.keystore",
            None,
            &[
                ("aaa", "ecdsa", "other.mycompany.com"),
                ("push", "ecdsa", "push.mycompany.com"),
            ],
            &[],
        ),
        (
            "two-names.keystore",
            Some("PUSH"),
            &[("push", "ecdsa", "push.mycompany.com")],
            &[],
        ),
        (
            "two-kinds.keystore",
            None,
            &[
                ("ec", "ecdsa", "push.mycompany.com"),
                ("rsa", "rsa", "push.mycompany.com"),
            ],
            &[],
        ),
        (
            "renewed.keystore",
            None,
            &[("push2026", "ecdsa", "push.mycompany.com")],
            &["key_left_out"],
        ),
        (
            "renewed.keystore",
            Some("push2025"),
            &[("push2025", "ecdsa", "push.mycompany.com")],
            &["expired"],
        ),
        (
            "rivals.keystore",
            Some("push2027"),
            &[("push2027", "ecdsa", "push.mycompany.com")],
            &[],
        ),
    ];
    for (file, alias, expected, warnings) in cases {
        let loaded = keystore(file, *alias).unwrap_or_else(|e| panic!("{file}: {e}"));
        let seen: Vec<_> = loaded
            .each()
            .map(|l| (l.alias.as_deref().unwrap(), l.kind(), l.names[0].as_str()))
            .collect();
        assert_eq!(seen, *expected, "{file} {alias:?}");
        assert_eq!(words(&loaded), *warnings, "{file} {alias:?}");
    }
}

/// Aim: of two keys that only the operator can tell apart a fault names both, and so does a wrong alias.
/// Fails if one of them is taken without a word.
#[test]
fn only_the_operator_tells_rivals_apart() {
    for (file, alias, expected) in [
        (
            "rivals.keystore",
            None,
            "several keys could serve one name: `push2026` (push.mycompany.com;",
        ),
        ("rivals.keystore", None, "`push2027` (push.mycompany.com;"),
        (
            "two-names.keystore",
            Some("pus"),
            "no key is called `pus`; its keys are `aaa` (other.",
        ),
    ] {
        let fault = keystore(file, alias).err().expect("a fault").to_string();
        assert!(fault.contains(expected), "{file}: {fault}");
    }
}
