//! Tests `choose: vip`: the address decides, whatever name a client asks for.

use super::super::fixtures::{Folder, Leaf, client, front_of, rsa_key, shake};
use super::super::{Choice, choice};
use super::{ANY, Store, WORDS, three, vip};

const NINE: &str = "127.0.0.9:443";

/// Aim: each VIP shows its certificate, the others the first, and `choice` says so. `strict_sni` demands a name
/// of that certificate. Source: Lightstreamer clustering §3.2.2.3. Fails if a covered name chooses.
#[test]
fn the_vip_chooses_whatever_the_name() {
    let (folder, [push, wild, _]) = three();
    let tls =
        "{ certificates: [push, wild, other], by_vip: { '127.0.0.9:443': wild }, choose: vip }";
    let strict = tls.replace("choose", "strict_sni: true, choose");
    let cases = [
        ("no name", None, ANY, &push, false),
        ("no name on its VIP", None, NINE, &wild, false),
        (
            "a name of another VIP",
            Some("x.example"),
            ANY,
            &push,
            false,
        ),
        ("its own name", Some("push.example"), ANY, &push, true),
        ("its wildcard", Some("PUSH.example."), NINE, &wild, true),
        ("a name of no VIP", Some("other.test"), NINE, &wild, false),
    ];
    for (case, name, at, expected, covered) in cases {
        for (tls, refused) in [(tls, false), (strict.as_str(), !covered)] {
            let (config, listener) = folder.config(WORDS, "http", tls);
            let front = front_of(&listener, &config).unwrap();
            let seen = shake(front.acceptor(vip(at)), &client().build(), name, |_| ());
            let shown = seen.map(|seen| seen.leaf_der).ok();
            let want = (!refused).then(|| expected.to_der().unwrap());
            assert_eq!(shown, want, "{case} {tls}");
            let store = Store::load(&config, &Store::default()).unwrap();
            let word = match choice(listener.tls.as_ref().unwrap(), &store, vip(at), name) {
                Choice::Refused => None,
                Choice::Vip(word) | Choice::First(word) => Some(word),
                Choice::Name(..) => panic!("{case}: a name chose"),
            };
            let loaded = word.map(|w| store.get(&w).unwrap().leaf.to_der().unwrap());
            assert_eq!(loaded, want, "{case} {tls}");
        }
    }
}

/// Aim: the certificate of another VIP is no companion, although it covers the same names with another kind of
/// key. Fails if a client that knows only RSA is shown it.
#[test]
fn certificates_of_other_vips_are_not_shown_beside() {
    let folder = Folder::new();
    let names: &[&str] = &["push.example"];
    folder.issue("push", &Leaf::of(names));
    let rsa = Leaf {
        key: rsa_key(2048),
        ..Leaf::of(names)
    };
    let wild = folder.issue("wild", &rsa);
    for (choose, expected) in [("name", true), ("vip", false)] {
        let tls = format!(
            "{{ certificates: [push, wild], by_vip: {{ '127.0.0.9:443': wild }}, choose: {choose} }}"
        );
        let (config, listener) = folder.config(&["push", "wild"], "http", &tls);
        let front = front_of(&listener, &config).unwrap();
        let mut only_rsa = client();
        only_rsa.set_sigalgs_list("RSA-PSS+SHA256").unwrap();
        let seen = shake(
            front.acceptor(vip(ANY)),
            &only_rsa.build(),
            Some("push.example"),
            |_| (),
        );
        let shown = seen.map(|seen| seen.leaf_der).ok();
        assert_eq!(shown == Some(wild.to_der().unwrap()), expected, "{choose}");
    }
}
