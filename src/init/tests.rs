//! Tests of `init` against every file it prints.

use std::path::Path;
use std::str::FromStr;

use super::*;
use crate::config::Config;

fn addresses<T: FromStr<Err = String>>(list: &[&str]) -> Vec<T> {
    list.iter().map(|a| a.parse().expect(a)).collect()
}

/// Fails if a file of `conf/` is not an option, or has another name.
#[test]
fn every_file_of_conf_is_an_option() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files = std::fs::read_dir(dir).expect("conf/");
    let mut found: Vec<String> = files
        .map(|f| f.expect("a file").file_name().into_string().expect("UTF-8"))
        .filter_map(|f| {
            Some(
                f.strip_suffix(".yaml")?
                    .trim_start_matches("option-")
                    .to_owned(),
            )
        })
        // The reference, and a file that has no nodes to fill in.
        .filter(|name| name != "pushgate" && name != "dns")
        .collect();
    found.sort();
    let mut known: Vec<_> = OPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    assert_eq!(found, known);
    for (name, _) in OPTIONS {
        assert!(list().contains(&format!("{name} ")), "{name}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let own = |vips: &[&str], nodes: &[&str], certs: &[&str]| Own {
        vips: addresses(vips),
        nodes: addresses(nodes),
        certificates: certs.iter().map(PathBuf::from).collect(),
        domain: None,
    };
    for (option, own, expected) in [
        (
            "1.A.9",
            own(&[], &[], &[]),
            "unknown option `1.A.9`; did you mean `1.A.1`?",
        ),
        (
            "zzz",
            own(&[], &[], &[]),
            "unknown option `zzz`; `pushgate init` lists all options",
        ),
        (
            "1.A.1",
            own(&["192.0.2.1", "192.0.2.2"], &[], &[]),
            "--vip: 2 given, but this option takes 1, for 200.0.0.10",
        ),
        (
            "1.A.1",
            own(&[], &["192.0.2.1"], &[]),
            "--node: 1 given, but this option takes 2, for 10.0.0.1, 10.0.0.2",
        ),
        (
            "1.A.1",
            own(&[], &[], &["a.pem"]),
            "--cert: 1 given, but this option takes none",
        ),
        (
            "2.B.2.1",
            own(&[], &["192.0.2.1:8443", "192.0.2.2"], &[]),
            "10.0.0.1 has several ports in this option: give its address without a port",
        ),
    ] {
        assert_eq!(fill(option, &own).expect_err(option).to_string(), expected);
    }
    for bad in ["", "push", "192.0.2", "192.0.2.1:", "192.0.2.1:65536"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

/// Every option, filled with addresses of either family, is a sound configuration without any of the guide's
/// addresses. `check` would read the certificates, so faults about their files are ignored.
#[test]
fn a_filled_option_is_sound() {
    for (option, text) in OPTIONS {
        for family in ["192.0.2.", "2001:db8::"] {
            let give = |key, from: usize| {
                let n = slots(text, key).len();
                (0..n)
                    .map(|i| format!("{family}{}", from + i))
                    .collect::<Vec<_>>()
            };
            let vips = give("bind:", 1).into_iter();
            let nodes = give("address:", 100).into_iter();
            let own = Own {
                vips: vips.map(|a| a.parse().expect("an address")).collect(),
                nodes: nodes.map(|a| a.parse().expect("an address")).collect(),
                domain: "example.org".parse().ok(),
                certificates: values(text, "chain:")
                    .map(|c| format!("/etc/x y/{c}").into())
                    .collect(),
            };
            let filled = fill(option, &own).expect(option);
            // Addresses that bypass the edge stay in the table: they are not the edge's.
            let left = filled.lines().filter(|line| !is_comment(line));
            let left = left.filter(|l| l.contains("10.0.0.") || l.contains("200.0.0."));
            assert_eq!(left.collect::<Vec<_>>(), [] as [&str; 0], "{option}");
            if let Err(faults) = Config::parse(&filled, option, Path::new(".")) {
                let other = faults.to_string();
                let other: Vec<_> = other
                    .lines()
                    .filter(|line| !line.contains("/etc/x y/"))
                    .collect();
                assert_eq!(other, [] as [&str; 0], "{option}:\n{filled}");
            }
        }
    }
}

#[test]
fn ports_and_tables_follow() {
    let own = Own {
        vips: addresses(&["192.0.2.10:8080"]),
        nodes: addresses(&["192.0.2.1:81", "[2001:db8::2]"]),
        ..Own::default()
    };
    let filled = fill("option-1.a.1", &own).expect("an option");
    for expected in [
        "bind: [192.0.2.10:8080]",
        "# S, CR  push.mycompany.com  192.0.2.10:8080  ",
        "192.0.2.1:81 or [2001:db8::2]:80\n",
        "ls2: { address: \"[2001:db8::2]:80\" }",
    ] {
        assert!(filled.contains(expected), "{expected}\n{filled}");
    }
    let plain = fill("1.A.1", &Own::default()).expect("an option");
    assert_eq!(plain, OPTIONS[0].1.to_owned() + OBSERVED);
    let own = Own {
        certificates: vec!["/etc/pushgate/my cert.pem".into()],
        ..Own::default()
    };
    let filled = fill("2.A.2", &own).expect("an option");
    let pair = "{ chain: '/etc/pushgate/my cert.pem', key: '/etc/pushgate/my cert.key' }";
    assert!(filled.contains(pair), "{filled}");
}

/// Aim: nodes may be host names, and a domain replaces the guide's in the whole file. Fails if a port is lost,
/// or if a name of the guide stays. Source: issue 15 §3.
#[test]
fn names_and_domains_follow() {
    let own = Own {
        nodes: addresses(&["ls1.internal", "ls2.internal:81"]),
        domain: "example.org".parse().ok(),
        ..Own::default()
    };
    let filled = fill("1.B.1", &own).expect("an option");
    for expected in [
        "address: ls1.internal:80",
        "address: ls2.internal:81",
        "push1.example.org",
    ] {
        assert!(filled.contains(expected), "{expected}\n{filled}");
    }
    assert!(!filled.contains("mycompany"), "{filled}");
    let config = Config::parse(&filled, "f", Path::new(".")).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.admin.is_some(), "{filled}");
    for bad in [
        "",
        ":80",
        "ls1:",
        "ls1:0",
        "ls1:65536",
        "ls_1 x",
        "10.0.0.300",
    ] {
        assert!(bad.parse::<NodeAddress>().is_err(), "{bad}");
    }
    assert!(list().contains("2.B.2.3-layer4 "));
}
