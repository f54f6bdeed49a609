//! `pushgate init`, `import` and `check --lightstreamer`: configurations that the program writes for the
//! user.
//!
//! In: the user's addresses and certificates; `lightstreamer_conf.xml` as the guide prints it, PKCS#12
//! keystores with passwords. Out: what the program writes, and its verdict on it. Source: Lightstreamer
//! clustering §2, §3, §4, §5, §6, above all §3.2.1.1, §3.2.1.4, §3.2.2.1.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::certs::{Certs, Key};

const PASSWORD: &str = "my password";

/// Writes `file`, a keystore for `names`, into the folder of `certs`.
fn keystore(certs: &Certs, file: &str, names: &[&str]) {
    let leaf = certs.leaf(file, names, Key::Ecdsa);
    let read = |path: &Path| std::fs::read(path).expect("a file just written");
    let cert = X509::from_pem(&read(&leaf.chain)).expect("PEM");
    let no_password = |_: &mut [u8]| Ok(0);
    let key = PKey::private_key_from_pem_callback(&read(&leaf.key), no_password);
    let key = key.expect("PEM");
    let mut builder = Pkcs12::builder();
    builder.name("push").pkey(&key).cert(&cert);
    let made = builder.build2(PASSWORD).and_then(|store| store.to_der());
    std::fs::write(certs.dir().join(file), made.expect("DER")).expect("write");
}

fn https(port: u16, interface: &str, file: &str) -> String {
    format!(
        "<https_server name='S'><port>{port}</port><listening_interface>{interface}</listening_interface>\
         <keystore><keystore_file>{file}</keystore_file>\
         <keystore_password>{PASSWORD}</keystore_password></keystore></https_server>"
    )
}

fn http(interface: &str) -> String {
    format!(
        "<http_server name='S'><port>80</port>\
         <listening_interface>{interface}</listening_interface></http_server>"
    )
}

/// Writes the files of both servers, each with its control link.
fn servers(certs: &Certs, elements: impl Fn(usize) -> String) -> [String; 2] {
    [1, 2].map(|n| {
        let file = certs.dir().join(format!("ls{n}.xml"));
        let link = format!("<control_link_address>push{n}.mycompany.com</control_link_address>");
        let text = format!("<l>{}{link}</l>", elements(n));
        std::fs::write(&file, text).expect("write");
        file.display().to_string()
    })
}

fn pushgate(arguments: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let run = program.args(arguments).output().expect("it starts");
    let told = [run.stdout, run.stderr].concat();
    let told = String::from_utf8(told).expect("text");
    assert!(!told.contains(PASSWORD), "a password is told: {told}");
    (run.status.success(), told)
}

/// Aim: 2.B.1.4. The edge takes over the keystore that both servers share, with its password. The written
/// configuration is sound at once and fits the servers' files. The password is in a file that only its owner
/// can read, and nowhere else. Fails if the keystore or its password is left out.
#[test]
fn a_shared_keystore_becomes_the_edges() {
    let certs = Certs::new();
    keystore(&certs, "wildcard_push.keystore", &["*.mycompany.com"]);
    let files = servers(&certs, |n| {
        let own = https(443, &format!("200.0.0.{n}"), "wildcard_push.keystore");
        http(&format!("10.0.0.{n}")) + &own
    });
    let (good, told) = pushgate(&["import", &files[0], &files[1]]);
    assert!(good && told.contains("(--vip sets it)"), "{told}");
    assert!(told.contains("# covers *.mycompany.com"), "{told}");
    let out = certs.dir().join("edge");
    let folder = out.display().to_string();
    let arguments = ["import", &files[0], &files[1], "--out", &folder];
    let (good, told) = pushgate(&arguments);
    assert!(good, "{told}");
    let conf = out.join("pushgate.yaml").display().to_string();
    let check = [
        "check",
        "-c",
        &conf,
        "--lightstreamer",
        &files[0],
        &files[1],
    ];
    let (good, told) = pushgate(&check);
    assert!(good && told.contains(": ok ("), "{told}");
    let secret = out.join("wildcard_push.pass");
    let mode = std::fs::metadata(&secret).expect("it was written");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::read_to_string(&secret).expect("text"),
        format!("{PASSWORD}\n")
    );
    let (good, told) = pushgate(&arguments);
    assert!(!good && told.contains("File exists"), "{told}");
}

/// Aim: `import` names a keystore that the edge cannot use, and what to do. Fails if it reports Java's old
/// format as a broken file, or if a wrong password or a missing file stops the import.
#[test]
fn a_keystore_that_cannot_be_used_is_named() {
    let certs = Certs::new();
    let file = certs.dir().join("wildcard_push.keystore");
    let files = servers(&certs, |n| {
        let own = https(443, &format!("200.0.0.{n}"), "wildcard_push.keystore");
        http(&format!("10.0.0.{n}")) + &own
    });
    let import = ["import", &files[0], &files[1]];
    let (good, told) = pushgate(&import);
    assert!(
        good && told.contains("wildcard_push.keystore: cannot be read"),
        "{told}"
    );
    std::fs::write(&file, b"\xfe\xed\xfe\xed\0\0\0\x02").expect("write");
    let (good, told) = pushgate(&import);
    assert!(
        good && told.contains("keytool -importkeystore -srckeystore"),
        "{told}"
    );
    assert!(
        told.contains("wildcard_push.keystore.p12, password_file"),
        "{told}"
    );
    // `check` reports the same if the user keeps the file as it is.
    let conf = certs.dir().join("edge.yaml");
    std::fs::write(certs.dir().join("wildcard_push.pass"), PASSWORD).expect("write");
    std::fs::write(&conf, told.replace(".keystore.p12,", ".keystore,")).expect("write");
    let (good, told) = pushgate(&["check", "-c", &conf.display().to_string()]);
    assert!(
        !good && told.contains("Java's old format; convert it"),
        "{told}"
    );
    keystore(&certs, "other.keystore", &["*.mycompany.com"]);
    let wrong = std::fs::read_to_string(&files[0]).expect("text");
    let wrong = wrong
        .replace(PASSWORD, "another")
        .replace("wildcard_push", "other");
    for (n, file) in files.iter().enumerate() {
        let n = n + 1;
        let text = wrong
            .replace("push1", &format!("push{n}"))
            .replace("0.0.1<", &format!("0.0.{n}<"));
        std::fs::write(file, text).expect("write");
    }
    let (good, told) = pushgate(&import);
    assert!(
        good && told.contains("other.keystore: the password does not open it"),
        "{told}"
    );
}

/// Aim: 2.B.1.1, 2.B.2.1. Where TLS passes through, `check` compares the name that a server announces to its
/// clients with the certificate of the socket that its VIP leads to. Fails if keystores are not opened, or if
/// the socket for S is checked instead of that for CR.
#[test]
fn a_control_link_is_held_against_the_keystore() {
    let certs = Certs::new();
    for name in ["push", "push1", "push2"] {
        let host = format!("{name}.mycompany.com");
        keystore(&certs, &format!("{name}.keystore"), &[&host]);
    }
    let own = |n: usize, cr: &str| {
        let at = format!("10.0.0.{n}");
        https(443, &at, "push.keystore") + &https(444, &at, cr)
    };
    let files = servers(&certs, |n| own(n, &format!("push{n}.keystore")));
    let (good, yaml) = pushgate(&["import", &files[0], &files[1]]);
    assert!(good && yaml.contains("Option 2.B.2.1"), "{yaml}");
    assert!(
        yaml.contains("https 444 (push1.keystore for push1.mycompany.com)"),
        "{yaml}"
    );
    let conf = certs.dir().join("edge.yaml");
    std::fs::write(&conf, &yaml).expect("write");
    let conf = conf.display().to_string();
    let check = [
        "check",
        "-c",
        &conf,
        "--lightstreamer",
        &files[0],
        &files[1],
    ];
    let (good, told) = pushgate(&check);
    assert!(good, "{told}");
    // Server 2 has server 1's keystore for CR.
    servers(&certs, |n| own(n, "push1.keystore"));
    let (good, told) = pushgate(&check);
    let expected = "ls2.xml: the server sends clients to `push2.mycompany.com`, but the certificate of \
                    push1.keystore (push1.mycompany.com) does not cover it";
    assert!(!good && told.contains(expected), "{told}");
    assert!(!told.contains("ls1.xml:"), "{told}");
}

/// The options that `pushgate init` lists, with the other names of each.
fn options() -> Vec<String> {
    let (good, told) = pushgate(&["init"]);
    assert!(good, "{told}");
    let mut names = Vec::new();
    for line in told.lines() {
        names.extend(line.split_whitespace().next().map(str::to_owned));
        if let Some((_, also)) = line.split_once("(also ") {
            names.extend(also.trim_end_matches(')').split(", ").map(str::to_owned));
        }
    }
    names
}

/// How many of `what` an option needs, from the message of `init` when it gets one too many.
fn wanted(option: &str, what: &str, sample: &str) -> usize {
    for n in 0..8 {
        let mut arguments = vec!["init", option];
        arguments.extend(std::iter::repeat_n([what, sample], n + 1).flatten());
        if pushgate(&arguments).0 {
            return n + 1;
        }
    }
    0
}

/// Aim: for every option of both guides, by each of its names, `init` writes a configuration that `check`
/// finds sound, with the user's own addresses and certificates everywhere. Fails if an option is missing, or
/// one of its places is not filled in.
#[test]
fn init_prints_what_check_finds_sound() {
    let certs = Certs::new();
    let every = ["*.mycompany.com", "*.ourcompany.com"];
    let options = options();
    for name in [
        "1.A.1",
        "1.A.1-layer4",
        "2.B.2.3-layer4",
        "2.A.1.1",
        "2.B.1.1.1",
        "2.B.2.1.1",
        "2.B.2.4",
        "5.1",
        "6",
    ] {
        assert!(options.iter().any(|o| o == name), "{name}: {options:?}");
    }
    for option in &options {
        let mut arguments = vec!["init".to_owned(), option.clone()];
        for (what, from) in [("--vip", 10), ("--node", 200)] {
            for n in 0..wanted(option, what, "192.0.2.1") {
                arguments.extend([what.to_owned(), format!("192.0.2.{}", from + n)]);
            }
        }
        for n in 0..wanted(option, "--cert", "a.pem") {
            let leaf = certs.leaf(&format!("{option}-{n}"), &every, Key::Ecdsa);
            arguments.extend(["--cert".to_owned(), leaf.chain.display().to_string()]);
        }
        assert!(arguments.len() >= 6, "{arguments:?}");
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (good, yaml) = pushgate(&arguments);
        assert!(good, "{yaml}");
        let conf = certs.dir().join(format!("{option}.yaml"));
        std::fs::write(&conf, &yaml).expect("write");
        let (good, told) = pushgate(&["check", "-c", &conf.display().to_string()]);
        assert!(good && told.contains(": ok ("), "{arguments:?}: {told}");
    }
}
