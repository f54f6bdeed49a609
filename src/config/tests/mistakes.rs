//! What operators get wrong, and what they are told: each mistake at its line and column, with what to write.
//! Source: issue 15 §3.

use std::os::unix::fs::PermissionsExt;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::{X509, X509Name};

use super::{Config, files, fits, private_key, text};

/// The mistakes, in a form that the file itself describes.
const MISTAKES: &str = include_str!("mistakes.txt");

/// Returns base, added text and finding of each mistake.
fn mistakes() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    MISTAKES.split("\n--- ").skip(1).map(|mistake| {
        let (base, rest) = mistake.split_once('\n').expect("a base");
        let (tail, finding) = rest.split_once("\n>>> ").expect("a finding");
        (base, tail.replace("\\t", "\t"), finding.trim_end())
    })
}

/// Aim: an operator finds the line of a mistake, and reads what to write instead. Fails if a mistake goes
/// unnoticed, or if its message has another place.
#[test]
fn mistakes_are_told_with_what_to_write() {
    let dir = files();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).expect("a folder");
    let mut wrong = Vec::new();
    let (mut all, mut warnings) = (0, 0);
    for (base, tail, expected) in mistakes() {
        all += 1;
        warnings += usize::from(expected.contains(": warning: "));
        let findings: Vec<_> = match Config::parse(&text(base, &tail), "f", dir.path()) {
            Ok(config) => config.warnings,
            Err(faults) => faults.iter().cloned().collect(),
        };
        let lines = findings.iter().map(ToString::to_string);
        let lines = lines.map(|line| line.replace(&dir.path().display().to_string(), "DIR"));
        let lines: Vec<String> = lines.collect();
        if !lines.iter().any(|line| fits(line, expected)) {
            wrong.push(format!(
                "{tail}\n  {}\n  instead of {expected}",
                lines.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        all >= 60 && warnings >= 10,
        "{all} mistakes, {warnings} warnings"
    );
}

/// Aim: a key that everybody can read is told, wherever its path is named; one in a private folder is not.
/// Fails if the rights of the folder do not count. Source: issue 15 §3.
#[test]
fn secrets_that_everybody_can_read_are_told() {
    let dir = files();
    let tail = "tickets: { file: tickets.keys }\nadmin: { bind: 127.0.0.1:9900, token_file: good.token }\n\
                certificates: { c: { chain: good.pem, key: locked.key, password_file: wildcard.pass } }";
    for (folder, file, expected) in [
        (0o700, 0o644, 0),
        (0o755, 0o640, 0),
        (0o755, 0o600, 0),
        (0o755, 0o644, 4),
    ] {
        let rights = PermissionsExt::from_mode;
        std::fs::set_permissions(dir.path(), rights(folder)).expect("a folder");
        for name in ["tickets.keys", "good.token", "locked.key", "wildcard.pass"] {
            std::fs::set_permissions(dir.path().join(name), rights(file)).expect("a file");
        }
        let config = Config::parse(&text("top", tail), "f", dir.path());
        let config = config.unwrap_or_else(|e| panic!("{e}"));
        let told = config
            .warnings
            .iter()
            .filter(|w| w.message.contains("every user"));
        assert_eq!(
            told.count(),
            expected,
            "{folder:o} {file:o}: {:?}",
            config.warnings
        );
    }
}

/// Aim: a list of authorities that no handshake can carry is refused. Fails if only each name is looked at.
#[test]
fn too_many_authorities_are_refused() {
    let dir = files();
    let one = long_name().expect("a certificate");
    let tls = "tls: { certificates: [good], client_ca: many.pem }";
    for (count, refused) in [(60, false), (70, true)] {
        std::fs::write(dir.path().join("many.pem"), one.repeat(count)).expect("a file");
        let said = match Config::parse(&text("listener", tls), "f", dir.path()) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        };
        let told =
            said.starts_with("f:9:45: listeners[0].tls.client_ca: the names of its 70 authorities");
        assert_eq!(told, refused, "{count}: {said}");
    }
}

/// A certificate whose subject has a thousand bytes.
fn long_name() -> Result<Vec<u8>, ErrorStack> {
    let mut name = X509Name::builder()?;
    for _ in 0..13 {
        name.append_entry_by_nid(Nid::ORGANIZATIONALUNITNAME, &"x".repeat(64))?;
    }
    let key = private_key();
    let mut builder = X509::builder()?;
    builder.set_subject_name(&name.build())?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
    builder.set_pubkey(&key)?;
    builder.sign(&key, MessageDigest::null())?;
    builder.build().to_pem()
}
