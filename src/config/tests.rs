//! Tables of broken files: each with every line that `check` must print.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509CrlBuilder, X509Extension, X509Name};
use tempfile::TempDir;

use super::Config;

mod acme;
mod checks;
mod documented;
mod effective;
mod environment;
mod failure;
mod http2;
mod include;
mod mistakes;
mod page;
mod plugins;
mod reference;
mod schema;
mod traps;
mod trust;
mod values;
mod walk;
mod whole;
mod yaml;

/// Base (see [`text`]), added text, and the lines that must be printed.
type Case = (&'static str, &'static str, &'static [&'static str]);

/// Checks that each case prints exactly its lines.
fn prints(cases: &[Case]) {
    let dir = files();
    for (base, tail, expected) in cases {
        let printed = match Config::parse(&text(base, tail), "f", dir.path()) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        };
        let printed = printed.replace(&dir.path().display().to_string(), "DIR");
        let lines: Vec<&str> = printed.lines().collect();
        let same = lines.len() == expected.len()
            && lines
                .iter()
                .zip(*expected)
                .all(|(line, pattern)| fits(line, pattern));
        assert!(
            same,
            "{tail}\nprints\n{printed}\ninstead of\n{}",
            expected.join("\n")
        );
    }
}

/// Whether `line` is `pattern`, in which `…` stands for any text.
fn fits(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.rfind(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}

/// Returns a file: the valid lines of `base`, and after them those of a case.
fn text(base: &str, tail: &str) -> String {
    let node = "nodes: { n: { address: 127.0.0.1:2 } }\npools: { p: { nodes: [n] } }\n";
    match base {
        // From line 1.
        "all" => tail.to_owned(),
        // From line 5.
        "top" => format!(
            "{node}listeners:\n  - {{ name: a, bind: [127.0.0.1:1], mode: http, to: p }}\n{tail}\n"
        ),
        // From line 9, column 5: keys of a listener.
        "listener" => format!(
            "{node}certificates: {{ good: {{ chain: good.pem, key: good.key }} }}\n\
             listeners:\n  - name: a\n    bind: [127.0.0.1:1, \"[::1]:1\"]\n    mode: http\n    to: p\n    {tail}\n"
        ),
        // From line 3.
        "listeners" => format!("{node}{tail}\n"),
        // From line 3.
        "nodes" => format!(
            "listeners:\n  - {{ name: a, bind: [127.0.0.1:1], mode: http, to: n }}\n{tail}\n"
        ),
        other => panic!("no base {other}"),
    }
}

/// A folder with the files that cases name.
fn files() -> TempDir {
    let dir = tempfile::tempdir().expect("a file for tests");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).expect("a file for tests")
    };
    std::fs::create_dir(dir.path().join("conf.d")).expect("a folder for tests");
    let key = private_key();
    write(
        "good.key",
        &key.private_key_to_pem_pkcs8().expect("a file for tests"),
    );
    write(
        "good.pem",
        &certificate(&key, &["*.mycompany.com", "push.other.com"]),
    );
    write(
        "other.key",
        &private_key()
            .private_key_to_pem_pkcs8()
            .expect("a file for tests"),
    );
    let locked = key
        .private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"s3cret")
        .expect("a file for tests");
    write("locked.key", &locked);
    write("old.jks", b"\xFE\xED\xFE\xED\0\0\0\x02");
    write("other.token", b"wrong\n");
    // What the reference names.
    // The variable of the environment is one that cargo sets: a test cannot set its own.
    write("push.keystore", &keystore(&key, env!("CARGO_PKG_NAME")));
    write("wildcard.pass", b"s3cret\n");
    write("tickets.keys", "07".repeat(80).as_bytes());
    let ca = certificate(&key, &["ca"]);
    write("nodes-ca.pem", &ca);
    write("clients-ca.pem", &ca);
    write("nodes.crl", &revocation_list(&key, &ca));
    write("clients.crl", &revocation_list(&key, &ca));
    write("foreign.crl", &revocation_list(&private_key(), &ca));
    write(
        "both.pem",
        &[ca.clone(), revocation_list(&key, &ca)].concat(),
    );
    write("empty.token", b"\n");
    write("good.token", b"s3cret\n");
    // What the reference names.
    write(
        "wildcard.key",
        &key.private_key_to_pem_pkcs8().expect("a file for tests"),
    );
    write(
        "wildcard.pem",
        &certificate(&key, &["*.mycompany.com", "*.diffusion.com"]),
    );
    write("admin.token", b"s3cret\n");
    write("redis.password", b"s3cret\n");
    write("redis-ca.pem", &ca);
    write("acme.key", b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n");
    write(
        "cookie.keys",
        b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
    );
    let second = |n| Asn1Time::from_unix(n).expect("a file for tests");
    let over = certificate_within(&key, &["*.mycompany.com"], &second(0), &second(86_400));
    write("over.pem", &over);
    write("big.pem", &vec![b'-'; 2 * 1024 * 1024]);
    dir
}

fn keystore(key: &PKey<Private>, password: &str) -> Vec<u8> {
    let pem = certificate(key, &["push.mycompany.com"]);
    let leaf = X509::from_pem(&pem).expect("a file for tests");
    let mut builder = openssl::pkcs12::Pkcs12::builder();
    let store = builder.name("push").pkey(key).cert(&leaf).build2(password);
    store.and_then(|s| s.to_der()).expect("a file for tests")
}

fn revocation_list(key: &PKey<Private>, ca: &[u8]) -> Vec<u8> {
    let made = || -> Result<Vec<u8>, openssl::error::ErrorStack> {
        let extension = |oid: &str, der: &[u8]| {
            let value = Asn1OctetString::new_from_bytes(der)?;
            X509Extension::new_from_der(Asn1Object::from_str(oid)?.as_ref(), false, &value)
        };
        let mut list = X509CrlBuilder::new()?;
        let ca = X509::from_pem(ca)?;
        list.set_issuer_name(ca.subject_name())?;
        list.set_last_update(Asn1Time::days_from_now(0)?.as_ref())?;
        list.set_next_update(Asn1Time::days_from_now(1)?.as_ref())?;
        let issuer = ca.subject_key_id().map_or(&[0; 20][..], |id| id.as_slice());
        let issuer = [&[0x30, 22, 0x80, 20], issuer].concat();
        list.append_extension(extension("2.5.29.35", &issuer)?)?;
        list.append_extension(extension("2.5.29.20", &[2, 1, 1])?)?;
        list.sign(key, MessageDigest::null())?;
        list.build()?.to_pem()
    };
    made().expect("a file for tests")
}

fn private_key() -> PKey<Private> {
    PKey::generate_ed25519().expect("a file for tests")
}

fn certificate(key: &PKey<Private>, names: &[&str]) -> Vec<u8> {
    let day = |n| Asn1Time::days_from_now(n).expect("a file for tests");
    certificate_within(key, names, &day(0), &day(1))
}

fn certificate_within(
    key: &PKey<Private>,
    names: &[&str],
    from: &Asn1Time,
    until: &Asn1Time,
) -> Vec<u8> {
    let mut builder = X509::builder().expect("a file for tests");
    builder.set_version(2).expect("a file for tests");
    builder
        .set_subject_name(&X509Name::builder().expect("a file for tests").build())
        .expect("a file for tests");
    builder.set_not_before(from).expect("a file for tests");
    builder.set_not_after(until).expect("a file for tests");
    builder.set_pubkey(key).expect("a file for tests");
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        alternative.dns(name);
    }
    let names = alternative
        .build(&builder.x509v3_context(None, None))
        .expect("a file for tests");
    builder.append_extension(names).expect("a file for tests");
    builder
        .sign(key, MessageDigest::null())
        .expect("a file for tests");
    builder.build().to_pem().expect("a file for tests")
}
