//! Tests of `import` with the elements that the guide prints for each option.
//! Source: Lightstreamer clustering §2, §3; where TLS ends at the edge, §3.2.1.4, §3.2.2.4.

use std::path::Path;

use super::read::address;
use super::*;
use crate::config::Config;
use crate::init::Own;

mod left_open;

fn https(port: u16, interface: &str, keystore: &str) -> String {
    format!(
        "<https_server name=\"S\"><port>{port}</port>\
         <listening_interface>{interface}</listening_interface><keystore>\
         <keystore_file>{keystore}</keystore_file><keystore_password>x</keystore_password>\
         </keystore></https_server>"
    )
}

fn http(interface: &str) -> String {
    format!(
        "<http_server name=\"S\"><port>80</port>\
         <listening_interface>{interface}</listening_interface></http_server>"
    )
}

fn link(host: &str) -> String {
    format!("<control_link_address>{host}</control_link_address>")
}

fn server(n: usize, elements: &[String]) -> PushServer {
    let text = format!(
        "<lightstreamer_conf>{}</lightstreamer_conf>",
        elements.concat()
    );
    parse(&text, Path::new(&format!("ls{n}.xml"))).expect("a sound file")
}

#[test]
fn illegal_server_files_are_refused() {
    for (text, expected) in [
        (
            "",
            "x.xml:1:1: is not well-formed XML: the document does not have a root node",
        ),
        ("<a>", "is not well-formed XML"),
        (
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "is not well-formed XML: XML with DTD detected",
        ),
        (
            "<a/>",
            "x.xml: has no server socket; expected <http_server> or <https_server>",
        ),
        (
            "<a><http_server/></a>",
            "x.xml:1:4: <port> is ``; expected a number",
        ),
        (
            "<a>\n<http_server><port>0</port></http_server></a>",
            "x.xml:2:1: <port> is `0`",
        ),
        (
            "<a><http_server><port>$port</port></http_server></a>",
            "<port> is `$port`",
        ),
        (
            "<a><http_server><port>65536</port></http_server></a>",
            "<port> is `65536`",
        ),
        (
            "<a>\n <control_link_address>$env.HOST</control_link_address></a>",
            "x.xml:2:2: <control_link_address> is `$env.HOST`; expected a host name or an address",
        ),
        (
            "<a><control_link_address>a: {</control_link_address></a>",
            "x.xml:1:4: <control_link_address> is `a: {`",
        ),
        (
            "<a><keystore_file>a&#10;admin: b</keystore_file></a>",
            "x.xml:1:4: <keystore_file> has the character U+000A; expected one line of text",
        ),
        (
            "<a><keystore_file>a\u{feff}</keystore_file></a>",
            "has the character U+FEFF",
        ),
    ] {
        let told = parse(text, Path::new("x.xml")).expect_err(text).to_string();
        assert!(told.contains(expected), "{told}\n{expected}");
    }
    let nowhere = read(Path::new("/nowhere.xml")).expect_err("no file");
    assert!(nowhere.to_string().contains("cannot be read"), "{nowhere}");
}

/// Aim: a file in another encoding, or without end, is refused with its place and what to do. Fails if the
/// library's words are shown, or if the length of a pipe counts.
#[test]
fn files_in_other_encodings_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("ls.xml");
    for (bytes, expected) in [
        (
            &b"<a>\n<!-- \xc3\xa9 M\xfcller --></a>"[..],
            ":2:9: is not UTF-8; expected",
        ),
        (&b"\xff\xfe<\0a\0/\0>\0"[..], ":1:1: is not UTF-8; expected"),
    ] {
        std::fs::write(&file, bytes).expect("write");
        let fault = read(&file).expect_err("a fault").to_string();
        assert!(fault.contains(expected), "{fault}");
    }
    let fault = read(Path::new("/dev/zero")).expect_err("a fault");
    assert!(fault.message.starts_with("is larger than"), "{fault}");
    let passwords = Keystore {
        file: "push.keystore".to_owned(),
        password: Password::File("/dev/zero".to_owned()),
    };
    let fault = passwords.names(&file).expect_err("a fault").to_string();
    assert!(fault.contains("larger than 1048576 bytes"), "{fault}");
}

#[test]
fn blanks_comments_and_ports_are_read_as_the_server_does() {
    let text = "<l><!-- <http_server><port>1</port></http_server> -->
        <http_server name='a'><port> 8080 </port><listening_interface> </listening_interface></http_server>
        <control_link_address>Push1.MyCompany.com:8443</control_link_address></l>";
    let server = parse(text, Path::new("x.xml")).expect("sound");
    let socket = Socket {
        tls: false,
        port: 8080,
        interface: None,
        keystore: None,
    };
    assert_eq!(server.sockets, [socket]);
    assert_eq!(
        server.link,
        Some(Link::Address("push1.mycompany.com".into(), Some(8443)))
    );
    assert_eq!(
        address("[2001:db8::1]"),
        Link::Address("[2001:db8::1]".into(), None)
    );
    assert_eq!(
        address("2001:db8::1"),
        Link::Address("[2001:db8::1]".into(), None)
    );
}

/// The guide's elements of each option, and the lines that the edge's configuration must have.
#[test]
fn the_guides_options_are_recognised() {
    let two = |make: &dyn Fn(usize) -> Vec<String>| [1, 2].map(|n| server(n, &make(n)));
    let push = |n: usize| link(&format!("push{n}.mycompany.com"));
    let own = |n: usize| format!("push{n}.keystore");
    for (option, servers, lines) in [
        (
            "1.A.2",
            two(&|_| vec![http("")]),
            vec!["mode: http", "- sticky_cookie:", "bind: [200.0.0.10:80]"],
        ),
        (
            "1.B.1",
            two(&|n| vec![http(&format!("10.0.0.{n}")), push(n)]),
            vec!["push1.mycompany.com: ls1", "push2.mycompany.com: ls2"],
        ),
        (
            "2.A.1",
            two(&|_| vec![https(443, "", "push.keystore")]),
            vec![
                "mode: tcp",
                "- sticky_ip: {}",
                "ls2: { address: 10.0.0.2:443 }",
            ],
        ),
        (
            "2.B.1.1",
            two(&|n| vec![https(443, "", "wild.keystore"), push(n)]),
            vec![
                "200.0.0.1: ls1\n",
                "bind: [200.0.0.10:443, 200.0.0.1:443, 200.0.0.2:443]",
            ],
        ),
        (
            "2.B.2.1",
            two(&|n| {
                vec![
                    https(443, "", "push.keystore"),
                    https(444, "", &own(n)),
                    push(n),
                ]
            }),
            vec!["200.0.0.2: ls2-cr\n", "ls1-cr: { address: 10.0.0.1:444,"],
        ),
        (
            "2.B.2.2",
            two(&|n| {
                let ip = |net: &str| format!("{net}.{n}");
                let s = https(443, &ip("10.0.0"), "push.keystore");
                vec![https(443, &ip("200.0.0"), &own(n)), s, push(n)]
            }),
            vec!["ls1: { address: 10.0.0.1:443 }", "bind: [200.0.0.10:443]"],
        ),
        (
            "2.B.1.4 or 2.B.2.4",
            two(&|n| {
                let public = format!("200.0.0.{n}");
                vec![
                    http(&format!("10.0.0.{n}")),
                    https(443, &public, &own(n)),
                    push(n),
                ]
            }),
            vec![
                "ls2: { address: 10.0.0.2:80 }",
                "tls: { certificates: [push] }",
            ],
        ),
    ] {
        recognised(option, &servers, &lines);
    }
}

/// Seen by the fuzzer: a name of more than 1,024 characters is no key of YAML.
#[test]
fn a_keystores_name_becomes_a_word() {
    for (file, name) in [
        (format!("{}.p12", "k".repeat(2_000)), "k".repeat(64)),
        ("123.keystore".to_owned(), "push".to_owned()),
        ("true.keystore".to_owned(), "push".to_owned()),
        ("keys/my push.keystore".to_owned(), "my_push".to_owned()),
    ] {
        let cr = https(443, "200.0.0.1", &file);
        let elements = [http("10.0.0.1"), cr, link("push1.mycompany.com")];
        let written = write(&[server(1, &elements)], &Own::default()).expect("an option");
        let line = format!("tls: {{ certificates: [{name}] }}");
        assert!(written.yaml.contains(&line), "{}", written.yaml);
    }
}

/// Seen by the fuzzer: brackets made a list of the host, and the file could not be read back.
#[test]
fn a_control_link_by_address_can_be_read_back() {
    for host in ["[2001:db8::1]", "2001:db8::1", "200.0.0.1"] {
        let servers = [server(1, &[http("10.0.0.1"), link(host)])];
        recognised("1.B.1", &servers, &[]);
    }
}

/// Writes the configuration for `servers` and checks its option and `lines`.
fn recognised(option: &str, servers: &[PushServer], lines: &[&str]) {
    let yaml = write(servers, &Own::default()).expect(option).yaml;
    let first = format!("# Written by `pushgate import`. Option {option}");
    assert!(yaml.starts_with(&first), "{yaml}");
    for line in lines {
        assert!(yaml.contains(line), "{option}: {line}\n{yaml}");
    }
    match Config::parse(&yaml, option, Path::new(".")) {
        Ok(config) => assert_eq!(compare(&config, servers), [] as [&str; 0], "{option}"),
        Err(e) => assert!(e.to_string().contains("push.pem"), "{option}: {e}"),
    }
}

#[test]
fn files_that_do_not_fit_each_other_are_refused() {
    let push1 = || link("push1.mycompany.com");
    for (servers, expected) in [
        // The guide prints this in §3.2.2.3: both servers name push1.
        (
            [
                server(1, &[http(""), push1()]),
                server(2, &[http(""), push1()]),
            ],
            "the same control link as ls1.xml",
        ),
        (
            [server(1, &[http("")]), server(2, &[http(""), push1()])],
            "configured for different options",
        ),
        (
            [1, 2].map(|n| server(n, &[https(443, "", "a"), https(444, "", "b")])),
            "2 sockets for several domains",
        ),
        (
            [1, 2].map(|n| {
                server(
                    n,
                    &[
                        https(443, "", "a"),
                        https(444, "", "a"),
                        link(&format!("push{n}")),
                    ],
                )
            }),
            "cannot tell its socket for S",
        ),
    ] {
        let told = write(&servers, &Own::default()).expect_err(expected);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn contradictions_are_found() {
    let yaml = "
nodes: { ls1: { address: 10.0.0.1:80 }, ls2: { address: 10.0.0.2:81 } }
pools: { push: { nodes: [ls1, ls2] } }
listeners:
  - name: push
    bind: [127.0.0.1:80]
    mode: http
    to: push
    plugins:
      - host_route: { hosts: { push1.mycompany.com: ls2, push2.mycompany.com: push } }
";
    let config = Config::parse(yaml, "t", Path::new(".")).expect("sound");
    let one = server(1, &[http("10.0.0.1"), link("push1.mycompany.com")]);
    let two = server(2, &[http("10.0.0.2"), link("push2.mycompany.com")]);
    let three = server(3, &[http("10.0.0.3"), link("push3.mycompany.com")]);
    let twin = server(4, &[http("10.0.0.1"), link("push1.mycompany.com")]);
    let found = compare(&config, &[one, two, three, twin]).join("\n");
    for expected in [
        "ls4.xml: the same control link as ls1.xml",
        "ls1.xml: the server sends clients to `push1.mycompany.com`, but `push1.mycompany.com` leads to node `ls2` at 10.0.0.2:81; this server listens on 10.0.0.1:80",
        "ls2.xml: the server sends clients to `push2.mycompany.com`, but `push2.mycompany.com` leads to pool `push`, which balances CR",
        "ls3.xml: the server sends clients to `push3.mycompany.com`, but no host_route of the edge has it",
        "node `ls2`: no file has a socket at 10.0.0.2:81",
    ] {
        assert!(found.contains(expected), "{expected}\n{found}");
    }
}
